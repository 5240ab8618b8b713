"""Reports on signals, evaluations and searches: the numbers in the page are those of the file, and odd files."""

import os
import re

import h5py
import launch
import numpy as np
import pytest
import result_files
import run_folder
import tiny
from report_pages import DONE, Page, codes_of_damage, damage, number, page_of, report, rows_of, words_of

from winnow.report.reading import search

BAD_DATA = 65
MOST_BYTES = 6 * 2**20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work = tmp_path_factory.mktemp("kinds")
    result_files.write(work / "signals.h5")
    result_files.add_signals(work / "signals.h5")
    result_files.write_evaluation(work / "evaluation.h5")
    result_files.write_search(work / "search.h5")
    return work


# ---- signals --------------------------------------------------------------------------------------------------------


def test_numbers_of_the_signals_are_those_of_the_file(made, tmp_path):
    text = page_of(made / "signals.h5", tmp_path)
    page = Page(text)
    with h5py.File(made / "signals.h5") as file:
        group = {name: file["signals"][name][()] for name in file["signals"]}
    names = [name.decode() for name in group["signal"]]
    for row in rows_of(page, "signals"):
        layer = int(row["layer"][1])
        assert [number(row[name]) for name in names] == group["value"][:, layer].tolist()
    pairs = rows_of(page, "signal-pairs")
    assert len(pairs) == len(names) * (len(names) - 1) // 2
    for row in pairs:
        at = names.index(row["signal"][0]), names.index(row["other signal"][0])
        for column, variable in (("rho", "spearman_rho"), ("low", "spearman_ci_low"), ("high", "spearman_ci_high")):
            assert number(row[column]) == group[variable][at]
    for row, name in zip(rows_of(page, "transfer"), names, strict=True):
        i = names.index(name)
        assert row["signal"][0] == name
        assert [number(row[column]) for column in ("transfer", "low", "high", "overlap")] == [
            group[variable][i] for variable in ("transfer", "transfer_low", "transfer_high", "transfer_overlap")
        ]
    given = {row["drop"][0]: row for row in rows_of(page, "partial-rho")}
    assert number(given["exact match, partial"]["rho"]) == group["partial_rho_exact_match"]
    assert number(given["token accuracy, partial"]["high"]) == group["partial_rho_accuracy_ci_high"]
    assert np.isnan(number(given["exact match, as it is"]["rho"]))  # there is no /reliability
    # The interval of exact match is above 0, that of token accuracy holds 0.
    words = words_of(text, "partial-rho")
    assert "exact match agree with rho 0.6" in words and "agree beyond what generic" in words
    assert "token accuracy agree with rho 0.05" in words and "not enough evidence that they agree beyond it" in words
    assert "Of drop of exact match the intervals overlap" in words_of(text, "transfer")


def test_the_file_says_what_a_signal_is_that_the_report_does_not_know(made, tmp_path):
    def rename(file):
        file["signals/signal"][-1] = file["signals/signal_other"][-1] = "angular"
        variable = file["calibration"].create_dataset(
            "angular_distance", data=np.zeros(file["calibration/delta_nll"].shape)
        )
        variable.attrs["long_name"] = "angular distance of <attention>"

    text = page_of(damage(made / "signals.h5", tmp_path / "odd.h5", rename), tmp_path)
    assert "least angular distance of &lt;attention&gt; (rho" in words_of(text, "signals")
    assert "angular" in rows_of(Page(text), "signals")[0]


def test_the_drops_of_the_ranking_are_compared_where_no_signal_was_measured(tmp_path):
    result_files.write(tmp_path / "results.h5")
    page = Page(page_of(tmp_path, tmp_path))
    with h5py.File(tmp_path / "results.h5") as file:
        drop = file["ranking/exact_match_drop"][:]
    rows = rows_of(page, "signals")
    assert list(rows[0]) == ["layer", "nll", "exact-match", "token-accuracy"]
    assert [number(row["exact-match"]) for row in rows] == drop.tolist()
    assert "transfer" not in page.tables and "signal-pairs" not in page.tables


def _nan_signals(file):
    for name in (
        "spearman_rho",
        "spearman_ci_low",
        "spearman_ci_high",
        "transfer",
        "partial_rho_exact_match",
        "partial_rho_accuracy",
    ):
        file["signals"][name][...] = np.nan
        file["signals"][name].attrs["status"] = "the same in <all> layers"


def _text_for_numbers(group, name):
    def change(file):
        del file[group][name]
        file[group][name] = "words"

    return change


