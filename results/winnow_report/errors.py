"""The one error of the package: a line for the user and an exit code of sysexits.h."""

USAGE = 64
BAD_DATA = 65
NO_INPUT = 66
UNAVAILABLE = 69
INTERNAL = 70
CANNOT_CREATE = 73
IO_ERROR = 74


class ReportError(Exception):
    """One line: what, where, what to do."""

    def __init__(self, code: int, message: object) -> None:
        super().__init__(" ".join(str(message).split()))
        self.code = code
