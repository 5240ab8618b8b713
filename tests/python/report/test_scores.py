"""The scores of winnow score in a report: the numbers of the file, for each task, and files that are none."""

import json
import pathlib

import numpy as np
import pytest
from report_pages import DONE, Page, number, page_of, report, rows_of, words_of

from winnow.common.scoring import Scoring
from winnow.score.answers import Example
from winnow.score.results import Budget, as_json, collect

BAD_DATA = 65
PATTERNS = {"full": (12, 1.0), "nll:6": (6, 0.53), "windowed": (0, 0.06)}


def write_scores(path: pathlib.Path, with_budgets=True, change=None):
    """Two tasks of 20 answers each: full is right in all, nll:6 in most, windowed in none of `vt` and all of `qa`."""
    random = np.random.default_rng(0)
    examples = [
        Example(f"e{i}", ("4k", "8k")[i // 2 % 2], Scoring(("vt", "qa")[i % 2], "exact", ("yes",), "yes"))
        for i in range(40)
    ]
    texts = {
        "full": {one.name: "yes" for one in examples},
        "nll:6": {one.name: "yes" if random.random() < 0.8 else "no" for one in examples},
        "windowed": {one.name: "yes" if one.scoring.task == "qa" else "no" for one in examples},
    }
    budgets = {name: Budget(*budget) for name, budget in PATTERNS.items()} if with_budgets else {}
    data = as_json(collect(texts, examples, {}, budgets, "full", 0)) | {"created_by": "winnow-score 1"}
    if change:
        change(data)
    path.write_text(json.dumps(data))
    return data


def test_numbers_of_scores_are_those_of_the_file(tmp_path):
    data = write_scores(tmp_path / "scores.json")
    page = Page(text := page_of(tmp_path / "scores.json", tmp_path))
    rows = rows_of(page, "score-front")
    expected = {
        (row["pattern"], ", ".join(part for part in (row["task"], row["length_bin"]) if part) or "all"): row
        for row in data["scores"]
    }
    assert len(rows) == len(expected) == 3 * 9
    for row in rows:
        own = expected[row["pattern"][0], row["examples of"][0]]
        assert number(row["score"]) == own["mean"] and number(row["less full"]) == own["minus_baseline"]
        assert number(row["KV cache"]) == PATTERNS[row["pattern"][0]][1]
    assert all(f">{name}</button>" in text for name in ("all", "vt", "qa", "4k", "8k", "vt, 4k"))
    on = [row["pattern"] for row in data["scores"] if not row["task"] and not row["length_bin"] and row["on_front"]]
    assert on and all(f"{name} scores " in words_of(text, "score-front") for name in on)
    assert "Worse than full: nll:6 and windowed." in words_of(text, "score-minus-baseline")


def test_scores_without_budgets_are_a_table(tmp_path):
    write_scores(tmp_path / "scores.json", with_budgets=False)
    text = page_of(tmp_path / "scores.json", tmp_path)
    assert "winnow score --evaluation RUN_DIR adds it" in text and "full scores most, 100" in text
    assert '<section id="score-front"' in text


def _text_for_mean(data):
    for row in data["scores"]:
        row["mean"] = "<b>much</b>"


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda data: data.update(format="other"), "no file of winnow score"),
        (lambda data: data.update(format_version=2), "format version 2"),
        (lambda data: data.update(patterns=3), "not readable as scores"),
        (lambda data: data.update(scores=[]), "holds no score"),
        (_text_for_mean, "holds no score"),
    ],
)
def test_what_is_no_scores_file_is_refused_in_one_line(tmp_path, change, words):
    write_scores(tmp_path / "scores.json", change=change)
    code, _, err = report(tmp_path / "scores.json", "--out", tmp_path / "page.html")
    assert code == BAD_DATA and words in err and not (tmp_path / "page.html").exists()


def test_scores_become_files_of_figures(tmp_path):
    write_scores(tmp_path / "scores.json")
    code, _, err = report(tmp_path / "scores.json", "--out", tmp_path / "p.html", "--figures", tmp_path / "figures")
    assert code == DONE, err
    assert {"score-front-all.svg", "score-front-vt-4k.svg", "score-minus-baseline-qa.svg"} <= {
        file.name for file in (tmp_path / "figures").iterdir()
    }
