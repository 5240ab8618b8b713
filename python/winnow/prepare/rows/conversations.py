"""Rows of the usual data sets to conversations that end with the answer to be scored."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from winnow.common.scoring import Scoring
from winnow.prepare.rows.messages import Message, as_rows, check_unicode, read_messages, read_objects, take_reasoning
from winnow.prepare.rows.sources import Row
from winnow.prepare.unusable import Unusable

# Columns that are looked for, in this order, unless --field names one.
COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "sessions": ("haystack_sessions",),
    "prompt": ("prompt",),
    "context": ("context",),
    "question": ("question", "instruction"),
    "input": ("input",),
    "text": ("text",),
    "answer": ("answer", "output", "completion", "response", "answers"),
    "reasoning": ("reasoning", "reasoning_content"),
    "system": ("system", "system_prompt"),
    "tools": ("tools",),
    "id": ("id", "example_id", "question_id", "_id", "uuid"),
    "source": ("source", "dataset"),
}
# Fields that an answer depends on: no row is used without their text.
DOCUMENTS = ("context", "input")
LONGEST_ID = 200

Record = dict[str, Any]  # a row: what JSON can say under the names of its columns
Tool = dict[str, Any]  # a tool's description, as the template reads it


@dataclasses.dataclass
class Conversation:
    messages: list[Message]  # role, content and what else the template may read; the last one is the answer
    tools: list[Tool] | None  # descriptions for the template
    reasoning: str  # what the assistant thought before the answer; empty: none given
    example_id: str
    source: str
    unused: tuple[str, ...] = ()  # columns of the row that hold text and are in none of the above
    scoring: Scoring | None = None  # of a benchmark

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def answer_prefix(self) -> str:
        return self.scoring.answer_prefix if self.scoring else ""

    @property
    def prompt(self) -> list[Message]:
        return self.messages[:-1]

    def key(self, salt: str) -> int:
        """64 bits that depend on the prompt and the salt alone: identical prompts have the same."""
        return _hash64(salt, _canonical([self.prompt, self.tools]))

    def split_position(self) -> float:
        """In [0, 1), from the first message that is not the system's: all turns of a conversation, and conversations
        that begin alike, fall on the same side of a split."""
        first = next(message for message in self.messages if message["role"] != "system")
        return _hash64("split", str(first.get("content")).strip().encode("utf-8", "replace")) / 2**64


class Fields:
    """The fields of one row, found under the names of COLUMNS or of --field; knows which columns were asked for."""

    def __init__(self, record: Record, named: Mapping[str, str]) -> None:
        self._record, self._named = record, named
        self._used: set[str] = set()

    def get(self, name: str) -> Any:  # noqa: ANN401 - whatever the column holds
        """None where there is no such field, or an empty one."""
        if name in self._named:
            column, *path = self._named[name].split(".")
            value = self.column(column)
            for part in path:
                value = _part(value, part)
            return None if _is_missing(value) else value
        found = self._column_of(name)
        return self.column(found) if found else None

    def column(self, name: str) -> Any:  # noqa: ANN401
        self._used.add(name)
        return self._record.get(name)

    def unused(self) -> tuple[str, ...]:
        return tuple(name for name, value in self._record.items() if name not in self._used and _holds_text(value))

    def left_out(self, name: str) -> tuple[str, object] | None:
        """(column, value) of a field that is there and that nothing asked for."""
        column = None if name in self._named else self._column_of(name)
        return (column, self._record[column]) if column and column not in self._used else None

    def _column_of(self, name: str) -> str | None:
        taken = {column.partition(".")[0] for column in self._named.values()}
        return next((c for c in COLUMNS[name] if c not in taken and not _is_missing(self._record.get(c))), None)


class Layouts:
    """Reads rows. `fields` maps names of COLUMNS to columns, "" for none; `system` is None (kept), "" (removed) or the
    text that stands instead; `words` are the string literals of the chat template (messages.read_messages)."""

    def __init__(
        self,
        fields: Mapping[str, str],
        every_turn: bool = False,
        system: str | None = None,
        words: Collection[str] = (),
    ) -> None:
        self._fields = fields
        self._every_turn = every_turn
        self._system = system
        self._words = words

    def parse(self, row: Row) -> list[Conversation]:
        """sources.Row -> list of Conversation; raises Unusable."""
        return self._conversations(Fields(read_record(row), self._fields), row)

    def _conversations(self, fields: Fields, row: Row) -> list[Conversation]:
        messages = self._messages(fields)
        _check_documents(fields, messages)
        tools = read_objects(fields.get("tools"), "tools") or None
        messages = self._with_system(messages, fields.get("system"))
        ends = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        ends = [i for i in ends if any(message["role"] != "system" for message in messages[:i])]
        if not ends:
            raise Unusable("no turn of the assistant to score")
        if not self._every_turn:
            ends = ends[-1:]
        name = _name(fields, messages)
        source = fields.get("source")
        source = (label(source) if isinstance(source, str) else "") or label(row.source)
        given_reasoning = fields.get("reasoning")
        unused = fields.unused()
        found = []
        for end in ends:
            turns = [message.copy() for message in messages[: end + 1]]
            reasoning = take_reasoning(turns[-1]) or _text(given_reasoning, "reasoning", optional=True)
            if self._every_turn and (turns[-1].get("tool_calls") or not turns[-1]["content"].strip()):
                continue  # a step on the way to an answer
            suffix = f"/turn-{end}" if self._every_turn else ""
            found.append(Conversation(turns, tools, reasoning or "", name + suffix, source, unused))
        if not found:
            raise Unusable("no turn of the assistant to score")
        for conversation in found:
            _check_answer(conversation)
        return found

    def _messages(self, fields: Fields) -> list[Message]:
        messages = fields.get("messages")
        if messages is not None:
            return read_messages(messages, "messages", self._words)
        answer = fields.get("answer")
        if isinstance(answer, list) and answer and isinstance(answer[0], dict):
            turns = read_messages(answer, "answer", self._words)
        else:
            turns = [{"role": "assistant", "content": _answer(answer)}]
        return self._prompt(fields) + turns

    def _prompt(self, fields: Fields) -> list[Message]:
        sessions = fields.get("sessions")
        if sessions is not None:
            return [{"role": "user", "content": session_prompt(sessions, fields, self._words)}]
        prompt = fields.get("prompt")
        if prompt is None:
            question, given = fields.get("question"), fields.get("input")
            if question is None:
                question, given = given, None
            if question is None:  # beside a question a text may hold the whole example, its answer too
                question = fields.get("text")
            prompt = question if isinstance(question, list) else _question(fields, question, given)
        if isinstance(prompt, list):
            return read_messages(prompt, "prompt", self._words)
        return [{"role": "user", "content": _text(prompt, "prompt")}]

    def _with_system(self, messages: list[Message], given: object) -> list[Message]:
        if isinstance(given, str) and given and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": given}, *messages]
        return with_system(messages, self._system)


def read_record(row: Row) -> Record:
    """The fields of a row; raises Unusable."""
    if row.problem:
        raise Unusable(row.problem)
    record: object = row.payload
    if isinstance(record, bytes):
        try:
            record = json.loads(record)
        except (ValueError, RecursionError) as error:
            raise Unusable("not JSON", str(error)) from error
    else:
        record = _without_nulls(record)
    if not isinstance(record, dict):
        raise Unusable("not an object with fields")
    return record


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """The messages with that one of the system's: None for those that they have, "" for none."""
    if system is None:
        return messages
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": system}, *others] if system else others


