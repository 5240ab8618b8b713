"""winnow search: what it takes against calibrate and brute force, ranks, resume, verification, its file, bad input."""

import itertools
import json
import shutil
import signal

import h5py
import launch
import manual_tables
import numpy as np
import pytest
import run_folder
import tiny
import xarray as xr
from launch import succeed

LAYERS = 6
LENGTHS = [700, 640, 300, 720, 64]
WINDOW = ["--window", 40, "--sinks", 2, "--tail-rows", 20]
SCHEMA = manual_tables.read_schema("Results file of a search")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("search")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    return directory


def arguments(work, out, *more, window=WINDOW):
    return run_folder.arguments("search", work, out, "--threads", 1, *window, *more)


def search(work, out, *more, ranks=None, window=WINDOW):
    return launch.run(arguments(work, out, *more, window=window), work / "cache", ranks)


def group(work, out, method):
    return xr.load_dataset(work / out / "results.h5", engine="h5netcdf", group=f"selection/{method}")


def layers(found, keep):
    return [int(layer) for layer in found.layer.values[found.full.sel(keep=keep).values == 1]]


def candidates(work, base):
    """{layer: mean NLL of the pattern that differs from the base in that layer}, by calibrate in tail semantics."""
    out = work / ("by-" + base.replace(":", "-").replace(",", "-"))
    words = run_folder.arguments("calibrate", work, out, "--threads", 1, "--base", base, *WINDOW)
    succeed(launch.run(words, work / "cache"))
    table = xr.load_dataset(out / "results.h5", engine="h5netcdf", group="calibration")
    return {int(layer): float(np.mean(table.nll.sel(layer=layer).values)) for layer in table.layer}


def name_of(full):
    return f"list:{','.join(map(str, full))}" if full else "windowed"


@pytest.fixture(scope="module")
def forward(work):
    succeed(search(work, "forward", "--method", "greedy-forward", "--keep", 3, "--verify", 4))
    return group(work, "forward", "greedy-forward")


def test_every_step_is_the_best_of_all_candidates_measured_separately(work, forward):
    kept = []
    for keep in range(1, 4):
        nll = candidates(work, name_of(kept))
        best = min((layer for layer in range(LAYERS) if layer not in kept), key=lambda layer: (nll[layer], layer))
        kept = sorted([*kept, best])
        assert layers(forward, keep) == kept
        assert float(forward.mean_nll.sel(keep=keep)) == pytest.approx(nll[best], abs=1e-12)
        assert float(forward.nll.sel(pattern=name_of(kept)).mean()) == pytest.approx(nll[best], abs=1e-12)


def test_greedy_backward_windows_the_layer_that_hurts_least(work):
    succeed(search(work, "backward", "--method", "greedy-backward", "--keep", 4))
    found = group(work, "backward", "greedy-backward")
    assert list(found.keep.values) == [4, 5, 6]
    full = list(range(LAYERS))
    for keep in (5, 4):
        nll = candidates(work, name_of(full) if keep < 5 else "full")
        best = min(full, key=lambda layer: (nll[layer], -layer))
        full = [layer for layer in full if layer != best]
        assert layers(found, keep) == full


def test_a_beam_of_all_subsets_finds_the_optimum(work):
    succeed(search(work, "wide", "--method", "greedy-forward", "--keep", LAYERS, "--beam", 20))
    found = group(work, "wide", "greedy-forward")
    assert found.sizes["pattern"] == 2**LAYERS
    mean = found.nll.mean("example")
    for keep in range(LAYERS + 1):
        patterns = found.pattern.values[found.pattern_keep.values == keep]
        assert len(patterns) == len(list(itertools.combinations(range(LAYERS), keep)))
        assert float(found.mean_nll.sel(keep=keep)) == pytest.approx(float(mean.sel(pattern=patterns).min()), abs=1e-12)


