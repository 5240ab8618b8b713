"""winnow search --method plan: what it finds against every plan there is, what it says was predicted and measured,
ranks, resume, verification, its file, what winnow plan takes from it, bad input."""

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

LAYERS = 4
LENGTHS = [210, 190, 170, 230]
WINDOWS = [8, 32]
TOKENS = 200
TOKEN_BYTES = 2 * 2 * 8 * 4  # keys and values of 2 heads of 8 dimensions, float32
TAIL = ["--tail-rows", 24]
BUDGETS = ["20%", "40%", "60%"]
PLAN = ["--method", "plan", "--max-seq-len", TOKENS]
ASKED = [*PLAN, *(word for budget in BUDGETS for word in ("--budget", budget))]
SCHEMA = manual_tables.read_schema("Results file of a search")["/selection/plan"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plan-search")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_checkpoint(directory / "other", layers=LAYERS, seed=9)
    tiny.write_checkpoint(directory / "deep", layers=LAYERS + 1)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "test.h5", LENGTHS, seed=5, prefix="test")
    for name, more in {
        "run": ["--windows", "8,32"],
        "sinks": ["--windows", "8,32", "--sinks", 2],
        "vllm": ["--windows", "8,32", "--target", "vllm"],
        "full": ["--windows", "8,32", "--decode", "full"],
    }.items():
        succeed(launch.run(run_folder.arguments("calibrate", directory, name, *more), directory / "cache"))
    return directory


def winnow(work, *words):
    return launch.run(list(words), work / "cache", cwd=work)


def arguments(work, out, *more, **others):
    return run_folder.arguments("search", work, out, "--threads", 1, "--from", work / "run", *more, **others)


def search(work, out, *more, ranks=None, tail=TAIL):
    return launch.run(arguments(work, out, *tail, *more), work / "cache", ranks)


def group(work, out):
    return xr.load_dataset(work / out / "results.h5", engine="h5netcdf", group="selection/plan")


def calibrated(work):
    """delta NLL [example, layer, setting], full attention last."""
    with h5py.File(work / "run/results.h5") as file:
        delta = file["calibration/delta_nll_by_window"][()]
    return np.concatenate([delta, np.zeros((*delta.shape[:2], 1))], axis=2)


def settings_of(keys):
    return [(*WINDOWS, 0).index(int(k)) for k in keys]


def bytes_of(keys):
    return sum(min(int(k) or TOKENS, TOKENS) for k in keys) * TOKEN_BYTES


@pytest.fixture(scope="module")
def found(work):
    succeed(search(work, "plans", *ASKED, "--verify", 3))
    return group(work, "plans")


@pytest.fixture(scope="module")
def every_plan(work):
    """{windows: NLL by example} of every plan there is, in tail semantics, by evaluate."""
    succeed(winnow(work, "plan", "run", "--budget", f"50%@{TOKENS}", "--out", "some.json"))
    form = json.loads((work / "some.json").read_text())
    del form["content_sha256"]
    words, plans = [], [keys for keys in itertools.product([*WINDOWS, 0], repeat=LAYERS) if any(keys)]
    for number, keys in enumerate(plans):
        full = [layer for layer, k in enumerate(keys) if k == 0]
        form |= {"layers": full, "keep": len(full), "layer_windows": [k or None for k in keys]}
        (work / f"every-{number}.json").write_text(json.dumps(form))
        words += ["--pattern", work / f"every-{number}.json"]
    more = ["--threads", 1, "--window", WINDOWS[0], *TAIL, *words]
    succeed(launch.run(run_folder.arguments("evaluate", work, "every", *more), work / "cache"))
    with h5py.File(work / "every/results.h5") as file:
        seen = file["evaluation/layer_window_keys"][()]
        nll = file["evaluation/nll"][()]
    measured = {tuple(int(k) for k in keys): nll[p] for p, keys in enumerate(seen)}
    assert len(measured) == 3**LAYERS
    return measured


def test_finds_the_best_of_all_plans(found, every_plan):
    for b, text in enumerate(BUDGETS):
        budget = float(text.rstrip("%")) / 100 * LAYERS * TOKENS * TOKEN_BYTES
        assert int(found.budget_bytes[b]) == int(budget)
        best = min(nll.mean() for keys, nll in every_plan.items() if bytes_of(keys) <= budget)
        plan = found.isel(pattern=int(found.searched_plan[b]))
        assert float(plan.nll.mean()) == pytest.approx(best, abs=1e-12)
        assert float(plan.pattern_bytes) == bytes_of(plan.pattern_window_keys.values) <= budget
        assert int(found.is_settled[b]) == 1


