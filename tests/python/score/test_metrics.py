"""The metrics of winnow score: cases worked by hand, and the packages that define some of them."""

import random

import pytest

from winnow.common.scoring import METRICS, Scoring
from winnow.score import functions, metrics

# text, references, options, score
CASES = {
    "exact": [
        (" Rome \n", ["Roma", "Rome"], {}, 1),
        ("Rome.", ["Rome"], {}, 0),
    ],
    "contains_any": [
        ("It is ROME, I think", ["rome", "Paris"], {}, 1),
        ("It is ROME", ["rome"], {"case": True}, 0),
        ("the Elm-River!", ["The elmriver"], {"normalise": True}, 1),  # both become "elmriver"
        ("Milan", ["rome"], {}, 0),
    ],
    "contains_all": [
        ("11 and 33", ["11", "22", "33", "44"], {}, 0.5),
        ("KEY-11, key-22", ["key-11", "Key-22"], {}, 1),
    ],
    "contains_word": [
        ('"a-b": found', ["a-b"], {}, 1),
        ("a-bc", ["a-b"], {}, 0),
        ("It was anna.", ["ANNA"], {"upper": True}, 1),
    ],
    "token_f1": [
        # 2 of 3 words right ("in" is wrong), 2 of 2 found: P = 2/3, R = 1, F1 = 0.8
        ("in the cold north!", ["The cold, North"], {}, 0.8),
        ("cold cold", ["cold"], {}, 2 / 3),  # multisets: P = 1/2, R = 1
        ("south", ["north", "The south"], {}, 1),
        ("", ["north"], {}, 0),
        ("榆河在北方。", ["北方"], {"characters": True}, 4 / 7),  # 2 of 5 and 2 of 2
        ("Rome\nParis", ["Paris"], {"first_line": True}, 0),
    ],
    "rouge_l": [
        # "the elm rises" is common in order: P = 3/5, R = 3/4, F1 = 2 / 3
        ("the elm often rises here", ["the elm rises north"], {}, 2 / 3),
        ("north rises", ["rises north"], {}, 0.5),
        ("It's", ["it s"], {}, 1),
        ("北方", ["北在方"], {"characters": True}, 0.8),
        ("", ["a"], {}, 0),
    ],
    "choice": [
        ("B", ["B"], {}, 1),
        ("The correct answer is (C).", ["C"], {}, 1),
        ("**Answer:** D, because A is wrong", ["D"], {}, 1),
        ("A river. So it is B.", ["B"], {}, 1),
        ("A. East", ["A"], {}, 1),
        ("I think C fits", ["C"], {}, 1),
        ("Because", ["B"], {}, 0),
        ("", ["A"], {}, 0),
    ],
    "class": [
        ("Place", ["Place"], {"classes": ["Place", "Date"]}, 1),
        ("Place or Date", ["Place"], {"classes": ["Place", "Date"]}, 0.5),
        # "Place" is a part of the right class's name and no second answer
        ("Other Place", ["Other Place"], {"classes": ["Place", "Other Place"]}, 1),
        ("Date\nPlace", ["Place"], {"classes": ["Place", "Date"], "first_line": True}, 0),
    ],
    "label": [
        ("Anna is in the Kitchen. The garden is empty.", ["kitchen"], {"labels": ["kitchen", "garden"]}, 1),
        ("kitchen or garden", ["kitchen"], {"labels": ["kitchen", "garden"]}, 0),
        ("the milk and the apple", ["apple", "milk"], {"labels": ["apple", "milk", "football"]}, 1),
        ("the milk", ["apple", "milk"], {"labels": ["apple", "milk", "football"]}, 0),
    ],
    "first_number": [
        ("The key is 71432, not 5", ["71432"], {}, 1),
        ("5 or 71432", ["71432"], {}, 0),
        ("none", ["1"], {}, 0),
        ("about 2.50", ["2.5"], {"decimal": True}, 1),
        ("2.5", ["2"], {}, 1),
    ],
    "last_number": [
        ("It returns -7.", ["-7"], {}, 1),
        ("7 it is", ["7"], {}, 0),
        ("`12`", ["12"], {}, 1),
        ("", ["12"], {}, 0),
    ],
    "number_share": [
        ("Paragraph 12, or 3", ["Paragraph 12"], {}, 0.5),
        ("7", ["7"], {}, 1),
        ("seven", ["7"], {}, 0),
    ],
    "leading_numbers": [
        ("[3, 5, 9, 4]", ["3", "5", "2", "4"], {}, 0.5),
        ("3", ["3", "5"], {}, 0.5),
        ("", ["3"], {}, 0),
        ("-3, 5", ["-3", "5"], {}, 1),
    ],
    "code_line": [
        ("\n```python\n# a comment\nreturn x\n", ["return x"], {}, 1),
        # "return x" and "return y": 7 of 8 letters match, 2 * 7 / 16 = 0.875, in whole percent 88
        ("return y", ["return x"], {}, 0.88),
        ("# nothing", ["return x"], {}, 0),
    ],
    "sequence_ratio": [
        ("xYzabcd", ["xYzabcd"], {"prefix": "xYz"}, 1),
        ("abcd", ["xYzabcd"], {"prefix": "xYz"}, 0),
        ("xYzab", ["xYzabcd"], {"prefix": "xYz"}, 2 / 3),  # 2 * 2 / (2 + 4)
    ],
    "set_f1": [
        ("Well.\nFinal Answer: [a, b]", ["b", "c", "d"], {}, 0.4),  # 2 * 1 / (2 + 3)
        ("Final Answer: []", [""], {}, 1),
        ("Final Answer: [a]", [""], {}, 0),
        ("Final Answer: [a]\nThat is all.", ["a"], {}, 0),
        ("[a]", ["a"], {}, 0),
    ],
    "best_function": [
        (
            "Here:\n```python\ndef f(a):\n    return a + 1\n```\n",
            ["def f(a):\n    return a + 1"],
            {"others": ["def g(): pass"]},
            1,
        ),
        ("def g(): pass", ["def f(a):\n    return a + 1"], {"others": ["def g(): pass"]}, 0),
        ("def f(): pass", ["def f(): pass"], {"others": ["def f(): pass"]}, 0),  # no better than another
    ],
}


