"""Output files: checked before the work, written whole under a temporary name, then renamed.

What may be written is decided here for all of winnow's Python programs, as base/output_path.h decides it for the
others: only an older file of the same kind, or an empty one, is ever replaced; never an input, a file in a checkpoint's
folder, or what a link leads to.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from winnow.common.errors import ExitCode, Failure

ATTEMPTS = 100


@dataclass(frozen=True)
class Kind:
    """What an output is: the name is "a page", and is_own tells by the content whether an older file is one. Its
    argument is open to read, and has more than no bytes."""

    name: str
    is_own: Callable[[BinaryIO], bool]


def check_output(
    path: pathlib.Path,
    kind: Kind,
    inputs: Iterable[pathlib.Path],
    checkpoints: Iterable[pathlib.Path] = (),
    flag: str = "",
    taken: ExitCode = ExitCode.CANNOT_CREATE,
) -> None:
    """Failure where `path` may not be written. inputs: files that are read. checkpoints: folders of models. taken: the
    exit code where the name is that of something else; where the system refuses, it is CANNOT_CREATE."""
    name = f"{flag} {path}".lstrip()
    try:
        _check(path, name, kind, inputs, checkpoints, taken)
    except OSError as error:
        why = error.strerror or error
        raise Failure(ExitCode.CANNOT_CREATE, f"{name}: cannot be created: {why}; give another name") from error


def _check(
    path: pathlib.Path,
    name: str,
    kind: Kind,
    inputs: Iterable[pathlib.Path],
    checkpoints: Iterable[pathlib.Path],
    taken: ExitCode,
) -> None:
    check_place(path, name, inputs, list(checkpoints), taken)
    with contextlib.suppress(FileNotFoundError):
        _check_older(path, name, kind, path.lstat(), taken)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def check_place(
    path: pathlib.Path, name: str, inputs: Iterable[pathlib.Path], folders: Sequence[pathlib.Path], taken: ExitCode
) -> None:
    """Failure where no output may be, of whatever kind: in place of an input, in a checkpoint's folder (one of
    `folders` or any other), or where there is no directory. name: as messages name the path. Raises OSError, too."""
    for read in (*inputs, *_inside(folders)):
        if _is_same(path, read):
            raise Failure(taken, f"{name}: is one of the files to be read; name another file")
    parent = path.parent.resolve()
    for folder in (parent, *parent.parents, *path.resolve().parents):
        if any(_is_same(folder, model) for model in folders):
            raise Failure(taken, f"{name}: is in the folder of the model, {folder}; name a file elsewhere")
    if _is_checkpoint(parent):
        raise Failure(taken, f"{name}: is in the folder of a checkpoint, {parent}; name a file elsewhere")
    if not path.parent.is_dir():
        raise Failure(ExitCode.CANNOT_CREATE, f"{name}: there is no directory {path.parent}; make it first")


def _check_older(path: pathlib.Path, name: str, kind: Kind, old: os.stat_result, taken: ExitCode) -> None:
    if stat.S_ISDIR(old.st_mode):
        raise Failure(taken, f"{name}: is a directory; name a file")
    if stat.S_ISLNK(old.st_mode):
        if path.exists() and not path.is_file():  # a rename would put a file in the place of a device's name
            raise Failure(taken, f"{name}: is a device or pipe, or a directory, behind a link; name a file")
        raise Failure(
            taken, f"{name}: is a link to {os.readlink(path)}, which is not followed; name a file, or remove it"
        )
    if not stat.S_ISREG(old.st_mode):
        raise Failure(taken, f"{name}: is a device or pipe and is no regular file; name a file")
    if old.st_size > 0:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not kind.is_own(file):
                raise Failure(
                    taken, f"{name}: is there already and is no {kind.name}; give another name, or move it away"
                )


def _inside(folders: Iterable[pathlib.Path]) -> Iterator[pathlib.Path]:
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from folder.iterdir()


def _is_checkpoint(folder: pathlib.Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return any(one.suffix == ".safetensors" or one.name == "model.safetensors.index.json" for one in folder.iterdir())


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there, or cannot be seen
        return False


class WholeFile:
    """A file without its name: under a temporary one beside it until `keep`. `discard` leaves nothing."""

    def __init__(self, path: pathlib.Path) -> None:
        """Raises OSError, as all of these do."""
        self._path = path
        self._part, self.file = _create_beside(path)

    def keep(self) -> None:
        """Gives the file its name, and the permissions of the one that it replaces, where that is a regular file."""
        self.file.flush()
        with contextlib.suppress(FileNotFoundError):
            old = self._path.lstat()
            if not stat.S_ISREG(old.st_mode):
                raise OSError(errno.EEXIST, "is there already and is no regular file")
            self._take_over(old)
        os.fsync(self.file.fileno())
        os.replace(self._part, self._path)
        sync_directory(self._path.parent)

    def _take_over(self, old: os.stat_result) -> None:
        """Only root may give a file to somebody else. A group that is not kept must not lend its rights to another."""
        descriptor, mode = self.file.fileno(), stat.S_IMODE(old.st_mode) & 0o777
        new = os.fstat(descriptor)
        if new.st_uid != old.st_uid:
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, old.st_uid, -1)
        if new.st_gid != old.st_gid:
            try:
                os.fchown(descriptor, -1, old.st_gid)
            except PermissionError:
                mode &= ~0o070
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode)

    def discard(self) -> None:
        """Nothing is left but what was kept."""
        self.file.close()
        self._part.unlink(missing_ok=True)


def write_whole(
    contents: Mapping[pathlib.Path, bytes | Callable[[BinaryIO], object]], fault: str = "cannot be written: {}"
) -> None:
    """All files or none: of each its bytes, or what writes them. Failure where the system does not take them; fault:
    what it says of the file, with the system's reason."""
    parts: list[WholeFile] = []
    at = next(iter(contents))
    try:
        for at, content in contents.items():
            parts.append(WholeFile(at))
            if callable(content):
                content(parts[-1].file)
            else:
                _write_all(parts[-1].file, content)
        for at, part in zip(contents, parts, strict=True):  # noqa: B007 - for the message
            part.keep()
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"{at}: {fault.format(error.strerror or error)}") from error
    finally:
        for part in parts:
            part.discard()


def _write_all(file: BinaryIO, data: bytes) -> None:
    """A file without a buffer takes as much as fits on the disk at first, and says only then what was wrong."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _create_beside(path: pathlib.Path) -> tuple[pathlib.Path, BinaryIO]:
    """A new file, never one that is there or that a link leads to. Its name does not grow with the other's, which may
    be the longest that the file system takes. Its lock says that its writer lives: base/atomic_file.h removes the
    leftovers of dead ones."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(ATTEMPTS):
        part = path.with_name(f".winnow-{secrets.token_hex(8)}.part")
        try:
            descriptor = os.open(part, flags, 0o666)
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return part, os.fdopen(descriptor, "w+b", buffering=0)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
