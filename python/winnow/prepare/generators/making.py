"""What a task is: a function that makes an example with n units of filling."""

import random
from collections.abc import Sequence
from typing import Protocol

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item
from winnow.prepare.benchmarks.room import Room


class Make(Protocol):
    def __call__(self, room: Room, chance: random.Random, name: str, n: int) -> Item:
        """The example; raises Unusable."""


def contains_all(task: str, references: Sequence[str], prefix: str, separator: str = ", ") -> Scoring:
    """RULER's scoring: the share of the references that the answer holds."""
    return Scoring(task, "contains_all", tuple(references), separator.join(references), prefix)