def test_every_figure_is_that_of_evaluate(found, every_plan):
    assert len(set(found.pattern.values)) == found.sizes["pattern"] > 20
    for p, keys in enumerate(found.pattern_window_keys.values):
        np.testing.assert_array_equal(found.nll[p], every_plan[tuple(int(k) for k in keys)])


def test_predicted_is_the_sum_of_layers_and_measured_the_plan(work, found):
    delta = calibrated(work)
    for p, keys in enumerate(found.pattern_window_keys.values):
        by_example = delta[:, range(LAYERS), settings_of(keys)].sum(axis=1)
        assert float(found.pattern_predicted[p]) == pytest.approx(by_example.mean(), abs=1e-15)
    for b, c in itertools.product(range(len(BUDGETS)), range(2)):
        p = int(found.plan[b, c])
        assert float(found.predicted_delta_nll[b, c]) == float(found.pattern_predicted[p])
        measured = float((found.nll[p] - found.nll[0]).mean())
        assert float(found.measured_delta_nll[b, c]) == pytest.approx(measured, abs=1e-15)
        beyond = measured - float(found.predicted_delta_nll[b, c])
        assert float(found.beyond_sum[b, c]) == pytest.approx(beyond, abs=1e-12)
        for name in ("predicted_delta_nll", "measured_delta_nll", "beyond_sum"):
            low, high = (float(found[f"{name}_ci_{end}"][b, c]) for end in ("low", "high"))
            assert low <= float(found[name][b, c]) <= high
        assert float(found.nll[int(found.searched_plan[b])].mean()) <= float(found.nll[int(found.plan[b, 0])].mean())


def test_verification_decides_between_the_refined_plan_and_the_sum_s(found):
    for b in range(len(BUDGETS)):
        searched, by_sum = int(found.searched_plan[b]), int(found.plan[b, 0])
        is_better = float(found.nll_verified[searched].mean()) < float(found.nll_verified[by_sum].mean())
        assert int(found.plan[b, 1]) == (searched if is_better else by_sum)


def test_begins_with_the_plans_that_add_up_least(work, found):
    for b, text in enumerate(BUDGETS):
        words = ["plan", "run", "--budget", text, "--max-seq-len", TOKENS, "--json"]
        (plan,) = json.loads(succeed(winnow(work, *words)).stdout)["plans"]
        keys = [k or 0 for k in plan["layer_windows"]]
        assert found.pattern_window_keys[int(found.plan[b, 0])].values.tolist() == keys
        assert float(found.predicted_delta_nll[b, 0]) == pytest.approx(plan["predicted_delta_nll"], abs=1e-15)


def test_turnover_counts_the_layers_that_narrow(found):
    turned = set()
    keys = [[int(k) or TOKENS for k in found.pattern_window_keys[int(p)]] for p in found.plan[:, 1]]
    for b in range(1, len(BUDGETS)):
        pairs = list(zip(keys[b - 1], keys[b], strict=True))
        assert int(found.n_changed[b]) == sum(a != z for a, z in pairs)
        narrowed = {layer for layer, (a, z) in enumerate(pairs) if z < a}
        assert int(found.n_narrowed[b]) == len(narrowed)
        turned |= narrowed
    assert (int(found.n_changed[0]), int(found.n_narrowed[0])) == (0, 0)
    assert (int(found.n_turned), int(found.n_free)) == (len(turned), LAYERS)


def test_no_step_measures_what_winnow_plan_says(work, found):
    done = succeed(search(work, "none", *ASKED, "--steps", 0, "--json"))
    none = group(work, "none")
    assert none.steps.values.tolist() == [0, 0, 0]
    assert 2 < none.sizes["pattern"] < found.sizes["pattern"]
    assert json.loads(done.stdout)["n_plans"] == none.sizes["pattern"]
    for b in range(len(BUDGETS)):
        keys = none.pattern_window_keys[int(none.plan[b, 0])]
        assert keys.values.tolist() == found.pattern_window_keys[int(found.plan[b, 0])].values.tolist()
        assert float(none.measured_delta_nll[b, 1]) >= float(found.measured_delta_nll[b, 1])


