"""Rows of JSON Lines, JSON arrays (plain, gzip, zstd) and Parquet files, one after another, in bounded memory."""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

import pyarrow
import pyarrow.parquet

from winnow.common.errors import ExitCode, Failure
from winnow.prepare.rows import json_array

SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".jsonl.gz",
    ".ndjson.gz",
    ".json.gz",
    ".jsonl.zst",
    ".ndjson.zst",
    ".json.zst",
    ".parquet",
)
LONGEST_LINE_BYTES = 256 * 2**20
PARQUET_ROWS = 16
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclasses.dataclass(frozen=True)
class Row:
    place: str  # "FILE:LINE" or "FILE, row N"
    payload: object  # bytes: one line of JSON; else the row of a table or the item of an array
    source: str  # name of the file without suffixes
    problem: str = ""  # why there is no payload
    folder: str = ""  # name of the file's folder


def find_files(inputs: Iterable[str]) -> list[pathlib.Path]:
    """The files that the arguments name, in that order; those of a directory sorted by name, without hidden ones, which
    are what editors, downloads and file systems keep for themselves."""
    files: list[pathlib.Path] = []
    for argument in map(pathlib.Path, inputs):
        if argument.is_dir():
            found = sorted(
                path
                for path in argument.rglob("*")
                if path.is_file()
                and path.name.lower().endswith(SUFFIXES)
                and not any(part.startswith(".") for part in path.relative_to(argument).parts)
            )
            if not found:
                raise Failure(ExitCode.NO_INPUT, f"{argument}: no file of it ends with {', '.join(SUFFIXES)}")
            files += found
        elif argument.exists():
            files.append(argument)
        else:
            raise Failure(ExitCode.NO_INPUT, f"{argument}: no such file or directory")
    for path in files:
        if not os.access(path, os.R_OK):
            raise Failure(ExitCode.NO_INPUT, f"{path}: cannot be read: check its permissions")
    return files


class Rows(Protocol):
    """Rows, and how far they are."""

    bytes_total: int

    @property
    def bytes_read(self) -> int: ...

    def rows(self) -> Iterator[Row]: ...


class Reader:
    """Reads files row by row. `bytes_total` is known before, `bytes_read` grows: the share that is done."""

    def __init__(self, files: list[pathlib.Path]) -> None:
        self._files = files
        self._bytes_before = 0
        self._position: Callable[[], int] = lambda: 0
        self.bytes_total = sum(path.stat().st_size for path in files)

    @property
    def bytes_read(self) -> int:
        return self._bytes_before + self._position()

    def rows(self) -> Iterator[Row]:
        for path in self._files:
            try:
                yield from self._rows_of(path)
            except (OSError, EOFError, pyarrow.ArrowException) as error:
                # ArrowInvalid: damaged; OSError: also a truncated compressed stream.
                text = " ".join(str(error).split())
                raise Failure(ExitCode.BAD_DATA, f"{path}: cannot be read to its end: {text}") from error
            self._position = lambda: 0
            self._bytes_before += path.stat().st_size

    def _rows_of(self, path: pathlib.Path) -> Iterator[Row]:
        with open(path, "rb") as file:
            start = file.peek(4)[:4]  # a pipe cannot go back
            if start == b"PAR1":
                if not file.seekable():
                    raise Failure(ExitCode.BAD_DATA, f"{path}: a Parquet file through a pipe; give the file itself")
                yield from self._table_rows(path, file)
                return
            if file.seekable():
                self._position = file.tell
            compression = next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), None)
            if compression is None:
                yield from self._lines(path, file)
                return
            # pyarrow's streams tell a truncated file from a whole one; the end of a gzip member is not the file's.
            with pyarrow.CompressedInputStream(file, compression) as stream:
                yield from self._lines(path, io.BufferedReader(stream, 2**20))

    def _lines(self, path: pathlib.Path, file: io.BufferedReader) -> Iterator[Row]:
        if file.peek(64).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"["):
            yield from self._items(path, file)
            return
        number = 0
        while line := file.readline(LONGEST_LINE_BYTES):
            number += 1
            place = f"{path}:{number}"
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE_BYTES)
                yield _row(path, place, b"", f"line longer than {LONGEST_LINE_BYTES >> 20} MiB")
            elif line.strip():
                yield _row(path, place, line)

    def _items(self, path: pathlib.Path, file: io.BufferedReader) -> Iterator[Row]:
        try:
            for number, (line, item) in enumerate(json_array.items(file), 1):
                yield _row(path, f"{path}:{line}, item {number}", item)
        except ValueError as error:
            raise Failure(ExitCode.BAD_DATA, f"{path}: {error}") from error

    def _table_rows(self, path: pathlib.Path, file: BinaryIO) -> Iterator[Row]:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        number, size = 0, path.stat().st_size
        self._position = lambda: int(size * number / max(1, table.metadata.num_rows))
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield _row(path, f"{path}, row {number}", row)


def _row(path: pathlib.Path, place: str, payload: object, problem: str = "") -> Row:
    return Row(place, payload, _stem(path), problem, _folder(path))


@functools.cache
def _folder(path: pathlib.Path) -> str:
    return path.resolve().parent.name


def _stem(path: pathlib.Path) -> str:
    name = path.name
    while name.lower().endswith((".gz", ".zst", ".jsonl", ".ndjson", ".json", ".parquet")):
        name = name.rpartition(".")[0]
    return name or path.name
