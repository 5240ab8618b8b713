"""calibrate --until: examples are added until the choice is settled, alike on any ranks and after any stop."""

import json
import shutil
import signal

import h5py
import launch
import numpy as np
import pytest
import race_runs
import run_folder
import tiny
from manual_tables import assert_as_documented, read_schema, variables_of
from race_runs import LIMIT

LAYERS = 12
WINDOW = ["--window", 96]
# One layer of the demo model costs far more than the others, and is left out soon; with this tolerance they are not.
RACE = ["--until", "95%", "--until-budgets", "1,2,3", "--until-tolerance", "0.02"]
SCHEMA = read_schema("Results file with --until")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return race_runs.demo_folder(tmp_path_factory.mktemp("until"))


def calibrate(work, out, *more):
    return race_runs.calibrate(work, out, *WINDOW, *more)


def measured(work, out, *more, ranks=None):
    return race_runs.measured(work, out, *WINDOW, *more, ranks=ranks)


@pytest.fixture(scope="module")
def all_examples(work):
    return measured(work, "all")[0]


@pytest.fixture(scope="module")
def raced(work):
    return measured(work, "raced", *RACE, "--control", f"short={work / 'short.h5'}")


def test_what_a_layer_has_is_what_a_run_over_all_examples_has(raced, all_examples):
    with h5py.File(raced[0]) as file, h5py.File(all_examples) as every:
        counts = file["calibration/layer_examples"][()]
        n_examples = len(file["calibration/example_id"])
        looks = file["race/look_examples"][()].tolist()
        assert n_examples == looks[-1] and looks == [16, 24, 32][: len(looks)]
        assert counts.max() == n_examples and counts.min() < n_examples  # some stopped before others
        assert set(counts.tolist()) <= set(looks)
        for name in ("nll", "delta_nll", "token_accuracy"):
            found, whole = file["calibration"][name][()], every["calibration"][name][:n_examples]
            for layer, n in enumerate(counts):
                assert found[:n, layer].tobytes() == whole[:n, layer].tobytes()
                assert np.isnan(found[n:, layer]).all()
        for layer, n in enumerate(counts):
            mean = file["calibration/delta_nll"][:n, layer].mean()
            assert file["ranking/mean_delta_nll"][layer] == pytest.approx(mean, rel=1e-12)
            assert (file["calibration/exact_match"][n:, layer] == 255).all()
        assert np.isfinite(file["ranking/ci_low"][()]).all()
        assert np.isfinite(file["reliability/split_half"][()])
        assert len(file["control/short/example_id"]) == n_examples
        assert np.isfinite(file["control/short/nll"][()]).all()


def test_units_shrink_with_the_layers_that_are_left(work, raced):
    """The shards hold the cells of the record, and no other: a layer that is left out is not computed."""
    cells = {}
    for path in run_folder.shards(work / "raced"):
        with h5py.File(path) as file:
            if file.attrs["data_set"] != "calibration":
                continue
            example = int(file.attrs["example"])
            cells.setdefault(example, []).extend(v for v in file["variant"][()].tolist() if v >= 0)
    with h5py.File(raced[0]) as file:
        counts = file["calibration/layer_examples"][()]
    for example, layers in cells.items():
        assert sorted(layers) == [layer for layer, n in enumerate(counts) if example < n], example


def test_the_record_agrees_with_itself(raced):
    with h5py.File(raced[0]) as file:
        race = file["race"]
        assert race.attrs["confidence"] == "95%" and race.attrs["tolerance"] == "0.02"
        assert race["budget"][()].tolist() == [1, 2, 3] and race["window"][()].tolist() == [96]
        exchange, settled = race["exchange"][:, 0], race["settled_examples"][0]
        looks = race["look_examples"][()]
        for budget, n in enumerate(settled):
            within = exchange[:, budget] <= race["tolerance_nats"][:, 0]
            assert within[-1] == (n > 0)
            assert n == 0 or within[looks >= n].all()
        assert (settled > 0).all() or looks[-1] == LIMIT
        place = race["place"][0]
        for k, row in zip(race["budget"][()], place, strict=True):
            assert (row > 0).sum() <= k and (row < 0).sum() <= LAYERS - k


def test_the_file_is_as_documented(raced):
    with h5py.File(raced[0]) as file:
        found = variables_of(file["race"])
        assert set(found) == set(SCHEMA["/race"]) - set(file["race"].attrs) - {"window_kv"}
        for name, dataset in found.items():
            assert_as_documented(name, dataset, SCHEMA["/race"][name])
        entry = SCHEMA["/calibration"]["layer_examples"]
        assert_as_documented("layer_examples", file["calibration/layer_examples"], entry)
        for name in ("nll", "delta_nll", "token_accuracy"):
            assert "layer_examples" in file["calibration"][name].attrs["status"]
        assert file["calibration/exact_match"].attrs["_FillValue"] == 255


