"""winnow score: texts in, scores out."""

import json

import h5py
import launch
import numpy
import pytest
import vocabularies

from winnow.common.scoring import Scoring
from winnow.prepare.writer import Example, write
from winnow.score import statistics
from winnow.score.results import bin_order

TASKS = [
    ("a", Scoring("niah", "contains_all", ("11", "22"), "11, 22", length_bin="4k")),
    ("b", Scoring("niah", "contains_all", ("33",), "33", length_bin="8k")),
    ("c", Scoring("qa", "token_f1", ("the north",), "the north", length_bin="4k")),
    ("d", Scoring("qa", "token_f1", ("the south",), "the south", length_bin="8k")),
]
TEXTS = {
    "full": {"a": "11, 22", "b": "33", "c": "north", "d": "cold south"},
    "windowed": {"a": "11", "b": "none", "c": "north", "d": "east"},
}


def write_data(path, tasks=TASKS):
    examples = [
        Example(name, "s", 3, lambda: numpy.array([1, 2, 3], numpy.int32).tobytes(), 1, scoring)
        for name, scoring in tasks
    ]
    write({path: ({}, examples)})
    return path


def write_texts(path, texts=TEXTS):
    lines = [
        {"example_id": name, "pattern": pattern, "prompt_tokens": 1, "token_ids": [], "stopped": True, "text": text}
        for pattern, own in texts.items()
        for name, text in own.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def score(tmp_path):
    data, texts = write_data(tmp_path / "data.h5"), write_texts(tmp_path / "texts.jsonl")

    def run(*flags, expect=0, data=data, texts=texts):
        done = launch.run_python(["score", texts, "--data", data, *flags], tmp_path)
        assert done.returncode == expect, done.stderr
        if expect:
            (line,) = done.stderr.splitlines()
            assert line.startswith("winnow: score: ")
        return done

    return run


def rows(done_or_file):
    found = json.loads(done_or_file)
    return found, {(row["pattern"], row["task"], row["length_bin"]): row for row in found["scores"]}


def test_scores(score, tmp_path):
    score("--out", tmp_path / "scores.json")
    found, row = rows((tmp_path / "scores.json").read_text())
    assert found["format"] == "winnow-scores" and found["baseline"] == "full"
    by_hand = {"a": [1, 0.5], "b": [1, 0], "c": [1, 1], "d": [2 / 3, 0]}
    for example in found["examples"]:
        expected = by_hand[example["example_id"]]
        assert [example["scores"][name] for name in ("full", "windowed")] == pytest.approx(expected)
    assert row["full", None, None]["mean"] == pytest.approx(11 / 12)
    assert row["windowed", "niah", None]["mean"] == pytest.approx(0.25)
    assert row["windowed", None, "8k"]["mean"] == 0 and row["windowed", "qa", "4k"]["mean"] == 1
    difference = row["windowed", None, None]
    assert difference["minus_baseline"] == pytest.approx(0.375 - 11 / 12)
    assert difference["minus_baseline_ci_low"] < difference["minus_baseline"] < difference["minus_baseline_ci_high"]
    assert len(found["scores"]) == 2 * (1 + 2 + 2 + 4)


def test_the_table(score):
    text = score().stdout
    assert "All tasks, 4 examples" in text and "prompts of 8k, 2 examples" in text
    assert "full        91.7  [ 75.0, 100.0]        0.0" in text and "less full" in text
    found, row = rows(score("--json", "--baseline", "windowed", "--metric", "exact").stdout)
    assert found["baseline"] == "windowed" and row["full", None, None]["mean"] == 0.25


def test_intervals_are_those_of_the_bootstrap():
    """Against resamples that are drawn one by one."""
    chance = numpy.random.default_rng(7)
    scores = chance.random((2, 30))
    made = statistics.means(scores, 0, 10_000)
    picks = chance.integers(0, 30, (20_000, 30))
    for row, mean in enumerate(made):
        low, high = numpy.quantile(scores[row][picks].mean(axis=1), (0.025, 0.975))
        assert mean.mean == scores[row].mean() and mean.n == 30
        assert (mean.low, mean.high) == pytest.approx((low, high), abs=0.005)
    assert made == statistics.means(scores, 0, 10_000) != statistics.means(scores, 1, 10_000)
    (difference,) = statistics.means(scores[:1] - scores[1:], 0, 10_000)
    assert difference.mean == pytest.approx(made[0].mean - made[1].mean)


def test_front():
    assert statistics.front([1, 0.5, 0.5, 0.2], [0.9, 0.9, 0.8, 0.1]) == [False, True, False, True]
    assert statistics.front([1, 1], [0.5, 0.5]) == [True, True]


def test_bins_by_size():
    names = ["medium", "128k", "4k", "1M", "short", "other", "16k"]
    assert sorted(names, key=bin_order) == ["4k", "16k", "128k", "1M", "short", "medium", "other"]


def test_a_judge(score, tmp_path):
    judged = [(name, Scoring("multi-session", "judge", ("three",), "three")) for name in ("q1", "q2_abs")]
    data = write_data(tmp_path / "judged.h5", judged)
    texts = {"full": {"q1": "Three.", "q2_abs": "é"}, "windowed": {"q1": "two", "q2_abs": "none"}}
    texts = write_texts(tmp_path / "judged.jsonl", texts)
    hypotheses = tmp_path / "hypotheses.jsonl"
    done = score("--hypotheses", hypotheses, data=data, texts=texts)
    assert "2 examples wait for a judge" in done.stdout
    lines = [json.loads(line) for line in hypotheses.read_text().splitlines()]
    assert lines[0] == {"question_id": "q1", "hypothesis": "Three.", "pattern": "full"} and len(lines) == 4
    # What LongMemEval's evaluate_qa.py makes of a line: the line with its label.
    verdicts = tmp_path / "verdicts.jsonl"
    labels = [True, True, False, True]
    for line, label in zip(lines, labels, strict=True):
        line["autoeval_label"] = {"model": "gpt-4o", "label": label}
    verdicts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, row = rows(score("--verdicts", verdicts, "--json", data=data, texts=texts).stdout)
    assert row["full", None, None]["mean"] == 1 and row["windowed", None, None]["mean"] == 0.5
    _, row = rows(score("--metric", "contains_any", "--json", data=data, texts=texts).stdout)
    assert row["full", None, None]["mean"] == 0.5
    verdicts.write_text(json.dumps(lines[0] | {"question_id": "q9"}) + "\n")
    assert (
        "verdicts.jsonl:1: no text of pattern full for q9"
        in score("--verdicts", verdicts, data=data, texts=texts, expect=65).stderr
    )
    verdicts.write_text("{}\n")
    assert "expected question_id" in score("--verdicts", verdicts, data=data, texts=texts, expect=65).stderr


def test_token_ids_are_decoded(score, tmp_path):
    import tokenizers

    model = vocabularies.write_byte_model(tmp_path / "model", "x")
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = [*tokenizer.encode("11, 22").ids, tokenizer.token_to_id("<|im_end|>")]
    texts = tmp_path / "ids.jsonl"
    texts.write_text(json.dumps({"example_id": "a", "pattern": "full", "token_ids": ids}) + "\n")
    assert "--model DIR makes text of them" in score(texts=texts, expect=64).stderr
    _, row = rows(score("--model", model, "--json", texts=texts).stdout)
    assert row["full", None, None] == {
        "pattern": "full",
        "task": None,
        "length_bin": None,
        "examples": 1,
        "mean": 1.0,
        "ci_low": 1.0,
        "ci_high": 1.0,
    }


def test_what_is_refused(score, tmp_path):
    texts = tmp_path / "other.jsonl"
    for content, words in [
        ({"full": {"a": "1", "z": "2"}}, "example z is not in"),
        ({"full": {"a": "1"}, "windowed": {"b": "2"}}, "windowed answers other examples than full"),
        ({}, "holds no text"),
    ]:
        assert words in score(texts=write_texts(texts, content), expect=65).stderr
    texts.write_text('{"pattern": "full", "text": "x"}\n')
    assert "other.jsonl:1: expected pattern and example_id" in score(texts=texts, expect=65).stderr
    write_texts(texts)
    texts.write_text(texts.read_text() * 2)
    assert "a second text of full for a" in score(texts=texts, expect=65).stderr
    first = write_data(tmp_path / "first.h5", [("a", None)])
    assert "names no metric" in score(data=first, expect=65).stderr
    unknown = write_data(tmp_path / "unknown.h5", [("a", Scoring("t", "new", ("x",), "x"))])
    assert "metric 'new' is not known" in score(data=unknown, expect=65).stderr
    worded = write_data(tmp_path / "worded.h5", [("a", Scoring("t", "leading_numbers", ("x",), "x"))])
    message = score(data=worded, texts=write_texts(tmp_path / "one.jsonl", {"full": {"a": "1"}}), expect=65).stderr
    assert "example a: metric leading_numbers does not fit its references" in message
    with h5py.File(write_data(tmp_path / "without.h5"), "r+") as file:
        file["reference_offsets"][:] = 0
    assert "example a: no references" in score(data=tmp_path / "without.h5", expect=65).stderr
    assert "no such file" in score(data=tmp_path / "none.h5", expect=66).stderr
    (tmp_path / "text.h5").write_text("text")
    assert "not readable as a calibration file" in score(data=tmp_path / "text.h5", expect=65).stderr
    assert "--baseline other: the patterns are full, windowed" in score("--baseline", "other", expect=64).stderr
    assert "needs --evaluation" in score("--figure", "x.svg", expect=64).stderr
    assert "one of the files to be read" in score("--out", tmp_path / "data.h5", expect=73).stderr
    (tmp_path / "mine.txt").write_text("mine")
    assert "mine.txt" in score("--out", tmp_path / "mine.txt", expect=73).stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
