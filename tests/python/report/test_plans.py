"""Plans in a report: the numbers of the file, and files that are none."""

import copy
import json
import math

import pytest
from report_pages import DONE, Page, number, page_of, report, rows_of, words_of

BAD_DATA = 65
FULL_BYTES = 12 * 1024 * 256
WINDOWS = {
    "25%": [64, 1024, 64, None, *([64] * 8)],
    "50%": [64, 1024, 64, None, None, *([1024] * 3), *([64] * 4)],
    "100%": [None] * 12,
}


def plans():
    """As winnow plan --json prints them; the ideal engine, one that pads, one that has one window."""
    found = []
    for i, (budget, windows) in enumerate(WINDOWS.items()):
        used = sum(256 * (keys or 1024) for keys in windows)
        found.append(
            {
                "budget": budget,
                "budget_bytes": used + 10,
                "engine": "ideal",
                "max_seq_len": 1024,
                "concurrency": 2,
                "bytes": used,
                "full_attention_bytes": FULL_BYTES,
                "least_bytes": 1000,
                "layer_windows": windows,
                "predicted_delta_nll": 0.8 / 4**i if i < 2 else 0.0,
                "ci_low": 0.7 / 4**i if i < 2 else 0.0,
                "ci_high": 0.9 / 4**i if i < 2 else 0.0,
                "allocated_bytes": {"ideal": used, "vllm": 2 * used, "mlx": None if i == 1 else used, "swaa": None},
            }
        )
    return {"format": "winnow-plans", "format_version": 1, "plans": found}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(plans()))
    return path


def test_numbers_of_plans_are_those_of_the_file(file, tmp_path):
    text = page_of(file, tmp_path)
    rows = rows_of(Page(text), "plan-table")
    for row, plan in zip(rows, plans()["plans"], strict=True):
        assert row["plan"][0] == plan["budget"]
        assert number(row["memory, bytes"]) == plan["bytes"]
        assert number(row["of full attention"]) == plan["bytes"] / FULL_BYTES
        assert number(row["predicted loss"]) == plan["predicted_delta_nll"]
        assert (number(row["low"]), number(row["high"])) == (plan["ci_low"], plan["ci_high"])
        assert number(row["full layers"]) == plan["layer_windows"].count(None)
        assert number(row["vllm, bytes"]) == plan["allocated_bytes"]["vllm"]
        assert "swaa, bytes" not in row  # it runs none of them
    assert rows[0]["windows"][0] == "1 full, 1 \u00d7 1,024, 10 \u00d7 64"
    assert math.isnan(number(rows[1]["mlx, bytes"]))
    assert "At most vllm allocates 2 times what the windows see. Not every plan runs on mlx." in words_of(
        text, "plan-engines"
    )
    assert "Memory of 2 sequences of 1,024 tokens on ideal." in text
    assert "3 plans, with 1 to 12 layers of full attention." in words_of(text, "plan-windows")


def test_the_picture_says_each_window(file, tmp_path):
    text = page_of(file, tmp_path)
    for plan in plans()["plans"]:
        for layer, keys in enumerate(plan["layer_windows"]):
            what = f"window of {keys:,} tokens" if keys else "full attention"
            assert f"{plan['budget']}, layer {layer}: {what}" in text


def test_plans_become_files_of_figures(file, tmp_path):
    code, _, err = report(file, "--out", tmp_path / "p.html", "--figures", tmp_path / "figures", "--format", "png")
    assert code == DONE, err
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"plan-windows.png", "plan-losses.png", "plan-engines.png"} <= names


def test_one_selection_is_a_row(tmp_path):
    selection = {
        "format": "winnow-selection",
        "format_version": 1,
        "method": "nll",
        "keep": 2,
        "layers": [1, 3],
        "n_layers": 6,
        "window": 64,
        "window_keys": 64,
        "native_window": 16,
        "native_window_layers": [0],
        "provenance": {},
    }
    (tmp_path / "nll.json").write_text(json.dumps(selection))
    text = page_of(tmp_path / "nll.json", tmp_path)
    (row,) = rows_of(Page(text), "plan-table")
    assert row["plan"][0] == "nll" and row["windows"][0] == "2 full, 3 \u00d7 64, 1 \u00d7 16"
    assert '<section id="plan-losses"' not in text and '<figure id="plan-losses"' not in text
    (tmp_path / "nll.json").write_text(json.dumps(selection | {"content_sha256": "0" * 64}))
    code, _, err = report(tmp_path / "nll.json", "--out", tmp_path / "bad.html")
    assert code == BAD_DATA and "content_sha256" in err


def test_types_of_keys_and_values_are_said(tmp_path):
    data = plans()
    (tmp_path / "plans.json").write_text(json.dumps(data))
    assert "plan-types" not in page_of(tmp_path / "plans.json", tmp_path)
    kinds = ["fp8", "bf16", "int4", "int8", *(["bf16"] * 7), "fp8"]
    data["plans"][0]["layer_kv"] = kinds
    (tmp_path / "plans.json").write_text(json.dumps(data))
    text = page_of(tmp_path / "plans.json", tmp_path)
    rows = rows_of(Page(text), "plan-table")
    seen = "1 full int8, 1 \u00d7 1,024, 7 \u00d7 64, 2 \u00d7 64 fp8, 1 \u00d7 64 int4"
    assert rows[0]["windows"][0] == seen
    assert rows[1]["windows"][0] == "2 full, 4 \u00d7 1,024, 6 \u00d7 64"
    assert "Layers keep them in bf16, fp8, int8 and int4." in words_of(text, "plan-types")
    for layer, kind in enumerate(kinds):
        assert f"25%, layer {layer}: keys and values in {kind}" in text
    assert "50%, layer 0: keys and values in bf16" in text


def _change(data, **values):
    data["plans"][1] |= values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(format_version=3), "format version 3"),
        (lambda data: data.update(plans=[]), "not readable as plans"),
        (lambda data: data.update(plans={}), "not readable as plans"),
        (lambda data: _change(data, layer_windows=[1, 2]), "not readable as plans"),
        (lambda data: _change(data, layer_windows=["much"] * 12), "not readable as plans"),
        (lambda data: _change(data, layer_windows=[-5] * 12), "not readable as plans"),
        (lambda data: _change(data, allocated_bytes=7), "not readable as plans"),
        (lambda data: _change(data, layer_kv=["fp8"]), "not readable as plans"),
        (lambda data: _change(data, layer_kv=["fp7"] * 12), "not readable as plans"),
        (lambda data: _change(data, layer_kv=[["fp8"]] * 12), "not readable as plans"),
        (lambda data: data["plans"][1].pop("budget"), "not readable as plans"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(tmp_path, change, words):
    data = copy.deepcopy(plans())
    change(data)
    (tmp_path / "plans.json").write_text(json.dumps(data))
    code, _, err = report(tmp_path / "plans.json", "--out", tmp_path / "page.html")
    assert code == BAD_DATA and words in err and not (tmp_path / "page.html").exists()


def test_text_of_a_plan_is_no_markup(tmp_path):
    data = plans()
    data["plans"][0]["budget"] = "<b>25%</b>"
    (tmp_path / "plans.json").write_text(json.dumps(data))
    assert "<b>25%" not in page_of(tmp_path / "plans.json", tmp_path)
