"""winnow-prepare from inside: what is scored, beside apply_chat_template, on vocabularies of published models."""

import unicodedata

import pytest
import vocabularies
from prepare_models import DATE, Prepared, conversation, write_word_marker_tokenizer

from winnow.prepare.rendering.render import RawRenderer, TemplateRenderer
from winnow.prepare.rendering.template import find_template
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens.tokenise import Tokeniser, load_tokenizer, special_prefix
from winnow.prepare.unusable import Unusable

ANSWERS = [
    "Paris",
    "The capital is Paris.\n\nIt lies on the Seine.",
    "日本の首都は東京です。",
    "שלום عليكم",
    "👩‍👩‍👧‍👦 family 🇫🇷",
    "tab\tand  two spaces",
    "x" * 5000,
    "naïve café Straße",
    "def f():\n    return [1, 2]\n",
    "<b>&amp;</b>",
    "7",
]


ENDS = {
    "chatml": "<|im_end|>",
    "thinking": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "<｜end▁of▁sentence｜>",
    "marker": "</s>",
}


@pytest.mark.parametrize("style", ENDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_scored_tokens_are_the_answer_and_ids_are_transformers(prepared, style, answer):
    here = prepared(style)
    messages = conversation(answer)
    tokens = here.tokens({"messages": messages})
    expected = here.by_transformers(messages)
    assert tokens.ids == expected[: len(tokens.ids)]
    # Behind the end of turn templates have a line break at most.
    assert here.tokeniser.backend.decode(expected[len(tokens.ids) :]).strip() == ""
    scored = here.scored(tokens)
    assert scored.endswith(ENDS[style]) and tokens.end_of_turn == ENDS[style]
    scored = scored.removesuffix(ENDS[style])
    is_trimmed = style in ("llama3", "mistral", "marker")
    # These two put a space before the answer, which the model has to write.
    assert (scored.lstrip(" ") if style in ("mistral", "marker") else scored) == (
        answer.strip() if is_trimmed else answer
    )
    prompt = here.by_transformers(messages[:1], add_generation_prompt=True)
    if style != "thinking":
        assert tokens.ids[: tokens.answer_start] == prompt


@pytest.mark.parametrize("style", ["chatml", "llama3"])
def test_end_of_turn_may_be_left_out(prepared, style):
    with_end, without = prepared(style), prepared(style, score_end=False)
    row = {"messages": conversation("The capital is Paris.")}
    longer, shorter = with_end.tokens(row), without.tokens(row)
    assert longer.ids[:-1] == shorter.ids and longer.answer_start == shorter.answer_start
    assert without.scored(shorter) == "The capital is Paris." and shorter.end_of_turn == ""
    assert longer.answer_tokens == shorter.answer_tokens == len(shorter.ids) - shorter.answer_start


def test_characters_that_the_normalizer_composes(prepared):
    answer = unicodedata.normalize("NFD", "é à ü")
    assert answer != "é à ü"
    here = prepared("chatml")
    assert here.scored(here.tokens({"messages": conversation(answer)})) == "é à ü<|im_end|>"


def test_long_prompts_equal_transformers(prepared):
    here = prepared("thinking")
    prompt = "One line of a long document, with numbers 12345 and 日本語.\n\n" * 2000 + "w" * 30000
    tokens = here.tokens({"prompt": prompt, "answer": "The end."})
    assert tokens.ids == here.by_transformers(conversation("The end.", prompt))[: len(tokens.ids)]
    assert here.scored(tokens) == "The end.<|im_end|>"


@pytest.mark.parametrize("answer", ["\n\nParis", "\nParis"])
def test_seam_inside_a_token_is_refused(prepared, answer):
    with pytest.raises(Unusable, match="no token begins where the answer begins"):
        prepared("chatml").tokens({"messages": conversation(answer)})


def test_raw_seam(models):
    tokenizer = load_tokenizer(models["base"])
    tokeniser = Tokeniser(tokenizer, True, None, special_prefix(tokenizer))

    def tokens(prompt, answer, separator=""):
        (made,) = Layouts({}).parse(Row("here", {"prompt": prompt, "answer": answer}, "s"))
        return tokeniser.encode(RawRenderer(separator, "<｜end▁of▁sentence｜>").render(made))

    good = tokens("The capital of France is", " Paris")
    assert (
        tokeniser.backend.decode(good.ids[good.answer_start :], skip_special_tokens=False)
        == " Paris<｜end▁of▁sentence｜>"
    )
    assert good.answer_tokens == 1
    with pytest.raises(Unusable, match="no token begins"):
        tokens("The capital of Fran", "ce is Paris")
    with pytest.raises(Unusable, match="no token begins"):
        tokens("The capital is", "Paris", separator=" ")


def test_raw_ids_are_the_tokenizers(tmp_path):
    """A vocabulary that puts a word marker at the very beginning, with a beginning-of-text token before it."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

    write_word_marker_tokenizer(tmp_path / "made.json")
    made = Tokenizer.from_file(str(tmp_path / "made.json"))
    made.normalizer = normalizers.Sequence([])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.save(str(tmp_path / "made.json"))
    model = vocabularies.write_model(
        tmp_path / "m", tmp_path / "made.json", None, {"bos_token": "<s>", "eos_token": "</s>"}
    )
    tokenizer = load_tokenizer(model)
    assert special_prefix(tokenizer) == [1]
    row = {"prompt": "The capital of France is", "answer": " Paris."}
    (made,) = Layouts({}).parse(Row("here", row, "s"))
    tokens = Tokeniser(tokenizer, True, None, special_prefix(tokenizer)).encode(RawRenderer("", "</s>").render(made))
    assert tokens.ids == [*tokenizer(row["prompt"] + row["answer"])["input_ids"], tokenizer.eos_token_id]
    assert tokens.ids[: tokens.answer_start] == tokenizer(row["prompt"])["input_ids"]
    assert (
        tokenizer.decode(tokens.ids[tokens.answer_start :]) == "Paris.</s>"
        and tokenizer.convert_ids_to_tokens(1) == "<s>"
    )


def test_tokenizers_with_a_template_for_tools(models, tmp_path):
    own = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    named = [
        {"name": "default", "template": own},
        {"name": "tool_use", "template": "TOOLS: {{ tools | tojson }}" + own},
    ]
    model = vocabularies.write_model(
        tmp_path / "m", models["chatml"] / "tokenizer.json", None, {"eos_token": "<|im_end|>", "chat_template": named}
    )
    here = Prepared(model)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    messages = conversation("In Paris.")
    for given in (None, tools):
        tokens = here.tokens({"messages": messages, "tools": given})
        assert tokens.ids == here.by_transformers(messages, tools=given)
        assert here.scored(tokens) == "In Paris.<|im_end|>"
    other = tmp_path / "t.jinja"
    other.write_text("O" + own)
    (made,) = Layouts({}).parse(Row("here", {"messages": messages, "tools": tools}, "s"))
    text = (
        TemplateRenderer(here.tokenizer, find_template(here.tokenizer, other, model), "empty", {}, DATE)
        .render(made)
        .text
    )
    assert text.startswith("O<|im_start|>")


@pytest.mark.parametrize("think", ["empty", "given"])
def test_text_that_no_tokenizer_takes_is_refused(prepared, think):
    """Also where a template takes it from: tools, calls of them, reasoning."""
    tools = [{"type": "function", "function": {"name": "\ud800", "parameters": {"type": "object"}}}]
    messages = conversation("Paris")
    with pytest.raises(Unusable, match="text is not Unicode"):
        prepared("thinking", think=think).tokens({"messages": messages, "tools": tools})
    messages[1]["reasoning_content"] = "\ud800"
    if think == "given":
        with pytest.raises(Unusable, match="text is not Unicode"):
            prepared("thinking", think=think).tokens({"messages": messages})
    else:
        assert prepared("thinking", think=think).tokens({"messages": messages}).answer_tokens == 1
