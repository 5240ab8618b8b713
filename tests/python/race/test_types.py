"""calibrate --until with --kv: one race a window and type of keys and values, as another implementation has them, with
the cells that a run over all examples has; and plans of the result."""

import json
import shutil
import signal

import h5py
import launch
import numpy as np
import pytest
import race_runs
import tiny
from manual_tables import assert_as_documented, read_schema, variables_of
from race_runs import calibrate, measured

LAYERS = [0, 1, 3, 4, 5]
TYPES = ["--window", 96, "--kv", "bf16,fp8", "--layers", "0,1,3-5"]
# Without types all is settled at the first look, and with them one layer is left out at it.
RACE = ["--until", "95%", "--until-budgets", "1,2,3", "--until-tolerance", "0.02"]
SETTINGS = [(96, "bf16"), (96, "fp8"), (0, "fp8")]
NAMES = ["96 keys in bf16", "96 keys in fp8", "full attention in fp8"]
KEPT = ["nll_by_setting", "delta_nll_by_setting", "token_accuracy_by_setting", "exact_match_by_setting"]
SCHEMA = read_schema("Results file with --until")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return race_runs.demo_folder(tmp_path_factory.mktemp("until-types"))


@pytest.fixture(scope="module")
def all_examples(work):
    return measured(work, "all", *TYPES)[0]


@pytest.fixture(scope="module")
def raced(work):
    return measured(work, "raced", *TYPES, *RACE)


def settings_of(group, dimension="setting"):
    windows = group["window" if dimension == "window" else f"{dimension}_window"][()].tolist()
    return list(zip(windows, group[f"{dimension}_kv"].asstr()[()].tolist(), strict=True))


def test_what_a_layer_has_in_each_setting_is_what_a_run_over_all_examples_has(raced, all_examples):
    with h5py.File(raced[0]) as file, h5py.File(all_examples) as every:
        group, whole = file["calibration"], every["calibration"]
        counts = group["layer_examples"][()]
        n_examples = len(group["example_id"])
        assert counts.max() == n_examples and counts.min() < n_examples < len(whole["example_id"])
        assert settings_of(group) == settings_of(whole) == settings_of(file["race"], "window") == SETTINGS
        for name in KEPT:
            for layer, n in enumerate(counts):
                assert group[name][:n, layer].tobytes() == whole[name][:n, layer].tobytes(), name
                rest = group[name][n:, layer]
                assert (rest == 255).all() if name.startswith("exact") else np.isnan(rest).all(), name
            assert "layer_examples" in group[name].attrs["status"]
        assert group["exact_match_by_setting"].attrs["_FillValue"] == 255


def assert_raced_as(path, deltas, budgets, tolerance):
    """The record is what another implementation makes of the deltas over all examples."""
    with h5py.File(path) as file:
        race = file["race"]
        settings = settings_of(race, "window")
        assert race["budget"][()].tolist() == budgets
        races, counts, looks = race_runs.raced(deltas, settings, budgets, 0.95, tolerance)
        assert race["look_examples"][()].tolist() == looks
        group = file["calibration"]
        found = group["layer_examples"][()] if "layer_examples" in group else [looks[-1]] * len(counts)
        assert list(found) == counts.tolist()
        for s, one in enumerate(races):
            for look, (limit, exchanges, n_open) in enumerate(one.looks):
                assert race["tolerance_nats"][look, s] == pytest.approx(limit, rel=1e-9)
                assert race["exchange"][look, s] == pytest.approx(exchanges, rel=1e-9, abs=1e-15)
                assert race["n_open"][look, s].tolist() == n_open
            assert np.isnan(race["tolerance_nats"][len(one.looks) :, s]).all()
            assert race["settled_examples"][s].tolist() == one.settled
            assert race["place"][s].tolist() == [one.places(k).tolist() for k in budgets]
        return races, counts


def test_the_races_are_those_of_another_implementation(raced, all_examples):
    with h5py.File(all_examples) as file:
        deltas = file["calibration/delta_nll_by_setting"][()]
    races, counts = assert_raced_as(raced[0], deltas, [1, 2, 3], 0.02)
    ends = [len(race.looks) for race in races]
    assert ends == [1, 2, 1], "a type needs more examples than the window alone"
    assert 0 < (counts == 16).sum() < len(LAYERS)


def test_so_are_races_of_many_settings_with_a_share_as_the_tolerance(tmp_path):
    """Layers of random weights, which are not settled: all examples are taken."""
    tiny.write_checkpoint(tmp_path / "model", layers=5)
    lengths = np.random.default_rng(3).integers(40, 90, 40).tolist()
    tiny.write_calibration(tmp_path / "long.h5", lengths)
    more = ["--windows", "8,30", "--kv", "int4,fp8", "--limit", 40]
    path, _ = measured(tmp_path, "raced", *more, "--until", "95%")
    every, _ = measured(tmp_path, "all", *more)
    with h5py.File(every) as file:
        deltas = file["calibration/delta_nll_by_setting"][()]
    races, _ = assert_raced_as(path, deltas, [1, 2], None)
    assert len(races) == 2 * 3 + 2
    assert max(len(race.looks) for race in races) == 4


