"""Has every HDF5 file looked at before it is read here: a damaged or hostile one may break the HDF5 library down.

Another process reads all of the file (structure.py), and dies over it in place of this one. That costs the start of a
Python with h5py once, some 0.3 s, and a second reading, some seconds a GB; results have up to some hundred MB.
"""

import atexit
import json
import os
import pathlib
import signal
import subprocess
import sys

from winnow.common.errors import ExitCode, Failure

_START = "import sys; sys.path[:] = sys.argv[1:]; from winnow.report.reading.structure import serve; serve()"
_server: subprocess.Popen[bytes] | None = None
_looked_at: dict[str, tuple[int, ...]] = {}


def _stop() -> None:
    global _server
    if _server is not None and _server.stdin is not None and _server.stdout is not None:
        _server.stdin.close()
        _server.stdout.close()
        _server.wait()
    _server = None


def _start() -> subprocess.Popen[bytes]:
    # The very modules of this process, and one thread, since the server forks.
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"},
    )


def _ask(path: str) -> tuple[int, str]:
    """(exit code, negative for a signal; refusal) of the process that looked at the file."""
    global _server
    for _ in range(2):
        if _server is None:
            _server = _start()
            atexit.unregister(_stop)
            atexit.register(_stop)
        try:
            assert _server.stdin is not None and _server.stdout is not None
            _server.stdin.write(json.dumps(path).encode() + b"\n")
            _server.stdin.flush()
            code, refusal = json.loads(_server.stdout.readline())
            return int(code), str(refusal)
        except (OSError, ValueError):  # it is gone
            _stop()
    return 0, ""  # without another Python, as where this one is part of a program


def check(path: str | os.PathLike[str]) -> None:
    """Raises Failure where the file breaks the HDF5 library down, or holds what is not its own."""
    place = str(pathlib.Path(path).absolute())
    try:
        status = os.stat(path)
    except OSError:
        return  # said by who opens it
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
    if not sys.executable or _looked_at.get(place) == stamp:
        return
    code, refusal = _ask(place)
    if refusal:
        raise Failure(ExitCode.BAD_DATA, f"{path}: {refusal}")
    if code == -signal.SIGKILL:
        raise Failure(
            ExitCode.OUT_OF_MEMORY, f"{path}: the process that reads it was killed, perhaps for want of memory"
        )
    if code:
        what = "comes to no end with it" if code == -signal.SIGPROF else "broke down on it"
        raise Failure(
            ExitCode.BAD_DATA,
            f"{path}: damaged: the HDF5 library {what}; copy the file again, or move it away and repeat the command "
            "that wrote it",
        )
    _looked_at[place] = stamp
