"""Checkpoints with windows of their own, from outside: what is measured, kept, selected, exported and refused."""

import json
import shutil

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

GOLDEN = launch.REPOSITORY / "tests" / "golden"
LAYERS = 6
NATIVE = [0, 2, 3]
FULL = [1, 4, 5]
OWN_KEYS = 48
WINDOW = ["--window", 32, "--threads", 1]
# Of the golden's three layers.
GEMMA_TYPES = ["full_attention", "sliding_attention", "full_attention"]


def types(full, n_layers):
    return ["full_attention" if layer in full else "sliding_attention" for layer in range(n_layers)]


def set_config(model, **fields):
    config = json.loads((model / "config.json").read_text()) | fields
    (model / "config.json").write_text(json.dumps(config))


def copy_golden(directory, name):
    """A golden's checkpoint with full attention before and behind a layer that has a window."""
    shutil.copytree(GOLDEN / name, directory / name)
    set_config(directory / name, layer_types=GEMMA_TYPES)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("native")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    set_config(directory / "model", use_sliding_window=True, sliding_window=OWN_KEYS, layer_types=types(FULL, LAYERS))
    copy_golden(directory, "gemma3_text")
    copy_golden(directory, "exaone4")
    tiny.write_calibration(directory / "long.h5", [150, 120, 170])
    return directory


def winnow(work, *words):
    return launch.run(words, work / "cache")


def run(verb, work, out, *more, model="model", expected=0):
    result = winnow(work, *run_folder.arguments(verb, work, out, *WINDOW, *more, model=model))
    assert result.returncode == expected, result.stderr
    return result


