"""winnow evaluate from outside: its figures are those of calibrate where both measure, on any number of ranks, after
any crash; and what it warns of and refuses."""

import json
import time

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny
import xarray as xr
from run_folder import last_run, shards

LAYERS = 6
LENGTHS = [300, 260, 340, 280, 310, 250]
WINDOW = ["--window", 64, "--sinks", 2]
ALL_BUT = [f"list:{','.join(str(k) for k in range(LAYERS) if k != layer)}" for layer in range(LAYERS)]
PATTERNS = ["full", "windowed", "periodic:2@0", "list:1,4"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("evaluate")
    tiny.write_checkpoint(directory / "model", layers=LAYERS, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=128)
    tiny.write_checkpoint(
        directory / "other", layers=LAYERS, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=128, seed=5
    )
    tiny.write_calibration(directory / "test.h5", LENGTHS)
    tiny.write_calibration(directory / "one.h5", LENGTHS[:1])
    return directory


def arguments(work, out, patterns, *more, data="test.h5", model="model"):
    flags = [word for pattern in patterns for word in ("--pattern", pattern)]
    more = [*WINDOW, "--threads", 1, *flags, *more]
    return run_folder.arguments("evaluate", work, out, *more, data=data, model=model)


def evaluate(work, out, patterns, *more, ranks=None, **inputs):
    return launch.run(arguments(work, out, patterns, *more, **inputs), work / "cache", ranks)


@pytest.fixture(scope="module")
def quiet(work):
    done = evaluate(work, "quiet", PATTERNS, "--baseline", "periodic:2@0")
    assert done.returncode == 0, done.stderr
    return work / "quiet" / "results.h5"


@pytest.fixture(scope="module")
def calibrated(work):
    done = launch.run(
        run_folder.arguments("calibrate", work, "calibrated", *WINDOW, "--threads", 1, data="test.h5"), work / "cache"
    )
    assert done.returncode == 0, done.stderr
    return work / "calibrated"


@pytest.fixture(scope="module")
def selection(work, calibrated):
    path = work / "nll2.json"
    done = launch.run(["select", calibrated, "--method", "nll", "--keep", 2, "--out", path], work / "cache")
    assert done.returncode == 0, done.stderr
    return path


def test_one_layer_windowed_is_what_calibrate_measures(work, calibrated):
    done = evaluate(work, "single", ALL_BUT)
    assert done.returncode == 0, done.stderr
    with (
        xr.open_dataset(work / "single" / "results.h5", engine="h5netcdf", group="evaluation") as found,
        xr.open_dataset(calibrated / "results.h5", engine="h5netcdf", group="calibration") as expected,
    ):
        assert found.pattern.values.tolist() == ["full", *ALL_BUT]
        for name in ("nll", "exact_match", "token_accuracy"):
            np.testing.assert_array_equal(found[name].values[0], expected[f"{name}_base"].values)
            np.testing.assert_array_equal(found[name].values[1:], expected[name].values.T)
        assert np.abs(found.nll.values[1:] - found.nll.values[0]).max() > 1e-3
        assert (found.kl.values[0] == 0).all() and (found.kl.values[1:] > 0).all()


@pytest.mark.parametrize("ranks", [2, 3])
def test_tables_do_not_depend_on_ranks(work, quiet, ranks):
    done = evaluate(work, f"ranks{ranks}", PATTERNS, "--baseline", "periodic:2@0", ranks=ranks)
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(quiet, work / f"ranks{ranks}" / "results.h5")


def test_kill_everything_and_resume(work, quiet):
    for n_shards in (1, 3):
        process = launch.start(arguments(work, "killed", PATTERNS, "--baseline", "periodic:2@0"), work / "cache", 2)
        launch.wait_for(lambda n=n_shards: len(shards(work / "killed")) >= n, process)
        time.sleep(0.02)  # not to wait for anything: in the middle of a unit
        launch.kill_all(process)
        launch.finish(process)
    done = evaluate(work, "killed", PATTERNS, "--baseline", "periodic:2@0")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(quiet, work / "killed" / "results.h5")
    assert not list((work / "killed").rglob("*.part"))


def test_patterns_may_be_added_in_any_order(work, quiet):
    assert evaluate(work, "grown", ["list:1,4"]).returncode == 0
    before = len(shards(work / "grown"))
    done = evaluate(work, "grown", PATTERNS, "--baseline", "periodic:2@0", ranks=2)
    assert done.returncode == 0, done.stderr
    assert last_run(work / "grown")["cells_done"] == 2 * len(LENGTHS)  # windowed and periodic: no base, no list:1,4
    assert len(shards(work / "grown")) > before
    tiny.assert_same_tables(quiet, work / "grown" / "results.h5")
    # Fewer again: nothing is measured, and what is known beyond stays on disk.
    done = evaluate(work, "grown", ["windowed"])
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "grown" / "results.h5") as file:
        assert file["evaluation/pattern"].asstr()[:].tolist() == ["full", "windowed"]
    assert "run directory" not in done.stderr and not list((work / "grown").rglob("*.bad"))


