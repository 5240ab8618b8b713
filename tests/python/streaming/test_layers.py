"""--stream: layers that go through the backend's memory, in waves of examples. No figure may change."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [300, 200, 260, 90, 150, 120, 280, 70]
WINDOW = ["--window", 40, "--sinks", 2, "--threads", 1]
LAYERS = 6
STAGED = "of the host's memory"
MAPPED = "the checkpoint's files"
OF_THE_MACHINE = ("seconds", "_rate", "texts_together")
CGROUPS = pathlib.Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("streaming")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    return directory


VERBS = {
    "exact": ["calibrate", "--signals", "all"],
    "tail": ["calibrate", "--tail-rows", 16, "--per-token"],
    "search": ["search", "--method", "greedy-forward", "--keep", 2, "--verify", 1],
    "evaluate": ["evaluate", "--pattern", "windowed", "--pattern", "list:1,4", "--generate", 5],
}


def run(work, out, verb, *more, ranks=None):
    name, *flags = VERBS[verb]
    return launch.run(run_folder.arguments(name, work, out, *WINDOW, *flags, *more), work / "cache", ranks)


def measured(work, out, verb, *more, ranks=None):
    done = run(work, out, verb, *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return done


def figures(path):
    """Every figure of a result, byte by byte, but for where it comes from, times, and how texts were written."""
    found = {}

    def add(name, node):
        is_figure = not name.startswith("provenance") and not any(word in name for word in OF_THE_MACHINE)
        if isinstance(node, h5py.Dataset) and is_figure:
            value = np.asarray(node[()])
            found[name] = value.tolist() if value.dtype == object else value.tobytes()

    with h5py.File(path) as file:
        file.visititems(add)
    assert len(found) > 10
    return found


def same_figures(work, *outs):
    left, *others = [figures(work / out / "results.h5") for out in outs]
    return all(left == other for other in others)


@pytest.mark.parametrize("verb", VERBS)
def test_the_figures_are_those_of_layers_that_stay(work, verb):
    measured(work, f"{verb}-auto", verb)
    done = measured(work, f"{verb}-on", verb, "--stream", "on")
    assert f"{LAYERS} of {LAYERS} layers come from" in done.stderr
    assert STAGED in done.stderr
    two = measured(work, f"{verb}-two", verb, "--stream", "on", ranks=2)
    assert STAGED in two.stderr
    assert same_figures(work, f"{verb}-auto", f"{verb}-on", f"{verb}-two")


def test_what_the_host_cannot_hold_comes_from_the_checkpoint(work):
    measured(work, "held", "exact")
    # Enough for two buffers (74 KiB) and a lane of the longest example (632 KiB), not for all layers (222 KiB) besides.
    limit = 800 << 10
    done = measured(work, "mapped", "exact", "--stream", "on", "--max-memory", limit)
    assert MAPPED in done.stderr
    assert same_figures(work, "held", "mapped")
    small = dry_run(work, "exact", "--stream", "on", "--max-memory", limit)
    assert small["stream"]["from"] == "checkpoint"
    assert small["stream"]["host_bytes"] == 0
    assert small["predicted_bytes_per_rank"] <= limit


def dry_run(work, verb, *more):
    done = run(work, "never", verb, "--dry-run", "--json", *more)
    assert done.returncode == 0, done.stderr
    assert not (work / "never").exists()
    return json.loads(done.stdout)


def test_a_dry_run_says_what_limits(work):
    assert "stream" not in dry_run(work, "tail")
    stream = dry_run(work, "tail", "--stream", "on")["stream"]
    assert (stream["layers"], stream["of_layers"]) == (LAYERS, LAYERS)
    assert stream["from"] == "host memory"
    matrices = 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)
    assert stream["host_bytes"] >= LAYERS * matrices
    assert 1 <= stream["units_together"] <= len(LENGTHS) // 2  # it follows from measured speeds
    assert stream["load_seconds"] > 0
    assert stream["compute_seconds"] > 0
    expected = "compute" if stream["compute_seconds"] >= stream["load_seconds"] else "copy"
    assert stream["limit"] == expected
    text = run(work, "never", "tail", "--dry-run", "--stream", "on").stdout
    assert f"  stream  {LAYERS} of {LAYERS} layers come from" in text
    assert text.count("limits\n") == 1


def test_a_run_that_was_killed_goes_on(work):
    measured(work, "quiet", "exact")
    verb, *flags = VERBS["exact"]
    words = run_folder.arguments(verb, work, "killed", *WINDOW, *flags, "--stream", "on", "--limit", len(LENGTHS))
    process = launch.start(words, work / "cache")
    launch.wait_for(lambda: len(run_folder.shards(work / "killed")) >= 1, process)
    launch.send([process.pid], signal.SIGKILL)
    launch.finish(process)
    n_done = len(run_folder.shards(work / "killed"))
    assert n_done >= 1
    # What is missing is measured with layers that stay, and after it with others again: the run is the same.
    measured(work, "killed", "exact", "--limit", len(LENGTHS))
    assert same_figures(work, "quiet", "killed")
    assert len(run_folder.shards(work / "killed")) >= n_done
    measured(work, "killed", "exact", "--stream", "on")


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--stream", "sometimes"], 64, ["--stream", "sometimes", "auto"]),
        (["--stream", "on", "--max-memory", "1K"], 71, ["2 buffer(s)", "1.00 KiB", "--max-memory"]),
    ],
)
def test_bad_input_is_one_line(work, more, code, words):
    done = run(work, "refused", "exact", *more)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("winnow: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]
    assert not (work / "refused").exists()


@contextlib.contextmanager
def memory_group(limit_bytes):
    """A control group with so much memory, pages of files included: its file of processes. Skips where it may not be
    made: not root, or a container without them."""
    for root, limit in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        group = root / f"winnow-test-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            try:
                (group / limit).write_text(str(limit_bytes))
            except OSError:
                continue
            yield group / "cgroup.procs"
            return
        finally:
            group.rmdir()
    pytest.skip("no control group with a limit of memory can be made here")


@pytest.mark.parametrize("stream", ["auto", "on"])
def test_a_checkpoint_larger_than_the_memory_that_is_free(work, stream):
    model = work / "large"
    if not model.exists():
        tiny.write_checkpoint(model, layers=16, hidden=512, heads=8, kv_heads=4, head_dim=64, ffn=2048)
        tiny.write_calibration(work / "few.h5", [60, 50, 40])
    size = (model / "model.safetensors").stat().st_size
    limit = size // 2
    # The arenas of malloc and OpenBLAS's buffers are winnow's own; the layers must fit beside them, one at a time.
    words = run_folder.arguments(
        "calibrate", work, f"large-{stream}", *WINDOW[:2], "--threads", 1, "--layers", "2,9", "--stream", stream,
        model="large", data="few.h5",
    )  # fmt: skip
    free = [*words[:6], work / "large-free", *words[7:]]
    with memory_group(limit) as processes:
        done = subprocess.run(
            ["sh", "-c", f'echo $$ > {processes} && exec "$@"', "sh", *launch.command(words)],
            env=launch.environment(work / "cache"),
            capture_output=True,
            text=True,
            timeout=launch.TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, done.stderr
    if stream == "on":
        assert MAPPED in done.stderr, "the host cannot hold them"
    if not (work / "large-free").exists():
        done = launch.run(free, work / "cache")
        assert done.returncode == 0, done.stderr
    assert same_figures(work, "large-free", f"large-{stream}")
    with h5py.File(work / f"large-{stream}" / "results.h5") as file:
        assert file["provenance/peak_allocated_bytes"][()] < limit
        assert np.isfinite(file["calibration/nll"][()]).any()
