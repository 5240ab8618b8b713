"""winnow plan: the best windows within a budget against every assignment there is, what engines take for them, and the
plan in evaluate and export."""

import itertools
import json

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [210, 190, 170, 230]
WINDOWS = [8, 16, 64]
LAYERS = 5
TOKENS = 1000
TOKEN_BYTES = 2 * 2 * 8 * 4  # keys and values of 2 heads of 8 dimensions, float32


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plan")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "test.h5", LENGTHS, seed=5, prefix="test")
    for name, more in {
        "run": ["--windows", "8,16,64"],
        "one": ["--window", 16],
        "sinks": ["--windows", "8,16", "--sinks", 2],
        "full": ["--windows", "8,16", "--decode", "full"],
        "base": ["--window", 16, "--base", "list:1"],
        "some": ["--windows", "8,16", "--layers", "0-2"],
    }.items():
        done = launch.run(run_folder.arguments("calibrate", directory, name, *more), directory / "cache")
        assert done.returncode == 0, done.stderr
    return directory


def winnow(work, *words):
    return launch.run(list(words), work / "cache", cwd=work)


def plans(work, *words, run="run"):
    done = winnow(work, "plan", run, "--max-seq-len", TOKENS, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["plans"]


def plan(work, *words, **more):
    (found,) = plans(work, *words, **more)
    return found


@pytest.fixture(scope="module")
def deltas(work):
    """Mean delta NLL [layer, setting], full attention last."""
    with h5py.File(work / "run/results.h5") as file:
        mean = file["calibration/delta_nll_by_window"][()].mean(axis=0)
    return np.hstack([mean, np.zeros((LAYERS, 1))])


@pytest.mark.parametrize("share", [0.8, 1, 1.5, 2.5, 20, 100])
def test_no_assignment_within_the_budget_is_better(work, deltas, share):
    found = plan(work, "--budget", f"{share}%")
    keys = np.array([*WINDOWS, TOKENS])
    assert found["full_attention_bytes"] == LAYERS * TOKENS * TOKEN_BYTES
    budget = share / 100 * found["full_attention_bytes"]
    best = min(
        (sum(deltas[layer, s] for layer, s in enumerate(settings)), keys[list(settings)].sum() * TOKEN_BYTES)
        for settings in itertools.product(range(4), repeat=LAYERS)
        if keys[list(settings)].sum() * TOKEN_BYTES <= budget
    )
    assert found["predicted_delta_nll"] == pytest.approx(best[0], rel=1e-12, abs=1e-15)
    assert found["bytes"] == best[1]
    assert found["ci_low"] <= found["predicted_delta_nll"] <= found["ci_high"]
    seen = [TOKENS if keys_of is None else keys_of for keys_of in found["layer_windows"]]
    assert sum(seen) * TOKEN_BYTES == found["bytes"]


def test_a_budget_in_bytes_is_that_share(work):
    share = plan(work, "--budget", "20%")
    other = plan(work, "--budget", f"{share['budget_bytes']}@{TOKENS}")
    assert other["layer_windows"] == share["layer_windows"]
    both = plan(work, "--budget", f"{2 * share['budget_bytes']}", "--concurrency", 2)
    assert both["layer_windows"] == share["layer_windows"]
    assert both["bytes"] == 2 * share["bytes"]


def test_a_curve_falls(work):
    found = plans(work, "--curve", "--budget", "3%")
    assert [each["budget"] for each in found] == ["3%", *(f"{share}%" for share in range(5, 101, 5))]
    losses = [each["predicted_delta_nll"] for each in found]
    assert losses == sorted(losses, reverse=True)
    assert all(each["bytes"] <= each["budget_bytes"] for each in found)
    table = winnow(work, "plan", "run", "--max-seq-len", TOKENS, "--curve").stdout
    assert [line.split()[0] for line in table.splitlines() if line[0].isdigit()] == [f"{n}%" for n in range(5, 101, 5)]


@pytest.mark.parametrize(
    ("engine", "more"),
    [("trtllm", []), ("vllm", ["--model-impl", "plugin"]), ("sglang", []), ("hf", [])],
)
def test_the_bytes_are_those_of_the_export(work, engine, more):
    out = work / f"{engine}.json"
    length = 40000
    budget = ["--budget", f"60%@{length}", "--concurrency", 3, "--engine", engine]
    found = plan(work, *budget, "--out", out)
    done = winnow(
        work,
        "export",
        out,
        "--target",
        engine,
        "--out",
        f"{engine}-export",
        "--max-seq-len",
        length,
        "--concurrency",
        3,
        *more,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((work / f"{engine}-export/winnow-export.json").read_text())
    assert record["windows"] == found["layer_windows"]
    assert record["kv_cache"]["engine_bytes"] == found["bytes"] <= found["budget_bytes"]
    assert record["kv_cache"]["full_attention_bytes"] == found["full_attention_bytes"]
    sizes = {keys for keys in found["layer_windows"] if keys}
    assert sizes
    if engine in {"sglang", "hf"}:
        assert len(sizes) == 1


def test_engines_with_one_window_refuse_several(work):
    out = work / "several.json"
    found = plan(work, "--budget", "3%", "--out", out)
    assert len({keys for keys in found["layer_windows"] if keys}) > 1
    for engine, word in (("hf", "one window for all"), ("vllm", "--model-impl plugin")):
        done = winnow(work, "export", out, "--target", engine, "--out", f"refused-{engine}")
        assert done.returncode == 65
        assert word in done.stderr
        assert not (work / f"refused-{engine}").exists()
    done = winnow(work, "export", out, "--target", "json", "--out", "listed")
    assert done.returncode == 0, done.stderr
    assert json.loads((work / "listed/winnow-export.json").read_text())["windows"] == found["layer_windows"]


def evaluate(work, out, *more, window=64):
    words = run_folder.arguments("evaluate", work, out, "--window", window, *more, data="test.h5")
    done = launch.run(words, work / "cache")
    assert done.returncode == 0, done.stderr
    return work / out / "results.h5"


def write_plan(work, name, windows):
    """A plan with these windows, from one that winnow wrote."""
    plan(work, "--budget", "20%", "--out", work / name)
    said = json.loads((work / name).read_text())
    del said["content_sha256"]
    said["layer_windows"] = windows
    said["layers"] = [layer for layer, keys in enumerate(windows) if keys is None]
    said["keep"] = len(said["layers"])
    (work / name).write_text(json.dumps(said))


def test_evaluate_measures_a_plan_under_its_own_windows(work):
    """With one window in all layers it is what the same pattern gives under that window."""
    write_plan(work, "uniform.json", [16, None, 16, 16, None])
    write_plan(work, "mixed.json", [8, None, 16, 64, 8])
    patterns = [work / "uniform.json", work / "mixed.json", "windowed"]
    path = evaluate(work, "mixed", *itertools.chain(*(("--pattern", pattern) for pattern in patterns)))
    single = evaluate(work, "single", "--pattern", "list:1,4", window=16)
    with h5py.File(path) as file, h5py.File(single) as other:
        group = file["evaluation"]
        names = list(group["pattern"].asstr())
        assert names == ["full", "plan:2", "plan:1", "windowed"]
        of_single = list(other["evaluation/pattern"].asstr()).index("list:1,4")
        assert group["nll"][1].tobytes() == other["evaluation/nll"][of_single].tobytes()
        assert group["layer_window_keys"][()].tolist() == [
            [0] * 5,
            [16, 0, 16, 16, 0],
            [8, 0, 16, 64, 8],
            [64] * 5,
        ]
        bytes_kept = group["kv_cache_bytes"][2] / TOKEN_BYTES
        assert bytes_kept.tolist() == [length + 8 + 16 + 64 + 8 for length in (8192, 32768, 131072, 1048576)]
        assert (group["nll"][2] != group["nll"][1]).any()
        assert "layer_window_keys" not in other["evaluation"]
    again = launch.run(
        run_folder.arguments(
            "evaluate", work, "mixed", "--window", 64, "--pattern", work / "mixed.json", "--generate", 4, data="test.h5"
        ),
        work / "cache",
    )
    assert again.returncode == 0, again.stderr
    with h5py.File(path) as file:
        # A rolling window of each layer, and full attention over prompt and text in one.
        texts = file["evaluation/generated_cache_bytes"][()]
        assert (texts[1] < texts[0]).all()


def test_a_plan_is_whole_and_says_what_it_is(work):
    out = work / "plan.json"
    found = plan(work, "--budget", "60%@40000", "--engine", "trtllm", "--out", out)
    said = json.loads(out.read_text())
    assert (said["format"], said["format_version"], said["method"]) == ("winnow-selection", 2, "plan")
    assert said["layer_windows"] == found["layer_windows"]
    assert said["provenance"]["plan_bytes"] == found["bytes"]
    assert said["provenance"]["plan_predicted_delta_nll"] == found["predicted_delta_nll"]
    assert winnow(work, "inspect", out).returncode == 0
    text = out.read_text()
    out.write_text(text.replace('"plan_max_seq_len": 40000', '"plan_max_seq_len": 40001'))
    done = winnow(work, "export", out, "--target", "json", "--out", "damaged")
    assert done.returncode == 65 and "content_sha256" in done.stderr


def test_plans_of_one_window_and_of_some_layers(work):
    found = plan(work, "--budget", "50%", run="one")
    assert set(found["layer_windows"]) <= {16, None}
    with h5py.File(work / "one/results.h5") as file:
        order = np.argsort(file["calibration/delta_nll"][()].mean(axis=0))
    n_windowed = sum(keys is not None for keys in found["layer_windows"])
    assert {layer for layer, keys in enumerate(found["layer_windows"]) if keys} == set(order[:n_windowed].tolist())
    found = plan(work, "--budget", "45%", run="some")
    assert found["layer_windows"][3:] == [None, None]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run"], 64, ["--budget 24GiB@131072"]),
        (["run", "--budget", "24GiX"], 64, ['"24GiX" is no size']),
        (["run", "--budget", "1G@many"], 64, ["@131072"]),
        (["run", "--budget", "0%"], 64, ["at most 100%"]),
        (["run", "--budget", "101%"], 64, ["at most 100%"]),
        (["run", "--budget", "1G@1000"], 64, ["more than", "625.00 KiB", "full attention"]),
        (["run", "--budget", "0.5%@1000"], 64, ["less than any plan", "5.00 KiB", "5120 bytes"]),
        (["run", "--budget", "10%", "--engine", "onnx"], 64, ["--engine", "ideal", "trtllm"]),
        (["run", "--budget", "10%", "--concurrency", "0"], 64, ["--concurrency is 0"]),
        (["run", "--curve", "--out", "no.json"], 64, ["--out", "one --budget"]),
        (["sinks", "--budget", "10%", "--engine", "vllm"], 64, ["2 sink tokens", "--engine ideal"]),
        (["full", "--budget", "10%"], 64, ["--decode full"]),
        (["base", "--budget", "10%"], 65, ["--base full"]),
        (["run", "--budget", "50%", "--engine", "swaa"], 64, ["less than any plan", "SWAA"]),
    ],
)
def test_what_is_refused(work, words, code, said):
    done = winnow(work, "plan", *words)
    assert done.returncode == code
    (line,) = launch.error_lines(done.stderr)
    assert all(word in line for word in said), line
    assert not (work / "no.json").exists()