@pytest.mark.parametrize(
    "change,figure",
    [
        (_nan_signals, "transfer"),
        (_text_for_numbers("signals", "value"), "signals"),
        (_text_for_numbers("signals", "transfer"), "signals"),
        (lambda file: file.__delitem__("signals/spearman_ci_low"), "signals"),
        (lambda file: file.__delitem__("signals/top_k"), "transfer"),
    ],
    ids=["nan", "value", "transfer", "interval", "top_k"],
)
def test_odd_signals_give_a_page(made, tmp_path, change, figure):
    text = page_of(damage(made / "signals.h5", tmp_path / "odd.h5", change), tmp_path)
    assert f'id="{figure}"' in text and words_of(text, figure)
    assert change is not _nan_signals or "the same in &lt;all&gt; layers" in words_of(text, "transfer")


# ---- an evaluation --------------------------------------------------------------------------------------------------


def test_numbers_of_an_evaluation_are_those_of_the_file(made, tmp_path):
    text = page_of(made / "evaluation.h5", tmp_path)
    page = Page(text)
    with h5py.File(made / "evaluation.h5") as file:
        group = {name: file["evaluation"][name][()] for name in file["evaluation"]}
    names = [name.decode() for name in group["pattern"]]
    rows = rows_of(page, "evaluation")
    assert sorted(row["pattern"][0] for row in rows) == sorted(names)
    for row in rows:
        i = names.index(row["pattern"][0])
        assert int(row["full layers"][1]) == group["full_layers"][i]
        for metric in ("exact_match", "nll", "token_accuracy", "generated_exact_match"):
            words = metric.replace("_", " ")
            assert number(row[f"mean {words}"]) == group[f"mean_{metric}"][i]
            assert number(row[f"{words} low"]) == group[f"{metric}_ci_low"][i]
    for other in ("full", "baseline"):
        for row in rows_of(page, f"minus-{other}"):
            i = names.index(row["pattern"][0])
            assert number(row["nll difference"]) == group[f"nll_minus_{other}"][i]
            assert number(row["exact match high"]) == group[f"exact_match_minus_{other}_ci_high"][i]
            assert number(row["McNemar's p"]) == group[f"mcnemar_p_{other}"][i]
    costs = rows_of(page, "costs")
    assert [number(row["KV cache, bytes"]) for row in costs] == group["kv_cache_bytes"].ravel().tolist()
    assert [number(row["prefill, FLOP"]) for row in costs] == group["prefill_flop"].ravel().tolist()
    generated = {row["pattern"][0]: row for row in rows_of(page, "generation")}
    assert [number(generated[name]["decode, tokens/s"]) for name in names] == group["decode_rate"].tolist()
    # The best pattern of each number of full layers, and the layers to copy.
    for k in (0, 3, 6):
        best = max(
            (i for i in range(len(names)) if group["full_layers"][i] == k), key=lambda i: group["mean_exact_match"][i]
        )
        card = re.search(rf'<div class="budget" data-budget="{k}">.*?class="sure"', text, re.DOTALL).group(0)
        assert names[best] in card
        assert f'data-copy="{",".join(str(layer) for layer in np.flatnonzero(group["full_attention"][best]))}"' in card


def test_an_evaluation_is_read_as_its_file_says(made, tmp_path):
    text = page_of(made / "evaluation.h5", tmp_path)
    assert "The answer of the &lt;file&gt;." in text and "Exact match leads &lt;here&gt;." in text
    words = words_of(text, "minus-full")
    with h5py.File(made / "evaluation.h5") as file:
        names = file["evaluation/pattern"].asstr()[:]
        verdicts = file["evaluation/verdict"].asstr()[:]
        upper = file["evaluation/exact_match_loss_upper"][:]
    assert "Margin: a loss of 30.0 points by exact match." in words
    for verdict, said in (("within", "Within it: "), ("beyond", "more than that: "), ("open", "Open: ")):
        expected = [name for name, found in zip(names, verdicts, strict=True) if found == verdict and name != "full"]
        if expected:
            assert set(expected) == set(re.split(", | and ", words.partition(said)[2].partition(". ")[0].rstrip(".")))
    for row in rows_of(Page(text), "minus-full"):
        i = list(names).index(row["pattern"][0])
        assert row["verdict"][0] == verdicts[i] and number(row["exact match loss at most"]) == upper[i]


