"""Opens results and collected sweeps as xarray DataTrees, and refuses in one line what is neither."""

import os
import pathlib

import h5py
import xarray as xr

from .errors import BAD_DATA, IO_ERROR, NO_INPUT, ReportError

RESULTS = "winnow-results"
COLLECTION = "winnow-collection"
FORMAT_VERSION = 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that `path` means: a results file, a collected sweep, or a directory with one of them."""
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            return _find_in(path)
        if not path.exists():
            raise ReportError(NO_INPUT, f"{path}: no such file or directory; give a run directory or its results.h5")
    except OSError as error:
        raise ReportError(IO_ERROR, f"{path}: {error.strerror or error}") from error
    if path.suffix in (".yaml", ".yml"):
        raise ReportError(NO_INPUT, f"{path}: a sweep file; winnow sweep report {path} reports on its cells")
    return path


def _find_in(directory: pathlib.Path) -> pathlib.Path:
    for name in ("results.h5", "collected.h5"):
        if (directory / name).is_file():
            return directory / name
    if (directory / "run.json").is_file():
        raise ReportError(
            NO_INPUT,
            f"{directory}: the run is not finished: there is no results.h5 yet; give its command again, it resumes",
        )
    raise ReportError(
        NO_INPUT,
        f"{directory}: neither results.h5 nor collected.h5 is in it; give the --out directory "
        "of winnow calibrate, search or evaluate, or a file",
    )


def _check_header(path: pathlib.Path) -> tuple[str, int]:
    """(format, version) of the file, or an error that says what it is instead."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ReportError(IO_ERROR, f"{path}: {error.strerror or error}") from error
    if start != _SIGNATURE:
        raise ReportError(
            BAD_DATA,
            f"{path}: {'empty' if not start else 'not an HDF5 file'}; winnow report takes run "
            "directories, results.h5 and collected.h5",
        )
    try:
        with h5py.File(path) as file:
            kind, version = file.attrs.get("format"), file.attrs.get("format_version", 0)
    except Exception as error:  # HDF5 has many ways to be damaged, and as many exceptions
        raise ReportError(
            BAD_DATA,
            f"{path}: damaged or cut short ({error}); copy it again, or have it "
            "written anew: delete it and repeat the command that wrote it",
        ) from error
    kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
    if not isinstance(kind, str) or kind not in (RESULTS, COLLECTION):
        other = f"a file of the format '{kind}'" if isinstance(kind, str) and kind else "an HDF5 file of another kind"
        raise ReportError(BAD_DATA, f"{path}: {other}, neither a result nor a collected sweep of winnow")
    try:
        version = int(version)
    except (TypeError, ValueError):
        version = 0
    if version > FORMAT_VERSION:
        raise ReportError(
            BAD_DATA,
            f"{path}: written in format version {version}, this winnow-report reads "
            f"{FORMAT_VERSION}; use the winnow-report of the winnow that wrote it",
        )
    return kind, version


def open(path: str | os.PathLike[str]) -> xr.DataTree:
    """A result or collected sweep as an xarray DataTree, with the names of results/README.md.

    path: a run directory, its results.h5, or the collected.h5 of a sweep. Values are read when they are used; `with`
    or `.close()` closes the file. ReportError, one line, for what is missing, damaged, or of a newer version.
    """
    path = find(path)
    _check_header(path)
    try:
        # Dimensions without a scale, which a file of another hand may have, get made-up names.
        return xr.open_datatree(path, engine="h5netcdf", phony_dims="sort")
    except Exception as error:
        raise ReportError(
            BAD_DATA,
            f"{path}: not readable as netCDF-4 ({error}); copy it again, or delete it and "
            "repeat the command that wrote it",
        ) from error


def format_of(tree: xr.DataTree) -> tuple[object, int]:
    """(format, version) of an opened tree; version 0 where the file does not say."""
    kind = tree.attrs.get("format")
    try:
        version = int(tree.attrs.get("format_version", 0))
    except (TypeError, ValueError):
        version = 0
    return kind, version
