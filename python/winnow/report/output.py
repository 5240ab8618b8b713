"""Pages and drawings as files: which names may be written, and the errors of this program."""

import pathlib
from collections.abc import Iterable
from typing import BinaryIO

import winnow.common.output as files
from winnow.report.errors import CANNOT_CREATE, IO_ERROR, USAGE, ReportError

# How what we write begins, without regard to case.
_BEGINNINGS = {"html": b"<!doctype html", "svg": b"<svg", "png": b"\x89png"}


def _kind(kind: str) -> files.Kind:
    def begins_so(file: BinaryIO) -> bool:
        return file.read(len(_BEGINNINGS[kind])).lower() == _BEGINNINGS[kind]

    return files.Kind(f"{kind.upper()} file", begins_so)


def check(path: pathlib.Path, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> None:
    """ReportError where the file must not be written. kind: html, svg or png."""
    try:
        files.check_output(path, _kind(kind), inputs, flag=flag)
    except files.Refused as refused:
        code = CANNOT_CREATE if refused.reason is files.Reason.IMPOSSIBLE else USAGE
        raise ReportError(code, refused) from refused


def write_whole(path: pathlib.Path, data: bytes, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> None:
    """Writes bytes under a temporary name beside `path`, and renames. An older file passes its permissions on."""
    check(path, flag, kind, inputs)
    try:
        files.write_whole(path, data)
    except OSError as error:
        raise ReportError(IO_ERROR, f"{path}: {error.strerror}; nothing was written under this name") from error
