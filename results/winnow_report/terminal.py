"""What the program says: results on stdout, notes and errors on stderr, a line each, whatever the names in it hold."""

import contextlib
import io
import os
import sys
from typing import TextIO

from .errors import IO_ERROR, ReportError
from .markup import one_line


def prepare() -> None:
    """Makes writing safe. To be called before the first file is opened."""
    # A file that got the number of a closed standard stream would receive what libraries print there.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the locale's encoding lacks


def _give_up(stream: TextIO) -> None:
    """Lets what the stream still holds go nowhere: Python would try again at its end, and fail once more."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(*lines: object) -> None:
    """Lines on stdout. ReportError where it is closed or full; a reader that left early has what it wanted."""
    _write("\n".join(one_line(line) for line in lines))


def say_as_it_is(text: str) -> None:
    """Our own text, such as the help."""
    _write(text.rstrip("\n"))


def _write(text: str) -> None:
    if sys.stdout is None:  # Python's way to say that it was closed
        raise ReportError(IO_ERROR, "standard output is closed, so nothing can be said there; files are whole")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        why = error.strerror or str(error)
        raise ReportError(IO_ERROR, f"standard output could not be written: {why}; files are whole") from error


def complain(text: object) -> None:
    """A line on stderr; where that is lost, too, the exit code has to do."""
    if sys.stderr is None:
        return
    try:
        print(f"winnow: {one_line(text)}", file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)
