"""The table of benchmarks, and their rows as conversations that end with the answer to be scored."""

import dataclasses
from collections.abc import Callable, Collection, Mapping

from winnow.prepare.benchmarks import (
    babilong,
    graphwalks,
    helmet,
    infinitebench,
    longbench,
    longbench2,
    longmemeval,
    mrcr,
    nolima,
    repoqa,
    ruler,
)
from winnow.prepare.benchmarks.item import Item, Origin
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.rows.conversations import Conversation, Record, label, read_record, with_system
from winnow.prepare.rows.messages import Message, check_unicode
from winnow.prepare.rows.sources import Row
from winnow.prepare.unusable import Unusable

Reader = Callable[[Record, Origin], list[Item]]

READERS: dict[str, Reader] = {
    "babilong": babilong.read,
    "graphwalks": graphwalks.read,
    "helmet": helmet.read,
    "infinitebench": infinitebench.read,
    "longbench": longbench.read,
    "longbench2": longbench2.read,
    "longmemeval": longmemeval.read,
    "mrcr": mrcr.read,
    "nolima": nolima.read,
    "repoqa": repoqa.read,
    "ruler": ruler.read,
}


class BenchmarkLayouts:
    """Reads the rows of one benchmark. prompts: {task: prompt} in place of the reader's own. tokens: counts those of a
    conversation's prompt. raw: no chat template stands between prompt and answer. system: as of
    rows.conversations.Layouts."""

    def __init__(
        self,
        name: str,
        prompts: Mapping[str, str],
        room: Room,
        tokens: Callable[[Conversation], int],
        raw: bool = False,
        system: str | None = None,
    ) -> None:
        self._read, self._prompts, self._room, self._tokens = READERS[name], prompts, room, tokens
        self._raw, self._system = raw, system

    def parse(self, row: Row) -> list[Conversation]:
        """sources.Row -> list of Conversation; raises Unusable."""
        origin = Origin(
            row.source,
            row.folder,
            row.place,
            self._prompts,
            self._room,
            lambda item: self._tokens(conversation_of(item, self._raw, self._system)),
        )
        items = self._read(read_record(row), origin)
        if not items:
            raise Unusable("no question in it")
        return [conversation_of(item, self._raw, self._system) for item in items]


def conversation_of(item: Item, raw: bool, system: str | None) -> Conversation:
    """The prompt, then the prefix of the answer and the answer. Between the two is a blank where a line goes on, as a
    model writes it: a token holds the blank with the word after it."""
    scoring = item.scoring
    prompt: list[Message] = (
        [{"role": "user", "content": item.prompt}] if isinstance(item.prompt, str) else list(item.prompt)
    )
    prefix = scoring.answer_prefix.rstrip(" ")
    before = prefix or (prompt[-1]["content"] if raw else "")
    answer = scoring.gold_answer.strip()
    if not answer:
        raise Unusable("empty answer")
    if before and not before[-1].isspace():
        answer = " " + answer
    for text in (*(message["content"] for message in prompt), prefix, answer, *scoring.references):
        check_unicode(text)
    messages = with_system(prompt, system)
    answered: Message = {"role": "assistant", "content": answer}
    scoring = dataclasses.replace(
        scoring, answer_prefix=prefix if raw else prefix.lstrip(), gold_answer=answer, task=label(scoring.task)
    )
    return Conversation([*messages, answered], None, "", label(item.name), scoring.task, scoring=scoring)


def names() -> Collection[str]:
    return sorted(READERS)
