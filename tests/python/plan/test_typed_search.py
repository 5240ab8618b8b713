"""winnow search --method plan among windows in types of keys and values: against every plan there is, its figures
against those of evaluate, engines, resume, its file with and without types."""

import itertools
import json
import shutil
import signal
import struct

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
LENGTHS = [210, 190, 170, 60]
TOKENS = 200
ELEMENT_BYTES = {"bf16": 4, "fp8": 1}  # the model is float32
SETTINGS = [(8, "bf16"), (32, "bf16"), (8, "fp8"), (32, "fp8"), (0, "fp8"), (0, "bf16")]
# Rows before the tail are kept of three examples, the tail begins inside a tile, and all rows of the last obey.
TAIL = ["--tail-rows", 70]
BUDGETS = ["5%", "10%", "20%"]
PLAN = ["--method", "plan", "--max-seq-len", TOKENS, "--beam", 2]
ASKED = [*PLAN, *(word for budget in BUDGETS for word in ("--budget", budget))]
SCHEMA = manual_tables.read_schema("Results file of a search")["/selection/plan"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("typed-search")
    tiny.write_checkpoint(directory / "model", layers=LAYERS, seed=2)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    for name, more in {
        "run": ["--windows", "8,32", "--kv", "bf16,fp8"],
        "plain": ["--windows", "8,32"],
        "narrow": ["--window", 8, "--kv", "fp8,int8,int4"],
    }.items():
        succeed(launch.run(run_folder.arguments("calibrate", directory, name, *more), directory / "cache"))
    return directory


def winnow(work, *words):
    return launch.run(list(words), work / "cache", cwd=work)


def arguments(work, out, *more, run="run"):
    return run_folder.arguments("search", work, out, "--threads", 1, "--from", work / run, *more)


def search(work, out, *more, run="run", ranks=None, tail=TAIL):
    return succeed(launch.run(arguments(work, out, *tail, *more, run=run), work / "cache", ranks))


def group(work, out):
    return xr.load_dataset(work / out / "results.h5", engine="h5netcdf", group="selection/plan")


def plan_of(found, p):
    """The setting of each layer of a measured plan."""
    kinds = found.pattern_kv[p].values.tolist() if "pattern_kv" in found else ["bf16"] * LAYERS
    return tuple(zip(found.pattern_window_keys[p].values.tolist(), kinds, strict=True))


def bytes_of(plan):
    """Of 2 heads of 8 dimensions, keys and values."""
    return sum(min(keys or TOKENS, TOKENS) * 2 * 2 * 8 * ELEMENT_BYTES[kind] for keys, kind in plan)


def evaluated(work, out, plans, *more):
    """{plan: NLL by example} of these, by evaluate; full attention besides."""
    succeed(winnow(work, "plan", "run", "--budget", f"20%@{TOKENS}", "--out", f"{out}.json"))
    form = json.loads((work / f"{out}.json").read_text())
    del form["content_sha256"]
    words = []
    for number, plan in enumerate(plans):
        full = [layer for layer, (keys, _) in enumerate(plan) if keys == 0]
        kinds = [kind for _, kind in plan]
        form |= {"layers": full, "keep": len(full), "layer_windows": [keys or None for keys, _ in plan]}
        form |= {"format_version": 3, "layer_kv": kinds}
        if set(kinds) == {"bf16"}:
            form["format_version"] = 2
            del form["layer_kv"]
        (work / f"{out}-{number}.json").write_text(json.dumps(form))
        words += ["--pattern", work / f"{out}-{number}.json"]
    more = ["--threads", 1, "--window", 8, *more, *words]
    succeed(launch.run(run_folder.arguments("evaluate", work, out, *more), work / "cache"))
    return nll_of(work, out)


def nll_of(work, out):
    with h5py.File(work / out / "results.h5") as file:
        table = file["evaluation"]
        seen = [
            tuple(zip(keys, kinds, strict=True))
            for keys, kinds in zip(table["layer_window_keys"][()].tolist(), table["layer_kv"].asstr()[()], strict=True)
        ]
        return dict(zip(seen, table["nll"][()], strict=True))


@pytest.fixture(scope="module")
def found(work):
    search(work, "plans", *ASKED, "--verify", 4)
    return group(work, "plans")


@pytest.fixture(scope="module")
def every_plan(work):
    full = ((0, "bf16"),) * LAYERS
    plans = [plan for plan in itertools.product(SETTINGS, repeat=LAYERS) if plan != full]
    measured = evaluated(work, "every", plans, *TAIL)
    assert len(measured) == len(SETTINGS) ** LAYERS
    return measured


def test_finds_the_best_of_all_plans(found, every_plan):
    """Which of the best one and the one that adds up least is kept is another matter: four examples seldom tell."""
    best_plans = set()
    for b, text in enumerate(BUDGETS):
        budget = float(text.rstrip("%")) / 100 * bytes_of([(0, "bf16")] * LAYERS)
        best = min(nll.mean() for plan, nll in every_plan.items() if bytes_of(plan) <= budget)
        fitting = np.flatnonzero(found.pattern_bytes <= budget)
        p = int(fitting[found.nll[fitting].mean("example").values.argmin()])
        assert float(found.nll[p].mean()) == pytest.approx(best, abs=1e-12)
        assert int(found.plan[b, 1]) in (p, int(found.plan[b, 0]))
        for one in {p, *found.plan[b].values.tolist()}:
            assert float(found.pattern_bytes[one]) == bytes_of(plan_of(found, one)) <= budget
        best_plans.add(plan_of(found, p))
    assert len(best_plans) == len(BUDGETS)
    assert {(8, "bf16"), (32, "fp8"), (0, "fp8")} <= {setting for plan in best_plans for setting in plan}
    assert found.sizes["pattern"] < len(every_plan) / 3


def test_every_figure_is_that_of_evaluate(found, every_plan):
    plans = [plan_of(found, p) for p in range(found.sizes["pattern"])]
    assert len(set(plans)) == len(plans) > 30 and len(set(found.pattern.values)) == len(plans)
    assert plans[0] == ((0, "bf16"),) * LAYERS and found.pattern.values[0] == "full"
    assert any((0, "fp8") in plan for plan in plans)
    for p, plan in enumerate(plans):
        np.testing.assert_array_equal(found.nll[p], every_plan[plan])


def test_predicted_is_the_sum_of_the_layers_in_their_types(work, found):
    with h5py.File(work / "run/results.h5") as file:
        measured = file["calibration"]
        settings = list(zip(measured["setting_window"][()].tolist(), measured["setting_kv"].asstr()[()], strict=True))
        assert [*settings, (0, "bf16")] == SETTINGS
        delta = measured["delta_nll_by_setting"][()]
    delta = np.concatenate([delta, np.zeros((*delta.shape[:2], 1))], axis=2)
    for p in range(found.sizes["pattern"]):
        chosen = [SETTINGS.index(setting) for setting in plan_of(found, p)]
        by_example = delta[:, range(LAYERS), chosen].sum(axis=1)
        assert float(found.pattern_predicted[p]) == pytest.approx(by_example.mean(), abs=1e-15)
    for b, text in enumerate(BUDGETS):
        words = ["plan", "run", "--budget", text, "--max-seq-len", TOKENS, "--json"]
        (plan,) = json.loads(succeed(winnow(work, *words)).stdout)["plans"]
        kinds = plan.get("layer_kv", ["bf16"] * LAYERS)
        by_sum = tuple((keys or 0, kind) for keys, kind in zip(plan["layer_windows"], kinds, strict=True))
        assert plan_of(found, int(found.plan[b, 0])) == by_sum
        assert float(found.predicted_delta_nll[b, 0]) == pytest.approx(plan["predicted_delta_nll"], abs=1e-15)


def test_an_exported_plan_is_what_was_measured_in_the_tail_and_in_all_rows(work, found):
    told = json.loads(succeed(winnow(work, "plan", "plans", "--curve", "--json")).stdout)["plans"]
    words, plans = [], []
    for b, text in enumerate(BUDGETS):
        words += ["--pattern", work / f"best-{b}.json"]
        plans.append(plan_of(found, int(found.plan[b, 1])))
        table = succeed(winnow(work, "plan", "plans", "--budget", text, "--out", f"best-{b}.json")).stdout
        selection = json.loads((work / f"best-{b}.json").read_text())
        assert selection["format_version"] == 3
        assert selection["layer_windows"] == told[b]["layer_windows"] == [keys or None for keys, _ in plans[b]]
        assert selection["layer_kv"] == told[b]["layer_kv"] == [kind for _, kind in plans[b]]
        assert selection["provenance"]["plan_measured_delta_nll"] == float(found.measured_delta_nll[b, 1])
        for layer, (keys, kind) in enumerate(plans[b]):
            assert f"{layer:5d} {keys or 'full':>8}  {kind}\n" in table
        at = next(p for p in plans[b] if p[1] == "fp8")
        n_alike = plans[b].count(at)
        assert (f"{n_alike} x {at[0]} fp8" if at[0] else f"{n_alike} full fp8") in table
    for out, more, name in (("tail", TAIL, "nll"), ("exact", [], "nll_verified")):
        more = ["--threads", 1, "--window", 8, *more, *words]
        succeed(launch.run(run_folder.arguments("evaluate", work, out, *more), work / "cache"))
        nll = nll_of(work, out)
        for b, plan in enumerate(plans):
            np.testing.assert_array_equal(found[name][int(found.plan[b, 1])], nll[plan])


def test_an_exact_search_measures_every_row(work, found):
    search(work, "all-rows", *ASKED, "--exact", "--steps", 1, tail=[])
    every = group(work, "all-rows")
    known = {plan_of(every, p): every.nll[p].values for p in range(every.sizes["pattern"])}
    shared = [
        (p, plan_of(found, p))
        for p in range(1, found.sizes["pattern"])
        if np.isfinite(found.nll_verified[p, 0]) and plan_of(found, p) in known
    ]
    assert len(shared) > 2 and any("fp8" in dict(map(reversed, plan)) for _, plan in shared)
    for p, plan in shared:
        np.testing.assert_array_equal(found.nll_verified[p], known[plan])


def test_figures_do_not_depend_on_the_base_beside_which_they_were_measured(work):
    """Four types in a layer: the bases of later steps have some of them, and evaluate's has none."""
    search(work, "narrow-plans", *PLAN, "--budget", "12%", "--budget", "30%", "--steps", 2, run="narrow")
    narrow = group(work, "narrow-plans")
    plans = [plan_of(narrow, p) for p in range(narrow.sizes["pattern"])]
    measured = evaluated(work, "narrow-every", plans[1:], *TAIL)
    assert {kind for plan in plans for _, kind in plan} == {"bf16", "fp8", "int8", "int4"}
    best = [plan_of(narrow, int(p)) for p in narrow.plan[:, 1]]
    assert any(kind != "bf16" for plan in best for _, kind in plan), "the base of the last step has a type"
    for p, plan in enumerate(plans):
        np.testing.assert_array_equal(narrow.nll[p], measured[plan])


def add_scales(model):
    """Gives a checkpoint with quantised weights a scale for the keys of each layer, and one for its values."""
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    (model / "config.json").write_text(json.dumps(config))
    data = (model / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for layer, name in itertools.product(range(config["num_hidden_layers"]), ("k_scale", "v_scale")):
        header[f"model.layers.{layer}.self_attn.{name}"] = {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": [len(body), len(body) + 4],
        }
        body += np.float32(0.003 * (layer + 1)).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_fp8_has_the_checkpoint_s_scales_and_the_prefix_ends_before_its_rows(work):
    """Values beyond 448 scales are cut, so that figures without the scales are others. The window alone would leave
    more rows before the tail as they are than the type does."""
    folder = work / "scales"
    shutil.copytree(launch.REPOSITORY / "tests/golden/quantized/fp8_channel", folder / "plain")
    shutil.copytree(folder / "plain", folder / "model")
    add_scales(folder / "model")
    tiny.write_calibration(folder / "long.h5", [210, 90])
    window, tail = 130, ["--tail-rows", 140]
    flags = ["--window", window, "--kv", "fp8"]
    succeed(launch.run(run_folder.arguments("calibrate", folder, "run", *flags), work / "cache"))
    done = search(folder, "plans", *PLAN, "--budget", "60%", tail=tail)
    assert "kept for 1 of 2 examples" in done.stderr
    found = group(folder, "plans")
    more = ["--threads", 1, "--window", window, *tail, "--pattern", "full@fp8", "--pattern", "windowed@fp8"]
    both = [plan_of(found, p) for p in range(found.sizes["pattern"])]
    for model in ("model", "plain"):
        succeed(
            launch.run(run_folder.arguments("evaluate", folder, model + "-fp8", *more, model=model), work / "cache")
        )
    known, without = nll_of(folder, "model-fp8"), nll_of(folder, "plain-fp8")
    for plan in (((0, "fp8"),) * 2, ((window, "fp8"),) * 2):
        np.testing.assert_array_equal(found.nll[both.index(plan)], known[plan])
        assert (known[plan] != without[plan]).all()


def same_but_for_time(left, right):
    timed = ["predicted_seconds", "predicted_seconds_exact", "predicted_seconds_verification", "search_seconds"]
    return left.drop_vars(timed, errors="ignore").identical(right.drop_vars(timed, errors="ignore"))


def test_ranks_do_not_change_a_figure(work, found):
    search(work, "ranks", *ASKED, "--verify", 4, ranks=2)
    assert same_but_for_time(group(work, "ranks"), found)


@pytest.mark.parametrize("n_shards", [2, 8])
def test_a_stopped_search_goes_on_in_the_middle(work, found, n_shards):
    """After the first round, and where the base of the round has types."""
    out = f"stopped-{n_shards}"
    command = arguments(work, out, *TAIL, *ASKED, "--verify", 4)
    directory = work / out / "shards"
    process = launch.start(command, work / "cache")
    launch.wait_for(lambda: directory.is_dir() and len(list(directory.glob("*.h5"))) >= n_shards, process)
    process.send_signal(signal.SIGINT)
    code, _, _ = launch.finish(process)
    assert code in (0, 75)
    before = {path.name for path in directory.glob("*.h5")}
    succeed(launch.run(command, work / "cache"))
    assert same_but_for_time(group(work, out), found)
    assert before <= {path.name for path in directory.glob("*.h5")}


def test_a_search_without_types_goes_on_with_them_in_one_directory(work, found):
    """What both measure is there once; and a file without types is read as ever."""
    search(work, "both", *ASKED, "--steps", 1, run="plain")
    plain = group(work, "both")
    assert "pattern_kv" not in plain and "@" not in "".join(plain.pattern.values)
    shutil.copytree(work / "both", work / "untyped")
    (told,) = json.loads(succeed(winnow(work, "plan", "untyped", "--budget", BUDGETS[1], "--json")).stdout)["plans"]
    assert "layer_kv" not in told
    best = plain.pattern_window_keys[int(plain.plan[1, 1])]
    assert [keys or 0 for keys in told["layer_windows"]] == best.values.tolist()
    assert "fp8" not in succeed(winnow(work, "plan", "untyped", "--curve")).stdout
    succeed(winnow(work, "plan", "untyped", "--budget", BUDGETS[1], "--out", "untyped.json"))
    selection = json.loads((work / "untyped.json").read_text())
    assert selection["format_version"] == 2 and "layer_kv" not in selection
    search(work, "both", *ASKED, "--verify", 4)
    assert same_but_for_time(group(work, "both"), found)


def test_an_engine_mixes_types_as_it_does(work):
    words = ["--method", "plan", "--budget", "30%@40000", "--engine", "vllm", "--steps", 1]
    search(work, "vllm", *words, run="narrow")
    vllm = group(work, "vllm")
    for p in range(vllm.sizes["pattern"]):
        narrower = {kind for _, kind in plan_of(vllm, p)} - {"bf16"}
        assert np.isfinite(vllm.pattern_bytes[p]) == (len(narrower) <= 1 and "int4" not in narrower)
    best = plan_of(vllm, int(vllm.plan[0, 1]))
    assert {kind for _, kind in best} & {"fp8", "int8"}
    succeed(winnow(work, "plan", "vllm", "--budget", "30%@40000", "--out", "vllm.json"))
    words = ["export", "vllm.json", "--target", "vllm", "--out", "export", "--max-seq-len", 40000]
    succeed(winnow(work, *words))
    record = json.loads((work / "export/winnow-export.json").read_text())
    assert record["kv_cache"]["engine_bytes"] == float(vllm.pattern_bytes[int(vllm.plan[0, 1])])
    assert record["kv"] == [kind for _, kind in best]


def test_an_engine_without_types_gets_plans_without_them(work):
    search(work, "hf", *PLAN, "--budget", "40%", "--engine", "hf", "--steps", 1)
    assert "pattern_kv" not in group(work, "hf")
    words = arguments(work, "bad", *TAIL, *PLAN, "--budget", "3%", "--engine", "hf")
    done = launch.run(words, work / "cache")
    (line,) = launch.error_lines(done.stderr)
    assert done.returncode == 64 and "--budget 3% is less than any plan takes" in line
    assert not (work / "bad").exists()


def test_the_file_is_as_documented(work, found):
    with h5py.File(work / "plans/results.h5") as file:
        variables = manual_tables.variables_of(file["selection/plan"])
        assert set(variables) == set(SCHEMA)
        for name, dataset in variables.items():
            manual_tables.assert_as_documented(name, dataset, SCHEMA[name])
    shown = json.loads(succeed(winnow(work, "search", *arguments(work, "plans", *TAIL, *ASKED, "--json")[1:])).stdout)
    for b, budget in enumerate(shown["budgets"]):
        for name, p in zip(("sum_of_layers", "refined"), found.plan[b].values, strict=True):
            kinds = [kind for _, kind in plan_of(found, int(p))]
            assert budget[name].get("layer_kv", ["bf16"] * LAYERS) == kinds


def test_a_type_that_this_winnow_does_not_know_is_refused(work, found):
    with h5py.File(work / "plans/results.h5") as file, h5py.File(work / "unknown.h5", "w") as copy:
        copy.attrs.update(file.attrs)
        for name in file:
            file.copy(name, copy)
        copy["selection/plan/pattern_kv"][1, 0] = "fp7"
    done = winnow(work, "plan", "unknown.h5", "--curve")
    line = launch.error_lines(done.stderr)[-1]  # behind the note on the checksum
    assert done.returncode == 65 and 'pattern_kv: expected bf16, fp8, int8 or int4, found "fp7"' in line
