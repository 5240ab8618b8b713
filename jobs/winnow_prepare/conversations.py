"""Rows of the usual data sets to conversations that end with the answer to be scored."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from winnow_prepare.errors import Unusable
from winnow_prepare.sources import Row

# Columns that are looked for, in this order, unless --field names one.
COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "sessions": ("haystack_sessions",),
    "prompt": ("prompt", "text"),
    "context": ("context",),
    "question": ("question", "instruction"),
    "answer": ("answer", "output", "completion", "response"),
    "reasoning": ("reasoning", "reasoning_content"),
    "system": ("system",),
    "tools": ("tools",),
    "id": ("id", "example_id", "question_id", "_id", "uuid"),
    "source": ("source", "dataset"),
}
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
LONGEST_ID = 200

Record = dict[str, Any]  # a row: what JSON can say under the names of its columns
Tool = dict[str, Any]  # a tool's description, as the template reads it


class Message(TypedDict):
    """What every message has; further keys are kept for the template."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    reasoning_content: NotRequired[str]
    thinking: NotRequired[str]


@dataclasses.dataclass
class Conversation:
    messages: list[Message]  # role, content and what else the template may read; the last one is the answer
    tools: list[Tool] | None  # descriptions for the template
    reasoning: str  # what the assistant thought before the answer; empty: none given
    example_id: str
    source: str

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

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


class Layouts:
    """Reads rows. `fields` maps names of COLUMNS to columns; `system` is "keep", "none", or a text with `replace`."""

    def __init__(self, fields: Mapping[str, str], every_turn: bool = False, system: str | None = None) -> None:
        self._fields = fields
        self._every_turn = every_turn
        self._system = system  # None: kept; "": removed; else instead

    def parse(self, row: Row) -> list[Conversation]:
        """sources.Row -> list of Conversation; raises Unusable."""
        if row.problem:
            raise Unusable(row.problem)
        record: object = row.payload
        if isinstance(record, bytes):
            try:
                record = json.loads(record)
            except (ValueError, RecursionError) as error:
                raise Unusable("not JSON", str(error)) from error
        if not isinstance(record, dict):
            raise Unusable("not an object with fields")
        return self._conversations(record, row)

    def _conversations(self, record: Record, row: Row) -> list[Conversation]:
        messages = self._messages(record)
        tools = self._get(record, "tools")
        if isinstance(tools, str):  # Parquet files often hold them as JSON
            try:
                tools = json.loads(tools)
            except ValueError as error:
                raise Unusable("tools are not JSON", str(error)) from error
        messages = self._with_system(messages, self._get(record, "system"))
        ends = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        ends = [i for i in ends if any(message["role"] != "system" for message in messages[:i])]
        if not ends:
            raise Unusable("no turn of the assistant to score")
        if not self._every_turn:
            ends = ends[-1:]
        name = self._name(record, messages)
        source = self._get(record, "source")
        source = (_label(source) if isinstance(source, str) else "") or _label(row.source)
        found = []
        for end in ends:
            turns = [message.copy() for message in messages[: end + 1]]
            reasoning = _take_reasoning(turns[-1]) or _text(self._get(record, "reasoning"), "reasoning", optional=True)
            if self._every_turn and (turns[-1].get("tool_calls") or not (turns[-1]["content"] or "").strip()):
                continue  # a step on the way to an answer
            suffix = f"/turn-{end}" if self._every_turn else ""
            found.append(Conversation(turns, tools or None, reasoning or "", name + suffix, source))
        if not found:
            raise Unusable("no turn of the assistant to score")
        for conversation in found:
            _check_answer(conversation)
        return found

    def _messages(self, record: Record) -> list[Message]:
        messages = self._get(record, "messages")
        if messages is not None:
            return _read_messages(messages, "messages")
        answer = self._get(record, "answer")
        if isinstance(answer, list) and answer and isinstance(answer[0], dict):
            answer = _read_messages(answer, "answer")
        else:
            answer = [{"role": "assistant", "content": _text(answer, "answer")}]
        return self._prompt(record) + answer

    def _prompt(self, record: Record) -> list[Message]:
        sessions = self._get(record, "sessions")
        if sessions is not None:
            return [{"role": "user", "content": _session_prompt(sessions, record, self._get(record, "question"))}]
        prompt = self._get(record, "prompt")
        if isinstance(prompt, list):
            return _read_messages(prompt, "prompt")
        if prompt is None:
            question = _text(self._get(record, "question"), "prompt")
            context = _text(self._get(record, "context"), "context", optional=True)
            prompt = f"Context: {context}\n\nQuestion: {question}" if context else question
        return [{"role": "user", "content": _text(prompt, "prompt")}]

    def _with_system(self, messages: list[Message], given: object) -> list[Message]:
        if isinstance(given, str) and given and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": given}, *messages]
        if self._system is None:
            return messages
        messages = [message for message in messages if message["role"] != "system"]
        return [{"role": "system", "content": self._system}, *messages] if self._system else messages

    def _get(self, record: Record, name: str) -> Any:  # noqa: ANN401 - whatever the column holds
        if name in self._fields:
            value: object = record
            for part in self._fields[name].split("."):
                value = value.get(part) if isinstance(value, dict) else None
            return None if _is_missing(value) else value
        return next((record[column] for column in COLUMNS[name] if not _is_missing(record.get(column))), None)

    def _name(self, record: Record, messages: list[Message]) -> str:
        name = self._get(record, "id")
        is_name = isinstance(name, (str, int)) and not isinstance(name, bool)
        return (_label(name)[:LONGEST_ID] if is_name else "") or f"{_hash64('id', _canonical(messages)):016x}"


