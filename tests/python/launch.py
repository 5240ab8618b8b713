"""Runs the winnow executable, alone or under mpirun, and stops it at a chosen state, however busy the machine is."""

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from program_server import ProgramServer

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("WINNOW_BUILD", REPOSITORY / "build")).absolute()
WINNOW = BUILD / "winnow"
TIMEOUT_SECONDS = 900  # only a hang takes so long, also beside many other processes

_programs = ProgramServer()


def made_once(name, sources, make):
    """A file that takes long to make, in build/test-inputs. make(path) makes it again when a source changes."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(source.read_bytes()).digest() for source in sources)).hexdigest()
    path = BUILD / "test-inputs" / f"{digest[:16]}-{name}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # tests run side by side: whole, or not there
            make(pathlib.Path(folder) / name)
            os.replace(pathlib.Path(folder) / name, path)
    return path


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


def run(arguments, cache, ranks=None, cwd=None):
    return subprocess.run(
        command(arguments, ranks),
        env=environment(cache),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def run_python(arguments, cache, cwd=None):
    """run() of a Python program, whose imports were done before (program_server.py)."""
    variables = environment(cache) | {"WINNOW_BIN": str(BUILD)}
    return _programs.run(arguments, variables, cwd, TIMEOUT_SECONDS)


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


def _stat(path):
    """The fields of a stat file of /proc behind the name, state first; None where the process is gone."""
    try:
        return path.read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None


def winnow_processes():
    """{process number: (number of its parent, words of its command line)} of every winnow that runs."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            is_winnow = (entry / "comm").read_text().strip() == WINNOW.name
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        fields = _stat(entry / "stat")
        if is_winnow and fields is not None and fields[0] not in "ZX":
            found[int(entry.name)] = (int(fields[1]), words)
    return found


def rank_processes(process):
    """The winnow processes of a run: those that its mpirun started, or the one that runs without it."""
    found = winnow_processes()
    return sorted(pid for pid, (parent, _) in found.items() if process.pid in (pid, parent))


def send(pids, number):
    """A signal to processes, of which some may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(process):
    """SIGKILL for the launcher and every rank."""
    send([*rank_processes(process), process.pid], signal.SIGKILL)


def is_frozen(pid):
    """Whether no thread of it runs: stopped, or ended."""
    return all((_stat(thread / "stat") or "X")[0] in "TZX" for thread in pathlib.Path(f"/proc/{pid}/task").glob("*"))


def freeze(pids):
    """SIGSTOP; returns when it holds."""
    send(pids, signal.SIGSTOP)
    wait_for(lambda: all(is_frozen(pid) for pid in pids))


def thaw(pids):
    send(pids, signal.SIGCONT)


def freeze_in_the_middle(begin, n_ranks, has_begun, has_room, find=rank_processes):
    """(process, its n_ranks processes, all of them frozen) of a run in its middle.

    begin() starts a run from nothing, find(process) are its ranks. They are frozen once has_begun() holds; where
    has_room() does not hold then, the machine was too busy to look in time: the run is ended, and another is begun.
    """
    for _ in range(50):
        process = begin()
        wait_for(has_begun, process)
        pids = find(process)
        freeze(pids)
        if process.poll() is None and len(pids) == n_ranks and has_begun() and has_room():
            return process, pids
        send(pids, signal.SIGKILL)
        kill_all(process)
        finish(process)
    raise AssertionError("every run was over before it could be stopped")


def signals_pending(pid):
    """Whether a signal was sent to a frozen process, which takes it when it goes on."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return any(int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("ShdPnd:", "SigPnd:")))


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


def succeed(done):
    """A command that has ended, which it must have done well."""
    assert done.returncode == 0, done.stderr
    return done
