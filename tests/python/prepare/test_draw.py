"""winnow-prepare from inside: layouts of rows, the draw, and the cut of a control."""

import types

import pytest
from prepare_models import conversation

from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.selection import Candidate, Limits, Reservoir
from winnow.prepare.unusable import Unusable


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
    return Candidate(key, f"id{key}", source, tokens, 1, "", "", "", None, ())


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
    import pickle

    from winnow.prepare import work

    here = prepared("chatml")
    prompt = "BEGIN " + "word and word " * 3000 + "What was the first word? END"
    (made,) = Layouts({}).parse(Row("here", {"prompt": prompt, "answer": "It was BEGIN."}, "s"))
    work._worker = types.SimpleNamespace(renderer=here.renderer, tokeniser=here.tokeniser)
    tokens, start, reason = work.cut(pickle.dumps(made), 500)
    import numpy

    ids = numpy.frombuffer(tokens, numpy.int32).tolist()
    assert reason == "" and 480 <= start <= 500
    text = here.tokeniser.backend.decode(ids[:start], skip_special_tokens=False)
    assert text.startswith("<|im_start|>user\nBEGIN word") and "What was the first word? END<|im_end|>" in text
    assert here.tokeniser.backend.decode(ids[start:], skip_special_tokens=False) == "It was BEGIN.<|im_end|>"
    assert work.cut(pickle.dumps(made), 3)[2] == "cannot be cut to 3 tokens"
