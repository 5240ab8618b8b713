"""Reads results of winnow, and writes reports on them: winnow_report.open(path) gives an xarray DataTree."""

import importlib.metadata
import pathlib
from typing import TYPE_CHECKING

from .errors import ReportError

if TYPE_CHECKING:
    from .opening import open

# A source tree and an installation by CMake hold this file; pip keeps the version with the package.
_file = pathlib.Path(__file__).resolve().parents[2] / "VERSION"
__version__ = _file.read_text("ascii").strip() if _file.is_file() else importlib.metadata.version("winnow")
__all__ = ["ReportError", "__version__", "open"]


def __getattr__(name: str) -> object:
    # h5py and xarray are loaded when they are needed, so that the program can say in a line that they do not work.
    if name == "open":
        from .opening import open

        return open
    raise AttributeError(f"module {__name__} has no attribute {name}")