def test_full_alone(work, quiet):
    done = evaluate(work, "full", ["full"], "--json")
    assert done.returncode == 0, done.stderr
    (pattern,) = json.loads(done.stdout)["patterns"]
    assert pattern["minus_full"]["nll"] == 0 and pattern["on_front_exact_match"]
    # Its shards are those of an evaluation: more patterns find the base there.
    assert evaluate(work, "full", PATTERNS, "--baseline", "periodic:2@0").returncode == 0
    assert last_run(work / "full")["cells_done"] == 3 * len(LENGTHS)
    tiny.assert_same_tables(quiet, work / "full" / "results.h5")


def test_one_example_has_no_interval(work):
    done = evaluate(work, "one", PATTERNS, "--json", data="one.h5")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["patterns"][1]["nll_ci_low"] is None and result["spread_status"] == "one example"
    with h5py.File(work / "one" / "results.h5") as file:
        assert file["evaluation/nll_ci_low"].attrs["status"] == "one example"


def test_costs_follow_the_patterns(quiet):
    with xr.open_dataset(quiet, engine="h5netcdf", group="evaluation") as found:
        per_row = 2 * 2 * 16 * 4  # key and value, kv heads, head_dim, float32
        rows = found.full_layers * found.kv_length + (LAYERS - found.full_layers) * (64 + 2)
        np.testing.assert_array_equal(found.kv_cache_bytes.values, (rows * per_row).values)
        np.testing.assert_array_equal(found.full_layers.values, [6, 0, 3, 2])
        assert (found.prefill_flop.sel(pattern="windowed") < found.prefill_flop.sel(pattern="full")).all()


def test_full_decode_saves_no_cache(work):
    done = evaluate(work, "decode", ["full", "windowed"], "--decode", "full", "--json")
    assert done.returncode == 0, done.stderr
    full, windowed = json.loads(done.stdout)["patterns"]
    assert full["kv_cache_bytes"] == windowed["kv_cache_bytes"]
    assert full["prefill_flop"]["131072"] > windowed["prefill_flop"]["131072"]


