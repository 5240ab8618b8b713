"""The Python programs of winnow (prepare, import, report, serve-check), and what they share (common)."""

import importlib.metadata
import pathlib

# A source tree and an installation by CMake hold this file; pip keeps the version with the package.
_file = pathlib.Path(__file__).resolve().parents[2] / "VERSION"
__version__ = _file.read_text("ascii").strip() if _file.is_file() else importlib.metadata.version("winnow")