def test_an_older_evaluation_bounds_no_loss(tmp_path):
    result_files.write_evaluation(tmp_path / "results.h5", has_losses=False)
    text = page_of(tmp_path, tmp_path)
    assert "The best pattern with fewer than 12 full layers is" in text and "nats per token" in text
    assert "winnow stats FILE --in-place" in text and "enough evidence of a difference" not in text


@pytest.mark.parametrize(
    "patterns,n,n_layers",
    [
        ({"full": ([0], 1.0)}, 8, 1),
        ({"list:1": ([1], 0.5)}, 8, 12),
        ({"windowed": ([], 0.0)}, 1, 2),
        ({f"list:{i}": ([i], i / 50) for i in range(40)}, 6, 48),
        ({f"first:{i}": (list(range(i)), i / 20) for i in range(20)}, 12, 20),
        ({"<b>x</b>" * 30: ([0, 1], 0.5), "full": ([0, 1, 2], 1.0)}, 4, 3),
    ],
    ids=["one layer", "one pattern", "one example", "many", "budgets", "names"],
)
def test_small_and_large_evaluations_give_a_page(tmp_path, patterns, n, n_layers):
    result_files.write_evaluation(tmp_path / "results.h5", patterns, n, n_layers, generate=n > 4)
    text = page_of(tmp_path, tmp_path)
    assert 'id="front"' in text and words_of(text, "front") and "<b>x" not in text
    rows = rows_of(Page(text), "evaluation")
    assert len(rows) == len(patterns)


def _without(group, *patterns):
    def change(file):
        for name in [name for name in file[group] if any(re.fullmatch(pattern, name) for pattern in patterns)]:
            del file[group][name]

    return change


def _undefined(file):
    for name in ("nll_minus_full", "exact_match_minus_full", "mean_token_accuracy"):
        file["evaluation"][name][...] = np.nan
        file["evaluation"][name].attrs["status"] = "the pattern <full> is not among them"
    file["evaluation/mean_nll"][1] = np.nan


@pytest.mark.parametrize(
    "change,words",
    [
        (_without("evaluation", ".*_minus_.*", "mcnemar.*"), "What full layers buy"),
        (_without("evaluation", ".*_ci_.*"), "What full layers buy"),
        (_without("evaluation", "kv_.*", "prefill_flop", "on_front.*"), "layers with full attention"),
        (
            _without("evaluation", "nll", "exact_match", "token_accuracy", "example_id"),
            "not enough evidence that it is better",
        ),
        (_without("evaluation", "(mean_)?exact_match.*", "generated.*"), "What full layers buy"),
        (_undefined, "the pattern &lt;full&gt; is not among them"),
        (_text_for_numbers("evaluation", "kv_cache_bytes"), "prefill"),
        (_text_for_numbers("evaluation", "mean_nll"), "exact match"),
        (_without("/", "provenance"), "What full layers buy"),
    ],
    ids=["differences", "intervals", "costs", "examples", "exact match", "nan", "type", "mean", "provenance"],
)
def test_odd_evaluations_give_a_page(made, tmp_path, change, words):
    assert words in page_of(damage(made / "evaluation.h5", tmp_path / "odd.h5", change), tmp_path)


@pytest.mark.parametrize(
    "source,change,words",
    [
        ("evaluation.h5", _without("evaluation", "pattern"), "not readable as netCDF-4"),
        ("evaluation.h5", _text_for_numbers("evaluation", "full_attention"), "no patterns of layers"),
        ("evaluation.h5", _without("evaluation", "mean_.*"), "no finite mean"),
        ("search.h5", _without("selection", ".*"), "no method"),
        ("search.h5", _without("selection/greedy-forward", "keep"), "not readable as netCDF-4"),
    ],
    ids=["pattern", "full_attention", "means", "methods", "keep"],
)
def test_what_holds_nothing_is_refused_in_one_line(made, tmp_path, source, change, words):
    code, _, err = report(damage(made / source, tmp_path / "odd.h5", change), "--out", tmp_path / "page.html")
    assert code == BAD_DATA and words in err


# ---- a search -------------------------------------------------------------------------------------------------------


