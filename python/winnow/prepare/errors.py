"""Failures that end the program with one line and an exit code, and reasons for which one row is left out."""

import enum


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
    """Ends the program: what, where, what to do."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unusable(Exception):
    """One row or example cannot be used. `reason` is counted, `detail` says more of this one.

    Filters (a prompt that is too short) are no errors: `is_error` False, and --strict lets them pass.
    """

    def __init__(self, reason: str, detail: str = "", is_error: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.is_error = is_error
