"""The exit codes of the programs, and the one exception that ends them."""

import enum

from winnow.common.text import one_line


class ExitCode(enum.IntEnum):
    """As in sysexits.h; the same as the executable's."""

    DONE = 0
    USAGE = 64
    BAD_DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    OUT_OF_MEMORY = 71
    CANNOT_CREATE = 73
    IO_ERROR = 74
    INTERRUPTED = 75


class Failure(Exception):
    """Ends the program with one line: what, where, what to do."""

    def __init__(self, code: ExitCode, message: object) -> None:
        super().__init__(one_line(message))
        self.code = code
