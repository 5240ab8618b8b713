"""Checksums behind the end of HDF5 files of winnow, over every byte before them (base/checksum.h)."""

import hashlib
import os
import pathlib
import struct

from winnow.common.errors import ExitCode
from winnow.report.errors import ReportError

_MARK = b"\nwinnow sha256 "
_SIZE = len(_MARK) + 64 + 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_STEP = 1 << 20
_WRITE_ANEW = "copy it again, or move it away and repeat the command that wrote it"


def _tail(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SIZE))
        return file.read()


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether the file has a checksum, right or wrong."""
    return _tail(pathlib.Path(path)).startswith(_MARK)


def _end(head: bytes) -> int:
    """Where the superblock says that the file ends; 0 where it is of another version than winnow's, or none."""
    if len(head) < 48 or head[:8] != _SIGNATURE or head[8] not in (2, 3) or head[9] != 8 or any(head[12:20]):
        return 0
    return int(struct.unpack_from("<Q", head, 28)[0])


def check(path: str | os.PathLike[str]) -> None:
    """ReportError for a file that differs from its checksum or was cut off within it. One without a checksum passes."""
    path = pathlib.Path(path)
    tail = _tail(path)
    with path.open("rb") as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(48)
        end = _end(head)
        # Another program has it open for writing, and is about to take the checksum away. Were it a flipped bit, HDF5
        # would refuse the superblock, which has a checksum of its own.
        if end > 0 and head[11] != 0:
            return
        file.seek(0)
        if not tail.startswith(_MARK):
            if 0 < end < size <= end + _SIZE:
                raise ReportError(
                    ExitCode.BAD_DATA,
                    f"{path}: cut short or damaged: what stands in the place of its checksum is none; {_WRITE_ANEW}",
                )
            return
        digest, left = hashlib.sha256(), size - _SIZE
        while left > 0 and (block := file.read(min(left, _STEP))):
            digest.update(block)
            left -= len(block)
    if tail != _MARK + digest.hexdigest().encode() + b"\n":
        raise ReportError(
            ExitCode.BAD_DATA, f"{path}: damaged: its content does not match the checksum at its end; {_WRITE_ANEW}"
        )


def note(path: str | os.PathLike[str]) -> str:
    """The one line on a file without a checksum."""
    return f"{path}: has no checksum (it is older, or another program has written to it): damage would not be noticed"
