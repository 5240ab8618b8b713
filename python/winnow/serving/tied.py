"""Programs that end with this one, however it ends: a killed serve-check leaves neither an engine nor winnow behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

# The program's standard input is a pipe from here that nothing is written to. A small process of its group waits for
# the end of that pipe, which comes with that of this process, and ends the group: also what an engine itself started.
_TIE = """import os, signal, sys
if os.fork() == 0:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def run_tied(words: list[str], seconds: float | None = None, **options: Any) -> int:  # noqa: ANN401
    """Returns the exit code. options: those of subprocess.Popen but stdin. OSError where the program is not there;
    subprocess.TimeoutExpired after `seconds`. The program and all that it started have ended on return."""
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(2, "there is no such program", words[0])
    process = subprocess.Popen(
        [sys.executable, "-ISc", _TIE, *words], stdin=subprocess.PIPE, start_new_session=True, **options
    )
    try:
        return process.wait(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