def test_verified_figures_are_those_of_every_row_under_the_window(work, found):
    chosen = {int(p) for p in found.plan.values.ravel()}
    verified = [p for p in range(found.sizes["pattern"]) if np.isfinite(found.nll_verified[p, 0])]
    assert chosen | {0} <= set(verified)
    assert int(found.n_verified) == len(verified) - 1 == len(chosen - {0}) + 3
    words = []
    for b, text in enumerate(BUDGETS):
        succeed(winnow(work, "plan", "plans", "--budget", text, "--out", f"best-{b}.json"))
        words += ["--pattern", work / f"best-{b}.json"]
    more = ["--threads", 1, "--window", WINDOWS[0], *words]
    succeed(launch.run(run_folder.arguments("evaluate", work, "exact", *more), work / "cache"))
    with h5py.File(work / "exact/results.h5") as file:
        seen = [tuple(keys) for keys in file["evaluation/layer_window_keys"][()].tolist()]
        nll = dict(zip(seen, file["evaluation/nll"][()], strict=True))
    for b in range(len(BUDGETS)):
        p = int(found.plan[b, 1])
        exact = nll[tuple(found.pattern_window_keys[p].values.tolist())]
        np.testing.assert_array_equal(found.nll_verified[p], exact)
        expected = (exact - nll[(0,) * LAYERS]).mean()
        assert float(found.verified_delta_nll[b, 1]) == pytest.approx(expected, abs=1e-15)
    assert -1 <= float(found.rho_nll_ci_low) <= float(found.rho_nll) <= float(found.rho_nll_ci_high) <= 1


def test_an_exact_search_measures_every_row(work, found):
    succeed(search(work, "all-rows", *ASKED, "--exact", tail=[]))
    every = group(work, "all-rows")
    known = dict(zip(every.pattern.values.tolist(), every.nll.values, strict=True))
    shared = [
        p for p, name in enumerate(found.pattern.values) if name in known and np.isfinite(found.nll_verified[p, 0])
    ]
    assert len(shared) > 3
    for p in shared:
        np.testing.assert_array_equal(found.nll_verified[p], known[found.pattern.values[p]])


def same_but_for_time(left, right):
    timed = ["predicted_seconds", "predicted_seconds_exact", "predicted_seconds_verification", "search_seconds"]
    return left.drop_vars(timed, errors="ignore").identical(right.drop_vars(timed, errors="ignore"))


def test_ranks_do_not_change_a_figure(work, found):
    succeed(search(work, "ranks", *ASKED, "--verify", 3, ranks=2))
    assert same_but_for_time(group(work, "ranks"), found)


def test_a_stopped_search_goes_on_in_the_middle(work, found):
    command = arguments(work, "stopped", *TAIL, *ASKED, "--verify", 3)
    directory = work / "stopped" / "shards"
    process = launch.start(command, work / "cache")
    launch.wait_for(lambda: directory.is_dir() and len(list(directory.glob("*.h5"))) >= 6, process)
    process.send_signal(signal.SIGINT)
    code, _, _ = launch.finish(process)
    assert code in (0, 75)
    before = {path.name for path in directory.glob("*.h5")}
    succeed(launch.run(command, work / "cache"))
    assert same_but_for_time(group(work, "stopped"), found)
    assert before <= {path.name for path in directory.glob("*.h5")}


def test_a_finished_search_measures_nothing_and_other_budgets_what_is_new(work, found):
    shutil.copytree(work / "plans", work / "again")
    again = succeed(search(work, "again", *ASKED, "--verify", 3))
    assert "unit(s)" not in again.stderr
    assert group(work, "again").identical(found)
    succeed(search(work, "again", *PLAN, "--budget", "40%", "--steps", 0))
    few = group(work, "again")
    assert few.budget.values.tolist() == ["40%"]
    assert "nll_verified" not in few


def test_the_cost_is_told_before(work):
    done = succeed(search(work, "dry", *ASKED, "--verify", 3, "--dry-run", "--json"))
    told = json.loads(done.stdout)
    assert 0 < told["predicted_seconds"] < told["predicted_seconds_exact"]
    assert told["predicted_seconds_verification"] > 0
    assert not (work / "dry").exists()


