"""Opens results and collected sweeps as xarray DataTrees, and refuses in one line what is neither."""

import errno
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import TypeVar

import h5netcdf  # noqa: F401  (xarray's engine: said to be missing here, not as a fault of the file)
import h5py
import numpy as np
import xarray as xr

from winnow.common.errors import ExitCode, Failure
from winnow.report.reading import checksum, odd_text, probe

RESULTS = "winnow-results"
COLLECTION = "winnow-collection"
FORMAT_VERSION = 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LOCKED = (errno.EAGAIN, errno.EACCES, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
T = TypeVar("T")
WRITE_ANEW = "copy it again, or move it away and repeat the command that wrote it"


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that `path` means: a results file, a collected sweep, or a directory with one of them."""
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            return _find_in(path)
        if not path.exists():
            raise Failure(
                ExitCode.NO_INPUT, f"{path}: no such file or directory; give a run directory or its results.h5"
            )
        if not path.is_file():
            raise Failure(ExitCode.NO_INPUT, f"{path}: is a pipe or device; give a run directory or its results.h5")
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"{path}: {error.strerror or error}") from error
    if path.suffix in (".yaml", ".yml"):
        raise Failure(ExitCode.NO_INPUT, f"{path}: a sweep file; winnow sweep report {path} reports on its cells")
    return path


def _find_in(directory: pathlib.Path) -> pathlib.Path:
    for name in ("results.h5", "collected.h5"):
        if (directory / name).is_file():
            return directory / name
    if (directory / "run.json").is_file():
        raise Failure(
            ExitCode.NO_INPUT,
            f"{directory}: the run is not finished: there is no results.h5 yet; give its command again, it resumes",
        )
    raise Failure(
        ExitCode.NO_INPUT,
        f"{directory}: neither results.h5 nor collected.h5 is in it; give the --out directory "
        "of winnow calibrate, search or evaluate, or a file",
    )


def _with_a_lock_that_fits(open_with: Callable[[bool | None], T], choices: tuple[bool | None, bool | None]) -> T:
    """Opens with the first choice (False: no lock, None: as h5py does by itself), or the second where it is refused.

    A lock is refused where another program writes, or the file system has none; no lock, where this process has the
    file open with one.
    """
    try:
        return open_with(choices[0])
    except OSError as error:
        if error.errno not in _LOCKED and "locking flag" not in str(error):
            raise
    return open_with(choices[1])


def read_only(path: str | os.PathLike[str]) -> h5py.File:
    """The HDF5 file, without a lock: one that is open elsewhere, or on a file system without locks, is read as well."""
    return _with_a_lock_that_fits(lambda locking: h5py.File(path, "r", locking=locking), (False, None))


def _missing_filter(path: pathlib.Path) -> tuple[str, str] | None:
    """(dataset, filter) of the first dataset in a compression that this HDF5 library lacks; None where it has all."""
    found: list[tuple[str, str]] = []

    def look(name: str, node: h5py.Group | h5py.Dataset) -> bool | None:
        if not isinstance(node, h5py.Dataset):
            return None
        settings = node.id.get_create_plist()
        for i in range(settings.get_nfilters()):
            number, _, _, words = settings.get_filter(i)
            if not h5py.h5z.filter_avail(number):
                found.append((name, f"{words.decode('utf-8', 'replace') or 'unnamed'} (number {number})"))
                return True
        return None

    try:
        with read_only(path) as file:
            file.visititems(look)
    except Exception:  # a damaged file ends the search; what was wrong at first is the better reason
        pass
    return found[0] if found else None


def explain(path: str | os.PathLike[str], error: Exception, fault: str = "damaged or cut short") -> Failure:
    """What kept a file from being read: the system, another program, a filter that is not here, or its content.

    fault: what the content is, where nothing else was to blame.
    """
    path = pathlib.Path(path)
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        raise error
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EAGAIN, errno.EWOULDBLOCK) or "already open for" in str(error):
        return Failure(
            ExitCode.IO_ERROR,
            f"{path}: in use by another program that has it open for writing; close it there, or report on a copy",
        )
    if number:
        return Failure(
            ExitCode.IO_ERROR, f"{path}: cannot be read: {os.strerror(number)}; the file itself may be whole"
        )
    missing = _missing_filter(path)
    if missing is not None:
        return Failure(
            ExitCode.UNAVAILABLE,
            f"{path}: {missing[0]} is compressed with the filter {missing[1]}, which this HDF5 library does not have; "
            "name the folder of its plugin in HDF5_PLUGIN_PATH, or write the file with gzip (h5repack -f GZIP=4)",
        )
    return Failure(ExitCode.BAD_DATA, f"{path}: {fault} ({error or type(error).__name__}); {WRITE_ANEW}")


def values(variable: xr.DataArray | xr.Variable) -> np.ndarray:
    """The values of a variable, which may have to be read. Failure, one line, where they cannot be."""
    try:
        return np.asarray(variable.values)
    except Exception as error:  # whatever a damaged file makes of the libraries' reading
        source = variable.encoding.get("source")
        if source is None:
            raise
        raise explain(source, error) from error


def _check_header(path: pathlib.Path) -> tuple[str, int]:
    """(format, version) of the file, or an error that says what it is instead."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"{path}: cannot be read: {error.strerror or error}") from error
    if start != _SIGNATURE:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{path}: {'empty' if not start else 'not an HDF5 file'}; winnow report takes run "
            "directories, results.h5 and collected.h5",
        )
    probe.check(path)
    try:
        checksum.check(path)
    except OSError as error:
        raise explain(path, error) from error
    try:
        with read_only(path) as file:
            kind, version = file.attrs.get("format"), file.attrs.get("format_version", 0)
    except Exception as error:  # HDF5 has many ways to be damaged, and as many exceptions
        raise explain(path, error) from error
    kind = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
    if not isinstance(kind, str) or kind not in (RESULTS, COLLECTION):
        other = f"a file of the format '{kind}'" if isinstance(kind, str) and kind else "an HDF5 file of another kind"
        raise Failure(ExitCode.BAD_DATA, f"{path}: {other}, neither a result nor a collected sweep of winnow")
    try:
        version = int(version)
    except (TypeError, ValueError):
        version = 0
    if version > FORMAT_VERSION:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{path}: written in format version {version}, this winnow-report reads "
            f"{FORMAT_VERSION}; use the winnow-report of the winnow that wrote it",
        )
    return kind, version