@pytest.mark.parametrize("name", METRICS[:-1])
def test_by_hand(name):
    for text, references, options, expected in CASES[name]:
        scoring = Scoring("task", name, tuple(references), references[0], options=options)
        assert metrics.score(text, scoring) == pytest.approx(expected, abs=1e-12), (name, text)


def test_every_metric_is_there():
    assert {*metrics.METRICS, "judge"} == set(METRICS) and set(CASES) == set(metrics.METRICS)


@pytest.mark.parametrize("name", METRICS[:-1])
def test_any_text_has_a_score(name):
    chance = random.Random(name)
    letters = "aB 7\n.`[]é北-:,\"'#"
    options = {"classes": ["a", "B"], "labels": ["a"], "others": ["x"], "prefix": ""}
    for _ in range(300):
        text, reference = ("".join(chance.choices(letters, k=chance.randrange(20))) for _ in range(2))
        references = ("7",) if "number" in name else (reference,)
        assert 0 <= metrics.score(text, Scoring("task", name, references, "", options=options)) <= 1, (text, reference)


def sentences():
    chance = random.Random(0)
    words = ["the", "a", "Cat", "sat,", "on", "mats", "12", "naïve", "don't", "it"]
    for _ in range(500):
        yield tuple(" ".join(chance.choices(words, k=chance.randint(1, 12))) for _ in range(2))


def test_rouge_l_is_that_of_rouge_score():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="the package rouge-score is not installed")
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    for text, reference in sentences():
        expected = scorer.score(reference, text)["rougeL"].fmeasure
        assert metrics.rouge_l(text, [reference], {}) == pytest.approx(expected, abs=1e-12)


def test_similarity_is_that_of_nltk():
    bleu = pytest.importorskip("nltk.translate.bleu_score", reason="the package nltk is not installed")
    for text, reference in sentences():
        expected = bleu.sentence_bleu(
            [reference.split()], text.split(), smoothing_function=bleu.SmoothingFunction().method4
        )
        assert functions.similarity(text, reference) == pytest.approx(expected, abs=1e-12)
