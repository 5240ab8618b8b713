"""The table of tasks that can be made; each example is a row, which a worker turns into its conversation."""

from collections.abc import Callable, Iterator, Sequence

from winnow.prepare.benchmarks.layouts import conversation_of
from winnow.prepare.benchmarks.room import Room, longest
from winnow.prepare.generators import counting, facts, needles, rounds, tracing
from winnow.prepare.generators.making import Make
from winnow.prepare.rows.conversations import Conversation
from winnow.prepare.rows.sources import Row
from winnow.prepare.unusable import Unusable

TASKS: dict[str, Make] = {
    "ruler:niah_single": needles.needles("niah_single"),
    "ruler:niah_code": needles.needles("niah_code", value=needles.codes),
    "ruler:niah_multikey": needles.needles("niah_multikey", n_keys=4),
    "ruler:niah_multikey_dense": needles.needles("niah_multikey_dense", is_dense=True),
    "ruler:niah_multivalue": needles.needles("niah_multivalue", n_values=4),
    "ruler:niah_multiquery": needles.needles("niah_multiquery", n_keys=4, n_asked=4),
    "ruler:vt": tracing.variables,
    "ruler:cwe": counting.common_words,
    "ruler:fwe": counting.frequent_words,
    "babilong:qa1": facts.facts("qa1"),
    "babilong:qa2": facts.facts("qa2"),
    "babilong:qa3": facts.facts("qa3"),
    "mrcr:2": rounds.rounds(2),
    "mrcr:4": rounds.rounds(4),
    "mrcr:8": rounds.rounds(8),
}
BYTES_PER_TOKEN = 4


class Plan:
    """The examples that are to be made, as rows: in turn one of each task and length."""

    def __init__(self, tasks: Sequence[str], lengths: Sequence[int], count: int) -> None:
        cells = [(task, length) for length in lengths for task in tasks]
        self._rows = [(*cells[number % len(cells)], number // len(cells)) for number in range(count)]
        self.bytes_total = sum(BYTES_PER_TOKEN * length for _, length, _ in self._rows)
        self.bytes_read = 0

    def rows(self) -> Iterator[Row]:
        for task, length, number in self._rows:
            yield Row(f"{task}, {length} tokens, example {number}", (task, length, number), task)
            self.bytes_read += BYTES_PER_TOKEN * length


class GeneratedLayouts:
    """Makes the examples of a Plan. tokens: counts those of a conversation's prompt."""

    def __init__(self, room: Room, tokens: Callable[[Conversation], int], raw: bool, system: str | None) -> None:
        self._room, self._tokens, self._raw, self._system = room, tokens, raw, system

    def parse(self, row: Row) -> list[Conversation]:
        """sources.Row -> list of one Conversation; raises Unusable."""
        if not isinstance(row.payload, tuple):
            raise Unusable("not a task to make")
        task, length, number = row.payload

        def make(n: int) -> Conversation:
            item = TASKS[task](self._room, self._room.chance(task, length, number), f"{task}/{length}/{number}", n)
            return conversation_of(item, self._raw, self._system)

        return [longest(make, self._tokens, length)]