def _odd_texts(path: pathlib.Path) -> dict[str, xr.Variable]:
    try:
        with read_only(path) as file:
            return odd_text.find(file)
    except Exception:  # of a damaged file xarray says more
        return {}


def open(path: str | os.PathLike[str]) -> xr.DataTree:
    """A result or collected sweep as an xarray DataTree, with the names of results/README.md.

    path: a run directory, its results.h5, or the collected.h5 of a sweep. Values are read when they are used; `with`
    or `.close()` closes the file. It is opened as h5py opens it, so that both can at a time; without a lock where
    another program has it open for writing. Failure, one line, for what is missing, in use, damaged, or of a newer
    version; a warning for a file without a checksum.
    """
    file = find(path)
    tree = _open(file, (None, False))
    if not checksum.is_there(file):
        warnings.warn(checksum.note(file), stacklevel=2)
    return tree


def open_without_lock(path: pathlib.Path) -> xr.DataTree:
    """The same for a program of its own, which nobody else shall have to wait for."""
    return _open(path, (False, None))


def _open(path: pathlib.Path, locks: tuple[bool | None, bool | None]) -> xr.DataTree:
    _check_header(path)
    try:
        texts = _odd_texts(path)
        # Dimensions without a scale, which a file of another hand may have, get made-up names.
        tree = _with_a_lock_that_fits(
            lambda locking: xr.open_datatree(
                path,
                engine="h5netcdf",
                phony_dims="sort",
                driver_kwds={"locking": locking},
                drop_variables=[pathlib.PurePosixPath(name).name for name in texts],
            ),
            locks,
        )
        odd_text.put(tree, texts)
        return tree
    except Exception as error:
        raise explain(path, error, "not readable as netCDF-4") from error


def format_of(tree: xr.DataTree) -> tuple[object, int]:
    """(format, version) of an opened tree; version 0 where the file does not say."""
    kind = tree.attrs.get("format")
    try:
        version = int(tree.attrs.get("format_version", 0))
    except (TypeError, ValueError):
        version = 0
    return kind, version
