"""Prompts as long as they may be, in tokens of the model."""

import dataclasses
import pathlib
import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from winnow.common.errors import ExitCode, Failure
from winnow.prepare.unusable import Unusable

# Ten sentences that say nothing, for prompts without a text of the user's.
NOISE = (
    "The lamp stands near the door. Rain falls on the roof. A cat sleeps under the table. The kettle is warm. Leaves "
    "lie in the yard. The clock strikes the hour. A boat drifts by. The road bends to the left. Bread is on the shelf. "
    "Somebody hums a tune."
)
T = TypeVar("T")
NEAR_ENOUGH = 0.99  # of the length that was asked for
MOST_TRIES = 24


@dataclasses.dataclass(frozen=True)
class Room:
    """What prompts are made for and of. lengths: the most tokens that they may have, each in turn."""

    lengths: Sequence[int]
    sentences: Sequence[str]  # of the haystack
    has_text: bool  # whether the sentences are the user's
    seed: int

    def chance(self, *what: object) -> random.Random:
        """A generator for one example: the same for the same seed, task, length and number."""
        return random.Random(f"{self.seed} {' '.join(map(str, what))}")

    def stretch(self, chance: random.Random, n: int) -> list[str]:
        """n sentences in a row from a place of the haystack, which begins anew where it ends."""
        begin = chance.randrange(len(self.sentences)) if self.has_text else 0
        return [self.sentences[(begin + i) % len(self.sentences)] for i in range(n)]


def read_haystack(names: Sequence[str]) -> list[str]:
    """The sentences of text files, or of all that a folder holds. Raises Failure."""
    paths: list[pathlib.Path] = []
    for path in map(pathlib.Path, names):
        paths += sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    sentences: list[str] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise Failure(ExitCode.NO_INPUT, f"--haystack {path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Failure(ExitCode.BAD_DATA, f"--haystack {path}: not UTF-8: {error.reason}") from error
        sentences += sentences_of(text)
    if names and not sentences:
        raise Failure(ExitCode.BAD_DATA, f"--haystack {names[0]}: holds no text")
    return sentences


def sentences_of(text: str) -> list[str]:
    return [" ".join(one.split()) for one in re.split(r"(?<=[.!?])\s+|\n\s*\n", text) if one.strip()]


def longest(make: Callable[[int], T], tokens: Callable[[T], int], most: int, least_units: int = 1) -> T:
    """What make(n) gives for about the largest n whose tokens are at most `most`; raises Unusable where even
    make(least_units) has more. make must give the same for the same n."""
    best = make(least_units)
    n_first = n_last = tokens(best)
    if n_first > most:
        raise Unusable(f"the task needs more than {most} tokens", f"{n_first} at least")
    fits, too_many = least_units, None
    guess = least_units + 16
    for _ in range(MOST_TRIES):
        made = make(guess)
        n_tokens = tokens(made)
        per_unit = max((n_tokens - n_first) / (guess - least_units), 1e-3)
        if n_tokens <= most:
            is_whole = n_tokens == n_last  # more units change nothing
            best, fits, n_last = made, guess, n_tokens
            if n_tokens >= NEAR_ENOUGH * most or is_whole:
                break
        else:
            too_many = guess
        near = least_units + int((NEAR_ENOUGH + 1) / 2 * (most - n_first) / per_unit)
        guess = max(near, fits + 1) if too_many is None else min(max(near, fits + 1), too_many - 1)
        if too_many is not None and too_many - fits <= 1:
            break
    return best
