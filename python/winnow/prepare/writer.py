"""Calibration files. Equal input gives equal bytes."""

import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import h5py
import numpy

from winnow.common.errors import ExitCode, Failure
from winnow.common.output import write_whole
from winnow.common.scoring import Scoring, length_bin
from winnow.prepare.selection import Candidate

Attributes = Mapping[str, str | int]


class Example(NamedTuple):
    """One example of a calibration file."""

    name: str
    source: str
    n_tokens: int
    load: Callable[[], bytes]  # gives the token ids, int32
    answer_start: int
    scoring: Scoring | None = None  # all examples of a file have one, or none has


class Spool:
    """Tokens (and conversations) of candidates, in a file without a name beside the output: memory stays small, and
    whatever happens nothing is left."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        try:
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as this
        except OSError as error:
            raise Failure(ExitCode.CANNOT_CREATE, f"{directory}: cannot be written to: {error.strerror}") from error

    def append(self, data: bytes) -> tuple[int, int]:
        """Returns (offset, length)."""
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from error
        return offset, len(data)

    def read(self, offset: int, length: int) -> bytes:
        try:
            self._file.seek(offset)  # writes what is still buffered
            return self._file.read(length)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Failure:
        return Failure(
            ExitCode.IO_ERROR,
            f"{self._directory}: temporary file beside the output: {error.strerror}; make room "
            "there, or write to another directory",
        )


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def unique_ids(candidates: Iterable[Candidate]) -> list[str]:
    """Their ids, made unique by the key where two are alike."""
    seen: set[str] = set()
    names: list[str] = []
    for candidate in candidates:
        name = candidate.example_id
        if name in seen:
            name = f"{name}-{candidate.key:016x}"
        seen.add(name)
        names.append(name)
    return names


def write(outputs: Mapping[pathlib.Path, tuple[Attributes, Sequence[Example]]]) -> None:
    """All files or none."""
    write_whole({path: functools.partial(_write_one, *content) for path, content in outputs.items()})


def _write_one(attributes: Attributes, examples: Sequence[Example], disk: BinaryIO) -> None:
    """The room is reserved first: HDF5 cannot close a file that does not take its last bytes; h5py then raises
    something else than an OSError, or the process crashes."""
    tokens = sum(example.n_tokens for example in examples)
    names = sum(len(example.name.encode()) + len(example.source.encode()) for example in examples)
    names += sum(_room(example.scoring) for example in examples if example.scoring)
    text = sum(len(str(value).encode()) for value in attributes.values())
    room = 4 * tokens + 2 * names + 256 * len(examples) + 2 * text + 2**16
    os.posix_fallocate(disk.fileno(), 0, room)  # fails here
    os.ftruncate(disk.fileno(), 0)  # HDF5 makes an empty file only into one of its own
    with h5py.File(disk, "w") as file:
        os.posix_fallocate(disk.fileno(), 0, room)  # cut to what is used when HDF5 closes it
        _fill(file, attributes, examples)


def _fill(file: h5py.File, attributes: Attributes, examples: Sequence[Example]) -> None:
    lengths = [example.n_tokens for example in examples]
    text = h5py.string_dtype("utf-8")
    own: Attributes = {"format": "winnow-calibration", "format_version": 2 if examples[0].scoring else 1}
    for name, value in {**own, **attributes}.items():
        file.attrs[name] = value
    tokens = file.create_dataset("tokens", (sum(lengths),), numpy.int32, track_times=False)
    offsets = numpy.concatenate([[0], numpy.cumsum(lengths)]).astype(numpy.int64)
    for number, example in enumerate(examples):
        tokens[offsets[number] : offsets[number + 1]] = numpy.frombuffer(example.load(), numpy.int32)
    file.create_dataset("offsets", data=offsets, track_times=False)
    starts = numpy.array([example.answer_start for example in examples], numpy.int64)
    file.create_dataset("answer_start", data=starts, track_times=False)
    file.create_dataset("example_id", data=[example.name for example in examples], dtype=text, track_times=False)
    file.create_dataset("source", data=[example.source for example in examples], dtype=text, track_times=False)
    if examples[0].scoring:
        _fill_scoring(file, [(one.scoring, one.answer_start) for one in examples if one.scoring])


def _room(scoring: Scoring) -> int:
    """Bytes that it takes at most, about."""
    texts = (scoring.gold_answer, scoring.answer_prefix, json.dumps(dict(scoring.options)), *scoring.references)
    return sum(len(text.encode()) + 64 for text in texts) + 512


def _fill_scoring(file: h5py.File, scorings: Sequence[tuple[Scoring, int]]) -> None:
    """What format_version 2 adds. scorings: with the prompt's tokens."""

    def put(name: str, values: Sequence[str]) -> None:
        file.create_dataset(name, data=values, dtype=h5py.string_dtype("utf-8"), track_times=False)

    put("task", [scoring.task for scoring, _ in scorings])
    put("metric", [scoring.metric for scoring, _ in scorings])
    put("metric_options", [_json(scoring.options) for scoring, _ in scorings])
    put("length_bin", [scoring.length_bin or length_bin(n_tokens) for scoring, n_tokens in scorings])
    put("answer_prefix", [scoring.answer_prefix for scoring, _ in scorings])
    put("gold_answer", [scoring.gold_answer for scoring, _ in scorings])
    put("references", [reference for scoring, _ in scorings for reference in scoring.references])
    counts = [len(scoring.references) for scoring, _ in scorings]
    offsets = numpy.concatenate([[0], numpy.cumsum(counts)]).astype(numpy.int64)
    file.create_dataset("reference_offsets", data=offsets, track_times=False)


def _json(options: Mapping[str, object]) -> str:
    return json.dumps(options, sort_keys=True, ensure_ascii=False) if options else ""
