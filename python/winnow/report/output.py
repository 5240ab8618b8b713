"""Pages and drawings as files: which names may be written."""

import pathlib
from collections.abc import Iterable
from typing import BinaryIO

import winnow.common.output as files
from winnow.common.errors import ExitCode

# How what we write begins, without regard to case.
_BEGINNINGS = {"html": b"<!doctype html", "svg": b"<svg", "png": b"\x89png"}


def _kind(kind: str) -> files.Kind:
    def begins_so(file: BinaryIO) -> bool:
        return file.read(len(_BEGINNINGS[kind])).lower() == _BEGINNINGS[kind]

    return files.Kind(f"{kind.upper()} file", begins_so)


def check(path: pathlib.Path, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> None:
    """Failure where the file must not be written. kind: html, svg or png."""
    files.check_output(path, _kind(kind), inputs, flag=flag, taken=ExitCode.USAGE)


def write_whole(path: pathlib.Path, data: bytes, flag: str, kind: str, inputs: Iterable[pathlib.Path]) -> None:
    """Writes bytes under a temporary name beside `path`, and renames. An older file passes its permissions on."""
    check(path, flag, kind, inputs)
    files.write_whole({path: data}, "{}; nothing was written under this name")
