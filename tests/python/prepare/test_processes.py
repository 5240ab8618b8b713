"""winnow prepare from outside: interrupts, and the memory of its processes."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import launch
import pytest
from prepare_files import prepare_command, words, write_rows


def is_running(pid):
    """Not so of one that ended and waits for its parent."""
    try:
        return bool(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def wait_for_workers(process):
    def workers():
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout
        return children.split()

    launch.wait_for(lambda: len(workers()) >= 2, process)
    return workers()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_run_leaves_nothing(model, tmp_path, number):
    rows = write_rows(tmp_path / "rows.jsonl", 6000, lambda i: 900)
    more = ["--count", "all", "--processes", "2"]
    process = launch.start(prepare_command(model, rows, tmp_path / "out.h5", *more), tmp_path)
    workers = wait_for_workers(process)
    assert len(workers) >= 2
    time.sleep(0.3)
    process.send_signal(number)
    code, _, err = launch.finish(process)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 75 and "interrupted, nothing was written" in err and len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl"]
    launch.wait_for(lambda: not any(map(is_running, workers)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_while_python_still_imports(model, tmp_path, number):
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "numpy.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    python = shim / "python"  # the launcher's own search for one would not run a module of the environment
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{shim}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    command = launch.command(prepare_command(model, rows, tmp_path / "out.h5"))
    done = subprocess.run(
        command,
        env=launch.environment(tmp_path) | {"WINNOW_PYTHON": str(python), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        75,
        "winnow: prepare: interrupted, nothing was written; the same command begins anew\n",
    )
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl", "shim"]


def peak_mib(model, rows, out, tmp_path):
    """Peak memory of the process that reads; the workers hold one batch each."""
    limits = ["--min-prompt-tokens", "400", "--max-prompt-tokens", "100000", "--min-answer-tokens", "1"]
    process = launch.start(prepare_command(model, rows, out, "--processes", "2", limits=limits), tmp_path)
    peak = 0
    while process.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = max([peak, *(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.02)
    code, out, err = launch.finish(process)
    assert code == 0, err
    return peak / 1024, out


def test_memory_does_not_grow_with_the_input(model, tmp_path):
    """20 MB and 160 MB, most rows outranked or too short, as in a large file; tests/bench/prepare_speed.py has 1 GB."""
    text = words(0, 40)
    peaks = []
    for name, copies in (("small", 20), ("large", 160)):
        rows = tmp_path / f"{name}.jsonl"
        with open(rows, "w") as file:
            for i in range(copies * 50):
                long = text * 80 if i % 10 == 0 else text[:60]
                file.write(
                    json.dumps({"id": i, "prompt": f"{i} {long}", "answer": "Yes.", "unused": "x" * 18000}) + "\n"
                )
        assert rows.stat().st_size > copies * 0.9e6
        peak, out = peak_mib(model, rows, tmp_path / f"{name}.h5", tmp_path)
        peaks.append(peak)
        assert "64  kept" in out
    assert peaks[1] < peaks[0] + 48, peaks
