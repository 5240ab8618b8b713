"""Messages as data sets write them, brought to the one shape that chat templates read."""

import json
from collections.abc import Collection
from typing import Any, NotRequired, TypedDict, cast

from winnow.prepare.unusable import Unusable

Call = dict[str, Any]  # of a tool: {"type": "function", "function": {"name": ..., "arguments": ...}}
ROLES = ("system", "user", "assistant", "tool")
OTHER_ROLES = {
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "ai": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
# Turns of the assistant whose text is a call, or a list of them, in JSON.
CALL_ROLES = ("function_call", "tool_call")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


class Message(TypedDict):
    """What every message has; further keys are kept for the template."""

    role: str
    content: str
    tool_calls: NotRequired[list[Call]]
    reasoning_content: NotRequired[str]
    thinking: NotRequired[str]


def read_messages(value: object, name: str, words: Collection[str] = ()) -> list[Message]:
    """The messages of a list, of JSON text, or of an object of lists. Raises Unusable.

    words: the string literals of the chat template; a role among them is left as it is, unless it is one of the
    spellings of user and assistant.
    """
    messages = as_rows(_from_json(value, f"{name} is not a list of messages"))
    if not isinstance(messages, list) or not messages:
        raise Unusable(f"{name} is not a list of messages", "empty" if messages == [] else "")
    return [_read_message(message, number, words) for number, message in enumerate(messages)]


def as_rows(value: object) -> object:
    """A list of objects where the value is one object of lists of one length, as tables write such a list, too."""
    if not isinstance(value, dict) or not value or not all(isinstance(column, list) for column in value.values()):
        return value
    if len({len(column) for column in value.values()}) > 1:
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def read_objects(value: object, name: str) -> list[dict[str, Any]]:
    """A list of objects, whole or each one perhaps as JSON text; [] for what says that there are none."""
    problem = f"{name} are not a list of objects"
    found = as_rows(_from_json(value, problem))
    if found is None or found == [] or found == {}:
        return []
    if not isinstance(found, list):
        raise Unusable(problem)
    found = [_from_json(one, problem) for one in found]
    if not all(isinstance(one, dict) for one in found):
        raise Unusable(problem)
    return cast(list[dict[str, Any]], found)


def take_reasoning(message: Message) -> str:
    """Removes the reasoning from a message and returns it; inline blocks are taken apart by the renderer."""
    reasoning = ""
    for key in REASONING_KEYS:
        value = cast(dict[str, object], message).pop(key, None)
        if isinstance(value, str) and value.strip() and not reasoning:
            reasoning = value
    return reasoning


def check_unicode(text: str) -> None:
    """Unusable where the text holds half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("text is not Unicode", str(error)) from error


def _from_json(value: object, problem: str) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unusable(problem, str(error)) from error


def _read_message(given: object, number: int, words: Collection[str]) -> Message:
    if not isinstance(given, dict):
        raise Unusable("a message is not an object", f"message {number}")
    # Tables give every message every column: null means that it is not there, and so does an empty list.
    message = {key: value for key, value in given.items() if value is not None and value != []}
    if "from" in message and "role" not in message:
        message = {"role": message["from"], "content": message.get("value")}
    content = _content(message.get("content"), number)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise Unusable("a message has no role", f"message {number}")
    role = _role(role, number, words)
    if role in CALL_ROLES:
        message = {"tool_calls": _calls_in(content, number)}
        role, content = "assistant", ""
    elif "tool_calls" in message:
        message["tool_calls"] = read_objects(message["tool_calls"], "tool calls")
    elif isinstance(message.get("function_call"), dict):  # what came before tool_calls
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    if not message.get("tool_calls"):
        message.pop("tool_calls", None)
    if content is None and (message.get("tool_calls") or role == "assistant"):
        content = ""
    if content is None:
        raise Unusable("a message has no content", f"message {number}, role {role}")
    check_unicode(content)
    return cast(Message, message | {"role": role, "content": content})


def _content(content: object, number: int) -> str | None:
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise Unusable("a message holds something else than text", f"message {number}")
        return "".join(part["text"] for part in content)
    return content if isinstance(content, str) else None


def _role(name: str, number: int, words: Collection[str]) -> str:
    """The role under the name that templates know it by."""
    known = name.strip().lower()
    if known in ROLES or known in CALL_ROLES:
        return known
    other = OTHER_ROLES.get(known)
    if other in ("user", "assistant") or (other and name not in words):
        return other
    if name in words:
        return name
    raise Unusable("a message has an unknown role", f"message {number}, role {name[:40]}")


def _calls_in(content: str | None, number: int) -> list[Call]:
    problem = "a call of a tool is not a JSON object with name and arguments"
    found = _from_json(content or "", problem)
    calls = found if isinstance(found, list) else [found]
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
            raise Unusable(problem, f"message {number}")
    return [{"type": "function", "function": call} for call in calls]
