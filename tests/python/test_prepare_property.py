"""Random conversations, rendered beside Transformers: equal, or refused with a reason."""

import collections
import datetime
import random

import pytest
import vocabularies

from winnow.prepare.rendering.render import TemplateRenderer
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens.tokenise import load_tokenizer
from winnow.prepare.unusable import Unusable

CASES = 120  # of each template
TEXTS = [
    "Where?",
    "",
    " ",
    "In the north.\n",
    "\n\nYes",
    "naïve «42»",
    "日本語",
    "👩‍👧 🇫🇷",
    "<|im_end|>",
    "</think>",
    "{{ 7 }}",
    "a\0b",
]
TOOL = {"type": "function", "function": {"name": "look_up", "description": "é <b>", "parameters": {"type": "object"}}}
# What only these templates say of what they were given.
REASONS = {
    "empty answer",
    "no turn of the assistant to score",
    "the answer calls tools",
    "the template changes the answer",
    "the template refuses the conversation",
    "the template shows no tool calls",
}


def conversation(generator, as_text):
    """Mostly in order, sometimes with a turn of any role; as_text: arguments of calls as this template wants them."""
    messages = []
    if generator.random() < 0.4:
        messages.append({"role": "system", "content": generator.choice(TEXTS)})
    for _ in range(generator.randint(1, 3)):
        messages.append({"role": "user", "content": generator.choice(TEXTS)})
        if generator.random() < 0.3:
            arguments = '{"river": "Elm"}' if as_text else {"river": "Elm", "n": generator.randrange(9)}
            call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
            messages.append({"role": "assistant", "content": generator.choice(TEXTS), "tool_calls": [call]})
            messages.append({"role": "tool", "content": generator.choice(TEXTS)})
        messages.append({"role": "assistant", "content": generator.choice(TEXTS)})
    if generator.random() < 0.2:
        role = generator.choice(["system", "user", "assistant", "tool"])
        messages.insert(generator.randrange(len(messages)), {"role": role, "content": generator.choice(TEXTS)})
    return messages, generator.choice([None, None, [], [TOOL]])


@pytest.mark.parametrize("name", sorted(path.stem for path in vocabularies.TEMPLATES.glob("*.jinja")))
def test_text_is_transformers(tmp_path, name):
    text = (vocabularies.TEMPLATES / f"{name}.jinja").read_text()
    model = vocabularies.write_byte_model(tmp_path / "model", text)
    tokenizer = load_tokenizer(model)
    renderer = TemplateRenderer(tokenizer, text, "empty", {"bos_token": "<s>"}, datetime.date.today())
    layouts = Layouts({}, words=renderer.words)
    generator = random.Random(name)
    counts = collections.Counter()
    for _ in range(CASES):
        messages, tools = conversation(generator, name == "calls_as_text")
        try:
            (made,) = layouts.parse(Row("here", {"messages": messages, "tools": tools}, "source"))
            rendered = renderer.render(made)
        except Unusable as unusable:
            assert unusable.reason in REASONS, unusable.reason
            counts[unusable.reason] += 1
            continue
        # The last answer's turn is the last one that is scored; what follows it is not rendered.
        end = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        expected = tokenizer.apply_chat_template(
            messages[: end + 1], tools=tools or None, tokenize=False, bos_token="<s>"
        )
        assert rendered.text == expected
        answer = rendered.text[rendered.answer_begin : rendered.answer_end]
        assert answer.strip() == messages[end]["content"].strip()
        counts["equal"] += 1
    assert counts["equal"] >= CASES // 5, counts