def _is_missing(value: object) -> bool:
    """Tables write a missing text as null, or as the number NaN, and a list that is not there as an empty one."""
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _part(value: object, name: str) -> object:
    """Of a path such as answers.text.0."""
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    return None


def _without_nulls(value: object) -> object:
    """A table gives every object the fields of all: null stands where one has none, also deep within."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _holds_text(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_text, value.values()))
    return any(map(_holds_text, value)) if isinstance(value, list) else isinstance(value, str) and bool(value.strip())


def label(text: object) -> str:
    """One line that HDF5 can hold: no control characters, no halves of surrogate pairs (also of file names)."""
    return "".join(c if c.isprintable() else "\ufffd" if "\ud800" <= c <= "\udfff" else " " for c in str(text)).strip()


def _name(fields: Fields, messages: list[Message]) -> str:
    name = fields.get("id")
    is_name = isinstance(name, (str, int)) and not isinstance(name, bool)
    return (label(name)[:LONGEST_ID] if is_name else "") or f"{_hash64('id', _canonical(messages)):016x}"


def _hash64(salt: str, data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=salt.encode()).digest(), "big")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode()


def _text(value: object, name: str, optional: bool = False) -> str:
    if value is None or value == "":
        if optional:
            return ""
        raise Unusable(f"no field for the {name}" if value is None else f"empty {name}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Unusable(f"the {name} is not text")
    check_unicode(str(value))
    return str(value)


def _answer(value: object) -> str:
    """The answer; of a list the one that all agree on. Several are alternatives or parts: data do not tell which, and
    a text joined of them is what no model is to write."""
    if isinstance(value, list) and value:
        if any(one != value[0] for one in value):
            raise Unusable("several answers", "--field answer=COLUMN.0 takes the first of a list")
        value = value[0]
    return _text(value, "answer")


def _question(fields: Fields, question: object, given: object) -> str:
    """Question or instruction, what it is about (Alpaca's input), and a context before both."""
    text = _text(question, "prompt")
    about = _text(given, "input", optional=True)
    if about.strip():
        text = f"{text}\n\n{about}"
    context = fields.get("context")
    if isinstance(context, list):
        context = "\n\n".join(_text(part, "context") for part in context)
    context = _text(context, "context", optional=True)
    return f"Context: {context}\n\nQuestion: {text}" if context else text


def _check_documents(fields: Fields, messages: list[Message]) -> None:
    for name in DOCUMENTS:
        found = fields.left_out(name)
        if found is None or not _holds_text(found[1]):
            continue
        column, value = found
        if isinstance(value, str) and any(value.strip() in message["content"] for message in messages):
            fields.column(column)
        else:
            raise Unusable(
                f"column {column} would be left out", f"--field {name}= says that the prompt is whole without it"
            )


def _check_answer(conversation: Conversation) -> None:
    if conversation.messages[-1].get("tool_calls"):
        raise Unusable("the answer calls tools")
    if not conversation.answer.strip():
        raise Unusable("empty answer")


def session_prompt(sessions: object, fields: Fields, words: Collection[str]) -> str:
    """The sessions of a chat history with their dates, then the question, as one prompt of the user."""
    sessions = as_rows(sessions)
    if not isinstance(sessions, list) or not sessions:
        raise Unusable("sessions are not a list of conversations")
    dates = fields.column("haystack_dates")
    dates = dates if isinstance(dates, list) and len(dates) == len(sessions) else [None] * len(sessions)
    parts = ["These are earlier conversations between you and the user."]
    for number, (session, date) in enumerate(zip(sessions, dates, strict=True), 1):
        # A day without a word has a date all the same.
        messages = read_messages(session, "a session", words) if session != [] else []
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)
        parts.append(f"Conversation {number}" + (f", {date}" if date else "") + f"\n{turns}")
    asked = fields.column("question_date")
    parts.append(
        (f"Today is {asked}. " if asked else "") + "Answer from these conversations.\n"
        f"Question: {_text(fields.get('question'), 'question')}"
    )
    return "\n\n".join(parts)
