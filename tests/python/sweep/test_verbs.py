"""winnow sweep with every option of calibrate, and with cells of evaluate and search: results equal direct runs, and
collect lists them beside the calibrations."""

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

FIGURES = ["mean_nll", "mean_exact_match", "mean_token_accuracy"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model, two data sets, and a finished sweep with a cell of each verb."""
    directory = tmp_path_factory.mktemp("verbs")
    tiny.write_checkpoint(directory / "model", layers=3, seed=1)
    tiny.write_calibration(directory / "long.h5", [300, 260, 220], seed=3)
    tiny.write_calibration(directory / "test.h5", [240, 280], seed=4, prefix="test")
    tiny.write_calibration(directory / "more.h5", [250, 230], seed=6, prefix="more")
    tiny.write_calibration(directory / "short.h5", [80, 90], seed=5)
    sweep = {
        "name": "verbs",
        "output": "out",
        "models": [{"name": "m", "path": "model", "threads": 1, "ranks_per_node": 2}],
        "datasets": [
            {"name": "long", "data": "long.h5", "controls": {"short": "short.h5"}},
            {"name": "test", "data": "test.h5"},
            {"name": "more", "data": "more.h5"},
        ],
        "windows": [16],
        "sinks": [2],
        "seeds": [0, 7],
        "device": "cpu",
        "signals": ["kl", "lazy"],
        "lazy_recent": 40,
        "top_k": 1,
        "grace": 30.5,
        "profile": True,
        "overrides": [
            {
                "match": {"dataset": "test"},
                "set": {
                    "verb": "evaluate",
                    "pattern": ["windowed", "{model}-nll.json"],
                    "baseline": "windowed",
                    "generate": 4,
                    "responses": "texts.jsonl",
                },
            },
            {"match": {"dataset": "more"}, "set": {"verb": "search", "method": "greedy-forward", "keep": 2}},
        ],
    }
    (directory / "night.yaml").write_text(json.dumps(sweep))
    direct(directory, "calibrate", "long.h5", "run", "--signals", "kl,lazy", "--lazy-recent", 40, "--top-k", 1,
           "--control", f"short={directory}/short.h5")  # fmt: skip
    winnow(directory, "select", directory / "run", "--method", "nll", "--keep", 1, "--out", directory / "m-nll.json")
    winnow(directory, "sweep", "submit", directory / "night.yaml", "--executor", "local")
    return directory


def winnow(work, *words):
    done = launch.run(words, work / "cache")
    assert done.returncode == 0, done.stderr
    return done.stdout


def direct(work, verb, data, out, *more):
    winnow(work, verb, "--model", work / "model", "--data", work / data, "--out", work / out, "--window", 16,
           "--sinks", 2, "--device", "cpu", "--threads", 1, *more)  # fmt: skip
    return work / out / "results.h5"


def cells(work):
    found = json.loads(winnow(work, "sweep", "status", work / "night.yaml", "--json"))["cells"]
    return {cell.get("verb", "calibrate"): cell for cell in found}


def results(work, verb, *below):
    return pathlib.Path(cells(work)[verb]["run_directory"], *below, "results.h5")


def values(path, group):
    """The variables of a group that a run of the same kind on the same data gives again, bit for bit."""
    with h5py.File(path) as file:
        return {
            name: item[()]
            for name, item in file[group].items()
            if isinstance(item, h5py.Dataset)
            and not name.endswith(("seconds", "seconds_exact", "_rate", "texts_together"))
        }


def expect_equal(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_every_cell_is_done(work):
    found = cells(work)
    assert {verb: cell["state"] for verb, cell in found.items()} == dict.fromkeys(
        ["calibrate", "evaluate", "search"], "done"
    )
    assert "verb" not in found["calibrate"]
    table = winnow(work, "sweep", "plan", work / "night.yaml")
    assert table.startswith("verb ") and re.search(r"^evaluate +m +test ", table, flags=re.M)


def test_signals_of_a_sweep_are_those_of_a_direct_run(work):
    for group in ("calibration", "control/short", "ranking", "signals"):
        expect_equal(values(results(work, "calibrate"), group), values(work / "run" / "results.h5", group))
    with h5py.File(results(work, "calibrate")) as file:
        assert file["calibration/lazy_ratio"].shape == (3, 3)
        assert file["provenance/profile"][()] != b""


def test_an_evaluate_cell_is_a_direct_evaluation(work):
    patterns = ["--pattern", "windowed", "--pattern", work / "m-nll.json", "--baseline", "windowed", "--generate", 4]
    path = direct(work, "evaluate", "test.h5", "evaluation", *patterns, "--responses", work / "responses.jsonl")
    expect_equal(values(results(work, "evaluate"), "evaluation"), values(path, "evaluation"))
    texts = pathlib.Path(cells(work)["evaluate"]["run_directory"], "texts.jsonl")
    assert texts.read_bytes() == (work / "responses.jsonl").read_bytes()
    # The other seed: as if the command was given it.
    path = direct(work, "evaluate", "test.h5", "evaluation-7", *patterns, "--seed", 7)
    expect_equal(values(results(work, "evaluate", "seeds", "7"), "evaluation"), values(path, "evaluation"))


def test_a_search_cell_is_a_direct_search(work):
    path = direct(work, "search", "more.h5", "search", "--method", "greedy-forward", "--keep", 2)
    group = "selection/greedy-forward"
    expect_equal(values(results(work, "search"), group), values(path, group))


def test_collect_lists_patterns_apart_from_calibrations(work):
    collected = json.loads(winnow(work, "sweep", "collect", work / "night.yaml", "--json"))
    assert [(cell["seed"], cell["state"]) for cell in collected["cells"]] == [(0, "done"), (7, "done")]
    others = {(cell["verb"], cell["seed"]): cell for cell in collected["others"]}
    assert set(others) == {("evaluate", 0), ("evaluate", 7), ("search", 0)}
    with h5py.File(results(work, "evaluate")) as file:
        evaluation = file["evaluation"]
        listed = others["evaluate", 0]["patterns"]
        assert [pattern["pattern"] for pattern in listed] == [name.decode() for name in evaluation["pattern"][()]]
        for name in FIGURES:
            assert [pattern[name] for pattern in listed] == list(evaluation[name][()])
        assert [pattern["full_layers"] for pattern in listed] == [3, 0, 1]
    with h5py.File(results(work, "search")) as file:
        group = file["selection/greedy-forward"]
        listed = others["search", 0]["patterns"]
        assert [pattern["pattern"] for pattern in listed] == [f"greedy-forward:{keep}" for keep in group["keep"][()]]
        for name in FIGURES:
            assert [pattern[name] for pattern in listed] == list(group[name][()])
    with h5py.File(collected["file"]) as file:
        assert file["cell"].shape == (2,)
    table = winnow(work, "sweep", "collect", work / "night.yaml")
    assert "evaluate model-test-w16" in table
    assert re.search(rf"greedy-forward:2 +2 +{listed[-1]['mean_nll']:.4f} ", table), table


def test_the_collected_patterns_are_as_documented(work):
    winnow(work, "sweep", "collect", work / "night.yaml", "--out", work / "collected.h5")
    entries = manual_tables.read_schema("Patterns in a collected file")["/patterns"]
    with h5py.File(work / "collected.h5") as file:
        found = manual_tables.variables_of(file["patterns"])
        assert set(found) == set(entries)
        for name, dataset in found.items():
            assert manual_tables.type_of(dataset) == entries[name]["type"], name
            assert manual_tables.dimensions_of(dataset) == entries[name]["dimensions"], name
            units = dataset.attrs.get("units", "text")
            assert units == entries[name]["units"], name
    with xr.open_dataset(work / "collected.h5", engine="h5netcdf", group="patterns") as patterns:
        assert set(patterns.variables) == set(entries)
        assert not bool(patterns.mean_nll.isnull().any())


def test_other_statistics_than_the_sweep_asks_for_are_said(work):
    sweep = json.loads((work / "night.yaml").read_text())
    (work / "other.yaml").write_text(json.dumps(sweep | {"top_k": 2}))
    collected = json.loads(winnow(work, "sweep", "collect", work / "other.yaml", "--out", work / "other.h5", "--json"))
    assert {cell["state"] for cell in collected["cells"]} == {"unusable"}
    assert "has top_k 1, but the sweep asks for 2" in collected["cells"][0]["reason"]
    assert {cell["state"] for cell in collected["others"]} == {"done"}
