"""winnow-prepare from inside: rows of other layouts, roles and calls of tools, brought to what a template expects."""

import datetime
import json

import pytest
import vocabularies

from winnow.common.errors import Failure
from winnow.prepare.rendering.render import TemplateRenderer
from winnow.prepare.rendering.template import Template, find_template
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens import token_bound
from winnow.prepare.tokens.tokenise import load_tokenizer
from winnow.prepare.unusable import Unusable

DATE = datetime.date(2024, 7, 26)
CALL = {"name": "look_up", "arguments": {"river": "Elm"}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(vocabularies.write_byte_model(tmp_path_factory.mktemp("model"), template("chatml")))


def template(name):
    return (vocabularies.TEMPLATES / f"{name}.jinja").read_text()


def parse(row, words=(), **fields):
    (made,) = Layouts(fields, words=words).parse(Row("here", row, "source"))
    return made


def render(tokenizer, text, row):
    renderer = TemplateRenderer(tokenizer, text, "empty", {}, DATE)
    return renderer.render(parse(row, renderer.words))


def test_a_document_beside_the_question_is_in_the_prompt():
    made = parse({"instruction": "Sum it up.", "input": "The Elm rises.", "output": "It rises.", "text": "all of it"})
    assert made.prompt[0]["content"] == "Sum it up.\n\nThe Elm rises." and made.unused == ("text",)
    made = parse({"input": "Where?", "context": ["One.", "Two."], "answers": ["Here", "Here"]})
    assert (made.prompt[0]["content"], made.answer) == ("Context: One.\n\nTwo.\n\nQuestion: Where?", "Here")
    made = parse({"input": [{"role": "user", "content": "Where?"}], "output": "Here"})
    assert [turn["content"] for turn in made.messages] == ["Where?", "Here"]


def test_columns_that_nothing_uses():
    row = {
        "prompt": "Where?",
        "answer": "Here",
        "url": "http://x",
        "empty": " ",
        "n": 3,
        "more": {"a": [{"b": "text"}]},
    }
    assert parse(row).unused == ("url", "more")
    assert parse(row, source="url").unused == ("more",)
    row = {"prompt": "Read: The Elm rises.", "context": "The Elm rises. ", "answer": "Yes"}
    assert parse(row).unused == ()  # the prompt holds it
    row["context"] = "The Oak rises."
    with pytest.raises(Unusable, match="column context would be left out") as refused:
        parse(row)
    assert "--field context=" in refused.value.detail
    assert parse(row, context="").unused == ("context",)


@pytest.mark.parametrize("key, value", [("from", "value"), ("role", "content")])
def test_roles_under_other_names(key, value):
    names = ["developer", "Human", "chatgpt", "observation", "gpt"]
    made = parse({"conversations": [{key: name, value: name} for name in names]})
    assert [turn["role"] for turn in made.messages] == ["system", "user", "assistant", "tool", "assistant"]
    turns = [{key: name, value: "text"} for name in ("user", "narrator", "assistant")]
    with pytest.raises(Unusable, match="a message has an unknown role") as refused:
        parse({"messages": turns})
    assert "narrator" in refused.value.detail
    assert parse({"messages": turns}, words={"narrator"}).messages[1]["role"] == "narrator"
    assert (
        parse(
            {"messages": [{key: "user", value: "a"}, {key: "ipython", value: "b"}, {key: "gpt", value: "c"}]},
            words={"ipython"},
        ).messages[1]["role"]
        == "ipython"
    )


def test_turns_that_are_calls(tokenizer):
    turns = [
        ("human", "Where?"),
        ("function_call", json.dumps(CALL)),
        ("observation", "North"),
        ("gpt", "In the north."),
    ]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    text = render(tokenizer, template("thinking"), row).text
    assert '<tool_call>\n{"name": "look_up", "arguments": {"river": "Elm"}}\n</tool_call>' in text
    assert "<tool_response>\nNorth\n" in text and "observation" not in text and "function_call" not in text
    with pytest.raises(Unusable, match="the template shows no tool calls"):
        render(tokenizer, template("chatml"), row)
    row["conversations"][1]["value"] = "look it up"
    with pytest.raises(Unusable, match="not a JSON object with name and arguments"):
        parse(row)


@pytest.mark.parametrize("arguments", [CALL["arguments"], json.dumps(CALL["arguments"])])
@pytest.mark.parametrize("name", ["thinking", "calls_as_text"])
def test_arguments_in_the_form_of_the_template(tokenizer, name, arguments):
    call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
    turns = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "North"},
        {"role": "assistant", "content": "In the north."},
    ]
    rendered = render(tokenizer, template(name), {"messages": turns})
    assert rendered.text.count('{"river": "Elm"}') == 1
    as_given = isinstance(arguments, str) == (name == "calls_as_text")
    assert rendered.tool_calls.startswith("arguments of calls: ") and ("as given" in rendered.tool_calls) == as_given
    call["function"]["arguments"] = "[1, 2]"
    if name == "thinking":
        with pytest.raises(Unusable, match="arguments of a call are no object"):
            render(tokenizer, template(name), {"messages": turns})


