"""Reads results of winnow, and writes reports on them: winnow_report.open(path) gives an xarray DataTree."""

from .errors import ReportError
from .opening import open

__version__ = "0.1.0"
__all__ = ["ReportError", "__version__", "open"]