def _is_missing(value: object) -> bool:
    """Tables write a missing text as null, or as the number NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _label(text: object) -> str:
    """One line that HDF5 can hold: no control characters, no halves of surrogate pairs (also of file names)."""
    return "".join(c if c.isprintable() else "\ufffd" if "\ud800" <= c <= "\udfff" else " " for c in str(text)).strip()


def _hash64(salt: str, data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=salt.encode()).digest(), "big")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode()


def _read_messages(messages: object, name: str) -> list[Message]:
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise Unusable(f"{name} is not a list of messages", str(error)) from error
    if not isinstance(messages, list) or not messages:
        raise Unusable(f"{name} is not a list of messages", "empty" if messages == [] else "")
    return [_read_message(message, number) for number, message in enumerate(messages)]


def _read_message(message: object, number: int) -> Message:
    if not isinstance(message, dict):
        raise Unusable("a message is not an object", f"message {number}")
    # Tables give every message every column: null means that it is not there.
    message = {key: value for key, value in message.items() if value is not None}
    if "from" in message and "role" not in message:
        message = {"role": SHAREGPT_ROLES.get(message["from"], message["from"]), "content": message.get("value")}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise Unusable("a message has no role", f"message {number}")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise Unusable("a message holds something else than text", f"message {number}")
        content = "".join(part["text"] for part in content)
    if content is None and (message.get("tool_calls") or role == "assistant"):
        content = ""
    if not isinstance(content, str):
        raise Unusable("a message has no content", f"message {number}, role {role}")
    check_unicode(content)
    return cast(Message, message | {"role": role, "content": content})


def _text(value: object, name: str, optional: bool = False) -> str:
    if value is None or value == "":
        if optional:
            return ""
        raise Unusable(f"no field for the {name}" if value is None else f"empty {name}")
    if isinstance(value, list) and value and all(isinstance(part, (str, int, float)) for part in value):
        value = ", ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Unusable(f"the {name} is not text")
    check_unicode(str(value))
    return str(value)


def check_unicode(text: str) -> None:
    """Unusable where the text holds half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("text is not Unicode", str(error)) from error


def _take_reasoning(message: Message) -> str:
    """Removes the reasoning from a message and returns it; inline blocks are taken apart by the renderer."""
    reasoning = ""
    for key in REASONING_KEYS:
        value = cast(Record, message).pop(key, None)
        if isinstance(value, str) and value.strip() and not reasoning:
            reasoning = value
    return reasoning


def _check_answer(conversation: Conversation) -> None:
    if conversation.messages[-1].get("tool_calls"):
        raise Unusable("the answer calls tools")
    if not conversation.answer.strip():
        raise Unusable("empty answer")


def _session_prompt(sessions: object, record: Record, question: object) -> str:
    """The sessions of a chat history with their dates, then the question, as one prompt of the user."""
    if not isinstance(sessions, list) or not sessions:
        raise Unusable("sessions are not a list of conversations")
    dates = record.get("haystack_dates")
    dates = dates if isinstance(dates, list) and len(dates) == len(sessions) else [None] * len(sessions)
    parts = ["These are earlier conversations between you and the user."]
    for number, (session, date) in enumerate(zip(sessions, dates, strict=True), 1):
        # A day without a word has a date all the same.
        messages = _read_messages(session, "a session") if session != [] else []
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)
        parts.append(f"Conversation {number}" + (f", {date}" if date else "") + f"\n{turns}")
    asked = record.get("question_date")
    parts.append(
        (f"Today is {asked}. " if asked else "") + "Answer from these conversations.\n"
        f"Question: {_text(question, 'question')}"
    )
    return "\n\n".join(parts)
