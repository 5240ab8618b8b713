"""The token sequence that the engine and winnow score, and its calibration file."""

import pathlib
from dataclasses import dataclass

import h5py
import numpy as np

from winnow.common.errors import ExitCode, Failure

SEED = 20260627
MOST_PAST, LEAST_PAST = 256, 64  # tokens that see a window, unless asked for
ROWS_BEFORE = 32  # scored tokens that no window reaches
MOST_ONE_BY_ONE = 128  # scored tokens where each takes winnow a pass of its own


@dataclass(frozen=True)
class Probe:
    """tokens: the sequence. first: the first token that is scored. n_before: scored tokens whose rows see every key
    under all candidates: those of the smallest window, W - 1, begin at token W."""

    tokens: list[int]
    first: int
    n_before: int

    @property
    def n_scored(self) -> int:
        return len(self.tokens) - self.first


def make_probe(
    n_vocabulary: int, window: int, widest: int, n_positions: int, n_tokens: int | None, one_by_one: bool = False
) -> Probe:
    """window: that of the layers that were selected, W. widest: the widest of all layers. n_positions: those that the
    model has. one_by_one: as of write_calibration. Failure where the sequence would not reach past both.

    Random tokens, then twice a repetition of what stood W and W + 1 places before. A head that continues a repetition
    looks at the token behind the earlier one: at the last key of the window, then at the first beyond it. So trained
    models, which have such heads, give figures of their own for W - 1, W and W + 1. Ids from the ends of the
    vocabulary, where special tokens are, are left out."""
    if n_tokens is None:
        n_tokens = min(widest + min(max(widest, LEAST_PAST), MOST_PAST), n_positions)
    if n_tokens > n_positions:
        raise Failure(ExitCode.USAGE, f"--tokens {n_tokens}: the model has {n_positions} positions")
    if n_tokens < widest + 4:
        raise Failure(
            ExitCode.USAGE,
            f"{n_tokens} tokens do not reach past the window of {widest} keys; give --tokens {widest + 4} or more"
            + ("" if n_tokens < n_positions else f" (but the model has {n_positions} positions)"),
        )
    random = np.random.default_rng(SEED)
    low = n_vocabulary // 10
    tokens = random.integers(low, max(n_vocabulary // 2, low + 1), n_tokens).tolist()
    middle = window + 1 + (n_tokens - window - 1) // 2
    for place in range(window + 1, n_tokens):
        tokens[place] = tokens[place - window - (place >= middle)]
    first = max(1, window - ROWS_BEFORE, n_tokens - MOST_ONE_BY_ONE if one_by_one else 0)
    return Probe(tokens, first, max(0, window - first))


def write_calibration(path: pathlib.Path, tokens: list[int], first: int, one_by_one: bool = False) -> None:
    """A file as results/README.md has it, whose tokens from `first` on are scored. one_by_one: each in an example of
    its own, else all in one."""
    ends = range(first + 1, len(tokens) + 1) if one_by_one else [len(tokens)]
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-calibration", 1
        file["tokens"] = np.concatenate([np.array(tokens[:end], np.int32) for end in ends])
        file["offsets"] = np.cumsum([0, *ends], dtype=np.int64)
        file["answer_start"] = np.array([end - 1 for end in ends] if one_by_one else [first], np.int64)
        names = [f"serve-check {end}" for end in ends] if one_by_one else ["serve-check"]
        file.create_dataset("example_id", data=names, dtype=h5py.string_dtype("utf-8"))
