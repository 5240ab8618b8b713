"""Machines, containers and limits that winnow meets: it runs, or ends with one line and an exit code of its own."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import h5py
import launch
import numpy as np
import pytest
import tiny

USAGE, BAD_DATA, NO_INPUT, OUT_OF_MEMORY, CANNOT_CREATE, IO_ERROR, INTERRUPTED = 64, 65, 66, 71, 73, 74, 75
DOCUMENTED = {64, 65, 66, 69, 70, 71, 73, 74, 75, 78}
LOADER = 127  # the system could not load the libraries: winnow has not begun


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("surroundings")
    tiny.write_checkpoint(directory / "model")
    tiny.write_calibration(directory / "long.h5", [60, 48])
    done = calibrate(directory, "done")
    assert done.returncode == 0, done.stderr
    return directory


def arguments(work, out):
    return ["calibrate", "--model", work / "model", "--data", work / "long.h5", "--window", "16", "--out", work / out]


def start(work, *words, changes=None, before=(), **options):
    """changes: {name: value} of the environment, None: not set; before: a command that starts the program."""
    settings = launch.environment(work / "cache") | {"OMP_NUM_THREADS": "1"} | (changes or {})
    settings = {name: value for name, value in settings.items() if value is not None}
    files = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*map(str, before), *launch.command(words)], env=settings, text=True, **files)


def run(work, *words, **options):
    process = start(work, *words, **options)
    code, out, err = launch.finish(process)
    return subprocess.CompletedProcess(words, code, out, err)


def calibrate(work, out, **options):
    return run(work, *arguments(work, out), **options)


def under_shell(limits):
    return ["bash", "-c", f'{limits}; exec "$@"', "bash"]


def expect_one_line(done, codes):
    """An exit code among these, with one line of winnow's at the end and none of a library's."""
    assert done.returncode in codes, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("winnow ")]  # a time: of the log
    assert len(lines) == 1 and lines[0].startswith("winnow: "), done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "changes",
    [{"PATH": "/nowhere"}, {"HOME": None}, {"TMPDIR": "/proc"}, {"TMPDIR": "/nowhere", "PATH": None, "HOME": None}],
    ids=lambda changes: "-".join(changes),
)
def test_one_rank_needs_nothing_of_the_machine(work, tmp_path, changes):
    done = calibrate(work, tmp_path / "run", changes=changes)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("winnow ") for line in done.stderr.splitlines()), done.stderr
    tiny.assert_same_tables(tmp_path / "run/results.h5", work / "done/results.h5")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_user_without_a_name(work, tmp_path):
    nobody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    if run(work, "--version", before=nobody).returncode != 0:
        pytest.skip("other users cannot read the executable")
    folder = pathlib.Path("/tmp") / f"winnow-surroundings-{os.getpid()}"
    try:
        shutil.copytree(work / "model", folder / "model")
        shutil.copy(work / "long.h5", folder)
        subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
        done = run(folder, *arguments(folder, "run"), changes={"HOME": None}, before=nobody)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("mib", [300, 450, 600, 800, 1200])
def test_little_address_space(work, tmp_path, mib):
    done = calibrate(work, tmp_path / "run", before=under_shell(f"unset OPENBLAS_NUM_THREADS; ulimit -v {mib * 1024}"))
    if done.returncode not in (0, LOADER):
        expect_one_line(done, DOCUMENTED)


def test_the_limit_of_address_space_is_one_of_memory(work, tmp_path):
    limit = 3 << 30
    done = calibrate(work, tmp_path / "run", before=under_shell(f"unset OPENBLAS_NUM_THREADS; ulimit -v {limit >> 10}"))
    assert done.returncode == 0, done.stderr
    (record,) = json.loads((tmp_path / "run/run.json").read_text())["informative"]["runs"]
    assert 0 < record["rank"][0]["available_bytes"] < limit


@pytest.mark.parametrize(
    "limits, codes",
    [
        *[(f"ulimit -n {n}", DOCUMENTED) for n in (3, 4, 5, 6)],
        ("ulimit -f 0", {CANNOT_CREATE, IO_ERROR}),
        ("ulimit -f 8", {CANNOT_CREATE, IO_ERROR}),
        ("ulimit -s 64", {OUT_OF_MEMORY}),
    ],
)
def test_small_limits(work, tmp_path, limits, codes):
    done = calibrate(work, tmp_path / "run", before=under_shell(limits))
    if "-n" in limits and done.returncode in (0, LOADER):
        return
    expect_one_line(done, codes)
    assert not (tmp_path / "run/results.h5").exists()


PRINTING = {
    "calibrate": lambda work, tmp: arguments(work, "done"),
    "inspect": lambda work, tmp: ["inspect", work / "done"],
    "stats": lambda work, tmp: ["stats", work / "done", "--out", tmp / "stats.h5"],
    "select": lambda work, tmp: ["select", work / "done", "--method", "nll", "--keep", "2", "--out", tmp / "nll.json"],
    "help": lambda work, tmp: ["--help"],
}


@pytest.mark.parametrize("verb", PRINTING)
@pytest.mark.parametrize("place", ["1>&-", "1>/dev/full", "0<&- 1>&-"])
def test_lost_output(work, tmp_path, verb, place):
    lost, seen = tmp_path / "lost", tmp_path / "seen"
    lost.mkdir()
    seen.mkdir()
    done = run(work, *PRINTING[verb](work, lost), before=["bash", "-c", f'exec "$@" {place}', "bash"])
    expect_one_line(done, {IO_ERROR})
    assert run(work, *PRINTING[verb](work, seen)).returncode == 0
    assert [path.name for path in lost.iterdir()] == [path.name for path in seen.iterdir()]
    for path in seen.glob("*.h5"):
        tiny.assert_same_tables(lost / path.name, path)
    for path in seen.glob("*.json"):
        assert (lost / path.name).read_text() == path.read_text()


def test_closed_files_are_no_data_files(work, tmp_path):
    done = calibrate(work, tmp_path / "run", before=["bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash"])
    assert done.returncode == IO_ERROR
    tiny.assert_same_tables(tmp_path / "run/results.h5", work / "done/results.h5")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_before_the_run_has_begun(work, tmp_path, number):
    # The program waits for its flags: nothing of the run is there yet.
    flags = tmp_path / "flags"
    os.mkfifo(flags)
    process = start(work, *arguments(work, tmp_path / "run"), "--config", flags)
    with flags.open("w") as writer:  # once the program has opened it, too
        process.send_signal(number)
        writer.write("limit: 2\n")
    code, _, err = launch.finish(process)
    assert code == INTERRUPTED, err
    assert f"stopped by {number.name}" in launch.error_lines(err)[0]
    assert calibrate(work, tmp_path / "run").returncode == 0
    tiny.assert_same_tables(tmp_path / "run/results.h5", work / "done/results.h5")


def test_a_config_file_may_be_a_pipe(work, tmp_path):
    done = calibrate(work, tmp_path / "run", before=["bash", "-c", 'exec "$@" --config <(echo "limit: 1")', "bash"])
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "run/results.h5") as file:
        assert file["calibration/nll"].shape[0] == 1


@pytest.mark.parametrize("path, code", [("/dev/zero", BAD_DATA), ("/proc/self/mem", NO_INPUT), ("fifo", NO_INPUT)])
def test_what_is_no_config_file(work, tmp_path, path, code):
    os.mkfifo(tmp_path / "fifo")  # that nobody writes to
    done = run(work, *arguments(work, tmp_path / "run"), "--config", path, cwd=tmp_path)
    assert path in expect_one_line(done, {code})


def undefined_without_reason(path):
    """Variables with NaN that do not say why."""
    found = []

    def look(name, node):
        if not isinstance(node, h5py.Dataset) or node.dtype.kind != "f":
            return
        if np.isnan(node[()]).any() and not node.attrs.get("status"):
            found.append(name)

    with h5py.File(path) as file:
        file.visititems(look)
    return found


@pytest.mark.parametrize("flags", [["--verify", 0], ["--verify", 1, "--verify-examples", 1]])
def test_figures_of_a_small_verification_say_why_they_are_not_there(work, tmp_path, flags):
    words = ["search", *arguments(work, tmp_path / "run")[1:], "--method", "greedy-forward", "--keep", 2, *flags]
    done = run(work, *words)
    assert done.returncode == 0, done.stderr
    assert undefined_without_reason(tmp_path / "run/results.h5") == []
    assert "nan" not in done.stdout.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_sweep_of_two_ranks_as_root(work, tmp_path):
    (tmp_path / "night.yaml").write_text(
        f"name: night\noutput: out\nmodels:\n  - {{name: a, path: {work / 'model'}, ranks_per_node: 2}}\n"
        f"datasets:\n  - {{name: d, data: {work / 'long.h5'}}}\nwindows: [16]\n"
    )
    unset = {"OMPI_ALLOW_RUN_AS_ROOT": None, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": None, "HOME": None, "TMPDIR": "/proc"}
    done = run(work, "sweep", "submit", tmp_path / "night.yaml", "--executor", "local", changes=unset)
    assert done.returncode == 0, done.stdout + done.stderr