def test_numbers_of_a_search_are_those_of_the_file(made, tmp_path):
    text = page_of(made / "search.h5", tmp_path)
    page = Page(text)
    with h5py.File(made / "search.h5") as file:
        greedy = {name: file["selection/greedy-forward"][name][()] for name in file["selection/greedy-forward"]}
        pairs = {name: file["selection/pairs"][name][()] for name in file["selection/pairs"]}
    rows = rows_of(page, "greedy-forward-kept")
    assert [int(row["K"][1]) for row in rows] == greedy["keep"].tolist()
    for i, row in enumerate(rows):
        assert row["layers"][0] == " ".join(str(layer) for layer in np.flatnonzero(greedy["full"][i]))
        for name in ("mean_nll", "mean_exact_match", "mean_nll_verified"):
            assert number(row[name.replace("_", " ")]) == greedy[name][i]
    verified = {row["figure"][0]: row for row in rows_of(page, "greedy-forward-verified")}
    assert number(verified["NLL"]["rho"]) == greedy["rho_nll"]
    assert number(verified["exact match"]["high"]) == greedy["rho_exact_match_ci_high"]
    assert "75\u00a0% of the wins are kept" in text
    for row in rows_of(page, "pairs"):
        at = int(row["layer"][1]), int(row["other layer"][1])
        for column, variable in (
            ("interaction", "interaction_nll"),
            ("low", "interaction_nll_ci_low"),
            ("delta NLL of both", "delta_nll_pair"),
            ("interaction of exact match", "interaction_exact_match"),
        ):
            assert number(row[column]) == pairs[variable][at]
    upper = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    clear = [one for one in upper if pairs["interaction_nll_ci_low"][one] > 0]
    assert f"Of 6 pairs {len(clear)} hurt" in words_of(text, "pairs")


@pytest.mark.parametrize(
    "n_layers,methods",
    [
        (2, ("greedy-backward",)),
        (12, ("pairs",)),
        (1, ("pairs",)),
        (48, ("greedy-forward", "greedy-backward", "pairs")),
    ],
)
def test_searches_of_other_shapes_give_a_page(tmp_path, n_layers, methods):
    result_files.write_search(tmp_path / "results.h5", n_layers, methods=methods)
    text = page_of(tmp_path, tmp_path)
    for method in methods:
        assert words_of(text, "pairs" if method == "pairs" else f"{method}-kept")


@pytest.mark.parametrize(
    "change,words",
    [
        (_without("selection/greedy-forward", ".*_verified", "rho_.*", "wins_kept", "n_verified"), "--verify N"),
        (
            _without("selection/greedy-forward", "nll.*", "exact_match.*", "pattern.*", "example_id"),
            "greedy-forward-kept",
        ),
        (_without("selection/greedy-forward", "mean_exact_match.*", "objective"), "NLL"),
        (_text_for_numbers("selection/greedy-forward", "full"), "Not readable, and left out: greedy-forward"),
        (
            _without("selection/pairs", ".*_ci_.*", "interaction_exact_match", "delta_nll.*"),
            "for 6 there is not enough evidence",
        ),
        (lambda file: file["selection/greedy-forward/mean_nll"].__setitem__(Ellipsis, np.nan), "greedy-forward-kept"),
    ],
    ids=["unverified", "examples", "objective", "type", "pairs", "nan"],
)
def test_odd_searches_give_a_page(made, tmp_path, change, words):
    assert words in page_of(damage(made / "search.h5", tmp_path / "odd.h5", change), tmp_path)


# ---- several kinds, real runs ---------------------------------------------------------------------------------------


