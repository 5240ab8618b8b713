"""What every program does around its work: the parser of its flags, and an end with one line and an exit code."""

import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from winnow import __version__
from winnow.common import streams
from winnow.common.errors import ExitCode, Failure
from winnow.common.text import one_line


def say(text: str) -> None:
    """Of help and version, on standard output."""
    try:
        streams.say(text.rstrip("\n"))
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"standard output: {error.strerror}") from error


class Parser(argparse.ArgumentParser):
    """Its errors are Failures. say: prints help and version, and raises Failure where they go nowhere."""

    def __init__(
        self, say: Callable[[str], None], prog: str, description: str, epilog: str, allow_abbrev: bool = True
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=allow_abbrev,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._say = say

    def error(self, message: str) -> NoReturn:
        raise Failure(ExitCode.USAGE, f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        self._say(message)  # errors go another way


@dataclass(frozen=True)
class Program:
    """A program, and what it says where the end is nobody's fault."""

    name: str
    prefix: str  # of its lines on standard error
    interrupted: tuple[int, str]  # exit code and words
    out_of_memory: str  # what to do

    def run_for_winnow(self, work: Callable[[], None]) -> int:
        """As run(), of a program that winnow starts: it says so where both are not of one version, and ends at an
        interrupt."""
        streams.open_standard_streams()
        asked_by = os.environ.get("WINNOW_VERSION", __version__)
        if asked_by != __version__:
            streams.note(
                f"{self.name}: is version {__version__}, but winnow is {asked_by}: install both from the same sources"
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)  # raises KeyboardInterrupt
        return self.run(work)

    def complain(self, text: object) -> None:
        """A line on standard error."""
        streams.note(f"{self.prefix}{one_line(text)}")

    def run(self, work: Callable[[], None]) -> int:
        """The exit code: 0, or another with one line on standard error."""
        try:
            work()
        except SystemExit as ended:  # by --help or --version
            return int(ended.code or ExitCode.DONE)
        except Failure as failure:
            self.complain(failure)
            return int(failure.code)
        except KeyboardInterrupt:
            code, words = self.interrupted
            self.complain(words)
            return code
        except MemoryError:
            self.complain(f"out of memory; {self.out_of_memory}")
            return int(ExitCode.OUT_OF_MEMORY)
        except Exception as error:  # a defect of ours: still one line
            if os.environ.get("WINNOW_TRACE"):
                raise
            self.complain(
                f"internal error in {self.name}: {type(error).__name__}: {error}{_place(error)}; please report it, "
                "with the traceback that WINNOW_TRACE=1 shows"
            )
            return int(ExitCode.INTERNAL)
        return int(ExitCode.DONE)


def _place(error: Exception) -> str:
    """The file and line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
