"""Output files: checked before the work, written whole under a temporary name, then renamed."""

import errno
import os
import pathlib
import secrets
import stat
import tempfile
from collections.abc import Iterable
from typing import BinaryIO

from winnow_prepare.errors import ExitCode, Failure

ATTEMPTS = 100


def check_output(path: pathlib.Path, force: bool, inputs: Iterable[pathlib.Path], model: pathlib.Path) -> None:
    """Failure where the file cannot become what is asked for; said before the work, not after it. inputs: files that
    are read; nothing replaces them, nor what is in the folder of the model, by whatever way the name leads there."""
    try:
        if path.is_dir():
            raise Failure(ExitCode.CANNOT_CREATE, f"{path}: is a directory; name a file")
        if path.exists() and not path.is_file():
            # Renaming a file to this name would take the device or pipe away from everyone.
            raise Failure(ExitCode.CANNOT_CREATE, f"{path}: is no regular file; name one")
        if os.path.lexists(path) and not force:
            raise Failure(ExitCode.CANNOT_CREATE, f"{path}: exists already; name another file, or pass --force")
        if path.exists() and any(_is_same(path, read) for read in inputs):
            raise Failure(ExitCode.CANNOT_CREATE, f"{path}: is one of the files to be read; name another file")
        if not path.parent.is_dir():
            raise Failure(ExitCode.CANNOT_CREATE, f"{path}: there is no directory {path.parent}; make it first")
        for folder in (*path.parent.resolve().parents, path.parent.resolve(), *path.resolve().parents):
            if _is_same(folder, model):
                raise Failure(
                    ExitCode.CANNOT_CREATE, f"{path}: is in the folder of the model, {model}; name a file elsewhere"
                )
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise Failure(ExitCode.CANNOT_CREATE, f"{path}: cannot be written: {error.strerror}") from error


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # the other is not there, or cannot be seen
        return False


class WholeFile:
    """A file without its name: under a temporary one beside it until `keep`. `discard` leaves nothing."""

    def __init__(self, path: pathlib.Path) -> None:
        """Raises OSError, as all of these do."""
        self._path = path
        self._part, self.file = _create_beside(path)

    def keep(self) -> None:
        """Gives the file its name, and the permissions of the one that it replaces."""
        self.file.flush()
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            pass
        else:
            os.fchmod(self.file.fileno(), stat.S_IMODE(old.st_mode))
        os.fsync(self.file.fileno())
        os.replace(self._part, self._path)
        _sync_directory(self._path.parent)

    def discard(self) -> None:
        """Nothing is left but what was kept."""
        self.file.close()
        self._part.unlink(missing_ok=True)


def _create_beside(path: pathlib.Path) -> tuple[pathlib.Path, BinaryIO]:
    """A new file, never one that is there or that a link leads to. Its name does not grow with the other's, which may
    be the longest that the file system takes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(ATTEMPTS):
        part = path.with_name(f".winnow-{secrets.token_hex(8)}.part")
        try:
            return part, os.fdopen(os.open(part, flags, 0o666), "w+b", buffering=0)
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