def test_winnow_plan_shows_measured_beside_predicted(work, found):
    told = json.loads(succeed(winnow(work, "plan", "plans", "--curve", "--json")).stdout)["plans"]
    assert [plan["budget"] for plan in told] == BUDGETS
    for b, plan in enumerate(told):
        p = int(found.plan[b, 1])
        assert [k or 0 for k in plan["layer_windows"]] == found.pattern_window_keys[p].values.tolist()
        assert plan["bytes"] == int(found.pattern_bytes[p])
        for name in ("measured_delta_nll", "beyond_sum", "verified_delta_nll"):
            assert plan[name]["value"] == float(found[name][b, 1])
            assert plan[name]["ci_low"] == float(found[f"{name}_ci_low"][b, 1])
        assert plan["predicted_delta_nll"] == float(found.predicted_delta_nll[b, 1])
        assert plan["sum_of_layers"]["measured_delta_nll"]["value"] == float(found.measured_delta_nll[b, 0])
    table = succeed(winnow(work, "plan", "plans", "--curve")).stdout
    assert all(word in table for word in [*BUDGETS, "predicted loss", "measured loss", "every row windowed"])
    selection = json.loads((work / "best-1.json").read_text())
    assert selection["method"] == "plan"
    provenance = selection["provenance"]
    assert provenance["plan_budget"] == "40%"
    assert provenance["plan_measured_delta_nll"] == float(found.measured_delta_nll[1, 1])
    assert provenance["plan_verified_delta_nll"] == float(found.verified_delta_nll[1, 1])
    inspected = json.loads(succeed(winnow(work, "inspect", "plans/results.h5", "--json")).stdout)
    assert inspected["kind"] == "search"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "30%"], "--budget 30% was not searched; there are 20%, 40%, 60%"),
        (["--curve", "--engine", "vllm"], "--engine is vllm, but the plans were searched for ideal"),
        (["--curve", "--concurrency", 2], "--concurrency is 2"),
        (["--budget", "20%@300"], "--budget 20%@300 was not searched"),
    ],
)
def test_winnow_plan_refuses_what_was_not_searched(work, found, words, said):
    done = winnow(work, "plan", "plans", *words)
    assert done.returncode == 64 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_engine_s_allocation_is_the_price(work):
    more = ["--method", "plan", "--budget", "60%@40000", "--engine", "trtllm", "--concurrency", 2, "--steps", 1]
    succeed(search(work, "engine", *more))
    engine = group(work, "engine")
    succeed(winnow(work, "plan", "engine", "--budget", "60%@40000", "--out", "engine.json"))
    words = ["export", "engine.json", "--target", "trtllm", "--out", "export", "--max-seq-len", 40000]
    succeed(winnow(work, *words, "--concurrency", 2))
    record = json.loads((work / "export/winnow-export.json").read_text())["kv_cache"]
    assert record["engine_bytes"] == float(engine.pattern_bytes[int(engine.plan[0, 1])])
    assert record["full_attention_bytes"] == float(engine.full_attention_bytes)


def test_one_example_has_no_interval(work):
    succeed(search(work, "single", *ASKED, "--limit", 1, "--steps", 1))
    single = group(work, "single")
    assert np.isnan(single.measured_delta_nll_ci_low).all()
    assert single.measured_delta_nll_ci_low.attrs["status"] == "one example"
    assert single.rho_predicted_ci_low.attrs["status"] == "one example"


