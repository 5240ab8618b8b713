"""Loss against memory in a report on an evaluation: the numbers of the file, the front, and files that lack some."""

import re

import h5py
import numpy as np
import pytest
import result_files
from report_pages import DONE, Page, damage, number, page_of, report, rows_of, words_of

from winnow.report.drawing.axes import ratio_scale
from winnow.report.drawing.drawing import Drawing
from winnow.report.fronts import front

FIGURE = "loss-memory"


def is_on_front(cost, loss, i):
    """By the definition, one pair at a time."""
    return not any(
        cost[j] <= cost[i] and loss[j] <= loss[i] and (cost[j] < cost[i] or loss[j] < loss[i]) for j in range(len(cost))
    )


def test_the_front_is_what_no_other_beats():
    random = np.random.default_rng(0)
    for n in (0, 1, 2, 7, 30):
        for _ in range(20):
            cost, loss = random.integers(0, 8, n), random.integers(-4, 4, n)  # with many ties
            found = front(cost, loss)
            assert sorted(found) == [i for i in range(n) if is_on_front(cost, loss, i)]
            assert [(cost[i], -loss[i]) for i in found] == sorted((cost[i], -loss[i]) for i in found)
    assert front([1, 2, np.nan, 3], [np.nan, 5, 0, np.inf]) == [1]