def test_results_of_every_kind_share_a_page(made, tmp_path):
    sources = [made / name for name in ("signals.h5", "search.h5", "evaluation.h5")]
    code, out, err = report(*sources, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert code == DONE and "3 results" in out, err
    text = (tmp_path / "page.html").read_text()
    places = [
        text.index(f'id="{name}"') for name in ("r0", "r0-front", "r1", "r1-greedy-forward-kept", "r2", "r2-deltas")
    ]
    assert places == sorted(places)
    for word in ("Whole patterns on held-out examples", "Joint selection", "Layers one at a time"):
        assert f"{word}: " in text[: places[0]]
    assert {"r0-front-nll.svg", "r1-pairs-nll.svg", "r2-transfer-worth.svg"} <= {
        file.name for file in (tmp_path / "figures").iterdir()
    }


def test_large_results_of_every_kind_stay_within_the_size(tmp_path):
    random = np.random.default_rng(0)
    patterns = {"full": (list(range(96)), 1.0)} | {
        f"pattern-{i}-{'x' * 40}": (sorted(random.permutation(96)[:24].tolist()), i / 150) for i in range(150)
    }
    result_files.write(tmp_path / "c.h5", 1000, 96)
    result_files.add_signals(tmp_path / "c.h5")
    result_files.write_search(tmp_path / "s.h5", 96, 64, methods=("greedy-forward", "greedy-backward", "pairs"))
    result_files.write_evaluation(tmp_path / "e.h5", patterns, 500, 96)
    code, _, err = report(*(tmp_path / f"{name}.h5" for name in "cse"), "--out", tmp_path / "page.html")
    assert code == DONE, err
    assert (tmp_path / "page.html").stat().st_size <= MOST_BYTES
    page = Page((tmp_path / "page.html").read_text())
    assert len(page.tables["r0-patterns"]) == 152 and len(page.tables["r1-greedy-forward-kept"]) == 49


def test_any_damaged_byte_gives_a_page_or_one_line(made, tmp_path):
    codes = set.union(
        *(codes_of_damage(made / name, 6, 40, tmp_path) for name in ("signals.h5", "evaluation.h5", "search.h5"))
    )
    assert codes <= {DONE, BAD_DATA}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    result_files.run_all_kinds(directory, launch, tiny)
    return directory


def test_real_runs_of_every_verb_share_a_page(kinds, tmp_path):
    code, _, err = report(
        *(kinds / name for name in ("search", "calibration", "evaluation")), "--out", tmp_path / "page.html"
    )
    assert code == DONE, err
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert ">nan" not in text and "nan " not in text
    with h5py.File(kinds / "evaluation/results.h5") as file:
        names = [name.decode() for name in file["evaluation/pattern"][:]]
        rows = {row["pattern"][0]: row for row in rows_of(page, "r0-evaluation")}
        assert [number(rows[name]["mean nll"]) for name in names] == file["evaluation/mean_nll"][:].tolist()
        written = {row["pattern"][0]: row for row in rows_of(page, "r0-generation")}
        assert [number(written[name]["decode, tokens/s"]) for name in names] == file["evaluation/decode_rate"][
            :
        ].tolist()
    with h5py.File(kinds / "search/results.h5") as file:
        for method in ("greedy-forward", "greedy-backward"):
            group, rows = file[f"selection/{method}"], rows_of(page, f"r1-{method}-kept")
            assert [int(row["K"][1]) for row in rows] == group["keep"][:].tolist()
            assert [number(row["mean nll"]) for row in rows] == group["mean_nll"][:].tolist()
        pairs = file["selection/pairs"]
        upper = np.triu_indices(len(pairs["candidate"]), 1)
        assert [number(row["interaction"]) for row in rows_of(page, "r1-pairs")] == pairs["interaction_nll"][:][
            upper
        ].tolist()
        forward = file["selection/greedy-forward"]
        assert f"{forward['n_verified'][()]} verified patterns on {forward['n_verified_examples'][()]} examples" in text
    with h5py.File(kinds / "calibration/results.h5") as file:
        for i, name in enumerate(file["signals/signal"].asstr()[:]):
            assert [number(row[name]) for row in rows_of(page, "r2-signals")] == file["signals/value"][i].tolist()


def test_verified_means_are_of_the_verified_examples():
    tail = np.array([[1.0, 2, 3], [4, 5, 6]])
    exact = np.array([[1.5, np.nan, 2.5], [np.nan] * 3])
    found = search.verified_means(tail, exact)
    assert found[0][0] == 2 and found[1][0] == 2 and np.isnan(found[0][1]) and np.isnan(found[1][1])


@pytest.mark.parametrize(
    "name",
    [
        "mean_exact_match",
        "kv_cache_bytes",
        "full_layers",
        "exact_match_minus_full",
        "on_front_nll",
        "generated_cache_bytes",
        "mean_nll",
    ],
)
def test_a_real_evaluation_may_lack_variables(kinds, tmp_path, name):
    text = page_of(
        damage(kinds / "evaluation/results.h5", tmp_path / "results.h5", _without("evaluation", name)), tmp_path
    )
    assert 'id="front"' in text and ">nan" not in text and "nan " not in text


def test_one_pattern_and_one_example_alone_get_a_page(kinds, tmp_path):
    more = ["--window", 8, "--limit", 1, "--pattern", "windowed"]
    done = launch.run(run_folder.arguments("evaluate", kinds, tmp_path / "run", *more), kinds / "cache")
    assert done.returncode == DONE, done.stderr
    assert "Only 1 example" in page_of(tmp_path / "run", tmp_path)


def test_a_pipe_is_not_replaced(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = report(made / "search.h5", "--out", tmp_path / "pipe")
    assert code == 64 and "device or pipe" in err and (tmp_path / "pipe").is_fifo()
