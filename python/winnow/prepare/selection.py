"""Which examples are kept: those with the smallest keys, which are hashes of seed and prompt.

A draw without knowledge of how much comes: the reservoir holds what would be kept if the input ended now. Identical
prompts have identical keys, so that duplicates meet in the reservoir.
"""

import bisect
import dataclasses
from collections.abc import Mapping

from winnow.common.scoring import Scoring


@dataclasses.dataclass(frozen=True, order=True)
class Candidate:
    key: int
    example_id: str
    source: str
    prompt_tokens: int
    answer_tokens: int  # scored, end of turn included
    think: str
    end_of_turn: str
    tool_calls: str
    scoring: Scoring | None = dataclasses.field(compare=False)
    spool: tuple[int, int, int, int]  # where the tokens are: offset, count; then offset, bytes of the conversation


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the kept examples must obey. count None: all; quotas: {source: most}, "*" for every other source."""

    count: int | None
    min_prompt_tokens: int
    max_prompt_tokens: int | None
    bins: int = 1
    quotas: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def holds(self, prompt_tokens: int) -> bool:
        return self.min_prompt_tokens <= prompt_tokens and (
            self.max_prompt_tokens is None or prompt_tokens <= self.max_prompt_tokens
        )

    def bin_of(self, prompt_tokens: int) -> int:
        width = (self.max_prompt_tokens or 0) + 1 - self.min_prompt_tokens
        return (prompt_tokens - self.min_prompt_tokens) * self.bins // width if self.bins > 1 else 0

    def bin_limit(self, index: int) -> int | None:
        if self.count is None:
            return None
        return self.count // self.bins + (index < self.count % self.bins)

    def source_limit(self, source: str) -> int | None:
        return self.quotas.get(source, self.quotas.get("*"))


# {source with a quota, or None for all others: key at and above which a reservoir can keep nothing more of it}
Bounds = dict[str | None, int]


class Reservoir:
    """Holds the best of every cell (bin of lengths, source with a quota): more of a cell than its limits allow can
    never be kept, whatever comes later."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # (source or None, bin): candidates by key
        self._cells: dict[tuple[str | None, int], list[Candidate]] = {}
        self._keys: set[int] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, candidate: Candidate) -> str:
        """ "kept" (for now), "duplicate" or "not drawn"."""
        if candidate.key in self._keys:
            return "duplicate"
        name = self._cell_source(candidate.source)
        index = self._limits.bin_of(candidate.prompt_tokens)
        cell = self._cells.setdefault((name, index), [])
        most = self._cell_limit(name, index)
        if most is not None and len(cell) >= most:
            if most == 0 or candidate.key > cell[-1].key:
                return "not drawn"
            self._keys.discard(cell.pop().key)
        bisect.insort(cell, candidate)
        self._keys.add(candidate.key)
        return "kept"

    def bounds(self) -> Bounds:
        """Of the sources whose cells are full; a source without: none yet."""
        found: Bounds = {}
        for name in {name for name, _ in self._cells}:
            last: list[int] = []
            for index in range(self._limits.bins):
                cell, most = self._cells.get((name, index), []), self._cell_limit(name, index)
                if most is not None and len(cell) >= most:
                    last.append(cell[-1].key if cell else 0)
            if len(last) == self._limits.bins:
                found[name] = max(last)
        return found

    def choose(self) -> list[Candidate]:
        """The kept examples by key, that is, in random order: the first N of them are a sample, too."""
        kept: list[Candidate] = []
        in_bin: dict[int, int] = {}
        of_source: dict[str, int] = {}
        for candidate in sorted(candidate for cell in self._cells.values() for candidate in cell):
            index = self._limits.bin_of(candidate.prompt_tokens)
            most, quota = self._limits.bin_limit(index), self._limits.source_limit(candidate.source)
            if most is not None and in_bin.get(index, 0) >= most:
                continue
            if quota is not None and of_source.get(candidate.source, 0) >= quota:
                continue
            in_bin[index] = in_bin.get(index, 0) + 1
            of_source[candidate.source] = of_source.get(candidate.source, 0) + 1
            kept.append(candidate)
        return kept

    def _cell_source(self, source: str) -> str | None:
        return source if self._limits.source_limit(source) is not None else None

    def _cell_limit(self, name: str | None, index: int) -> int | None:
        limits = [self._limits.bin_limit(index), None if name is None else self._limits.source_limit(name)]
        return min((limit for limit in limits if limit is not None), default=None)


def is_outranked(key: int, source: str, quotas: Mapping[str, int], bounds: Bounds) -> bool:
    """Whether an example with this key cannot be kept, by the bounds of a reservoir; its tokens need not be known."""
    limited = quotas.get(source, quotas.get("*")) is not None
    bound = bounds.get(source if limited else None)
    return bound is not None and key > bound
