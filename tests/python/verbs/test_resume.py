"""Run directories: stop, crash, resume, lock, damage, full disk. The tables must always be those of one quiet run."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import h5py
import launch
import pytest
import run_folder
import tiny
from run_folder import last_run, shards

LENGTHS = [700, 640, 560, 720, 500, 610, 530, 660]
WINDOW = ["--window", 64, "--sinks", 2]
CELLS = len(LENGTHS) * (1 + 6)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model and data that take about a second, so that there is a middle to stop in."""
    directory = tmp_path_factory.mktemp("resume")
    tiny.write_checkpoint(directory / "model", layers=6, hidden=128, heads=8, kv_heads=4, head_dim=16, ffn=384)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "other.h5", LENGTHS, seed=9)
    return directory


def arguments(work, out, *more):
    return run_folder.arguments("calibrate", work, out, *WINDOW, "--threads", 1, *more)


def calibrate(work, out, *more, ranks=None):
    return launch.run(arguments(work, out, *more), work / "cache", ranks)


@pytest.fixture(scope="module")
def quiet(work):
    done = calibrate(work, "quiet")
    assert done.returncode == 0, done.stderr
    return work / "quiet" / "results.h5"


def start_until(work, out, n_shards, ranks=None):
    """Starts a run and returns it when so many units are on disk, or when it is over."""
    process = launch.start(arguments(work, out), work / "cache", ranks)
    launch.wait_for(lambda: len(shards(work / out)) >= n_shards, process)
    return process


def freeze(work, out, n_shards, ranks=None, more=(), n_left=1):
    """(process, its ranks) of a run whose ranks stand still: n_shards units or more are on disk, and n_left or more are
    left beside those that the ranks work on."""

    def begin():
        shutil.rmtree(work / out, ignore_errors=True)
        return launch.start(arguments(work, out, *more), work / "cache", ranks)

    return launch.freeze_in_the_middle(
        begin,
        ranks or 1,
        lambda: len(shards(work / out)) >= n_shards,
        lambda: len(shards(work / out)) + (ranks or 1) + n_left <= len(LENGTHS),
    )


def resume_and_compare(work, out, quiet, ranks=None):
    done = calibrate(work, out, ranks=ranks)
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(quiet, work / out / "results.h5")
    assert not list((work / out).rglob("*.part"))
    return done


# ---- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks, resumed_ranks, seed", [(None, 2, 1), (2, None, 2), (3, 1, 3), (2, 4, 4)])
def test_kill_everything_and_resume(work, quiet, ranks, resumed_ranks, seed):
    out = f"killed{seed}"
    dice = random.Random(seed)
    for _ in range(2):
        before = len(shards(work / out))
        process = start_until(work, out, before + dice.randrange(0, 3), ranks)
        time.sleep(dice.uniform(0.0, 0.05))  # not to wait for anything: the moment of the crash is drawn
        launch.kill_all(process)
        launch.finish(process)
    assert not (work / out / "results.h5").exists() or len(shards(work / out)) >= len(LENGTHS)
    resume_and_compare(work, out, quiet, resumed_ranks)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_kill_one_rank_and_resume(work, quiet, victim):
    out = f"victim{victim}"
    process, ranks = freeze(work, out, 1, 3)
    os.kill(ranks[victim], signal.SIGKILL)
    launch.thaw(ranks)
    code, _, err = launch.finish(process)
    assert code != 0 and not (work / out / "results.h5").exists(), err
    assert len(launch.error_lines(err)) <= 1, err
    resume_and_compare(work, out, quiet, 2)


