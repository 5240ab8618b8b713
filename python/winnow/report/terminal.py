"""What the program says on standard output, whatever the names in it hold."""

from winnow.common import streams
from winnow.common.errors import ExitCode, Failure
from winnow.common.text import one_line


def say(*lines: object) -> None:
    """Lines on stdout. Failure where it is closed or full."""
    say_as_it_is("\n".join(one_line(line) for line in lines))


def say_as_it_is(text: str) -> None:
    """Our own text, such as the help."""
    try:
        streams.say(text.rstrip("\n"))
    except OSError as error:
        why = error.strerror or error
        raise Failure(ExitCode.IO_ERROR, f"standard output could not be written: {why}; files are whole") from error
