"""The failure that scripts see: of winnow.report.open and all that reads files."""

from winnow.common.errors import ExitCode, Failure
from winnow.common.text import one_line


class ReportError(Failure):
    """A result that cannot be read. Its text is one line that can be shown as it is, whatever the names in it hold."""

    def __init__(self, code: ExitCode, message: object) -> None:
        super().__init__(code, one_line(message))
