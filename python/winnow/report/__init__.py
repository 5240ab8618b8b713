"""Reads results of winnow, and writes reports on them: winnow.report.open(path) gives an xarray DataTree."""

from typing import TYPE_CHECKING

from winnow import __version__

from .errors import ReportError

if TYPE_CHECKING:
    from .opening import open

__all__ = ["ReportError", "__version__", "open"]


def __getattr__(name: str) -> object:
    # h5py and xarray are loaded when they are needed, so that the program can say in a line that they do not work.
    if name == "open":
        from .opening import open

        return open
    raise AttributeError(f"module {__name__} has no attribute {name}")