def test_the_file_is_as_documented(work, found):
    with h5py.File(work / "plans/results.h5") as file:
        assert set(file) == {"selection", "provenance"}
        assert set(file["selection"]) == {"plan"}
        variables = manual_tables.variables_of(file["selection/plan"])
        assert set(variables) == set(SCHEMA) - {"pattern_kv"}
        for name, dataset in variables.items():
            manual_tables.assert_as_documented(name, dataset, SCHEMA[name])


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--budget", "1%"], 64, ["--budget 1% is less than any plan takes", "the least is"]),
        (["--budget", "1G"], 64, ["--budget 1G is more than", "100%"]),
        (["--budget", "half"], 64, ["--budget", "half"]),
        (["--budget", "40%", "--budget", "40%@200"], 64, ["--budget 40%@200 is that of 40%"]),
        (["--budget", "40%", "--budget", "40%@300"], 64, ["300 tokens", "one length"]),
        (["--budget", "40%", "--engine", "tgi"], 64, ["--engine", "tgi", "trtllm"]),
        (["--budget", "40%", "--from", "sinks", "--engine", "vllm"], 64, ["--engine vllm", "sink"]),
        (["--budget", "40%", "--from", "full"], 64, ["--decode full"]),
        (["--budget", "40%", "--target", "vllm"], 64, ["--target vllm differs from the calibration's"]),
        (["--budget", "40%", "--from", "vllm", "--target", "hf"], 64, ["--target hf differs", "vllm"]),
        (["--budget", "40%", "--sinks", 1], 64, ["--sinks 1 differs"]),
        (["--budget", "40%", "--window", 8], 64, ["--window contradicts --from"]),
        (["--budget", "40%", "--keep", 2], 64, ["--keep is not for --method plan"]),
        (["--budget", "40%", "--objective", "kl"], 64, ["--objective kl is not for --method plan"]),
        (["--budget", "40%", "--limit", 5], 64, ["--limit is 5", "4 examples"]),
        (["--budget", "40%", "--steps", -1], 64, ["--steps is -1"]),
        (["--budget", "40%", "--steps", 10**6], 64, ["--steps 1000000", "plans"]),
        (["--budget", "40%", "--concurrency", 0], 64, ["--concurrency is 0"]),
        (["--budget", "40%", "--from", "absent"], 66, ["absent"]),
        (["--budget", "40%", "--model", "deep"], 78, ["4 layers", "5"]),
        (["--budget", "40%", "--data", "test.h5"], 78, ["other examples"]),
    ],
)
def test_bad_input_is_one_line(work, more, code, words):
    command = {"--model": "model", "--data": "long.h5", "--from": "run"}
    rest = []
    for flag, value in zip(more[::2], more[1::2], strict=True):
        if flag in command:
            command[flag] = value
        else:
            rest += [flag, value]
    flags = [word for pair in command.items() for word in pair]
    done = winnow(work, "search", *flags, "--out", "bad", *PLAN, *TAIL, *rest)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert not (work / "bad").exists()


def test_another_model_is_refused_when_its_hash_is_known(work):
    words = ["--model", "other", "--data", "long.h5", "--from", "run", "--out", "bad", "--budget", "40%"]
    done = winnow(work, "search", *words, *PLAN, *TAIL)
    assert done.returncode == 78 and "was measured on another model" in done.stderr.splitlines()[-1]
    assert not (work / "bad").exists()


@pytest.mark.parametrize("flag", [["--from", "run"], ["--budget", "40%"], ["--engine", "vllm"], ["--steps", 2]])
def test_other_methods_take_no_plan(work, flag):
    words = ["--model", "model", "--data", "long.h5", "--out", "bad", "--window", 8, "--method", "greedy-forward"]
    done = winnow(work, "search", *words, "--keep", 2, *flag)
    assert done.returncode == 64 and f"{flag[0]} is for --method plan" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_directory_of_patterns_is_no_directory_of_plans(work, found):
    words = ["--model", "model", "--data", "long.h5", "--out", "plans", "--window", 8, "--method", "greedy-forward"]
    done = winnow(work, "search", *words, "--keep", 2, *TAIL)
    assert done.returncode == 78 and "search of plans" in done.stderr


def test_plans_that_are_worse_on_the_first_examples_are_dropped(work):
    """20 examples: the first 16 decide which plans the others see."""
    tiny.write_calibration(work / "many.h5", [60 + 3 * i for i in range(20)])
    more = ["--data", work / "many.h5", "--tail-rows", 24]
    common = ["--model", work / "model", *more, "--device", "cpu", "--threads", 1]
    succeed(winnow(work, "calibrate", *common, "--windows", "8,32", "--out", work / "many-run"))
    words = ["search", *common, "--from", work / "many-run", "--method", "plan", "--max-seq-len", 100]
    words += ["--budget", "40%", "--out", work / "raced"]
    done = succeed(winnow(work, *words, "--json"))
    found = json.loads(done.stdout)
    assert found["n_dropped"] > 0
    raced = group(work, "raced")
    assert int(raced["n_dropped"]) == found["n_dropped"]
    assert found["n_plans"] == raced.sizes["pattern"]
    assert np.isfinite(raced["nll"]).all() and raced.sizes["example"] == 20
    # The same command again finds all of it measured.
    again = json.loads(succeed(winnow(work, *words, "--json")).stdout)
    assert again["budgets"] == found["budgets"]
    assert f"{found['n_dropped']} more plans dropped on fewer" in succeed(winnow(work, *words)).stdout
