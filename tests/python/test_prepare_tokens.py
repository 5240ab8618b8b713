"""winnow-prepare from inside: what is scored, beside apply_chat_template, on vocabularies of published models."""

import datetime
import json
import types
import unicodedata

import pytest
import vocabularies

from winnow.common.errors import Failure
from winnow.prepare.rendering.render import RawRenderer, TemplateRenderer
from winnow.prepare.rendering.template import find_template
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.selection import Candidate, Limits, Reservoir
from winnow.prepare.tokens.tokenise import Tokeniser, load_tokenizer, special_prefix
from winnow.prepare.unusable import Unusable

DATE = datetime.date.today()  # what Transformers' clock says, too
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
DEEPSEEK_ENDS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}


def write_word_marker_tokenizer(path):
    """A small vocabulary that marks beginnings of words, as SentencePiece's do, with bytes for what it does not
    know."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    text = ["What is the capital of France? The capital is Paris. It lies on the Seine."] * 20
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    path.write_text(json.dumps(spec))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    deepseek = vocabularies.vocabulary("deepseek_tokenizer.json")
    vocabularies.write_qwen_tokenizer(folder / "qwen.json")
    llama = vocabularies.add_special(folder / "qwen.json", folder / "llama.json", vocabularies.LLAMA_SPECIAL)
    write_word_marker_tokenizer(folder / "marker.json")
    write = vocabularies.write_model
    return {
        "chatml": write(folder / "chatml", folder / "qwen.json", "chatml", {"eos_token": "<|im_end|>"}),
        "thinking": write(folder / "thinking", folder / "qwen.json", "thinking", {"eos_token": "<|im_end|>"}),
        "llama3": write(
            folder / "llama3", llama, "llama3", {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
        ),
        "mistral": write(folder / "mistral", deepseek, "mistral", DEEPSEEK_ENDS),
        "marker": write(
            folder / "marker", folder / "marker.json", "mistral", {"bos_token": "<s>", "eos_token": "</s>"}
        ),
        "base": write(folder / "base", deepseek, None, DEEPSEEK_ENDS),
    }


class Prepared:
    """Tokenizer, renderer and tokeniser of a model; `tokens` of a row."""

    def __init__(self, model, think="empty", score_end=True, **arguments):
        self.tokenizer = load_tokenizer(model)
        self.template = find_template(self.tokenizer, None, model)
        self.renderer = TemplateRenderer(self.tokenizer, self.template, think, arguments, DATE)
        self.tokeniser = Tokeniser(self.tokenizer, score_end, None)

    def rendered(self, row, **layout):
        (self.conversation,) = Layouts(layout.pop("fields", {}), **layout).parse(Row("here", row, "source"))
        return self.renderer.render(self.conversation)

    def tokens(self, row, **layout):
        return self.tokeniser.encode(self.rendered(row, **layout))

    def scored(self, tokens):
        return self.tokeniser.backend.decode(tokens.ids[tokens.answer_start :], skip_special_tokens=False)

    def by_transformers(self, messages, **arguments):
        return self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **arguments)["input_ids"]


def conversation(answer, prompt="What is the capital of France?"):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def prepared(models):
    made = {}

    def get(style, **settings):
        key = (style, *sorted(settings.items()))
        if key not in made:
            made[key] = Prepared(models[style], **settings)
        return made[key]

    return get


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


@pytest.mark.parametrize(
    "row, reason",
    [
        (b"{", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"a": 1}', "no field for the"),
        (b"[" * 100000, "not JSON"),
        ({"prompt": "Where?", "answer": ""}, "empty answer"),
        ({"prompt": "Where?", "answer": " \n"}, "empty answer"),
        ({"prompt": "Where?", "answer": None}, "no field for the answer"),
        ({"prompt": "Where?", "answer": True}, "not text"),
        (b'{"prompt": "Where?", "answer": NaN}', "no field for the answer"),
        ({"prompt": "Where?", "answer": {"a": 1}}, "not text"),
        (b'{"prompt": "\\ud800", "answer": "x"}', "not Unicode"),
        ({"messages": []}, "no field for the answer"),
        ({"prompt": [], "answer": "x"}, "no field for the prompt"),
        ({"prompt": "Where?", "answer": ["Rome", "Roma"]}, "several answers"),
        ({"prompt": ["Where?"], "answer": "x"}, "a message is not an object"),
        ({"prompt": "Where?", "answer": "x", "tools": "[1]"}, "tools are not a list of objects"),
        ({"messages": "text"}, "not a list of messages"),
        ({"messages": [1]}, "not an object"),
        ({"messages": [{"content": "x"}]}, "no role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no turn of the assistant"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no turn of the assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "something else than text"),
    ],
)
def test_rows_that_cannot_be_used(row, reason):
    with pytest.raises(Unusable, match=reason):
        Layouts({}).parse(Row("here", row, "s"))


def test_layouts():
    def read(row, **settings):
        return Layouts(settings.pop("fields", {}), **settings).parse(Row("here", row, "file"))

    (made,) = read({"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Paris"}]})
    assert [m["role"] for m in made.messages] == ["user", "assistant"] and made.source == "file"
    (made,) = read(
        {
            "haystack_sessions": [[{"role": "user", "content": "I live in Bonn."}]],
            "haystack_dates": ["2023/05/01"],
            "question": "Where do I live?",
            "answer": 7,
            "question_id": "q1",
        }
    )
    assert made.answer == "7" and made.example_id == "q1"
    assert "2023/05/01" in made.prompt[0]["content"] and made.prompt[0]["content"].endswith("Where do I live?")
    (made,) = read(
        {"haystack_sessions": [[], [{"role": "user", "content": "Hello."}]], "question": "Who?", "answer": "You"}
    )
    assert "Conversation 2\nuser: Hello." in made.prompt[0]["content"]
    (made,) = read({"prompt": "Where?", "answer": float("nan"), "output": "Paris"})
    assert made.answer == "Paris"
    (made,) = read({"data": {"q": "Where?"}, "gold": ["a", "b"]}, fields={"prompt": "data.q", "answer": "gold.0"})
    assert (made.prompt[0]["content"], made.answer) == ("Where?", "a")
    (made,) = read({"context": "Bonn.", "question": "Where?", "answer": "Bonn"})
    assert made.prompt[0]["content"] == "Context: Bonn.\n\nQuestion: Where?"
    turns = [{"role": "system", "content": "Be brief."}, *conversation("Paris"), *conversation("Rome", "And Italy?")]
    first, second = read({"messages": turns, "id": 5}, every_turn=True)
    assert (first.answer, second.answer) == ("Paris", "Rome") and first.example_id != second.example_id
    assert first.split_position() == second.split_position() and first.key("a") != second.key("a")
    assert read({"messages": turns}, system="")[0].messages[0]["role"] == "user"
    assert read({"messages": turns}, system="Other.")[0].messages[0]["content"] == "Other."


def candidate(key, tokens=10, source="s"):
    return Candidate(key, f"id{key}", source, tokens, 1, "", "", "", ())


def test_reservoir_equals_a_draw_over_everything():
    import random

    generator = random.Random(0)
    everything = [
        candidate(generator.randrange(10**9), generator.randrange(10, 50), generator.choice("abc")) for _ in range(2000)
    ]
    for limits in (
        Limits(7, 10, 49),
        Limits(20, 10, 49, 4),
        Limits(30, 10, 49, 3, {"a": 4, "*": 15}),
        Limits(None, 10, 49),
    ):
        reservoir = Reservoir(limits)
        for one in everything:
            reservoir.add(one)
        kept, in_bin, of_source = [], {}, {}
        for one in sorted(everything):
            at = limits.bin_of(one.prompt_tokens)
            quota = limits.source_limit(one.source)
            if (limits.count is not None and in_bin.get(at, 0) == limits.bin_limit(at)) or (
                quota is not None and of_source.get(one.source, 0) == quota
            ):
                continue
            in_bin[at], of_source[one.source] = in_bin.get(at, 0) + 1, of_source.get(one.source, 0) + 1
            kept.append(one)
        assert reservoir.choose() == kept
    assert Reservoir(Limits(3, 1, 99)).add(candidate(1)) == "kept"


def test_identical_prompts_meet():
    reservoir = Reservoir(Limits(5, 1, 99))
    assert [reservoir.add(candidate(key)) for key in (4, 4, 9)] == ["kept", "duplicate", "kept"]


def test_cut_keeps_head_tail_and_answer(prepared):
    import dataclasses
    import pickle

    from winnow.prepare import work

    here = prepared("chatml")
    prompt = "BEGIN " + "word and word " * 3000 + "What was the first word? END"
    (made,) = Layouts({}).parse(Row("here", {"prompt": prompt, "answer": "It was BEGIN."}, "s"))
    work._worker = types.SimpleNamespace(renderer=here.renderer, tokeniser=here.tokeniser)
    tokens, start, reason = work.cut(pickle.dumps(dataclasses.asdict(made)), 500)
    import numpy

    ids = numpy.frombuffer(tokens, numpy.int32).tolist()
    assert reason == "" and 480 <= start <= 500
    text = here.tokeniser.backend.decode(ids[:start], skip_special_tokens=False)
    assert text.startswith("<|im_start|>user\nBEGIN word") and "What was the first word? END<|im_end|>" in text
    assert here.tokeniser.backend.decode(ids[start:], skip_special_tokens=False) == "It was BEGIN.<|im_end|>"
    assert work.cut(pickle.dumps(dataclasses.asdict(made)), 3)[2] == "cannot be cut to 3 tokens"
