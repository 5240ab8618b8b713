"""The words about a real model: qwen_evaluation.h5 holds what each pattern and example measured of
Qwen2.5-Coder-0.5B-Instruct (64 held-out prompts, window 2048), and no statistics of today."""

import pathlib
import subprocess

import launch
import pytest
from report_pages import Page, number, page_of, rows_of, words_of

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """The measurements of a real model with the statistics of this program: (what the table says, the page)."""
    folder = tmp_path_factory.mktemp("qwen")
    done = subprocess.run(
        [launch.WINNOW, "stats", HERE / "qwen_evaluation.h5", "--out", folder / "results.h5"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, page_of(folder / "results.h5", folder)


def test_a_real_model_is_judged_by_what_shows_windowing(qwen):
    table, text = qwen
    answer = (
        "kl:12 (12 of 24 layers full) is the cheapest pattern whose loss is at most 1.8 points of token accuracy, 5 % "
        "of what windowed loses: it loses at most 1.5 points, 0.5 points as measured (95 %, all patterns together)."
    )
    leading = (
        "Token accuracy leads, as it shows windowing best: windowed is 13.3 standard errors from full attention, 12.6 "
        "by NLL, 12.2 by KL, 3.0 by exact match."
    )
    assert " ".join(table.split()).find(f"{answer} {leading}") > 0
    assert answer in text and leading in text
    words = words_of(text, "minus-full")
    assert "light-transfer:6" in words.partition("Worse, by more than that: ")[2].partition(" Open:")[0]
    assert "Within it: kl:12." in words
    rows = {row["pattern"][0]: row for row in rows_of(Page(text), "minus-full")}
    assert rows["light-transfer:6"]["verdict"][0] == "beyond"
    for name, low, high in (("kl:6", 0.010, 0.043), ("nll:12", 0.001, 0.030), ("light-transfer:6", 0.273, 0.459)):
        assert round(number(rows[name]["token accuracy loss at least"]), 3) == low
        assert round(number(rows[name]["token accuracy loss at most"]), 3) == high
