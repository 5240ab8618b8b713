"""Standard output and error, which the caller may have closed, or which may lead to a full disk."""

import contextlib
import io
import os
import sys
from typing import TextIO

_output_is_closed = False


def open_standard_streams() -> None:
    """To be called before the first file is opened. A stream that the caller closed goes nowhere; without this the next
    file would get its number, and its text."""
    global _output_is_closed
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            _output_is_closed = _output_is_closed or number == 1
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the locale's encoding lacks


def say(text: str) -> None:
    """On standard output. Raises OSError where it goes nowhere; a reader that left early has what it wanted."""
    try:
        print(text)
        flush_output()
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError:
        _give_up(sys.stdout)
        raise


def flush_output() -> None:
    """Raises OSError where what was printed goes nowhere."""
    if _output_is_closed:
        raise OSError(0, "it is closed")
    sys.stdout.flush()


def note(text: str, end: str = "\n") -> None:
    """On standard error; where that is lost, too, the exit code has to do."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Lets what the stream still holds go nowhere: Python would try again at its end, and fail once more."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
