"""Arguments of tool calls in the form that a chat template writes: data have objects, or the same as JSON text."""

import functools
import json
from collections.abc import Callable, Sequence

from winnow.prepare.rendering.template import Template
from winnow.prepare.rows.conversations import Tool
from winnow.prepare.rows.messages import Call, Message
from winnow.prepare.unusable import Unusable

NAME, KEY, VALUE = "winnow_probe", "winnow_key", "winnow value"
# Forms of a template.
OBJECTS, TEXT, AS_GIVEN, NONE = "objects", "text", "as given", "none"


def with_arguments(
    template: Template, messages: list[Message], tools: Sequence[Tool] | None
) -> tuple[list[Message], str]:
    """(messages for the template, one phrase on what was done; "" where there are neither tools nor calls). Raises
    Unusable where the template would leave the calls out."""
    has_calls = any(message.get("tool_calls") for message in messages)
    effects = []
    if tools and not template_shows_tools(template):
        effects.append("the template shows no tools")
    if has_calls:
        form = arguments_form(template)
        if form == NONE:
            raise Unusable("the template shows no tool calls")
        convert = {OBJECTS: _to_object, TEXT: _to_text}.get(form)
        changed = messages if convert is None else [_converted(message, convert) for message in messages]
        done = "JSON text read as objects" if form == OBJECTS else "objects written as JSON text"
        effects.append("arguments of calls: " + ("as given" if changed == messages else done))
        messages = changed
    return messages, "; ".join(effects)


@functools.lru_cache
def arguments_form(template: Template) -> str:
    """What the template makes of a call decides: OBJECTS where it writes objects as JSON or takes them apart, TEXT
    where it writes a text as it is and objects not as JSON. Programs that serve models give objects where both
    would do."""
    with_object, with_text = (_probe(template, form) for form in ({KEY: VALUE}, json.dumps({KEY: VALUE})))
    takes_object = KEY in with_object and f"{{'{KEY}'" not in with_object
    takes_text = f'"{KEY}"' in with_text
    if takes_object:
        return OBJECTS
    if takes_text:
        return TEXT
    shown = with_object + with_text
    return NONE if shown and NAME not in shown else AS_GIVEN


@functools.lru_cache
def template_shows_tools(template: Template) -> bool:
    try:
        return NAME in template.render([{"role": "user", "content": "Hello"}], [_tool()])
    except Unusable:
        return True  # each example will tell


def _tool() -> Tool:
    function = {"name": NAME, "description": "A probe.", "parameters": {"type": "object", "properties": {}}}
    return {"type": "function", "function": function}


def _probe(template: Template, arguments: object) -> str:
    """A conversation with a call, rendered; "" where the template refuses it."""
    call: Call = {"id": "call00000", "type": "function", "function": {"name": NAME, "arguments": arguments}}
    messages: list[Message] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    answer: Message = {"role": "tool", "content": "Hello", "name": "probe", "tool_call_id": "call00000"}  # type: ignore[typeddict-unknown-key]
    for conversation in ([*messages, answer], messages):
        try:
            return template.render(conversation)
        except Unusable:
            continue
    return ""


def _converted(message: Message, convert: Callable[[object], object]) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    changed = message.copy()
    changed["tool_calls"] = [_with(call, convert) for call in calls]
    return changed


def _with(call: Call, convert: Callable[[object], object]) -> Call:
    if isinstance(call.get("function"), dict):
        return call | {"function": _with(call["function"], convert)}
    return call | {"arguments": convert(call["arguments"])} if "arguments" in call else call


def _to_object(arguments: object) -> object:
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Unusable("arguments of a call are not JSON", str(error)) from error
    if not isinstance(found, dict):
        raise Unusable("arguments of a call are no object", arguments[:60])
    return found


def _to_text(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
