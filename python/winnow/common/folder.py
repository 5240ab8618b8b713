"""A new output folder: written under a temporary name beside its own, then renamed."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from types import TracebackType

from winnow.common.errors import ExitCode, Failure
from winnow.common.output import check_place, sync_directory

_SECONDS_TO_LOCK = 60  # far more than lies between the making of a folder and its lock
_TEMPORARY = re.compile(r"\.winnow-[0-9a-f]{16}\.part")


def check_new_folder(
    path: pathlib.Path, inputs: Iterable[pathlib.Path], checkpoints: Iterable[pathlib.Path] = (), flag: str = ""
) -> None:
    """Failure where the folder cannot be made: something other than an empty folder has the name, its parent is not
    there or is a checkpoint's folder. inputs: files that are read. checkpoints: folders that are read."""
    name = f"{flag} {path}".lstrip()
    folders = list(checkpoints)
    try:
        check_place(path, name, inputs, folders, ExitCode.CANNOT_CREATE)
        if os.path.lexists(path):
            if path.is_symlink() or not path.is_dir():
                raise Failure(ExitCode.CANNOT_CREATE, f"{name}: is there already and is no folder; give another name")
            if any(path.iterdir()):
                raise Failure(
                    ExitCode.CANNOT_CREATE,
                    f"{name}: exists already and is not empty; give another name, or move it away",
                )
    except OSError as error:
        why = error.strerror or error
        raise Failure(ExitCode.CANNOT_CREATE, f"{name}: cannot be created: {why}; give another name") from error


class NewFolder:
    """A folder without its name: `path` is a temporary one beside it until `keep`. Left without `keep`, as by an error,
    nothing of it stays."""

    def __init__(self, final: pathlib.Path) -> None:
        """Raises OSError, as all of these do."""
        self._final = pathlib.Path(os.path.abspath(final))
        _remove_leftovers(self._final.parent)
        self.path = self._final.with_name(f".winnow-{secrets.token_hex(8)}.part")
        self.path.mkdir()
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Says that its writer lives.
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def keep(self) -> None:
        """Gives the folder its name, which must be free or that of an empty folder."""
        for file in self.path.iterdir():
            _sync(file)
        sync_directory(self.path)
        if self._final.is_symlink():  # a rename would put the folder in the place of a link
            raise OSError(errno.EEXIST, "is there already and is no folder")
        os.rename(self.path, self._final)
        sync_directory(self._final.parent)

    def __enter__(self) -> "NewFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)


def _sync(file: pathlib.Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(parent: pathlib.Path) -> None:
    """Removes folders of writers that were killed: of this user, with such a name, and without a lock."""
    for each in parent.iterdir():
        if not _TEMPORARY.fullmatch(each.name) or each.is_symlink() or not each.is_dir():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _SECONDS_TO_LOCK:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(each, ignore_errors=True)
            finally:
                os.close(descriptor)
