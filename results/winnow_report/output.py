"""Files that appear whole or not at all, and never in the place of something else."""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterable

from .errors import CANNOT_CREATE, IO_ERROR, USAGE, ReportError

# How what we write begins, without regard to case: an older file of the name is replaced only if it begins so, too.
_BEGINNINGS = {"html": b"<!doctype html", "svg": b"<svg", "png": b"\x89png"}


def check(path: pathlib.Path, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> os.stat_result | None:
    """What is at `path` already; ReportError where it must not be replaced. kind: html, svg or png."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReportError(CANNOT_CREATE, f"{path}: cannot be created: {error.strerror}; give another {flag}") from error
    if not stat.S_ISREG(old.st_mode):  # a rename would put a file in the place of a device
        what = "directory" if stat.S_ISDIR(old.st_mode) else "device or pipe"
        raise ReportError(USAGE, f"{flag} {path} is a {what}; give the name of a file")
    for one in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(one.stat(), old):
                raise ReportError(USAGE, f"{flag} {path} is one of the results; give another name")
    try:
        with path.open("rb") as file:
            start = file.read(len(_BEGINNINGS[kind]))
    except OSError as error:
        raise ReportError(
            CANNOT_CREATE, f"{path}: cannot be replaced: {error.strerror}; give another {flag}"
        ) from error
    if start and start.lower() != _BEGINNINGS[kind]:
        raise ReportError(
            USAGE, f"{flag} {path} is there already and is no {kind.upper()} file; give another name, or move it away"
        )
    return old


def write_whole(path: pathlib.Path, data: bytes, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> None:
    """Writes bytes under a temporary name beside `path`, and renames. An older file passes its permissions on."""
    old = check(path, flag, kind, inputs)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        # Nothing that has this name is opened, no link of it is followed; permissions are those that the umask gives.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ReportError(CANNOT_CREATE, f"{path}: cannot be created: {error.strerror}; give another {flag}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            if old is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ReportError(IO_ERROR, f"{path}: {error.strerror}; nothing was written under this name") from error
        raise
