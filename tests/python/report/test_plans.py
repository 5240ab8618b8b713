"""Plans in a report: the numbers of the file, and files that are none."""

import copy
import json
import math
import re

import pytest
from report_pages import DONE, Page, number, page_of, report, rows_of, words_of
from result_files import PLAN_FULL_BYTES, PLAN_TYPES, plans

BAD_DATA = 65


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
        assert number(row["of full attention"]) == plan["bytes"] / PLAN_FULL_BYTES
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


def test_types_of_keys_and_values_are_drawn_and_listed(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps(plans(has_types=True)))
    text = page_of(tmp_path / "plans.json", tmp_path)
    rows = rows_of(Page(text), "plan-windows")
    assert len(rows) == 3 * 12
    for row in rows:
        budget, layer = row["plan"][0], int(row["layer"][1])
        plan = next(one for one in plans()["plans"] if one["budget"] == budget)
        kind = PLAN_TYPES[budget][layer] if PLAN_TYPES[budget] else "bf16"
        keys = plan["layer_windows"][layer]
        assert row["type"][0] == kind
        assert (row["window"][0] == "full") if keys is None else (number(row["window"]) == keys)
        what = f"window of {keys:,} tokens" if keys else "full attention"
        assert f"{budget}, layer {layer}: {what}, {kind}" in text
    assert "Keys and values are in narrower types in 0 to 11 layers." in words_of(text, "plan-windows")
    legend = re.search(r'id="plan-windows".*?<p class="legend">(.*?)</p>', text, re.DOTALL).group(1)
    assert re.findall(r'sw-([\w-]+)"></i>([^<]*)', legend)[-4:] == [
        ("type-bf16", "bf16, as computed"),
        ("type-fp8", "fp8"),
        ("type-int8", "int8"),
        ("type-int4", "int4"),
    ]
    assert 'aria-label="Window and type of keys and values of each layer in each plan"' in text
    seen = "1 full, 1 \u00d7 1,024 int8, 8 \u00d7 64, 1 \u00d7 64 fp8, 1 \u00d7 64 int4"
    assert rows_of(Page(text), "plan-table")[0]["windows"][0] == seen
    assert "do not show" not in text


def test_plans_without_types_speak_of_windows_alone(file, tmp_path):
    text = page_of(file, tmp_path)
    (first, *_) = rows_of(Page(text), "plan-windows")
    assert list(first) == ["plan", "layer", "window"]
    assert "swatch sw-type" not in text and ", bf16" not in text and "Which window each layer gets" in text


def _bars(svg):
    """{colour: number of bars} of a drawing in which bars alone have these colours, and their lengths in pixels."""
    found = {}
    for path, colour in re.findall(r'<path d="([^"]*)" style="fill:var\(--(rival|faint)\)"', svg):
        x = [float(one) for one in re.findall(r"[ML] ?(-?[\d.]+)", path)]
        found.setdefault(colour, []).append(max(x) - min(x))
    return found


def test_a_bar_is_as_long_as_its_type_has_bits(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps(plans(has_types=True)))
    text = page_of(tmp_path / "plans.json", tmp_path)
    bars = _bars(re.search(r'id="plan-windows".*?(<svg.*?</svg>)', text, re.DOTALL).group(1))
    whole = bars["faint"][0]
    assert len(bars["faint"]) == 9 + 1 + 12 and bars["faint"] == pytest.approx([whole] * 22, abs=0.2)
    assert sorted(bars["rival"]) == pytest.approx([whole / 4] + [whole / 2] * 12, abs=0.2)  # int4, and fp8


def test_a_selection_has_types(tmp_path):
    selection = {
        "format": "winnow-selection",
        "format_version": 3,
        "method": "plan",
        "layers": [1],
        "n_layers": 3,
        "layer_windows": [64, None, 64],
        "layer_kv": ["fp8", "bf16", "fp8"],
        "provenance": {},
    }
    (tmp_path / "plan.json").write_text(json.dumps(selection))
    text = page_of(tmp_path / "plan.json", tmp_path)
    assert words_of(text, "plan-windows") == "plan: 1 full, 2 \u00d7 64 fp8."
    assert [row["type"][0] for row in rows_of(Page(text), "plan-windows")] == selection["layer_kv"]


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
        (lambda data: _change(data, layer_kv=["fp8"]), "not readable as plans"),
        (lambda data: _change(data, layer_kv=["fp7"] * 12), "not readable as plans"),
        (lambda data: _change(data, layer_kv=[["fp8"]] * 12), "not readable as plans"),
        (lambda data: _change(data, allocated_bytes=7), "not readable as plans"),
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
