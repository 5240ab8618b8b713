"""Files that this program writes: which names may be."""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import BinaryIO

import h5py

import winnow.common.output as files
from winnow.common import streams
from winnow.common.errors import ExitCode, Failure


def _is_calibration(file: BinaryIO) -> bool:
    try:
        with h5py.File(file, "r") as opened:
            return opened.attrs.get("format") == "winnow-calibration"
    except Exception:  # whatever a file of others makes of the library
        return False


def _is_texts(file: BinaryIO) -> bool:
    try:
        line = json.loads(file.readline())
    except (ValueError, RecursionError):
        return False
    return isinstance(line, dict) and {"token_ids", "text"} <= line.keys()


CALIBRATION = files.Kind("calibration file", _is_calibration)
TEXTS = files.Kind("file of decoded texts", _is_texts)


def check_output(
    path: pathlib.Path, kind: files.Kind, force: bool, inputs: Iterable[pathlib.Path], model: pathlib.Path
) -> None:
    """Failure where the file cannot become what is asked for; said before the work, not after it. inputs: files that
    are read. model: its folder. force: an older file of the kind is replaced."""
    files.check_output(path, kind, inputs, [model])
    if os.path.lexists(path) and not force:
        raise Failure(ExitCode.CANNOT_CREATE, f"{path}: exists already; name another file, or pass --force")


def say(text: str, written: Iterable[object]) -> None:
    """A summary on standard output. written: the files that are there already, for the Failure where it is lost."""
    try:
        streams.say(text)
    except OSError as error:
        names = ", ".join(map(str, written))
        raise Failure(
            ExitCode.IO_ERROR, f"{names}: written, but not the summary on standard output: {error.strerror}"
        ) from error
