"""The one error of the package: a line for the user and an exit code of sysexits.h."""

from winnow.common.text import one_line

USAGE = 64
BAD_DATA = 65
NO_INPUT = 66
UNAVAILABLE = 69
INTERNAL = 70
OUT_OF_MEMORY = 71
CANNOT_CREATE = 73
IO_ERROR = 74


class ReportError(Exception):
    """One line: what, where, what to do."""

    def __init__(self, code: int, message: object) -> None:
        super().__init__(one_line(message))
        self.code = code
