"""Which tensors a checkpoint must have, of what shape, and their figures in bfloat16, piece by piece."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from winnow.common.errors import ExitCode, Failure
from winnow.importing.architectures import Architecture
from winnow.importing.config import EMBEDDINGS, HEAD, Config
from winnow.importing.gguf_file import GgufFile
from winnow.importing.rope import FACTORS

PIECE = 2**22  # numbers that are dequantised at once: a few dozen MB, whatever the size of a tensor


@dataclass(frozen=True)
class Weight:
    """A tensor of the new checkpoint. pieces: its figures, each as a part of (rows, columns) in uint16, the upper half
    of a float32."""

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def size_bytes(self) -> int:
        return 2 * int(np.prod(self.shape))


def plan(file: GgufFile, architecture: Architecture, config: Config) -> list[Weight]:
    """All tensors of the checkpoint, in order. Failure where one is missing, of another shape, of a type that cannot be
    dequantised, or one that the architecture does not have."""
    names = _names(file, architecture, config)
    for source, (_, shape) in names.items():
        if source not in file.tensors:
            raise Failure(ExitCode.BAD_DATA, f"{file.path}: tensor {source} is missing")
        found = tuple(reversed(file.tensors[source].shape.tolist()))
        if found != shape:
            raise Failure(
                ExitCode.BAD_DATA,
                f"{file.path}: tensor {source}: expected the shape {shape} by the metadata, found {found}",
            )
    for source in file.tensors:
        if source not in names and source not in FACTORS:
            raise Failure(
                ExitCode.BAD_DATA,
                f"{file.path}: tensor {source}: {architecture.name} has none of that name; without it the model would "
                "compute something else",
            )
    file.check_types()
    return [_weight(file, architecture, config, source, *target) for source, target in names.items()]


def _weight(
    file: GgufFile, architecture: Architecture, config: Config, source: str, name: str, shape: tuple[int, ...]
) -> Weight:
    order = None
    for part, key in ((".attn_q.", "num_attention_heads"), (".attn_k.", "num_key_value_heads")):
        if architecture.has_reordered_heads and part in source:
            order = head_order(shape[0], config[key])
    offset = architecture.norm_offset if source.endswith("norm.weight") else 0.0

    def pieces() -> Iterator[np.ndarray]:
        if len(shape) == 1 and order is not None:  # a bias: one row, whose columns are reordered
            rows: Iterator[np.ndarray] = (row[:, order] for row in file.rows(source, PIECE))
        else:
            rows = file.rows(source, PIECE, order)
        for piece in rows:
            figures = to_bf16(piece - np.float32(offset) if offset else piece)
            if figures is None:
                raise Failure(
                    ExitCode.BAD_DATA, f"{file.path}: tensor {source} holds figures that are not finite in bfloat16"
                )
            yield figures

    return Weight(name, shape, pieces)


def _names(file: GgufFile, architecture: Architecture, config: Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{name in GGUF: (name in Transformers, shape)}."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    q_dim = config["num_attention_heads"] * config["head_dim"]
    kv_dim = config["num_key_value_heads"] * config["head_dim"]
    ffn = config["intermediate_size"]
    is_fused = "attn_qkv" in architecture.tensors  # then gate and up are one tensor, too
    shapes: dict[str, tuple[int, ...]] = {
        "attn_q": (q_dim, hidden),
        "attn_k": (kv_dim, hidden),
        "attn_v": (kv_dim, hidden),
        "attn_qkv": (q_dim + 2 * kv_dim, hidden),
        "attn_output": (hidden, q_dim),
        "attn_q_norm": (config["head_dim"],),
        "attn_k_norm": (config["head_dim"],),
        "ffn_gate": (ffn, hidden),
        "ffn_up": (2 * ffn if is_fused else ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
    names: dict[str, tuple[str, tuple[int, ...]]] = {EMBEDDINGS: ("model.embed_tokens.weight", (vocabulary, hidden))}
    with_bias = {
        source for group, sources in architecture.biases.items() for source in sources if not group or config[group]
    }
    for layer, (source, target) in itertools.product(range(config["num_hidden_layers"]), architecture.tensors.items()):
        shape = shapes.get(source, (hidden,))
        names[f"blk.{layer}.{source}.weight"] = (f"model.layers.{layer}.{target}.weight", shape)
        if source in with_bias:
            names[f"blk.{layer}.{source}.bias"] = (f"model.layers.{layer}.{target}.bias", shape[:1])
    names["output_norm.weight"] = ("model.norm.weight", (hidden,))
    if not config["tie_word_embeddings"]:
        names[HEAD] = ("lm_head.weight", (vocabulary, hidden))
    return names


def head_order(n_rows: int, n_heads: int) -> np.ndarray:
    """The rows of q or k as Transformers has them: of each head first its even ones in GGUF, then the odd ones."""
    return np.arange(n_rows).reshape(n_heads, -1, 2).swapaxes(1, 2).reshape(-1)


def to_bf16(figures: np.ndarray) -> np.ndarray | None:
    """The nearest bfloat16 of each float32, ties to even, as uint16; None where one is not finite."""
    bits = np.ascontiguousarray(figures, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    if ((rounded & np.uint32(0x7F80)) == np.uint32(0x7F80)).any() or not np.isfinite(figures).all():
        return None
    return rounded.astype(np.uint16)