@pytest.mark.parametrize("values", [[1.0, 1000.0], [3.0], [5.0, 5.1], [1e-3, 1e9], [np.nan], [0.0, 2.0]])
def test_ticks_of_ratios_lie_within_the_axis(values):
    drawing = Drawing(400, 300, "x")
    ticks = ratio_scale(drawing, "x", values)
    low, high = drawing.axes.get_xlim()
    good = [value for value in values if value > 0]
    assert 0 < low <= ticks[0] < ticks[-1] <= high and len(ticks) <= 12
    assert all(low < value < high for value in good) and drawing.axes.get_xscale() == "log"
    assert len(ticks) == 2 or (np.log2(ticks) % 1 == 0).all()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Five patterns, the third of fp8 in all layers."""
    path = tmp_path_factory.mktemp("memory") / "evaluation.h5"
    result_files.write_evaluation(path)
    with h5py.File(path, "a") as opened:
        full = opened["evaluation/full_attention"][:]
        opened["evaluation/kv_cache_bytes"][2] /= 2
    types = np.full(full.shape, "bf16", object)
    types[2] = "fp8"
    result_files.add_settings(path, np.where(full, 0, 2048), types)
    return path


def test_numbers_are_those_of_the_file(file, tmp_path):
    text = page_of(file, tmp_path)
    with h5py.File(file) as opened:
        group = {name: opened["evaluation"][name][()] for name in opened["evaluation"]}
    names = [name.decode() for name in group["pattern"]]
    rows = rows_of(Page(text), FIGURE)
    assert len(rows) == 2 * len(names)
    for length, own in ((8192, rows[: len(names)]), (1048576, rows[len(names) :])):
        column = group["kv_length"].tolist().index(length)
        cost = group["kv_cache_bytes"][:, column]
        assert [number(row["memory, bytes"]) for row in own] == sorted(cost)
        for row in own:
            i = names.index(row["pattern"][0])
            assert number(row["tokens"]) == length and number(row["memory, bytes"]) == cost[i]
            assert number(row["of full attention"]) == cost[i] / cost[0]
            # A loss is a fall of matches, and a rise of NLL; the ends of its interval change places with its sign.
            for metric, sign in (("exact_match", -1), ("nll", 1)):
                words = metric.replace("_", " ")
                ends = sorted(sign * group[f"{metric}_minus_full_ci_{end}"][i] for end in ("low", "high"))
                loss = sign * group[f"{metric}_minus_full"]
                assert number(row[f"{words} loss"]) == loss[i]
                assert [number(row[f"{words} low"]), number(row[f"{words} high"])] == ends
                assert (row[f"{words} front"][0] == "on it") == is_on_front(cost, loss, i)


def variants(text):
    """[(button, is it pressed, marks of its wide drawing, is it hidden)]."""
    found = re.search(rf'<figure id="{FIGURE}".*?</figure>', text, re.DOTALL).group(0)
    buttons = re.findall(r'<button type="button" data-show="\d+" aria-pressed="(true|false)">([^<]*)', found)
    drawn = re.findall(r'<div class="variant" data-variant="\d+"( hidden="")?><div class="wide">(.*?)</svg>', found)
    return [
        (name, pressed == "true", re.findall(r'class="mark".*?data-tip="([^"]*)"', svg, re.DOTALL), bool(hidden))
        for (pressed, name), (hidden, svg) in zip(buttons, drawn, strict=True)
    ]


def test_each_metric_and_length_is_drawn_and_the_nearest_length_comes_first(file, tmp_path):
    found = variants(page_of(file, tmp_path))
    lengths = ("8,192 tokens", "1,048,576 tokens")
    assert [name for name, *_ in found] == [f"{metric}, {one}" for metric in ("exact match", "NLL") for one in lengths]
    assert [name for name, pressed, _, hidden in found if pressed and not hidden] == ["exact match, 8,192 tokens"]
    assert all(len(marks) == 5 for _, _, marks, _ in found)

    def lengthen(opened):
        opened["evaluation/prompt_tokens"][...] = 500_000

    found = variants(page_of(damage(file, tmp_path / "long.h5", lengthen), tmp_path))
    assert [name for name, _, _, hidden in found if not hidden] == ["exact match, 1,048,576 tokens"]


def test_a_mark_says_windows_types_memory_and_loss(file, tmp_path):
    marks = variants(page_of(file, tmp_path))[0][2]
    (tip,) = [one for one in marks if one.startswith("periodic:4@0")]
    first, second, third = tip.split("&#10;")
    assert first == "periodic:4@0: 3 full fp8, 9 \u00d7 2,048 fp8"
    assert second.startswith("21 MiB at 8,192 tokens, ") and third.startswith("loss by exact match ")
    assert re.search(r"[\d.]+ points \(95\u00a0% interval [\d.]+ to [\d.]+\)$", third)


def test_the_words_name_the_front_and_the_best_of_each_share(file, tmp_path):
    words = words_of(page_of(file, tmp_path), FIGURE)
    with h5py.File(file) as opened:
        group = {name: opened["evaluation"][name][()] for name in opened["evaluation"]}
    names = [name.decode() for name in group["pattern"]]
    cost, loss = group["kv_cache_bytes"][:, 0], -group["exact_match_minus_full"]
    on = [i for i in range(len(names)) if is_on_front(cost, loss, i)]
    assert words.startswith(f"At 8,192 tokens {len(on)} of 5 patterns are on the front of exact match: ")
    assert all(names[i] in words for i in on)
    best = min((i for i in range(len(names)) if cost[i] <= cost[0] / 2), key=lambda i: loss[i])
    assert f"within 1/2 {names[best]}, {100 * loss[best]:.1f} points" in words


def _without(*names):
    def change(opened):
        for name in [one for one in opened["evaluation"] if any(re.fullmatch(pattern, one) for pattern in names)]:
            del opened["evaluation"][name]

    return change


def _no_bytes(opened):
    opened["evaluation/kv_cache_bytes"][...] = np.nan


def _odd_bytes(opened):
    opened["evaluation/kv_cache_bytes"][1] = [0, np.inf]


@pytest.mark.parametrize(
    "change, has_figure",
    [
        (_without(".*_minus_.*"), True),  # of the means, with intervals from the tables of examples
        (_without("layer_kv", "layer_window_keys"), True),
        (_without("prompt_tokens"), True),
        (_odd_bytes, True),
        (_no_bytes, False),
        (_without("kv_cache_bytes"), False),
        (lambda opened: opened["evaluation/pattern"].__setitem__(0, "list:all"), False),  # no full attention
    ],
    ids=["differences", "settings", "prompts", "odd bytes", "nan", "bytes", "full"],
)
def test_files_that_lack_some_give_a_page(file, tmp_path, change, has_figure):
    text = page_of(damage(file, tmp_path / "odd.h5", change), tmp_path)
    assert (f'id="{FIGURE}"' in text) == has_figure and ">nan" not in text and "nan " not in text


def test_losses_without_a_file_s_own_are_paired_over_examples(file, tmp_path):
    text = page_of(damage(file, tmp_path / "old.h5", _without(".*_minus_.*")), tmp_path)
    with h5py.File(file) as opened:
        match = opened["evaluation/exact_match"][:].astype(float)
        names = opened["evaluation/pattern"].asstr()[:].tolist()
    for row in rows_of(Page(text), FIGURE):
        i = names.index(row["pattern"][0])
        each = match[0] - match[i]
        assert number(row["exact match loss"]) == pytest.approx(each.mean())
        # The bootstrap of a mean over 40 examples against the normal interval.
        half = 1.96 * each.std() / np.sqrt(len(each))
        ends = [number(row["exact match low"]), number(row["exact match high"])]
        assert ends == pytest.approx([each.mean() - half, each.mean() + half], abs=0.04)


def test_kl_needs_no_pattern_full(tmp_path):
    def change(opened):
        group = opened["evaluation"]
        group["pattern"][0] = "list:all"
        for name in [name for name in group if "nll" in name]:
            group.copy(group[name], name.replace("nll", "kl"))
            del group[name]
        group.attrs["margin_figure"] = "kl"

    result_files.write_evaluation(tmp_path / "full.h5")
    text = page_of(damage(tmp_path / "full.h5", tmp_path / "kl.h5", change), tmp_path)
    rows = rows_of(Page(text), FIGURE)
    assert "kl loss" in rows[0] and "nll loss" not in rows[0] and np.isnan(number(rows[0]["of full attention"]))
    assert "nats per token" in text and "share of full attention" not in words_of(text, FIGURE)


def test_many_patterns_have_nll_at_one_length(tmp_path):
    patterns = {"full": (list(range(12)), 1.0)} | {f"first:{i}": (list(range(i % 12)), i / 70) for i in range(70)}
    result_files.write_evaluation(tmp_path / "many.h5", patterns, generate=False)
    names = [name for name, *_ in variants(page_of(tmp_path / "many.h5", tmp_path))]
    assert names == ["exact match, 8,192 tokens", "exact match, 1,048,576 tokens", "NLL, 8,192 tokens"]


def test_views_become_files(file, tmp_path):
    code, _, err = report(file, "--out", tmp_path / "p.html", "--figures", tmp_path / "figures")
    assert code == DONE, err
    names = {path.name for path in (tmp_path / "figures").glob(f"{FIGURE}*")}
    assert {"loss-memory-exact-match-8-192-tokens.svg", "loss-memory-nll-1-048-576-tokens.svg"} <= names
    assert len(names) == 4


def test_patterns_that_cost_otherwise_have_a_row_of_their_own_in_the_costs(file, tmp_path):
    """periodic:4@0, of fp8, keeps as many full layers as list:1,4,5, and half of the bytes."""

    def shares(text):
        """{patterns of a row: its share at 8,192 tokens}."""
        found = re.search(r'<figure id="costs".*?</svg>', text, re.DOTALL).group(0)
        tips = re.findall(r'data-tip="([^"]*)"', found)
        return {tip.partition(": ")[0]: tip for tip in tips if "&#10;8,192 tokens: " in tip}

    text = page_of(file, tmp_path)
    own = shares(text)
    assert "on the front, none that keeps as little or less is better." in text
    assert set(own) == {"windowed", "periodic:4@0", "list:1,4,5", "nll:6", "full"}
    assert "3 full fp8, 9 \u00d7 2,048 fp8" in own["periodic:4@0"] and "fp8" not in own["list:1,4,5"]
    result_files.write_evaluation(tmp_path / "plain.h5")
    text = page_of(tmp_path / "plain.h5", tmp_path)
    assert "list:1,4,5 and periodic:4@0" in shares(text)
    assert "on the front, none with as few or fewer full layers is better." in text


def test_the_picture_of_patterns_has_windows_and_types(file, tmp_path):
    text = page_of(file, tmp_path)
    for words in ("periodic:4@0, layer 0: full attention, fp8", "list:1,4,5, layer 0: window of 2,048 tokens, bf16"):
        assert f'data-tip="{words}"' in text
    rows = {row["pattern"][0]: row for row in rows_of(Page(text), "patterns")}
    assert rows["periodic:4@0"]["layers"][0] == "0 4 8"
    assert rows["periodic:4@0"]["windows"][0] == "3 full fp8, 9 \u00d7 2,048 fp8"
    assert rows["list:1,4,5"]["windows"][0] == "3 full, 9 \u00d7 2,048" and rows["full"]["windows"][0] == "12 full"

    def rename(opened):
        opened["evaluation/layer_kv"][0, 0] = "fp7"

    rows = rows_of(Page(page_of(damage(file, tmp_path / "odd.h5", rename), tmp_path)), "patterns")
    assert all("fp" not in row["windows"][0] for row in rows) and rows[0]["windows"][0] == "12 full"
