"""Standard output and error, which the caller may have closed, or which may lead to a full disk."""

import contextlib
import io
import os
import sys
from collections.abc import Iterable

from winnow_prepare.errors import ExitCode, Failure

_output_is_closed = False


def open_standard_streams() -> None:
    """A stream that the caller closed goes nowhere; without this the next file would get its number, and its text."""
    global _output_is_closed
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            _output_is_closed = _output_is_closed or number == 1
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, written: Iterable[object]) -> None:
    """A summary on standard output. written: the files that are there already, for the Failure where it is lost. Raises
    BrokenPipeError where the reader has gone, who had what he wanted."""
    try:
        print(text)
        flush_output()
    except BrokenPipeError:
        raise
    except OSError as error:
        files = ", ".join(map(str, written))
        raise Failure(
            ExitCode.IO_ERROR, f"{files}: written, but not the summary on standard output: {error.strerror}"
        ) from error


def flush_output() -> None:
    """Raises OSError where what was printed goes nowhere."""
    if _output_is_closed:
        raise OSError(0, "it is closed")
    sys.stdout.flush()


def note(text: str, end: str = "\n") -> None:
    """On standard error; nobody can be told where that fails."""
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)