def test_a_rank_that_dies_under_a_launcher_that_does_not_mind(work, quiet):
    """srun lets the other tasks of a step live, and so does this mpirun: they find out themselves."""

    def begin():
        shutil.rmtree(work / "alone", ignore_errors=True)
        command = launch.command(arguments(work, "alone"), 2)
        command.insert(1, "--enable-recovery")
        return subprocess.Popen(
            command, env=launch.environment(work / "cache"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    process, ranks = launch.freeze_in_the_middle(
        begin, 2, lambda: len(shards(work / "alone")) >= 1, lambda: len(shards(work / "alone")) + 2 < len(LENGTHS)
    )
    os.kill(ranks[1], signal.SIGKILL)
    launch.thaw(ranks[:1])
    _, _, err = launch.finish(process)  # such an mpirun says 0 whatever happened
    assert not (work / "alone" / "results.h5").exists()
    lines = launch.error_lines(err)
    assert len(lines) == 1 and "rank 1 on " in lines[0] and "has died" in lines[0], err
    resume_and_compare(work, "alone", quiet, 2)


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, ranks, grace",
    [
        (signal.SIGUSR1, None, 240),
        (signal.SIGUSR1, None, 0),
        (signal.SIGTERM, None, 240),
        (signal.SIGINT, None, 240),
        (signal.SIGUSR1, 2, 240),
        (signal.SIGUSR1, 3, 0),
    ],
)
def test_signals_stop_the_run_and_it_resumes(work, quiet, number, ranks, grace):
    out = f"{signal.Signals(number).name}-{ranks}-{grace}"
    process, pids = freeze(work, out, 1, ranks, ["--grace", grace])
    process.send_signal(number)
    launch.wait_for(lambda: all(launch.signals_pending(pid) for pid in pids))
    launch.thaw(pids)
    code, out_text, err = launch.finish(process)
    assert code == 75, err
    lines = launch.error_lines(err)
    assert len(lines) == 1 and "the same command" in lines[0], err
    assert out_text == "" and not (work / out / "results.h5").exists()
    assert 1 <= len(shards(work / out)) < len(LENGTHS)
    resume_and_compare(work, out, quiet, 2)
    assert last_run(work / out)["cells_done"] < CELLS


def test_a_signal_to_one_rank_stops_all(work, quiet):
    process, ranks = freeze(work, "onerank", 1, 2, n_left=3)
    os.kill(ranks[-1], signal.SIGUSR1)
    launch.thaw(ranks[-1:])
    launch.wait_for(lambda: not launch.signals_pending(ranks[-1]), process)
    launch.thaw(ranks[:-1])
    code, _, err = launch.finish(process)
    assert code == 75, err
    assert len(launch.error_lines(err)) == 1, err
    resume_and_compare(work, "onerank", quiet)


def test_term_under_mpirun_loses_only_units_in_flight(work, quiet):
    process, ranks = freeze(work, "term", 2, 2)
    kept = len(shards(work / "term"))
    process.send_signal(signal.SIGTERM)
    launch.thaw(ranks)
    code, _, err = launch.finish(process)
    assert code != 0, err
    assert len(shards(work / "term")) >= kept
    resume_and_compare(work, "term", quiet, 3)


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_damaged_and_foreign_shards_are_measured_again(work, quiet):
    assert calibrate(work, "damaged").returncode == 0
    (work / "damaged" / "results.h5").unlink()
    truncated, flipped, foreign, *_ = shards(work / "damaged")
    with open(truncated, "r+b") as file:
        file.truncate(truncated.stat().st_size // 2)
    with h5py.File(flipped, "r+") as file:
        file["nll"][0] += 1e-9
    with h5py.File(foreign, "r+") as file:
        file.attrs["measurement"] = "0" * 64
    done = resume_and_compare(work, "damaged", quiet)
    for name in (truncated.name, flipped.name, foreign.name):
        assert f"shard {name} cannot be used" in done.stderr
        assert (work / "damaged" / "shards" / f"{name}.bad").exists()
    assert last_run(work / "damaged")["cells_done"] == 3 * 7


def test_leftovers_of_a_crash_are_removed(work, quiet):
    assert calibrate(work, "leftovers", "--limit", 2).returncode == 0
    leftover = work / "leftovers" / "shards" / f".winnow-{0x1234567890ABCDEF:016x}.part"
    leftover.write_bytes(b"half")
    resume_and_compare(work, "leftovers", quiet)
    assert not leftover.exists()


# ---- the same command ------------------------------------------------------------------------------------------------


def test_a_finished_run_prints_its_table_and_ends(work):
    first = calibrate(work, "finished", "--limit", 2)
    results = work / "finished" / "results.h5"
    before = results.stat().st_mtime_ns, [shard.stat().st_mtime_ns for shard in shards(work / "finished")]
    second = calibrate(work, "finished", "--limit", 2, ranks=2)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert second.stdout == first.stdout != ""
    assert before == (results.stat().st_mtime_ns, [shard.stat().st_mtime_ns for shard in shards(work / "finished")])


def test_damaged_results_are_written_anew(work):
    assert calibrate(work, "spoilt", "--limit", 2).returncode == 0
    results = work / "spoilt" / "results.h5"
    before = tiny.tables(results)
    results.write_bytes(results.read_bytes()[:1000])
    done = calibrate(work, "spoilt", "--limit", 2)
    assert done.returncode == 0, done.stderr
    assert "results.h5" in done.stderr and "written anew" in done.stderr
    assert tiny.tables(results)["calibration/nll"].tobytes() == before["calibration/nll"].tobytes()


def test_statistics_settings_change_the_statistics_only(work):
    assert calibrate(work, "seeds", "--limit", 3).returncode == 0
    results = work / "seeds" / "results.h5"
    before, runs = tiny.tables(results), last_run(work / "seeds")
    assert calibrate(work, "seeds", "--limit", 3, "--seed", 7, "--top-k", 2).returncode == 0
    after = tiny.tables(results)
    assert after["ranking/p_top_k"].tobytes() != before["ranking/p_top_k"].tobytes()
    assert after["calibration/nll"].tobytes() == before["calibration/nll"].tobytes()
    assert last_run(work / "seeds") == runs


def test_limit_layers_controls_and_tokens_grow(work, quiet):
    assert calibrate(work, "grown", "--limit", 3, "--layers", "0-2").returncode == 0
    assert last_run(work / "grown")["cells_done"] == 3 * 4
    resume_and_compare(work, "grown", quiet, 2)
    assert last_run(work / "grown")["cells_done"] == CELLS - 3 * 4
    done = calibrate(work, "grown", "--control", f"other={work / 'other.h5'}", "--limit", 2)
    assert done.returncode == 0, done.stderr
    assert last_run(work / "grown")["cells_done"] == 2 * 7
    done = calibrate(work, "grown", "--per-token", "--limit", 2)
    assert done.returncode == 0, done.stderr
    assert last_run(work / "grown")["cells_done"] == 2 * 7
    assert "calibration/token_nll" in tiny.tables(work / "grown" / "results.h5")
    resume_and_compare(work, "grown", quiet)


@pytest.mark.parametrize(
    "flag, value, field",
    [
        ("--window", 65, "window_keys"),
        ("--sinks", 3, "sinks"),
        ("--decode", "full", "decode"),
        ("--tail-rows", 5, "tail_rows"),
        ("--base", "windowed", "base"),
        ("--data", "other.h5", "data_sha256"),
    ],
)
def test_other_settings_are_refused(work, flag, value, field):
    if not (work / "mismatch").exists():
        assert calibrate(work, "mismatch", "--limit", 1, "--layers", "0").returncode == 0
    line = arguments(work, "mismatch", "--limit", 1, "--layers", "0")
    if flag in line:
        del line[line.index(flag) : line.index(flag) + 2]
    done = launch.run([*line, flag, work / value if flag == "--data" else value], work / "cache")
    assert done.returncode == 78, done.stderr
    (message,) = launch.error_lines(done.stderr)
    assert field in message
    if flag != "--data":
        assert str(value) in message


# ---- lock ------------------------------------------------------------------------------------------------------------


def test_a_second_job_is_locked_out(work, quiet):
    process, _ = freeze(work, "locked", 1)  # it holds the lock for as long as the test wants
    try:
        second = calibrate(work, "locked", ranks=2)
        assert second.returncode == 75, second.stderr
        (message,) = launch.error_lines(second.stderr)
        assert f"process {process.pid} on " in message
    finally:
        os.kill(process.pid, signal.SIGKILL)
        launch.finish(process)
    assert (work / "locked" / "lock").exists()
    resume_and_compare(work, "locked", quiet)
    assert not (work / "locked" / "lock").exists()


# ---- full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB: room for a few shards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_full_disk_keeps_what_is_finished(work, quiet, small_disk, ranks):
    out = pathlib.Path(os.path.relpath(small_disk / "run", work))
    done = calibrate(work, out, ranks=ranks)
    assert done.returncode == 74, done.stderr
    (message,) = launch.error_lines(done.stderr)
    assert "No space left" in message
    kept = len(shards(work / out))
    assert 0 < kept < len(LENGTHS)
    assert not (work / out / "results.h5").exists()
    if ranks is None:
        assert not list((work / out).rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    resume_and_compare(work, out, quiet)
    assert last_run(work / out)["cells_done"] == (len(LENGTHS) - kept) * 7
