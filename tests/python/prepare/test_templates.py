"""winnow-prepare from inside: blocks of thought, dates and tools of chat templates, and templates that refuse."""

import datetime
import json

import pytest
from prepare_models import DATE, conversation

from winnow.common.errors import Failure
from winnow.prepare.rendering.render import TemplateRenderer
from winnow.prepare.rendering.template import find_template
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens.tokenise import load_tokenizer
from winnow.prepare.unusable import Unusable


@pytest.mark.parametrize(
    "think, before, effect",
    [
        ("empty", "<think>\n\n</think>\n\n", "empty think block, by the template"),
        ("none", "assistant\n", "the template's think block removed"),
        ("given", "<think>\nI know it.\n</think>\n\n", "think block as given, by the template"),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
def test_think_block_belongs_to_the_prompt(prepared, think, before, effect, inline):
    here = prepared("thinking", think=think)
    messages = conversation("<think>\nI know it.\n</think>\n\nParis" if inline else "Paris")
    if not inline:
        messages[1]["reasoning_content"] = "I know it."
    rendered = here.rendered({"messages": messages})
    assert rendered.text[: rendered.answer_begin].endswith(before) and rendered.think == effect
    tokens = here.tokeniser.encode(rendered)
    assert here.scored(tokens) == "Paris<|im_end|>"
    if think == "given":
        assert tokens.ids == here.by_transformers(messages)[: len(tokens.ids)]


def test_a_closing_tag_within_the_answer_opens_no_block(models):
    """A hybrid's template takes what stands before it for reasoning: nothing of an answer may be lost."""
    tokenizer = load_tokenizer(models["thinking"])
    whole = find_template(tokenizer, None, models["thinking"])
    hybrid = whole.replace("'<|im_start|>assistant\\n<think>\\n' }}", "'<|im_start|>assistant\\n' }}")
    assert hybrid != whole
    renderer = TemplateRenderer(tokenizer, hybrid, "empty", {}, DATE)

    def rendered(answer):
        (made,) = Layouts({}).parse(Row("here", {"messages": conversation(answer)}, "source"))
        return renderer.render(made)

    with pytest.raises(Unusable, match="the template changes the answer"):
        rendered("Models end it with </think> and go on.")
    with_block = rendered("<think>\nI know it.\n</think>\n\nParis")
    assert with_block.text[with_block.answer_begin : with_block.answer_end] == "Paris"


def test_think_block_that_the_template_drops_is_added(models, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    tokenizer = load_tokenizer(models["thinking"])
    row = {"prompt": "Where?", "answer": "Paris", "reasoning": "I know it."}
    (made,) = Layouts({}).parse(Row("here", row, "s"))
    text = find_template(tokenizer, template, models["thinking"])
    for think, block in (
        ("given", "<think>\nI know it.\n</think>\n\n"),
        ("empty", "<think>\n\n</think>\n\n"),
        ("none", ""),
    ):
        rendered = TemplateRenderer(tokenizer, text, think, {}, DATE).render(made)
        assert rendered.text[: rendered.answer_begin].endswith("<|im_start|>assistant\n" + block)
        assert ("added" in rendered.think) == (think != "none")


def test_think_block_of_the_template_is_replaced(models, tmp_path):
    """A template that always writes an empty block, whatever the reasoning."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    (made,) = Layouts({}).parse(Row("here", {"prompt": "Where?", "answer": "Paris", "reasoning": "I know it."}, "s"))
    tokenizer = load_tokenizer(models["thinking"])
    rendered = TemplateRenderer(tokenizer, template, "given", {}, DATE).render(made)
    assert rendered.text[: rendered.answer_begin].endswith("assistant\n<think>\nI know it.\n</think>\n\n")
    assert rendered.think == "think block as given, in place of the template's"


def test_the_date_is_fixed(models):
    tokenizer = load_tokenizer(models["llama3"])
    template = find_template(tokenizer, None, models["llama3"])
    (made,) = Layouts({}).parse(Row("here", {"prompt": "Where?", "answer": "Paris"}, "s"))
    text = TemplateRenderer(tokenizer, template, "empty", {}, datetime.date(2024, 7, 26)).render(made).text
    assert "Today Date: 26 Jul 2024\n" in text


def test_tool_messages(prepared):
    here = prepared("thinking")
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
    messages = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "48.85 N"},
        {"role": "assistant", "content": "In Paris."},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    tokens = here.tokens({"messages": messages, "tools": json.dumps(tools)})
    assert here.scored(tokens) == "In Paris.<|im_end|>"
    text = here.tokeniser.backend.decode(tokens.ids, skip_special_tokens=False)
    assert '"name": "look"' in text and "<tool_response>\n48.85 N" in text and "<tool_call>" in text
    with pytest.raises(Unusable, match="the answer calls tools"):
        here.tokens({"messages": messages[:2]})


def test_templates_that_refuse_or_change(prepared, models, tmp_path):
    with pytest.raises(Unusable, match="the template refuses the conversation") as refused:
        prepared("mistral").tokens({"messages": [conversation("x")[0]] * 2 + [conversation("x")[1]]})
    assert "alternate" in refused.value.detail
    tokenizer = load_tokenizer(models["chatml"])
    (made,) = Layouts({}).parse(Row("here", {"prompt": "Where?", "answer": "Paris"}, "s"))
    for template, reason in (
        ("{{ messages[0].content }}", "drops the answer"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "drops the answer|changes"),
        ("{% for m in messages %}{{ m.content | replace('r', 'R') }}{% endfor %}", "drops|changes"),
    ):
        with pytest.raises(Unusable, match=reason):
            TemplateRenderer(tokenizer, template, "empty", {}, DATE).render(made)
    (tmp_path / "bad.jinja").write_text("{% for m in messages %}\n{{ m.content }")
    with pytest.raises(Failure, match="bad.jinja, line 2"):
        find_template(tokenizer, tmp_path / "bad.jinja", models["chatml"])