def test_a_selection_and_the_set_that_it_was_chosen_on(work, selection):
    done = evaluate(work, "same", [selection], "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [pattern["pattern"] for pattern in result["patterns"]] == ["full", "nll:2"]
    assert result["patterns"][1]["layers"] == json.loads(selection.read_text())["layers"]
    assert "these very examples" in result["provenance"]["warnings"]
    assert "these very examples" in done.stderr
    assert "Warning: the layers of nll:2" in evaluate(work, "same", [selection]).stdout
    # The same tokens under other names, and one of them among others.
    tiny.write_calibration(work / "renamed.h5", LENGTHS, prefix="renamed")
    done = evaluate(work, "renamed", [selection], data="renamed.h5")
    assert "were chosen on these very examples" in done.stderr
    tiny.write_calibration(work / "overlap.h5", [*LENGTHS[:1], *(n + 1 for n in LENGTHS[1:])], prefix="overlap")
    done = evaluate(work, "overlap", [selection], data="overlap.h5")
    assert f"were chosen on 1 of these {len(LENGTHS)} examples" in done.stderr
    # A selection that is older than hashes of tokens knows its file only.
    older = by_hand(selection)
    del older["token_hashes"]
    (work / "older.json").write_text(json.dumps(older))
    assert "very examples" not in evaluate(work, "renamed", [work / "older.json"], data="renamed.h5").stderr
    assert "very examples" in evaluate(work, "same", [work / "older.json"]).stderr
    tiny.write_calibration(work / "heldout.h5", LENGTHS, seed=3, prefix="other")
    done = evaluate(work, "heldout", [selection], "--json", data="heldout.h5")
    assert done.returncode == 0, done.stderr
    assert "very examples" not in json.loads(done.stdout)["provenance"]["warnings"]


def by_hand(selection):
    """A selection that is to be changed: without its checksum."""
    fields = json.loads(selection.read_text())
    del fields["content_sha256"]
    return fields


def test_two_selections_of_one_name_are_told_apart(work, selection):
    other = by_hand(selection)
    other["layers"] = [layer for layer in range(LAYERS) if layer not in other["layers"]][:2]
    (work / "second.json").write_text(json.dumps(other))
    done = evaluate(work, "two", [selection, work / "second.json"], "--json")
    assert done.returncode == 0, done.stderr
    names = [pattern["pattern"] for pattern in json.loads(done.stdout)["patterns"]]
    assert names == ["full", "nll:2", "nll:2 second.json"]


def test_two_files_with_the_same_layers_are_two_patterns_measured_once(work, selection):
    (work / "third.json").write_text(selection.read_text())
    done = evaluate(work, "twice", [selection, selection, work / "third.json"], "--json")
    assert done.returncode == 0, done.stderr
    patterns = json.loads(done.stdout)["patterns"]
    assert [pattern["pattern"] for pattern in patterns] == ["full", "nll:2", "nll:2 third.json"]
    assert patterns[1]["nll"] == patterns[2]["nll"]


def test_a_selection_of_another_model_is_refused(work, selection):
    done = evaluate(work, "foreign", [selection], model="other")
    assert done.returncode == 78, done.stderr
    (line,) = launch.error_lines(done.stderr)
    assert "nll2.json" in line
    assert not (work / "foreign").exists()


@pytest.mark.parametrize(
    "patterns, more, code, words",
    [
        (["first:7"], [], 64, ["--pattern", "first:7", "6"]),
        (["list:1,6"], [], 64, ["--pattern", "layer 6"]),
        (["periodic:0@0"], [], 64, ["--pattern", "periodic:0@0"]),
        (["half"], [], 64, ["--pattern", "half"]),
        (["windowed"], ["--baseline", "last:2"], 64, ["--baseline", "last:2", "windowed"]),
        (["windowed"], ["--margin", "1 %"], 64, ["--margin", "1 %", "0.01"]),
        (["windowed"], ["--decode", "full", "--tail-rows", 0], 64, ["no row"]),
        (["nowhere.json"], [], 66, ["nowhere.json"]),
        ([], [], 64, ["--pattern"]),
    ],
)
def test_bad_flags(work, patterns, more, code, words):
    done = evaluate(work, "bad", patterns, *more)
    assert done.returncode == code, done.stderr
    (line,) = launch.error_lines(done.stderr)
    for word in words:
        assert word in line
    assert not (work / "bad").exists()


def test_another_verbs_run_directory_is_refused(work, quiet, calibrated):
    done = launch.run(
        [str(word).replace(str(work / "new"), str(calibrated)) for word in arguments(work, "new", ["windowed"])],
        work / "cache",
    )
    assert done.returncode == 78, done.stderr
    (line,) = launch.error_lines(done.stderr)
    assert "kind is calibrate" in line and "evaluate" in line


def test_stats_and_inspect_know_an_evaluation(work, quiet, tmp_path):
    out = tmp_path / "new.h5"
    done = launch.run(["stats", quiet, "--seed", 4, "--baseline", "list:1,4", "--out", out, "--json"], work / "cache")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["statistics"]["seed"] == 4 and result["baseline"] == "list:1,4"
    with h5py.File(out) as new, h5py.File(quiet) as old:
        assert new["evaluation"].attrs["baseline"] == "list:1,4"
        assert (new["evaluation/nll"][()] == old["evaluation/nll"][()]).all()
        assert (new["evaluation/nll_minus_baseline"][()] != old["evaluation/nll_minus_baseline"][()]).any()
    same = launch.run(["stats", quiet, "--json"], work / "cache")
    assert json.loads(same.stdout) == json.loads(
        evaluate(work, "quiet", PATTERNS, "--baseline", "periodic:2@0", "--json").stdout
    )
    assert launch.run(["stats", quiet, "--top-k", 2], work / "cache").returncode == 64
    facts = json.loads(launch.run(["inspect", quiet, "--json"], work / "cache").stdout)
    assert facts["kind"] == "evaluation" and facts["full_attention"]["list:1,4"] == [1, 4]


def test_a_margin_needs_no_measurement(work, quiet):
    assert evaluate(work, "margin", PATTERNS, "--json").returncode == 0
    measured = last_run(work / "margin")
    done = evaluate(work, "margin", PATTERNS, "--margin", "50%", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["margin"] == {"figure": "token_accuracy", "value": 0.5, "given": True}
    assert result["answer"] in done.stdout and "50.0 points of token accuracy" in result["answer"]
    assert last_run(work / "margin") == measured
    with h5py.File(work / "margin" / "results.h5") as file:
        group = file["evaluation"]
        assert group["margin"][()] == 0.5 and group.attrs["margin_given"] == 1
        assert group.attrs["answer"] == result["answer"]
    # stats keeps it, takes another, and goes back to the one that follows from the examples.
    for flags, value, given in (
        ([], 0.5, True),
        (["--margin", "0.25"], 0.25, True),
        (["--margin", "default"], None, False),
    ):
        found = json.loads(launch.run(["stats", work / "margin", "--json", *flags], work / "cache").stdout)["margin"]
        assert found["given"] == given and (value is None or found["value"] == value)


def test_select_knows_an_evaluation(work, quiet):
    done = launch.run(["select", quiet], work / "cache")
    (line,) = launch.error_lines(done.stderr)
    assert done.returncode == 66 and "evaluation" in line and "winnow calibrate" in line


def test_a_dry_run_writes_nothing(work):
    done = evaluate(work, "dry", PATTERNS, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells_missing"] == len(PATTERNS) * len(LENGTHS)
    assert not (work / "dry").exists()


def test_full_is_there_by_name_beside_another_spelling_of_it(work):
    done = evaluate(work, "spelled", ["list:0-5"], "--baseline", "full")
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "spelled" / "results.h5") as file:
        assert file["evaluation/pattern"].asstr()[:].tolist() == ["full", "list:0,1,2,3,4,5"]
        np.testing.assert_array_equal(file["evaluation/nll"][0], file["evaluation/nll"][1])


def test_a_selection_gives_its_name_up_to_the_pattern_of_that_name(work, selection):
    changed = work / "changed.json"
    changed.write_text(json.dumps(by_hand(selection) | {"method": "first", "layers": [1, 3]}))
    for order in ([changed, "first:2"], ["first:2", changed]):
        done = evaluate(work, "named", order)
        assert done.returncode == 0, done.stderr
        with h5py.File(work / "named" / "results.h5") as file:
            names, masks = file["evaluation/pattern"].asstr()[:], file["evaluation/full_attention"][:].tolist()
            rows = dict(zip(names, masks, strict=True))
        assert rows == {"full": [1] * 6, "first:2": [1, 1, 0, 0, 0, 0], "first:2 changed.json": [0, 1, 0, 1, 0, 0]}