def one_line(result):
    lines = [line for line in result.stderr.splitlines() if line.startswith("winnow: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def calibrated(work):
    return run("calibrate", work, "run")


def test_only_full_layers_are_measured(work, calibrated):
    assert "3 of 6 layers have a window of 48 tokens of their own" in calibrated.stderr
    with h5py.File(work / "run" / "results.h5") as file:
        assert file["calibration/layer"][:].tolist() == FULL
        provenance = {name: value[()] for name, value in file["provenance"].items()}
    assert provenance["native_window"] == OWN_KEYS
    assert provenance["native_window_layers"] == b"0,2,3"
    assert provenance["base"] == b"list:1,4,5"


def test_the_windows_are_those_of_the_checkpoint(work, calibrated):
    """Layers 0, 2 and 3 windowed by --window 48 on the model without windows of its own are the same base."""
    plain = work / "plain"
    shutil.copytree(work / "model", plain)
    set_config(plain, use_sliding_window=False, layer_types=types(range(LAYERS), LAYERS))
    more = ["--window", OWN_KEYS, "--threads", 1, "--base", "list:1,4,5"]
    result = winnow(work, *run_folder.arguments("calibrate", work, "plain-run", *more, model="plain"))
    assert result.returncode == 0, result.stderr
    with h5py.File(work / "run" / "results.h5") as ours, h5py.File(work / "plain-run" / "results.h5") as theirs:
        assert ours["calibration/nll_base"][:].tobytes() == theirs["calibration/nll_base"][:].tobytes()


def test_evaluate_agrees_and_counts_the_cache(work, calibrated):
    patterns = ["full", "windowed", "list:1,4", "periodic:2@0"]
    flags = [word for pattern in patterns for word in ("--pattern", pattern)]
    result = run("evaluate", work, "evaluation", *flags, "--generate", 5)
    assert "1 of the layers that periodic:2@0 names" not in result.stderr
    assert "2 of the layers that periodic:2@0 names have a window of their own, which stays" in result.stderr
    with h5py.File(work / "run" / "results.h5") as one, h5py.File(work / "evaluation" / "results.h5") as file:
        group = file["evaluation"]
        assert group["native_window"][:].tolist() == [OWN_KEYS if k in NATIVE else 0 for k in range(LAYERS)]
        assert group["full_attention"][:].sum(1).tolist() == [3, 0, 2, 1]
        assert group["nll"][0].tobytes() == one["calibration/nll_base"][:].tobytes()
        # list:1,4 windows layer 5.
        assert group["nll"][2].tobytes() == one["calibration/nll"][:, 2].tobytes()
        assert np.all(np.diff(group["generated_cache_bytes"][:, 0][[1, 2, 0]]) > 0)


def test_a_search_gives_only_full_layers_full_attention(work, calibrated):
    run("search", work, "search", "--method", "greedy-forward", "--keep", 3, "--exact")
    with h5py.File(work / "run" / "results.h5") as one, h5py.File(work / "search" / "results.h5") as file:
        best = file["selection/greedy-forward"]
        full = best["full"][:]
        assert full.sum(1).tolist() == [0, 1, 2, 3]
        assert not full[:, NATIVE].any() and full[3, FULL].all()
        assert best["mean_nll"][3] == pytest.approx(one["calibration/nll_base"][:].mean(), rel=1e-12)
    result = run("search", work, "search", "--method", "greedy-forward", "--keep", 4, "--exact", expected=64)
    assert "3 layers with full attention" in one_line(result)


def test_a_search_on_cached_keys_gives_what_evaluate_gives(work):
    """The rows before the tail keep the windows that the checkpoint has."""
    run("search", work, "tail", "--method", "greedy-backward", "--keep", 1, "--tail-rows", 20)
    with h5py.File(work / "tail" / "results.h5") as file:
        names = [name.decode() for name in file["selection/greedy-backward/pattern"][:]]
        nll = file["selection/greedy-backward/nll"][:]
    flags = [word for name in names for word in ("--pattern", name)]
    run("evaluate", work, "tail-evaluation", *flags, "--tail-rows", 20)
    with h5py.File(work / "tail-evaluation" / "results.h5") as file:
        found = [name.decode() for name in file["evaluation/pattern"][:]]
        for name, of_search in zip(names, nll, strict=True):
            assert file["evaluation/nll"][found.index(name)].tobytes() == of_search.tobytes(), name


def test_rules_that_count_take_layers_that_can_be_chosen(work, calibrated):
    expected = {"first": FULL[:2], "last": FULL[-2:]}
    for method in ("first", "last", "random:0", "random:1", "random:2"):
        result = winnow(work, "select", work / "run", "--method", method, "--keep", 2, "--json")
        assert result.returncode == 0, result.stderr
        layers = json.loads(result.stdout)["layers"]
        assert len(layers) == 2 and set(layers) < set(FULL), method
        assert layers == expected.get(method, layers)


def test_patterns_that_count_do_as_rules_do(work, calibrated):
    patterns = ["first:2", "last:2", "random:2", "random:1:2", "random:2:2", "first:3"]
    flags = [word for pattern in patterns for word in ("--pattern", pattern)]
    result = run("evaluate", work, "counted", *flags)
    assert "names have a window" not in result.stderr
    with h5py.File(work / "counted" / "results.h5") as file:
        group = file["evaluation"]
        assert group["pattern"].asstr()[:].tolist() == ["full", *patterns]
        full = [np.flatnonzero(row).tolist() for row in group["full_attention"][:]]
    assert full[0] == full[6] == FULL
    for pattern, layers in zip(patterns[:5], full[1:6], strict=True):
        method = pattern.removesuffix(":2")
        chosen = json.loads(winnow(work, "select", work / "run", "--method", method, "--keep", 2, "--json").stdout)
        assert layers == chosen["layers"], pattern
    result = run("evaluate", work, "refused", "--pattern", "random:4", expected=64)
    assert "K from 0 to 3 layers" in one_line(result)


def test_a_search_for_plans_calls_full_attention_full(work):
    """Its layers with a window of their own keep it in every plan."""
    run("calibrate", work, "two", "--windows", "16,32")
    plan = ["--from", work / "two", "--method", "plan", "--budget", "60%@200", "--steps", 1]
    result = winnow(work, *run_folder.arguments("search", work, "plans", "--threads", 1, *plan))
    assert result.returncode == 0, result.stderr
    with h5py.File(work / "plans" / "results.h5") as file:
        names = file["selection/plan/pattern"].asstr()[:].tolist()
        keys = file["selection/plan/pattern_window_keys"][:]
    assert names[0] == "full" and names.count("full") == 1
    assert keys[0].tolist() == [OWN_KEYS if layer in NATIVE else 0 for layer in range(LAYERS)]
    assert all(name.startswith("windows:48,") for name in names[1:])


def test_select_and_export(work, calibrated):
    selection = work / "selection.json"
    result = winnow(work, "select", work / "run", "--keep", 2, "--out", selection)
    assert result.returncode == 0 and "not of full attention" not in result.stderr, result.stderr
    selected = json.loads(selection.read_text())
    assert selected["native_window_layers"] == NATIVE and selected["native_window"] == OWN_KEYS
    assert set(selected["layers"]) < set(FULL)
    result = winnow(work, "select", work / "run", "--keep", 4)
    assert result.returncode == 64 and "have a window of their own" in one_line(result)
    result = winnow(work, "select", work / "run", "--method", "list:0,1")
    assert result.returncode == 64 and "layer 0 has a window of its own" in one_line(result)
    result = winnow(work, "export", selection, "--target", "json", "--out", work / "json")
    assert result.returncode == 0, result.stderr
    windows = json.loads((work / "json" / "winnow-export.json").read_text())["windows"]
    windowed = (set(FULL) - set(selected["layers"])).pop()
    expected = dict.fromkeys(NATIVE, OWN_KEYS) | dict.fromkeys(selected["layers"]) | {windowed: 32}
    assert windows == [expected[layer] for layer in range(LAYERS)]
    result = winnow(work, "export", selection, "--target", "hf", "--out", work / "hf")
    assert result.returncode == 65 and "one window for all of them" in one_line(result)


@pytest.mark.parametrize(
    "more, code, words",
    [
        (["--layers", "1,2"], 64, "--layers: layer 2 has a window of 48 tokens of its own"),
        (["--base", "list:0,1"], 64, "--base: layer 0 has a window of 48 tokens of its own"),
        (["--top-k", "4"], 64, "only 3 layers have full attention"),
    ],
)
def test_what_these_layers_do_not_give_is_refused(work, more, code, words):
    assert words in one_line(run("calibrate", work, "refused", *more, expected=code))
    assert not (work / "refused").exists()


def test_ignoring_them_is_another_measurement(work, calibrated):
    result = run("calibrate", work, "run", "--ignore-native-window", expected=78)
    assert "base is list:1,4,5 in this run directory, but full in this command" in one_line(result)
    run("calibrate", work, "ignored", "--ignore-native-window")
    with h5py.File(work / "ignored" / "results.h5") as file:
        assert file["calibration/layer"][:].tolist() == list(range(LAYERS))


def test_a_model_with_a_window_everywhere_has_nothing_to_measure(work):
    model = work / "everywhere"
    shutil.copytree(work / "model", model)
    set_config(model, layer_types=types([], LAYERS))
    result = run("calibrate", work, "everywhere-run", model="everywhere", expected=65)
    assert "a window of 48 tokens itself in every layer" in one_line(result)
    assert "no layer is left to measure; give --ignore-native-window" in one_line(result)


@pytest.mark.parametrize("model", ["gemma3_text", "exaone4"])
def test_positions_by_type_need_a_target(work, model):
    result = run("calibrate", work, "typed", model=model, expected=65)
    assert "layer_types" in one_line(result) and "give --target hf" in one_line(result)
    result = run("calibrate", work, "typed", "--target", "vllm", model=model, expected=65)
    assert "give --target hf" in one_line(result)
    hf = ["--target", "hf"]
    result = run("calibrate", work, "typed", *hf, "--tail-rows", 20, model=model, expected=65)
    assert "leave out --tail-rows" in one_line(result)
    search = ["--method", "greedy-forward", "--keep", 1]
    result = run("search", work, "typed", *hf, *search, model=model, expected=65)
    assert "give --exact" in one_line(result)
    run("search", work, f"search-{model}", *hf, *search, "--exact", model=model)


@pytest.mark.parametrize("model", ["gemma3_text", "exaone4"])
def test_positions_by_type_are_kept_and_exported_to_transformers_alone(work, model):
    run_directory = work / f"run-{model}"
    # The model's own window: Transformers has one for all layers.
    own = ["--window", 40, "--target", "hf"]
    result = winnow(work, *run_folder.arguments("calibrate", work, run_directory.name, *own, model=model))
    assert result.returncode == 0, result.stderr
    with h5py.File(run_directory / "results.h5") as file:
        assert file["calibration/layer"][:].tolist() == [0, 2]
        assert file["provenance/positions"][()] == b"by type"
        assert np.abs(file["calibration/delta_nll"][:]).max() > 0.01
    assert json.loads((run_directory / "run.json").read_text())["identity"]["positions"] == "by type"
    selection = work / f"{model}.json"
    assert winnow(work, "select", run_directory, "--keep", 1, "--out", selection).returncode == 0
    selected = json.loads(selection.read_text())
    assert selected["positions"] == "by type"
    result = winnow(work, "export", selection, "--target", "hf", "--out", work / f"hf-{model}")
    assert result.returncode == 0, result.stderr
    patch = json.loads((work / f"hf-{model}" / "config_patch.json").read_text())
    assert patch == {"sliding_window": 40, "layer_types": types(selected["layers"], 3)}
    for target in ("vllm", "trtllm", "swaa"):
        result = winnow(work, "export", selection, "--target", target, "--out", work / "elsewhere")
        assert result.returncode == 65 and "follow the type of a layer" in one_line(result), result.stderr


def test_a_sweep_says_before_it_starts_what_a_cell_would_be_refused_for(work):
    plan = {
        "name": "typed",
        "output": str(work / "sweep"),
        "models": [{"name": "gemma", "path": str(work / "gemma3_text")}],
        "datasets": [{"name": "long", "data": str(work / "long.h5")}],
        "windows": [32],
    }
    for targets, words in ([], "give --target hf"), (["hf"], "1 cells"):
        (work / "sweep.yaml").write_text(json.dumps(plan | ({"targets": targets} if targets else {})))
        result = winnow(work, "sweep", "plan", work / "sweep.yaml")
        assert result.returncode == 0, result.stderr
        assert words in result.stdout + result.stderr, result.stdout
        assert ("give --target hf" in result.stdout + result.stderr) == (not targets)