def test_pairs_are_the_difference_of_separate_passes(work):
    succeed(search(work, "pairs", "--method", "pairs", "--keep", 3))
    pairs = group(work, "pairs", "pairs")
    alone = candidates(work, "full")
    base = float(pairs.nll.sel(pattern="full").mean())
    for layer in range(LAYERS):
        assert float(pairs.delta_nll.sel(layer=layer)) == pytest.approx(alone[layer] - base, abs=1e-12)
    worst = sorted(range(LAYERS), key=lambda layer: -alone[layer])[:3]
    assert list(pairs.candidate.values) == sorted(worst)
    for first in worst:
        both = candidates(work, name_of([layer for layer in range(LAYERS) if layer != first]))
        for second in worst:
            if first == second:
                continue
            delta = both[second] - base
            expected = delta - (alone[first] - base) - (alone[second] - base)
            at = {"candidate": first, "other_candidate": second}
            assert float(pairs.delta_nll_pair.sel(at)) == pytest.approx(delta, abs=1e-12)
            assert float(pairs.interaction_nll.sel(at)) == pytest.approx(expected, abs=1e-12)
            low, high = float(pairs.interaction_nll_ci_low.sel(at)), float(pairs.interaction_nll_ci_high.sel(at))
            assert low <= expected <= high


def test_verified_figures_are_those_of_every_row_under_the_window(work, forward):
    assert int(forward.n_verified) == 4 + 4
    exact = ["--window", 40, "--sinks", 2]
    succeed(search(work, "exact", "--method", "greedy-forward", "--keep", 3, "--exact", "--beam", 20, window=exact))
    every = group(work, "exact", "greedy-forward")
    verified = forward.pattern.values[np.isfinite(forward.nll_verified.isel(example=0).values)]
    assert len(verified) == 8
    for pattern in verified:
        assert np.array_equal(forward.nll_verified.sel(pattern=pattern), every.nll.sel(pattern=pattern))
    for keep in range(4):
        pattern = name_of(layers(forward, keep))
        assert float(forward.mean_nll_verified.sel(keep=keep)) == float(every.nll.sel(pattern=pattern).mean())
    assert -1 <= float(forward.rho_nll_ci_low) <= float(forward.rho_nll) <= float(forward.rho_nll_ci_high) <= 1


def test_kl_is_that_to_the_full_pattern(work):
    succeed(search(work, "kl", "--method", "greedy-backward", "--keep", 0, "--objective", "kl"))
    found = group(work, "kl", "greedy-backward")
    assert float(found.mean_kl.sel(keep=LAYERS)) == 0.0
    assert np.all(found.kl.sel(pattern=[p for p in found.pattern.values if p != "full"]).isel(example=0) > 0)
    more = ["--threads", 1, *WINDOW, "--pattern", name_of(layers(found, 3))]
    succeed(launch.run(run_folder.arguments("evaluate", work, "kl-evaluated", *more), work / "cache"))
    table = xr.load_dataset(work / "kl-evaluated" / "results.h5", engine="h5netcdf", group="evaluation")
    pattern = name_of(layers(found, 3))
    assert np.allclose(found.kl.sel(pattern=pattern), table.kl.sel(pattern=pattern), atol=1e-12, rtol=1e-9)