def test_tools_that_the_template_leaves_out_are_said(tokenizer):
    row = {"prompt": "Where?", "answer": "Here", "tools": [{"type": "function", "function": {"name": "look_up"}}]}
    assert render(tokenizer, template("chatml"), row).tool_calls == "the template shows no tools"
    assert render(tokenizer, template("thinking"), row).tool_calls == ""


@pytest.mark.parametrize("none", [None, [], "", "[]", "null", {}])
def test_empty_lists_are_nothing(none):
    row = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here"}], "tools": none}
    if not isinstance(none, dict):
        row["messages"][1]["tool_calls"] = none
    made = parse(row)
    assert made.tools is None and "tool_calls" not in made.messages[1]


def test_objects_of_lists_are_lists_of_objects():
    columns = {"role": ["user", "assistant"], "content": ["Where?", "Here"]}
    expected = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here"}]
    assert parse({"messages": columns}).messages == expected
    made = parse(
        {"haystack_sessions": {key: [values] for key, values in columns.items()}, "question": "?", "answer": "x"}
    )
    assert "user: Where?\nassistant: Here" in made.prompt[0]["content"]
    with pytest.raises(Unusable, match="not a list of messages"):
        parse({"messages": columns | {"content": ["Where?"]}})
    # A table's objects have the fields of all; those that are null are not this one's.
    tools = [{"type": "function", "function": {"name": "a", "parameters": {"x": {"type": "string"}, "y": None}}}]
    made = parse({"messages": columns, "tools": tools})
    assert made.tools[0]["function"]["parameters"] == {"x": {"type": "string"}}


def test_several_answers_are_no_answer():
    with pytest.raises(Unusable, match="several answers") as refused:
        parse({"prompt": "Where?", "answers": ["Rome", "Roma"]})
    assert "--field answer=COLUMN.0" in refused.value.detail
    assert parse({"prompt": "Where?", "answers": ["Rome", "Roma"]}, answer="answers.0").answer == "Rome"
    row = {"prompt": "Where?", "answers": {"text": ["Rome", "Roma"]}}
    assert parse(row, answer="answers.text.1").answer == "Roma"


@pytest.mark.parametrize("clock", ["strftime_now('%Y-%m-%d %H:%M')", "[strftime_now][0](format = '%Y-%m-%d %H:%M')"])
def test_the_clock_stands_still_however_it_is_reached(tokenizer, clock):
    text = "{% set now = strftime_now %}{{ now('%d') }} {{ " + clock + " }} {{ range(1000) | random }}"
    made = [Template(tokenizer, text, {}, DATE).render([{"role": "user", "content": "Hello"}]) for _ in range(2)]
    assert made[0].startswith("26 2024-07-26 00:00 ") and made[0] == made[1]


@pytest.mark.parametrize(
    "endless",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
        "{% set x = (7 ** 9999999) ** 9 %}",
    ],
)
def test_templates_without_end_are_ended(tokenizer, tmp_path, monkeypatch, endless):
    monkeypatch.setattr("winnow.prepare.rendering.template.RENDER_SECONDS", 0.3)
    with pytest.raises(Unusable, match="the template takes too long"):
        Template(tokenizer, endless, {}, DATE).render([{"role": "user", "content": "Hello"}])
    (tmp_path / "t.jinja").write_text(endless)
    with pytest.raises(Failure, match=r"t.jinja: the template takes too long: over 0 s of processor time"):
        find_template(tokenizer, tmp_path / "t.jinja", tmp_path)


def test_bound_of_tokens(tokenizer, tmp_path):
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    backend = tokenizer.backend_tokenizer
    longest = len("<|im_start|>")
    for text in ("x" * 6000, "é" * 3000, "<|im_end|>" * 600):
        n_tokens = len(backend.encode(text).ids)
        bound = token_bound.TokenBound(backend)
        assert not bound.exceeds(text, n_tokens) and bound.exceeds(text, len(text.encode()) // longest - 1)
    composing = Tokenizer.from_str(backend.to_str())
    composing.normalizer = normalizers.NFC()
    text = "e\u0301" * 2000
    assert not token_bound.TokenBound(composing).exceeds(text, len(composing.encode(text).ids))
    stripping = Tokenizer.from_str(backend.to_str())
    stripping.add_special_tokens([AddedToken("<|end|>", rstrip=True)])
    text = "<|end|>" + " " * 100000
    assert len(stripping.encode(text).ids) == 1 and not token_bound.TokenBound(stripping).exceeds(text, 1)
    unknown = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    assert not token_bound.TokenBound(unknown).exceeds("x" * 100000, 1)
