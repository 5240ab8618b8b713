"""The study of a sweep over several models: rules, budgets, examples and the tail, against an own computation with
numpy, the document, and the page."""

import html
import json
import pathlib
import re

import h5py
import launch
import manual_tables
import numpy as np
import pytest
import tiny
import xarray as xr

MODELS = {"a": 8, "b": 9, "c": 12}  # layers
DIVISORS = [8, 4, 2]
SELECTED = ["nll", "kl"]
COMMON = {"name": "study", "output": "out", "windows": [16], "sinks": [2], "device": "cpu", "signals": ["kl"]}
GROUPS = ["/study/rules", "/study/examples", "/study/tail"]
FEWEST_SHARE = 0.9


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A finished sweep: three models, calibrated exactly and by the tail, their selections evaluated on other
    examples."""
    directory = tmp_path_factory.mktemp("study")
    for seed, (name, layers) in enumerate(MODELS.items()):
        tiny.write_checkpoint(directory / "models" / name, layers=layers, seed=seed)
    tiny.write_calibration(directory / "long.h5", [90, 80, 70, 100, 60, 75, 85, 95, 65], seed=3)
    tiny.write_calibration(directory / "test.h5", [80, 90, 70, 60], seed=4, prefix="test")
    models = [{"name": name, "path": f"models/{name}", "threads": 1} for name in MODELS]
    calibrated = [{"name": "long", "data": "long.h5"}, {"name": "by-tail", "data": "long.h5"}]
    tail = {"match": {"dataset": "by-tail"}, "set": {"tail_rows": 4}}
    write(directory / "first.yaml", models=models, datasets=calibrated, overrides=[tail])
    winnow(directory, "sweep", "submit", directory / "first.yaml", "--executor", "local")
    for cell in json.loads(winnow(directory, "sweep", "status", directory / "first.yaml", "--json"))["cells"]:
        select(directory, cell)
    patterns = [f"{{model}}/{divisor}/{name}.json" for divisor in DIVISORS for name in [*SELECTED, "nll-by-tail"]]
    overrides = [tail, {"match": {"dataset": "test"}, "set": {"verb": "evaluate", "pattern": ["windowed", *patterns]}}]
    for model, layers in MODELS.items():
        more = [f"random:{seed}:{layers // 4}" for seed in range(2)]
        match = {"dataset": "test", "model": model}
        overrides.append({"match": match, "set": {"pattern": ["windowed", *patterns, *more]}})
    datasets = [*calibrated, {"name": "test", "data": "test.h5"}]
    write(directory / "study.yaml", models=models, datasets=datasets, overrides=overrides, seeds=[0, 5])
    winnow(directory, "sweep", "submit", directory / "study.yaml", "--executor", "local")
    return directory


def write(path, **more):
    path.write_text(json.dumps(COMMON | more))


def winnow(work, *words):
    done = launch.run(words, work / "cache")
    assert done.returncode == 0, done.stderr
    return done.stdout


def select(work, cell):
    for divisor in DIVISORS:
        folder = work / cell["model"] / str(divisor)
        folder.mkdir(parents=True, exist_ok=True)
        methods = SELECTED if cell["dataset"] == "long" else ["nll"]
        for method in methods:
            name = method if cell["dataset"] == "long" else "nll-by-tail"
            winnow(work, "select", cell["run_directory"], "--method", method, "--keep",
                   MODELS[cell["model"]] // divisor, "--out", folder / f"{name}.json")  # fmt: skip


@pytest.fixture(scope="module")
def collected(work):
    winnow(work, "sweep", "collect", work / "study.yaml", "--out", work / "collected.h5")
    return work / "collected.h5"


def study(collected, part):
    return xr.open_dataset(collected, engine="h5netcdf", group=f"study/{part}").load()


def results(work, model, dataset):
    cells = json.loads(winnow(work, "sweep", "status", work / "study.yaml", "--json"))["cells"]
    [found] = [cell["run_directory"] for cell in cells if (cell["model"], cell["dataset"]) == (model, dataset)]
    return pathlib.Path(found, "results.h5")


# ---- rules ----------------------------------------------------------------------------------------------------------


def own_rules(path, layers):
    """{divisor: {rule: (loss by the leading figure, share of windowing's, NLL)}} of one evaluation."""
    with h5py.File(path) as file:
        group = file["evaluation"]
        leading = group.attrs["leading_figure"]
        names = [name.decode() for name in group["pattern"][()]]
        sign = -1 if leading in ("token_accuracy", "exact_match") else 1
        values, full_layers = group[leading][()].astype(float), group["full_layers"][()]
        losses = sign * (values - values[names.index("full")]).mean(axis=1)
        nll = group["nll"][()].mean(axis=1)
    found = {}
    for divisor in DIVISORS:
        rules = {}
        for name, loss, own_nll, n_full in zip(names, losses, nll, full_layers, strict=True):
            match = re.fullmatch(r"([a-z-]+):[\d:]+(?: (.+)\.json)?", name)
            if match and n_full == layers // divisor:
                rule = " ".join(word for word in match.groups() if word)
                rules.setdefault(rule, []).append((loss, loss / losses[names.index("windowed")], own_nll))
        found[divisor] = {rule: np.mean(figures, axis=0) for rule, figures in rules.items()}
    return found


def average_ranks(values):
    """1 = smallest; ties share the mean of their ranks."""
    values = np.array(values)
    return np.array([(np.sum(values < v) + 1 + np.sum(values <= v)) / 2 for v in values])


def test_rules_are_ranked_as_numpy_ranks_them(work, collected):
    rules = study(collected, "rules")
    own = {model: own_rules(results(work, model, "test"), layers) for model, layers in MODELS.items()}
    assert list(rules.study_model.values) == list(MODELS)
    assert set(rules.rule.values) == {"nll", "kl", "nll nll-by-tail", "random"}
    np.testing.assert_allclose(rules.kept_share, [1 / 8, 1 / 4, 1 / 2])
    for at, divisor in enumerate(DIVISORS):
        budget = rules.isel(kept_share=at)
        compared = [
            str(rule) for rule in rules.rule.values if all(str(rule) in own[model][divisor] for model in MODELS)
        ]
        assert len(compared) == (4 if divisor == 4 else 3)
        assert list(budget.layers_kept.values) == [layers // divisor for layers in MODELS.values()]
        figures = np.array([[own[model][divisor][rule] for rule in compared] for model in MODELS])
        ranks = np.array([average_ranks(losses) for losses in figures[:, :, 0]])
        of_compared = budget.sel(rule=compared, other_rule=compared)
        np.testing.assert_allclose(of_compared["rank"], ranks)
        np.testing.assert_allclose(of_compared.loss_left, figures[:, :, 1], rtol=1e-9)
        np.testing.assert_allclose(of_compared.nll, figures[:, :, 2], rtol=1e-12)
        for name, values in (("mean_rank", ranks), ("mean_loss_left", figures[:, :, 1])):
            # Of three models the 95 % interval of the percentile bootstrap is their range: 1 of 27 draws is one alone.
            for end, expected in (("", values.mean(0)), ("_ci_low", values.min(0)), ("_ci_high", values.max(0))):
                np.testing.assert_allclose(of_compared[name + end], expected, rtol=1e-9, atol=1e-12, err_msg=name + end)
        for name, values in (("rank_difference", ranks), ("nll_difference", figures[:, :, 2])):
            difference = values[:, :, None] - values[:, None, :]
            for end, expected in (
                ("", difference.mean(0)),
                ("_ci_low", difference.min(0)),
                ("_ci_high", difference.max(0)),
            ):
                np.testing.assert_allclose(of_compared[name + end], expected, rtol=1e-9, atol=1e-12, err_msg=name + end)
        others = budget.sel(rule=[rule for rule in rules.rule.values if rule not in compared])
        assert np.isnan(others.mean_rank).all()
    assert rules.mean_rank.attrs["status"] == "the rule is not in every evaluation with that budget"


# ---- examples -------------------------------------------------------------------------------------------------------

MASK = 2**64 - 1
SUBSET_STREAM, DRAWS = 49, 200


def mixed(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def own_order(n, seed, draw):
    """The examples in the order of one draw: SplitMix64, shuffled by Fisher and Yates from the end."""
    gamma = 0x9E3779B97F4A7C15
    state = seed
    for key in (0, SUBSET_STREAM, draw):
        state = mixed((state + key + gamma) & MASK)
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        bits = i.bit_length()
        while True:
            state = (state + gamma) & MASK
            j = mixed(state) >> (64 - bits)
            if j <= i:
                break
        order[i], order[j] = order[j], order[i]
    return order


def test_examples_needed_are_those_of_an_own_computation(work, collected):
    examples = study(collected, "examples")
    assert len(examples.calibration) == 2 * len(MODELS)
    np.testing.assert_array_equal(examples.subset, [2, 4, 8])
    for label in examples.calibration.values:
        row = examples.sel(calibration=label)
        with h5py.File(results(work, str(row.model.values), str(row.dataset.values))) as file:
            delta = file["calibration/delta_nll"][()]
        n, layers = delta.shape
        assert row.n_examples == n

        def top(means, keep):
            return set(np.lexsort((np.arange(layers), -means))[:keep])  # noqa: B023

        for at, divisor in enumerate(DIVISORS):
            keep = layers // divisor
            everything = top(delta.mean(axis=0), keep)
            overlap = np.array(
                [
                    [len(everything & top(delta[order[:size]].mean(axis=0), keep)) / keep for size in (2, 4, 8)]
                    for order in (own_order(n, 0, draw) for draw in range(DRAWS))
                ]
            )
            budget = row.isel(kept_share=at)
            assert budget.layers_kept == keep
            np.testing.assert_allclose(budget.overlap, overlap.mean(axis=0))
            np.testing.assert_allclose(budget.same_layers, (overlap == 1).mean(axis=0))
            np.testing.assert_allclose(
                [budget.overlap_low, budget.overlap_high], np.percentile(overlap, [2.5, 97.5], axis=0)
            )
            enough = [
                size for size, share in zip((2, 4, 8), overlap.mean(axis=0), strict=True) if share >= FEWEST_SHARE
            ]
            np.testing.assert_array_equal(budget.examples_needed, enough[0] if enough else np.nan)


# ---- tail -----------------------------------------------------------------------------------------------------------


def test_tail_and_exact_agree_as_winnow_and_numpy_say(work, collected):
    tail = study(collected, "tail")
    assert list(tail.model.values) == list(MODELS) and set(tail.tail_rows.values) == {4}
    for pair in tail.pair.values:
        row = tail.sel(pair=pair)
        model = str(row.model.values)
        ranks, means = [], []
        for dataset in ("long", "by-tail"):
            with h5py.File(results(work, model, dataset)) as file:
                ranks.append(file["ranking/rank"][()])
                means.append(average_ranks(file["ranking/mean_delta_nll"][()]))
        np.testing.assert_allclose(row.spearman_rho, np.corrcoef(*means)[0, 1])
        assert row.spearman_ci_low <= row.spearman_rho <= row.spearman_ci_high
        for at, divisor in enumerate(DIVISORS):
            keep = MODELS[model] // divisor
            assert row.overlap[at] == np.sum((ranks[0] <= keep) & (ranks[1] <= keep)) / keep


# ---- the file, the table, the page ----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_the_study_is_as_documented(collected, group):
    entries = manual_tables.read_schema("Study in a collected file")[group]
    with h5py.File(collected) as file:
        assert set(file["study"]) == {name.rsplit("/", 1)[1] for name in GROUPS}
        assert file[group].attrs["answer"]
        found = manual_tables.variables_of(file[group])
        assert set(found) == set(entries)
        for name, dataset in found.items():
            manual_tables.assert_as_documented(name, dataset, entries[name])
            if (
                dataset.dtype == np.float64
                and np.isnan(dataset[()]).any()
                and "subset" not in entries[name]["dimensions"]
            ):
                assert dataset.attrs["status"], name
    with xr.open_datatree(collected, engine="h5netcdf") as tree:
        assert set(tree[group].to_dataset(inherit=False).variables) == set(entries)


def test_table_json_and_file_say_the_same(work, collected):
    printed = json.loads(winnow(work, "sweep", "collect", work / "study.yaml", "--out", work / "again.h5", "--json"))
    table = " ".join(winnow(work, "sweep", "collect", work / "study.yaml", "--out", work / "again.h5").split())
    for part in ("rules", "examples", "tail"):
        data = study(collected, part)
        assert printed["study"][part]["answer"] == data.attrs["answer"]
        assert data.attrs["answer"] in table
    rules = study(collected, "rules")
    for budget in printed["study"]["rules"]["budgets"]:
        for rule in budget["rules"]:
            at = {"kept_share": budget["kept_share"], "rule": rule["rule"]}
            assert rule["mean_rank"] == float(rules.mean_rank.sel(at))
    assert (work / "again.h5").read_bytes() == collected.read_bytes()


def test_three_models_are_said_to_be_three(collected):
    answer = study(collected, "rules").attrs["answer"]
    assert "Of 3 models an interval is their range, which holds the mean of all such models in 75 % of cases" in answer
    assert re.search(r"At 1/4 of the layers \S+ has the best mean rank of 4 rules over 3 models", answer)


def test_two_models_have_no_intervals(work):
    sweep = json.loads((work / "study.yaml").read_text())
    sweep |= {"models": sweep["models"][:2], "name": "two"}
    sweep["overrides"] = [entry for entry in sweep["overrides"] if entry["match"].get("model") != "c"]
    (work / "two.yaml").write_text(json.dumps(sweep))
    winnow(work, "sweep", "collect", work / "two.yaml", "--out", work / "two.h5")
    rules = study(work / "two.h5", "rules")
    assert rules.mean_rank.notnull().any() and rules.mean_rank_ci_low.isnull().all()
    assert "an interval over models needs 3 of them, there are 2" in rules.mean_rank_ci_low.attrs["status"]
    assert "2 models say little of others; there are no intervals." in rules.attrs["answer"]


def test_the_page_has_the_study(work, collected):
    winnow(work, "report", collected, "--out", work / "study.html")
    page = html.unescape((work / "study.html").read_text())
    for part, heading in (("rules", "Which rule"), ("examples", "How many examples"), ("tail", "Is the tail enough")):
        assert study(collected, part).attrs["answer"] in page
        assert heading in page
    for rule in ("nll", "kl", "nll nll-by-tail"):
        assert f"<td>{rule}</td>" in page


def test_a_sweep_of_evaluations_alone_has_a_page(work):
    sweep = json.loads((work / "study.yaml").read_text())
    sweep |= {"datasets": sweep["datasets"][2:], "name": "alone"}
    sweep["overrides"] = [entry for entry in sweep["overrides"] if entry["match"]["dataset"] == "test"]
    del sweep["signals"]  # of calibrations
    (work / "alone.yaml").write_text(json.dumps(sweep))
    winnow(work, "sweep", "collect", work / "alone.yaml", "--out", work / "alone.h5")
    with h5py.File(work / "alone.h5") as file:
        assert set(file["study"]) == {"rules"}
    winnow(work, "report", work / "alone.h5", "--out", work / "alone.html")
    page = html.unescape((work / "alone.html").read_text())
    assert study(work / "alone.h5", "rules").attrs["answer"] in page
