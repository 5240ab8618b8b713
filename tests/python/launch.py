"""Runs the winnow executable, alone or under mpirun."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WINNOW = pathlib.Path(os.environ.get("WINNOW_BUILD", REPOSITORY / "build")) / "winnow"
TIMEOUT_SECONDS = 120


def command(arguments, ranks=None, winnow=WINNOW):
    """ranks=None: without mpirun."""
    words = [str(word) for word in arguments]
    if ranks is None:
        return [str(winnow), *words]
    # More ranks than cores are wanted here; unbound, so that ranks of small machines do not queue on one core.
    return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", str(winnow), *words]


def environment(cache):
    """Two threads at most, and a cache of checkpoint hashes that belongs to the test."""
    return os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "XDG_CACHE_HOME": str(cache),
    }


def run(arguments, cache, ranks=None):
    return subprocess.run(
        command(arguments, ranks), env=environment(cache), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )


def start(arguments, cache, ranks=None):
    return subprocess.Popen(
        command(arguments, ranks), env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    """(exit code, stdout, stderr); a process that does not end in time is a failure, and is ended."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        kill_all(process)
        out, err = process.communicate()
        raise AssertionError(f"the job did not end:\n{out}\n{err}") from None
    return process.returncode, out, err


def rank_processes(process):
    """The winnow processes that an mpirun started."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            name = (entry / "comm").read_text().strip()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == process.pid and name == WINNOW.name:
            found.append(int(entry.name))
    return sorted(found)


def kill_all(process):
    """SIGKILL for the launcher and every rank."""
    for pid in [*rank_processes(process), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(condition, process=None):
    """Waits until condition() holds; stops waiting when the process ends, and says whether it held."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        if process is not None and process.poll() is not None:
            return condition()
        time.sleep(0.002)
    raise AssertionError("the condition did not come true in time")


def error_lines(stderr):
    """Lines that are errors of winnow (log lines begin with winnow and the time)."""
    return [line for line in stderr.splitlines() if line.startswith("winnow: ")]
