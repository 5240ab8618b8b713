"""A GGUF checkpoint, in one file or split into parts: its metadata and tensors, read by the gguf package."""

import math
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from winnow.common.errors import ExitCode, Failure

MAGIC = b"GGUF"
_LENGTH = struct.Struct("<Q")
SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class _Truncated(Exception):
    """The file ends before what it announces."""


class _Reader(gguf.GGUFReader):
    """Of itself the package takes what lies behind the end of a file for empty, and needs a minute for the arrays of a
    large vocabulary, which it reads a number at a time."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:  # noqa: ANN401
        if offset + np.dtype(dtype).itemsize * int(count) > self.data.size:
            raise _Truncated
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        begin = orig_offs + 12
        types = [GGUFValueType.ARRAY, kind]
        if kind == GGUFValueType.STRING:
            texts, end = self._texts(begin, count)
            return end - orig_offs, texts, list(range(count)), types
        if kind not in self.gguf_scalar_to_np:
            raise ValueError(f"an array of {kind.name}")
        values = self._get(begin, self.gguf_scalar_to_np[kind], count)
        return 12 + values.nbytes, [values], [0], types

    def _texts(self, begin: int, count: int) -> tuple[list[np.ndarray], int]:
        """(the bytes of each string, where they end)."""
        data = np.asarray(self.data)
        view = data.data
        texts = []
        for _ in range(count):
            if begin + 8 > data.size:
                raise _Truncated
            end = begin + 8 + _LENGTH.unpack_from(view, begin)[0]
            if end > data.size:
                raise _Truncated
            texts.append(data[begin + 8 : end])
            begin = end
        return texts, begin


class GgufFile:
    """Metadata and tensors of all parts. Metadata is asked for by its name behind the architecture's:
    size("block_count") is that of llama.block_count."""

    def __init__(self, path: pathlib.Path) -> None:
        """Failure where the file, or a part of it, is missing, damaged or no checkpoint of a model."""
        self.path = path
        first = _open(path)
        self.fields = first.fields
        self._asked: set[str] = set()
        n_parts = self._number("split.count", 1)
        self.paths = _parts(path, n_parts) if n_parts > 1 else [path]
        readers = [first]
        if n_parts > 1:
            readers = [_open(part) for part in self.paths]
            self.fields = readers[0].fields
        self.tensors: dict[str, Any] = {}
        for part, reader in zip(self.paths, readers, strict=True):
            for tensor in reader.tensors:
                if tensor.name in self.tensors:
                    raise Failure(ExitCode.BAD_DATA, f"{part}: tensor {tensor.name} is in another part, too")
                self.tensors[tensor.name] = tensor
        self._check_kind(self._number("split.tensors.count", len(self.tensors)))
        self.architecture = self.text("general.architecture")

    def _check_kind(self, n_announced: int) -> None:
        kind = self.field("general.type", "model")
        if kind != "model":
            raise Failure(
                ExitCode.BAD_DATA, f"{self.path}: general.type is {kind!r}; only a file of type 'model' can be imported"
            )
        if not self.tensors:
            raise Failure(ExitCode.BAD_DATA, f"{self.path}: has a vocabulary only, no tensors; give the model itself")
        if n_announced != len(self.tensors):
            raise Failure(
                ExitCode.BAD_DATA,
                f"{self.path}: its parts hold {len(self.tensors)} tensors, split.tensors.count says {n_announced}",
            )

    def field(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever the file holds
        """The value under the whole name: a number, text, or a list of such."""
        self._asked.add(key)
        if key not in self.fields:
            return default
        try:
            return self.fields[key].contents()
        except Exception as error:  # text that is not UTF-8, types that do not fit
            raise Failure(ExitCode.BAD_DATA, f"{self.path}: {key}: cannot be read: {error}") from error

    def text(self, key: str) -> str:
        value = self.field(key)
        if not isinstance(value, str):
            raise self.refusal(key, "text")
        return value

    def own(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        """The value of ARCHITECTURE.key."""
        return self.field(f"{self.architecture}.{key}", default)

    def size(self, key: str, default: int | None = None) -> int:
        """A count above 0 of the architecture's; one that differs between layers is refused."""
        value = self.own(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self.refusal(f"{self.architecture}.{key}", "one whole number above 0, the same for all layers")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number of the architecture's, as its shortest decimals of float32: 1e-05, not 9.99999974e-06."""
        value = self.own(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.refusal(f"{self.architecture}.{key}", "a number")
        return tidy(value)

    def _number(self, key: str, default: int) -> int:
        value = self.field(key, default)
        if not isinstance(value, int) or value < 0:
            raise self.refusal(key, "a whole number")
        return value

    def refusal(self, key: str, expected: str) -> Failure:
        """What to raise for metadata that is missing or of another kind."""
        found = repr(self.fields[key].contents())[:60] if key in self.fields else "is missing"
        return Failure(ExitCode.BAD_DATA, f"{self.path}: metadata {key}: expected {expected}, found {found}")

    def check_all_was_asked(self, harmless: frozenset[str]) -> None:
        """Failure for metadata of the architecture that nobody has asked for: it may change what the model computes.
        harmless: names that do not."""
        for key in self.fields:
            own = key.removeprefix(f"{self.architecture}.")
            if own == key or key in self._asked or own in harmless:
                continue
            value = self.field(key)
            if not _is_neutral(value):
                raise Failure(
                    ExitCode.BAD_DATA,
                    f"{self.path}: metadata {key} = {repr(value)[:60]}: not known here, and may change what the model "
                    "computes",
                )

    def rows(self, name: str, most_numbers: int, order: "np.ndarray | None" = None) -> Iterator[np.ndarray]:
        """The tensor as float32, (rows, columns), in pieces of at most that many numbers or of one row. order: the rows
        in this order. Failure where the type cannot be dequantised."""
        tensor = self.tensors[name]
        data = tensor.data if tensor.data.ndim > 1 else tensor.data.reshape(1, -1)
        n_columns = int(tensor.shape[0])
        step = max(1, most_numbers // n_columns)
        for begin in range(0, data.shape[0], step):
            chosen = data[begin : begin + step] if order is None else data[order[begin : begin + step]]
            yield self._dequantised(name, chosen)

    def check_types(self) -> None:
        """Failure where a tensor has a type that the gguf package cannot dequantise."""
        seen = set()
        for name, tensor in self.tensors.items():
            if tensor.tensor_type not in seen:
                seen.add(tensor.tensor_type)
                self._dequantised(name, tensor.data.reshape(-1, tensor.data.shape[-1])[:1])

    def _dequantised(self, name: str, data: np.ndarray) -> np.ndarray:
        kind: GGMLQuantizationType = self.tensors[name].tensor_type
        try:
            with np.errstate(all="ignore"):  # what is not finite is said by whoever takes the figures
                return gguf.quants.dequantize(data, kind)
        except NotImplementedError as error:
            raise Failure(
                ExitCode.BAD_DATA, f"{self.path}: tensor {name} is of type {kind.name}, which cannot be dequantised"
            ) from error


def _is_neutral(value: object) -> bool:
    """Whether a setting has no effect, whatever it is: a switch that is off, no number of things, a factor of 1."""
    return value in (False, "", "none", "default", []) or (isinstance(value, float) and value == 1.0)


def tidy(value: float) -> float:
    """The number with the fewest decimals that is the same in float32."""
    return float(str(np.float32(value)))


def _open(path: pathlib.Path) -> _Reader:
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "there is no such file"
        raise Failure(ExitCode.NO_INPUT, f"{path}: {what}; name a GGUF file or a folder of the hub's cache")
    try:
        _check_head(path)
        return _Reader(path)
    except OSError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: cannot be read: {error.strerror or error}") from error
    except _Truncated as error:
        raise Failure(
            ExitCode.BAD_DATA, f"{path}: ends before what it announces: it is cut short or damaged; get it again"
        ) from error
    except Failure:
        raise
    except Exception as error:  # of any kind, by what is damaged
        words = " ".join(str(error).split())[:200]
        unknown = re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", words)
        if unknown:
            words = f"a tensor has quantisation type {unknown[1]}, which is not known here"
        else:
            words = f"not readable as GGUF: {words}"
        raise Failure(ExitCode.BAD_DATA, f"{path}: {words}") from error


def _check_head(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        head = file.read(8)
    if head[:4] != MAGIC:
        what = "a Git LFS pointer, not the file itself" if head.startswith(b"version ") else "no GGUF file"
        raise Failure(ExitCode.BAD_DATA, f"{path}: it is {what}; get the file again, or name another")
    if len(head) == 8 and head[4:6] == b"\0\0":
        raise Failure(ExitCode.BAD_DATA, f"{path}: its numbers are big-endian, which is not supported")


def _parts(path: pathlib.Path, n_parts: int) -> list[pathlib.Path]:
    """The files of a split checkpoint, in order, by the name of any of them."""
    name = SPLIT_NAME.fullmatch(path.name)
    if not name or int(name["count"]) != n_parts:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{path}: is one of {n_parts} parts, which are found by names such as "
            f"model-00001-of-{n_parts:05}.gguf; give the parts their names back",
        )
    found = [path.with_name(f"{name['stem']}-{i:05}-of-{n_parts:05}.gguf") for i in range(1, n_parts + 1)]
    missing = [part.name for part in found if not part.is_file()]
    if missing:
        raise Failure(
            ExitCode.NO_INPUT, f"{path}: {len(missing)} of {n_parts} parts missing: {missing[0]} is not there"
        )
    return found
