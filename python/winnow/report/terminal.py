"""What the program says: results on stdout, notes and errors on stderr, a line each, whatever the names in it hold."""

from winnow.common import streams
from winnow.common.text import one_line
from winnow.report.errors import IO_ERROR, ReportError


def say(*lines: object) -> None:
    """Lines on stdout. ReportError where it is closed or full."""
    say_as_it_is("\n".join(one_line(line) for line in lines))


def say_as_it_is(text: str) -> None:
    """Our own text, such as the help."""
    try:
        streams.say(text.rstrip("\n"))
    except OSError as error:
        why = error.strerror or error
        raise ReportError(IO_ERROR, f"standard output could not be written: {why}; files are whole") from error


def complain(text: object) -> None:
    """A line on stderr."""
    streams.note(f"winnow: {one_line(text)}")
