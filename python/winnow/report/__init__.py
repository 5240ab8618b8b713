"""Reads results of winnow, and writes reports on them: winnow.report.open(path) gives an xarray DataTree."""

from typing import TYPE_CHECKING

from winnow import __version__
from winnow.common.errors import Failure as ReportError

if TYPE_CHECKING:
    from winnow.report.reading.opening import open

__all__ = ["ReportError", "__version__", "open"]


def __getattr__(name: str) -> object:
    # h5py and xarray are loaded when they are needed, so that the program can say in a line that they do not work.
    if name == "open":
        from winnow.report.reading.opening import open

        return open
    raise AttributeError(f"module {__name__} has no attribute {name}")
