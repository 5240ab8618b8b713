"""The files of a checkpoint: weights in safetensors, written as they are computed, and JSON."""

import json
import os
import pathlib
import struct
from collections.abc import Callable, Sequence

import numpy as np

from winnow.importing.weights import Weight

MOST_BYTES = 5 * 10**9  # of one file of weights, as on the hub
INDEX = "model.safetensors.index.json"
_ALIGNMENT = 8


def write_weights(
    folder: pathlib.Path, weights: Sequence[Weight], on_bytes: Callable[[int], None], most_bytes: int = MOST_BYTES
) -> list[str]:
    """Writes model.safetensors, or several files with an index where they do not fit in one. on_bytes: is told how many
    bytes were written. Returns the names of the files; raises OSError."""
    shards: list[list[Weight]] = [[]]
    for weight in weights:
        if shards[-1] and sum(each.size_bytes for each in shards[-1]) + weight.size_bytes > most_bytes:
            shards.append([])
        shards[-1].append(weight)
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0], on_bytes)
        return ["model.safetensors"]
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, on_bytes)
    index = {
        "metadata": {"total_size": sum(weight.size_bytes for weight in weights)},
        "weight_map": {weight.name: name for name, shard in zip(names, shards, strict=True) for weight in shard},
    }
    write_json(folder / INDEX, index)
    return [*names, INDEX]


def _write_shard(path: pathlib.Path, weights: Sequence[Weight], on_bytes: Callable[[int], None]) -> None:
    """The safetensors package would need all of them in memory."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in weights:
        begin, end = end, end + weight.size_bytes
        header[weight.name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weight in weights:
            for piece in weight.pieces():
                data = piece.astype(np.dtype("<u2"), copy=False).tobytes()
                file.write(data)
                on_bytes(len(data))
        file.flush()
        os.fsync(file.fileno())


def write_json(path: pathlib.Path, content: object) -> None:
    """Raises OSError."""
    with open(path, "x", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