def test_the_file_is_as_documented_and_says_the_types(raced):
    with h5py.File(raced[0]) as file:
        found = variables_of(file["race"])
        assert set(found) == set(SCHEMA["/race"]) - set(file["race"].attrs)
        for name, dataset in found.items():
            assert_as_documented(name, dataset, SCHEMA["/race"][name])


def test_lines_and_json_name_the_settings(work, raced):
    _, done = raced
    for name in NAMES:
        assert f"16 examples of {name}: top 1 " in done.stderr
        assert f"  {name}, top 1: settled after 16 examples" in done.stdout
    assert f"24 examples of {NAMES[1]}: " in done.stderr and f"24 examples of {NAMES[0]}: " not in done.stderr
    shown = json.loads(launch.succeed(launch.run(["stats", work / "raced", "--json"], work / "cache")).stdout)
    assert [(race["window"], race["kv"]) for race in shown["race"]["windows"]] == SETTINGS


def test_ranks_and_a_stopped_race_say_the_same(work, raced):
    tiny.assert_same_tables(raced[0], measured(work, "ranks", *TYPES, *RACE, ranks=2)[0])
    for n_shards, ranks in ((4, 2), (19, None)):  # in the first look, and in the second
        out = f"stopped-{n_shards}"
        race_runs.stopped(work, out, n_shards, signal.SIGINT, *TYPES, *RACE)
        assert not (work / out / "results.h5").exists()
        tiny.assert_same_tables(raced[0], measured(work, out, *TYPES, *RACE, ranks=ranks)[0])


def test_without_until_the_same_run_is_over_all_examples(work, raced, all_examples):
    shutil.copytree(work / "raced", work / "grown")
    tiny.assert_same_tables(all_examples, measured(work, "grown", *TYPES)[0])


def test_a_report_names_the_settings(work, raced):
    launch.succeed(launch.run(["report", raced[0], "--out", work / "report.html"], work / "cache"))
    page = (work / "report.html").read_text()
    under = "96 keys in bf16, 96 keys in fp8 and full attention in fp8"
    assert f"until their places were certain (--until, under {under})" in page


def test_statistics_anew_keep_the_race(work, raced):
    launch.succeed(launch.run(["stats", raced[0], "--out", work / "again.h5"], work / "cache"))
    tiny.assert_same_tables(raced[0], work / "again.h5")


@pytest.mark.parametrize("share", ["90%", "65%"])
def test_plans_add_up_what_each_layer_was_measured_on(work, raced, share):
    words = ["plan", work / "raced", "--budget", f"{share}@1024", "--json"]
    (plan,) = json.loads(launch.succeed(launch.run(words, work / "cache")).stdout)["plans"]
    with h5py.File(raced[0]) as file:
        group = file["calibration"]
        settings = [*settings_of(group), (0, "bf16")]
        deltas, counts = group["delta_nll_by_setting"][()], group["layer_examples"][()]
    kinds = plan.get("layer_kv", ["bf16"] * 12)
    loss = 0.0
    for column, (layer, n) in enumerate(zip(LAYERS, counts, strict=True)):
        chosen = settings.index((plan["layer_windows"][layer] or 0, kinds[layer]))
        loss += deltas[:n, column, chosen].mean() if chosen < len(SETTINGS) else 0.0
    assert plan["predicted_delta_nll"] == pytest.approx(loss, rel=1e-12, abs=1e-15)
    assert plan["ci_low"] <= loss <= plan["ci_high"]
    assert "fp8" in kinds


def test_a_plan_says_when_it_was_settled(work, raced):
    """On the examples that all layers have; one that was left out has fewer."""
    words = ["plan", work / "raced", "--budget", "70%@1024", "--until", "95%", "--until-tolerance", "0.05", "--json"]
    (plan,) = json.loads(launch.succeed(launch.run(words, work / "cache")).stdout)["plans"]
    assert [(look["examples"], look["is_settled"]) for look in plan["looks"]] == [(16, True)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--kv", "fp9"], 64, "fp9"),
        (["--kv", "fp8", "--until-tolerance", "-1%"], 64, "--until-tolerance"),
        (["--kv", "fp8", "--per-kv-head"], 64, "--per-kv-head"),
        (["--kv", "fp8", "--base", "windowed"], 64, "--base"),
    ],
)
def test_bad_input_is_one_line(work, words, code, said):
    done = calibrate(work, "bad", "--window", 96, "--until", "95%", *words)
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1 and said in done.stderr
    assert not (work / "bad").exists()


def test_other_types_are_another_run(work, raced):
    done = calibrate(work, "raced", "--window", 96, "--kv", "int8", "--layers", "0,1,3-5", *RACE)
    assert done.returncode == 78 and "kv_types" in done.stderr


def test_a_search_for_plans_refuses_layers_without_some_examples(work, raced):
    data = ["--model", work / "model", "--data", work / "long.h5", "--out", work / "plans"]
    done = launch.run(["search", "--method", "plan", "--from", work / "raced", *data], work / "cache")
    assert done.returncode == 64
    assert len(done.stderr.strip().splitlines()) == 1 and "--until" in done.stderr