def test_two_ranks_say_the_same(work, raced):
    path, _ = measured(work, "ranks", *RACE, "--control", f"short={work / 'short.h5'}", ranks=2)
    tiny.assert_same_tables(raced[0], path)


@pytest.mark.parametrize("n_shards", [3, 20])
def test_a_stopped_race_goes_on_to_the_same_end(work, raced, n_shards):
    out = f"stopped-{n_shards}"
    more = [*RACE, "--control", f"short={work / 'short.h5'}"]
    race_runs.stopped(work, out, n_shards, signal.SIGINT, *WINDOW, *more)
    path, _ = measured(work, out, *more)
    tiny.assert_same_tables(raced[0], path)


def test_cells_that_are_there_already_change_nothing(work, raced, all_examples):
    """A run directory over all examples: the race says what it says elsewhere, and the whole run is back after it."""
    shutil.copytree(work / "all", work / "known")
    path, done = measured(work, "known", *RACE)
    for name in ("calibration/nll", "calibration/layer_examples", "race/exchange", "race/place"):
        with h5py.File(path) as file, h5py.File(raced[0]) as other:
            assert file[name][()].tobytes() == other[name][()].tobytes(), name
    assert "weights:" not in done.stderr  # nothing was measured
    tiny.assert_same_tables(measured(work, "known")[0], all_examples)


def test_a_look_is_a_line_and_the_end_a_block(raced):
    _, done = raced
    assert "16 examples: top 1 " in done.stderr
    assert "Examples that the choice needed, at 95% confidence" in done.stdout


def test_json_has_the_race(work, raced):
    done = launch.run(["stats", work / "raced", "--json"], work / "cache")
    race = json.loads(done.stdout)["race"]
    with h5py.File(raced[0]) as file:
        assert [layer["examples"] for layer in race["layers"]] == file["calibration/layer_examples"][()].tolist()
        settled = [budget["settled_examples"] or 0 for budget in race["windows"][0]["budgets"]]
        assert settled == file["race/settled_examples"][0].tolist()


def test_select_and_plan_take_the_result(work, raced):
    for words in (["select", work / "raced", "--keep", 2], ["plan", work / "raced", "--budget", "80%@1024"]):
        done = launch.run(words, work / "cache")
        assert done.returncode == 0, done.stderr


def test_a_search_for_plans_refuses_layers_without_some_examples(work, raced):
    data = ["--model", work / "model", "--data", work / "long.h5", "--out", work / "plans"]
    done = launch.run(["search", "--method", "plan", "--from", work / "raced", *data], work / "cache")
    assert done.returncode == 64
    assert len(done.stderr.strip().splitlines()) == 1 and "--until" in done.stderr


def test_several_windows_race_side_by_side(work):
    path, done = measured(work, "windows", "--windows", "96,256", *RACE, "--limit", 24)
    with h5py.File(path) as file:
        assert file["race/window"][()].tolist() == [96, 256]
        assert file["race/settled_examples"].shape == (2, 3)
        counts = file["calibration/layer_examples"][()] if "layer_examples" in file["calibration"] else [24] * LAYERS
        for layer, n in enumerate(counts):
            assert np.isfinite(file["calibration/nll_by_window"][:n, layer]).all()
            assert np.isnan(file["calibration/nll_by_window"][n:, layer]).all()
    assert " of window 256: " in done.stderr


def test_fewer_examples_than_a_look_decide_nothing_more(work):
    path, done = measured(work, "few", *RACE, "--limit", 1)
    with h5py.File(path) as file:
        assert file["race/look_examples"][()].tolist() == [1]
        assert (file["race/settled_examples"][()] == 0).all()
        assert "layer_examples" not in file["calibration"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--until", "95"], "--until"),
        (["--until", "100%"], "--until"),
        (["--until", "95%", "--until-budgets", "0"], "--until-budgets"),
        (["--until", "95%", "--until-budgets", "13"], "--until-budgets"),
        (["--until", "95%", "--until-tolerance", "-1%"], "--until-tolerance"),
        (["--until-tolerance", "1%"], "--until"),
        (["--until-budgets", "2"], "--until"),
        (["--until", "95%", "--base", "windowed"], "--base"),
        (["--until", "95%", "--per-kv-head"], "--per-kv-head"),
    ],
)
def test_bad_input_is_one_line(work, words, said):
    done = calibrate(work, "bad", *words)
    assert done.returncode == 64
    assert len(done.stderr.strip().splitlines()) == 1 and said in done.stderr