def same_but_for_time(left, right):
    timed = ["predicted_seconds", "predicted_seconds_exact", "predicted_seconds_verification", "search_seconds"]
    return left.drop_vars(timed, errors="ignore").identical(right.drop_vars(timed, errors="ignore"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_do_not_change_a_figure(work, forward, ranks):
    out = f"ranks-{ranks}"
    succeed(search(work, out, "--method", "greedy-forward", "--keep", 3, "--verify", 4, ranks=ranks))
    assert same_but_for_time(group(work, out, "greedy-forward"), forward)


def test_less_memory_computes_the_rows_anew_and_changes_no_figure(work, forward):
    done = succeed(
        search(work, "tight", "--method", "greedy-forward", "--keep", 3, "--verify", 4, "--max-memory", "3M")
    )
    assert "kept for 5 of 5" not in done.stderr
    assert same_but_for_time(group(work, "tight", "greedy-forward"), forward)


def test_a_stopped_search_goes_on_in_the_middle(work, forward):
    command = arguments(work, "stopped", "--method", "greedy-forward", "--keep", 3, "--verify", 4)
    directory = work / "stopped" / "shards"
    process = launch.start(command, work / "cache")
    launch.wait_for(lambda: directory.is_dir() and len(list(directory.glob("*.h5"))) >= 7, process)
    process.send_signal(signal.SIGINT)
    code, _, _ = launch.finish(process)
    assert code in (0, 75)
    before = {path.name for path in directory.glob("*.h5")}
    succeed(launch.run(command, work / "cache"))
    assert same_but_for_time(group(work, "stopped", "greedy-forward"), forward)
    assert before <= {path.name for path in directory.glob("*.h5")}


def test_a_damaged_shard_is_measured_again(work, forward):
    shutil.copytree(work / "forward", work / "damaged")
    victim = sorted((work / "damaged" / "shards").glob("*.h5"))[3]
    victim.write_bytes(victim.read_bytes()[:100])
    done = succeed(search(work, "damaged", "--method", "greedy-forward", "--keep", 3, "--verify", 4))
    assert "unit(s)" in done.stderr
    assert same_but_for_time(group(work, "damaged", "greedy-forward"), forward)


def test_a_finished_search_measures_nothing_and_another_method_joins_its_file(work, forward):
    shutil.copytree(work / "forward", work / "joined")
    again = succeed(search(work, "joined", "--method", "greedy-forward", "--keep", 3, "--verify", 4))
    assert "unit(s)" not in again.stderr
    succeed(search(work, "joined", "--method", "greedy-backward", "--keep", 5))
    assert group(work, "joined", "greedy-forward").identical(forward)
    assert list(group(work, "joined", "greedy-backward").keep.values) == [5, 6]


def test_a_greater_keep_measures_what_is_new_only(work, forward):
    shutil.copytree(work / "forward", work / "grown")
    succeed(search(work, "grown", "--method", "greedy-forward", "--keep", 4))
    grown = group(work, "grown", "greedy-forward")
    runs = json.loads((work / "grown" / "run.json").read_text())["informative"]["runs"]
    assert runs[-1]["cells_done"] == len(LENGTHS) * 3  # the last step has three candidates
    assert [layers(grown, keep) for keep in range(4)] == [layers(forward, keep) for keep in range(4)]


def test_the_cost_of_both_ways_is_told_before_and_kept(work, forward):
    done = succeed(search(work, "dry", "--method", "greedy-forward", "--keep", 3, "--dry-run", "--json"))
    told = json.loads(done.stdout)
    assert 0 < told["predicted_seconds"] < told["predicted_seconds_exact"]
    assert not (work / "dry").exists()
    assert 0 < float(forward.predicted_seconds) < float(forward.predicted_seconds_exact)
    assert float(forward.search_seconds) > 0


def test_verification_can_take_fewer_examples(work, forward):
    few = ["--method", "greedy-forward", "--keep", 3, "--verify", 4, "--verify-examples", 2]
    told = json.loads(succeed(search(work, "few", *few, "--dry-run", "--json")).stdout)
    whole = json.loads(succeed(search(work, "few", *few[:-2], "--dry-run", "--json")).stdout)

    def share(prices):  # each command measures the machine anew, so seconds of two of them do not compare
        return prices["predicted_seconds_verification"] / prices["predicted_seconds"]

    assert 0 < share(told) < share(whole)
    told = json.loads(succeed(search(work, "few", *few, "--json")).stdout)
    found = xr.load_dataset(work / "few" / "results.h5", engine="h5netcdf", group="selection/greedy-forward")
    assert int(found.n_verified_examples) == 2 == told["agreement"]["n_verified_examples"]
    measured = np.isfinite(found.nll_verified.values)
    assert measured.any(axis=1).sum() == int(found.n_verified) == int(forward.n_verified)
    assert not measured[:, 2:].any()
    expected = forward.nll_verified.values.copy()
    expected[:, 2:] = np.nan
    np.testing.assert_array_equal(found.nll_verified, expected)
    np.testing.assert_allclose(
        found.mean_nll_verified,
        np.nanmean(expected, axis=1)[
            [list(found.pattern.values).index(name_of(layers(found, keep))) for keep in found.keep.values]
        ],
    )
    # Then all of them: what is there is not measured again.
    succeed(search(work, "few", *few[:-2]))
    found = xr.load_dataset(work / "few" / "results.h5", engine="h5netcdf", group="selection/greedy-forward")
    np.testing.assert_array_equal(found.nll_verified, forward.nll_verified)


def test_the_table_and_json_say_the_same(work, forward):
    table = succeed(search(work, "forward", "--method", "greedy-forward", "--keep", 3, "--verify", 4)).stdout
    told = json.loads(
        succeed(search(work, "forward", "--method", "greedy-forward", "--keep", 3, "--verify", 4, "--json")).stdout
    )
    assert [entry["layers"] for entry in told["best"]] == [layers(forward, keep) for keep in range(4)]
    assert told["tail"] is True
    for entry in told["best"][1:]:
        assert ", ".join(map(str, entry["layers"])) in table
    assert "rho of NLL" in table


@pytest.mark.parametrize("method", ["greedy-forward", "pairs"])
def test_the_file_is_as_documented(work, forward, method):
    if method == "pairs" and not (work / "pairs" / "results.h5").exists():
        succeed(search(work, "pairs", "--method", "pairs", "--keep", 3))
    greedy, pairs = SCHEMA["/selection/greedy-forward"], SCHEMA["/selection/pairs"]
    shared = [
        "objective",
        "predicted_seconds",
        "predicted_seconds_exact",
        "search_seconds",
        "layer",
        "pattern",
        "pattern_keep",
        "pattern_full",
        "example_id",
        "token_hash",
        "nll",
        "exact_match",
        "token_accuracy",
        "kl",
    ]
    documented = greedy if method == "greedy-forward" else pairs | {name: greedy[name] for name in shared}
    with h5py.File(work / ("forward" if method == "greedy-forward" else "pairs") / "results.h5") as file:
        assert set(file) == {"selection", "provenance"}
        assert file.attrs["format"] == "winnow-results"
        found = manual_tables.variables_of(file["selection"][method])
        assert set(found) <= set(documented), "not in results/README.md"
        missing = set(documented) - set(found)
        assert missing == {name for name in documented if name in ("kl", "mean_kl")}
        for name, dataset in found.items():
            assert manual_tables.type_of(dataset) == documented[name]["type"], name
            assert manual_tables.dimensions_of(dataset) == documented[name]["dimensions"], name
            assert dataset.attrs["units"] == documented[name]["units"], name
            assert dataset.attrs["long_name"], name


def test_other_verbs_know_the_file(work, forward):
    file = work / "forward" / "results.h5"
    told = json.loads(succeed(launch.run(["inspect", file, "--json"], work / "cache")).stdout)
    assert told["kind"] == "search"
    assert told["searches"]["greedy-forward"]["full_attention"]["3"] == layers(forward, 3)
    stats = launch.run(["stats", file], work / "cache")
    assert stats.returncode == 64 and "search" in stats.stderr and len(stats.stderr.strip().splitlines()) == 1
    chosen = work / "chosen.json"
    succeed(
        launch.run(
            ["select", work / "forward", "--method", "greedy-forward", "--keep", 2, "--out", chosen], work / "cache"
        )
    )
    selection = json.loads(chosen.read_text())
    assert selection["layers"] == layers(forward, 2)
    assert (selection["method"], selection["window_keys"], selection["tail_rows"]) == ("greedy-forward", 40, 20)


def test_one_example_has_no_interval(work):
    succeed(search(work, "single", "--method", "greedy-forward", "--keep", 1, "--limit", 1, "--verify", 2))
    found = group(work, "single", "greedy-forward")
    assert np.isnan(found.rho_nll_ci_low)
    assert found.rho_nll_ci_low.attrs["status"] == "one example"


GREEDY = ["--method", "greedy-forward"]


@pytest.mark.parametrize(
    "more,code,words",
    [
        ([*GREEDY, "--keep", 7], 64, ["--keep is 7", "6 layers"]),
        ([*GREEDY, "--keep", -1], 64, ["--keep is -1"]),
        (["--method", "greedy", "--keep", 2], 64, ["--method", "greedy-forward"]),
        ([*GREEDY, "--keep", 2, "--objective", "speed"], 64, ["--objective", "exact-match"]),
        ([*GREEDY, "--keep", 2, "--beam", 0], 64, ["--beam is 0"]),
        ([*GREEDY, "--keep", 2, "--beam", 1.5], 64, ["--beam"]),
        ([*GREEDY, "--keep", 2, "--exact"], 64, ["--exact", "--tail-rows"]),
        ([*GREEDY, "--keep", 2, "--verify", -1], 64, ["--verify is -1"]),
        ([*GREEDY, "--keep", 2, "--verify", 1, "--verify-examples", 0], 64, ["--verify-examples is 0"]),
        ([*GREEDY, "--keep", 2, "--verify-examples", 1], 64, ["--verify-examples needs --verify"]),
        (["--method", "pairs", "--keep", 1], 64, ["--keep is 1", "2 candidates"]),
        (["--method", "pairs", "--keep", 2, "--verify", 1], 64, ["--verify"]),
    ],
)
def test_bad_input_is_one_line(work, more, code, words):
    done = search(work, "bad", *more)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert not (work / "bad").exists()


def test_a_search_of_everything_is_refused(work):
    tiny.write_checkpoint(work / "deep", layers=30, hidden=16, heads=2, kv_heads=1, ffn=16)
    more = [*WINDOW, *GREEDY, "--keep", 15, "--beam", 10**9]
    done = launch.run(run_folder.arguments("search", work, "bad", *more, model="deep"), work / "cache")
    assert done.returncode == 64 and "--beam" in done.stderr and "patterns" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (work / "bad").exists()


def test_missing_data_are_named(work):
    more = [*WINDOW, *GREEDY, "--keep", 2]
    done = launch.run(run_folder.arguments("search", work, "bad", *more, data="absent.h5"), work / "cache")
    assert done.returncode == 66 and "absent.h5" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_another_measurement_in_the_directory_is_refused(work, forward):
    other = search(work, "forward", "--method", "greedy-forward", "--keep", 2, window=["--window", 30, *WINDOW[2:]])
    assert other.returncode == 78 and "window_keys is 40" in other.stderr
    kl = search(work, "forward", "--method", "greedy-forward", "--keep", 2, "--objective", "kl")
    assert kl.returncode == 78 and "search" in kl.stderr
    exact = search(
        work, "forward", "--method", "greedy-forward", "--keep", 2, "--exact", window=["--window", 40, "--sinks", 2]
    )
    assert exact.returncode == 78 and "tail_rows" in exact.stderr


def test_what_a_profile_measures_besides_is_not_the_search_s(work):
    """The ceilings of the machine are measured once, and count neither as the search's time nor as a unit's."""
    succeed(search(work, "profiled", "--method", "greedy-forward", "--keep", 2, "--profile"))
    record = json.loads((work / "profiled/run.json").read_text())["informative"]
    (run,) = record["runs"]
    parts = {part["name"]: part["seconds"][0] for part in run["profile"]["timeline"]["parts"]}
    taken = record["searches"]["greedy-forward"]["search_seconds"]
    assert parts["profile"] > 0.0
    before = sum(parts.get(name, 0.0) for name in ("process", "inputs", "device", "rates"))
    assert run["measured_seconds"] <= taken <= sum(parts.values()) - parts["profile"] - before
