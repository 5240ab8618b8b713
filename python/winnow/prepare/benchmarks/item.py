"""What a reader makes of a row, and how it asks for the row's fields."""

import dataclasses
import re
from collections.abc import Callable, Mapping

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.rows.conversations import Record
from winnow.prepare.rows.messages import Message
from winnow.prepare.unusable import Unusable


@dataclasses.dataclass(frozen=True)
class Item:
    """One question: its prompt, and how the answer is judged."""

    name: str
    prompt: str | list[Message]
    scoring: Scoring


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of a benchmark that has a table of them: options are those of the metric."""

    prompt: str
    metric: str
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a row is from, and what the reader is told besides."""

    file: str  # name of the file without suffixes
    folder: str  # name of its folder
    place: str  # "FILE:LINE"
    prompts: Mapping[str, str]  # {task: prompt}, from --task-prompts
    room: Room
    tokens: Callable[[Item], int]  # those of the prompt as the model will see it

    @property
    def task(self) -> str:
        """The file's name, or its folder's where the file has the name of a split."""
        return self.folder if self.file in ("validation", "test", "train", "data") and self.folder else self.file

    def number(self) -> str:
        """The row's number, for rows that have no id."""
        return re.findall(r"\d+", self.place)[-1] if re.search(r"\d", self.place) else "0"


def text(record: Record, name: str, optional: bool = False) -> str:
    """A text or number; Unusable where there is none."""
    value = record.get(name)
    if value is None and optional:
        return ""
    if value is None:
        raise Unusable(f"no field {name}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Unusable(f"field {name} is not text")
    if not optional and not str(value).strip():
        raise Unusable(f"field {name} is empty")
    return str(value)


def texts(record: Record, name: str) -> tuple[str, ...]:
    """A list of texts, or one."""
    value = record.get(name)
    values = value if isinstance(value, list) else [value]
    found = tuple(text({name: one}, name) for one in values)
    if not found:
        raise Unusable(f"field {name} is empty")
    return found


def letter_prompt(question: str) -> str:
    """A question with four options, to be filled."""
    return question + "\nA. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}\nAnswer with the letter alone."


def filled(prompt: str, fields: Mapping[str, str]) -> str:
    """The prompt with the text of each {name}; braces of other names stay."""
    return re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), prompt)
