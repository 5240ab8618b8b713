"""calibrate --kv: every layer with every window and every type of keys and values in one run, as separate runs and
whole patterns give it; and plans among these settings."""

import itertools
import json

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [90, 150, 70, 30]
WINDOWS = [8, 30]
TYPES = ["fp8", "int8", "int4"]
LAYERS = 5
TOKENS = 1000
KEPT = ["nll", "delta_nll", "exact_match", "token_accuracy"]
# Bytes of the keys and values of a token: 2 heads of 8 dimensions, float32 for bf16.
TOKEN_BYTES = {"bf16": 2 * 2 * 8 * 4, "fp8": 2 * 2 * 8, "int8": 2 * 2 * (8 + 4), "int4": 2 * 2 * (4 + 4)}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kv")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "short.h5", [40, 50], seed=1, prefix="short")
    return directory


def calibrate(work, out, *more, ranks=None):
    more = ["--control", f"short={work / 'short.h5'}", "--sinks", 2, *more]
    return launch.run(run_folder.arguments("calibrate", work, out, *more), work / "cache", ranks)


def measured(work, out, *more, ranks=None):
    done = calibrate(work, out, *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return work / out / "results.h5"


ALL = ["--windows", "8,30", "--kv", "int8,bf16,fp8,int4"]


def settings_of(group):
    return list(zip(group["setting_window"][()].tolist(), group["setting_kv"].asstr()[()].tolist(), strict=True))


@pytest.fixture(scope="module")
def together(work):
    return measured(work, "together", *ALL)


@pytest.mark.parametrize("rows", [[], ["--tail-rows", 20], ["--tail-rows", 4, "--decode", "full"]])
def test_each_setting_is_its_own_run(work, rows):
    name = "-".join(["rows", *map(str, rows)])
    with h5py.File(measured(work, f"{name}-all", *ALL, *rows)) as file:
        expected = [(8, "bf16"), (30, "bf16")]
        expected += [(window, kind) for kind in TYPES for window in (8, 30, 0)]
        assert settings_of(file["calibration"]) == expected
        for kind, window in itertools.product(TYPES, WINDOWS):
            with h5py.File(measured(work, f"{name}-{kind}-{window}", "--window", window, "--kv", kind, *rows)) as one:
                assert settings_of(one["calibration"]) == [(window, "bf16"), (window, kind), (0, kind)]
                for group, (s, setting) in itertools.product(
                    ("calibration", "control/short"), enumerate(settings_of(one["calibration"]))
                ):
                    place = expected.index(setting)
                    for kept in KEPT:
                        found = file[group][f"{kept}_by_setting"][:, :, place]
                        assert found.tobytes() == one[group][f"{kept}_by_setting"][:, :, s].tobytes(), (group, setting)
        delta = file["calibration/delta_nll_by_setting"][()]
        full = expected.index((0, "int4"))
        assert (delta[:, :, full] != 0).all(), "a narrow type costs something in every example and layer"
        assert file["calibration/nll_by_window"][()].tobytes() == (
            file["calibration/nll_by_setting"][:, :, :2].tobytes()
        ), "what windows alone cost is there as ever"


def write_selection(path, work, windows, kv):
    """A plan with these settings, made of a selection that winnow wrote."""
    done = launch.run(["select", work / "together", "--keep", 1, "--out", path], work / "cache")
    assert done.returncode == 0, done.stderr
    said = json.loads(path.read_text())
    del said["content_sha256"]
    said["format_version"] = 3
    said["layers"] = [layer for layer, keys in enumerate(windows) if keys is None]
    said["keep"] = len(said["layers"])
    said["layer_windows"] = windows
    said["layer_kv"] = kv
    path.write_text(json.dumps(said))


def evaluate(work, out, *more):
    words = run_folder.arguments("evaluate", work, out, "--window", 8, "--sinks", 2, *more)
    return launch.run(words, work / "cache")


def test_a_setting_is_the_pattern_that_evaluate_measures(work, together):
    with h5py.File(together) as file:
        settings = settings_of(file["calibration"])
        nll = file["calibration/nll_by_setting"][()]
    patterns = []
    for layer, (window, kind) in [(0, (8, "int4")), (3, (0, "fp8")), (4, (30, "int8"))]:
        windows, kv = [None] * LAYERS, ["bf16"] * LAYERS
        windows[layer], kv[layer] = window or None, kind
        path = work / f"single-{layer}.json"
        write_selection(path, work, windows, kv)
        patterns.append((path, layer, settings.index((window, kind))))
    done = evaluate(work, "singles", *itertools.chain(*(("--pattern", path) for path, *_ in patterns)))
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "singles/results.h5") as file:
        group = file["evaluation"]
        for p, (_, layer, setting) in enumerate(patterns, start=1):
            assert group["nll"][p].tobytes() == np.ascontiguousarray(nll[:, layer, setting]).tobytes()
        assert group["layer_kv"].asstr()[1].tolist() == ["int4", *["bf16"] * 4]
        assert group["layer_window_keys"][1].tolist() == [8, 0, 0, 0, 0]


def test_uniform_types_and_the_cache_that_they_take(work, together):
    patterns = ["full@fp8", "windowed@int4", "periodic:2@1@int8", "full"]
    words = [
        *itertools.chain(*(("--pattern", pattern) for pattern in patterns)),
        "--generate",
        6,
        "--stop-tokens",
        "none",
    ]
    done = evaluate(work, "uniform", *words)
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "uniform/results.h5") as file:
        group = file["evaluation"]
        assert list(group["pattern"].asstr()) == patterns
        length = 8192
        expected = [
            LAYERS * length * TOKEN_BYTES["fp8"],
            LAYERS * 10 * TOKEN_BYTES["int4"],
            (2 * length + 3 * 10) * TOKEN_BYTES["int8"],
            LAYERS * length * TOKEN_BYTES["bf16"],
        ]
        assert group["kv_cache_bytes"][:, 0].tolist() == expected
        assert (group["nll"][0] != group["nll"][3]).all()
        assert (group["kl"][0] > 0).all() and (group["kl"][3] == 0).all(), "all is compared with full attention in bf16"
        texts = group["generated_cache_bytes"][()]
        assert (texts[1] < texts[2]).all() and (texts[0] < texts[3]).all()
        slots = -(-(np.array(LENGTHS)) // 64) * 64  # at least those of the prompt
        assert (texts[0] % (LAYERS * TOKEN_BYTES["fp8"]) == 0).all()
        assert (texts[0] // (LAYERS * TOKEN_BYTES["fp8"]) <= slots + 64).all()
    again = evaluate(work, "uniform", *words)
    assert again.returncode == 0, again.stderr
    refused = evaluate(work, "tails", "--pattern", "full@fp8", "--generate", 2, "--tail-rows", 4)
    (line,) = launch.error_lines(refused.stderr)
    assert refused.returncode == 64 and "--tail-rows" in line and "full@fp8" in line


def test_bf16_alone_is_no_kv(work):
    measured(work, "list", "--window", 8, "--kv", "bf16")
    measured(work, "plain", "--window", 8)
    tiny.assert_same_tables(work / "list/results.h5", work / "plain/results.h5")
    identity = [json.loads((work / run / "run.json").read_text())["identity"] for run in ("list", "plain")]
    assert identity[0] == identity[1] and "kv_types" not in identity[0]


def test_ranks_and_a_resumed_run_give_the_same(work, together):
    assert json.loads((work / "together/run.json").read_text())["identity"]["kv_types"] == TYPES
    measured(work, "ranks", *ALL, ranks=2)
    tiny.assert_same_tables(together, work / "ranks/results.h5")
    lost = run_folder.shards(work / "ranks")[1]
    lost.unlink()
    (work / "ranks/results.h5").unlink()
    measured(work, "ranks", *ALL)
    assert run_folder.last_run(work / "ranks")["units_done"] == 1
    tiny.assert_same_tables(together, work / "ranks/results.h5")
    other = calibrate(work, "ranks", "--windows", "8,30", "--kv", "fp8")
    assert other.returncode == 78 and "kv_types" in other.stderr


def test_table_json_and_statistics_show_every_setting(work, together):
    table = calibrate(work, "together", *ALL).stdout
    assert "each window and type of keys and values" in table
    shown = json.loads(calibrate(work, "together", *ALL, "--json").stdout)["by_setting"]
    with h5py.File(together) as file:
        assert list(zip(shown["window"], shown["kv"], strict=True)) == settings_of(file["calibration"])
        mean = file["calibration/delta_nll_by_setting"][()].mean(axis=0)
    np.testing.assert_allclose([layer["mean_delta_nll"] for layer in shown["layers"]], mean, rtol=1e-12)
    done = launch.run(["stats", together, "--out", work / "again.h5"], work / "cache")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(together, work / "again.h5")


def plans(work, *words, run="two"):
    done = launch.run(["plan", run, "--max-seq-len", TOKENS, *words, "--json"], work / "cache", cwd=work)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["plans"]


@pytest.fixture(scope="module")
def two(work):
    done = launch.run(run_folder.arguments("calibrate", work, "two", "--window", 8, "--kv", "fp8,int4"), work / "cache")
    assert done.returncode == 0, done.stderr
    return work / "two/results.h5"


@pytest.mark.parametrize("share", [5, 13, 25, 40, 80])
def test_no_assignment_within_the_budget_is_better(work, two, share):
    with h5py.File(two) as file:
        settings = [*settings_of(file["calibration"]), (0, "bf16")]
        deltas = np.hstack([file["calibration/delta_nll_by_setting"][()].mean(axis=0), np.zeros((LAYERS, 1))])
    price = np.array([(window or TOKENS) * TOKEN_BYTES[kind] for window, kind in settings])
    (found,) = plans(work, "--budget", f"{share}%")
    budget = share / 100 * LAYERS * TOKENS * TOKEN_BYTES["bf16"]
    best = min(
        (sum(deltas[layer, s] for layer, s in enumerate(chosen)), price[list(chosen)].sum())
        for chosen in itertools.product(range(len(settings)), repeat=LAYERS)
        if price[list(chosen)].sum() <= budget
    )
    assert found["predicted_delta_nll"] == pytest.approx(best[0], rel=1e-12, abs=1e-15)
    assert found["bytes"] == best[1]
    kinds = found.get("layer_kv", ["bf16"] * LAYERS)
    seen = [(keys or TOKENS) * TOKEN_BYTES[kind] for keys, kind in zip(found["layer_windows"], kinds, strict=True)]
    assert sum(seen) == found["bytes"]


def export(work, plan, engine, *more, length=TOKENS):
    out = f"{plan.stem}-{engine}"
    words = ["export", plan, "--target", engine, "--out", out, "--max-seq-len", length, *more]
    return launch.run(words, work / "cache", cwd=work), work / out


def test_plans_are_what_the_engine_keeps_and_its_export_says_so(work, two):
    length = 40000
    plan = work / "vllm.json"
    for share in range(25, 60, 5):
        (found,) = plans(work, "--budget", f"{share}%@{length}", "--engine", "vllm", "--out", plan)
        if set(found.get("layer_kv", [])) == {"bf16", "fp8"}:
            break
    assert set(found["layer_kv"]) == {"bf16", "fp8"}, "vLLM has one narrower type beside the model's own"
    said = json.loads(plan.read_text())
    assert (said["format_version"], said["layer_kv"]) == (3, found["layer_kv"])
    done, out = export(work, plan, "vllm", length=length)
    assert done.returncode == 0, done.stderr
    skipped = " ".join(str(layer) for layer, kind in enumerate(found["layer_kv"]) if kind == "bf16")
    assert f"--kv-cache-dtype fp8 --kv-cache-dtype-skip-layers {skipped}" in (out / "serve.sh").read_text()
    record = json.loads((out / "winnow-export.json").read_text())
    assert record["kv"] == found["layer_kv"]
    assert record["kv_cache"]["engine_bytes"] == found["bytes"] <= found["budget_bytes"]
    for engine in ("trtllm", "sglang"):
        (found,) = plans(work, "--budget", f"60%@{length}", "--engine", engine)
        assert set(found.get("layer_kv", ["bf16"])) in ({"bf16"}, {"fp8"})
    (found,) = plans(work, "--budget", f"60%@{length}", "--engine", "hf")
    assert "layer_kv" not in found


@pytest.mark.parametrize(
    ("kv", "engine", "words"),
    [
        (["fp8"] * LAYERS, "trtllm", ["dtype: fp8"]),
        (["fp8"] * LAYERS, "sglang", ["--kv-cache-dtype fp8_e4m3"]),
        (["fp8"] * LAYERS, "vllm", ["--kv-cache-dtype fp8"]),
        (["int8"] * LAYERS, "vllm", ["--kv-cache-dtype int8_per_token_head"]),
        (["int4"] * LAYERS, "vllm", ["vLLM", "int4"]),
        (["int8", *["fp8"] * 4], "vllm", ["vLLM", "fp8 and int8"]),
        (["bf16", *["fp8"] * 4], "trtllm", ["TensorRT-LLM", "all layers in one type"]),
        (["bf16", *["fp8"] * 4], "sglang", ["SGLang", "all layers in one type"]),
        (["fp8"] * LAYERS, "llamacpp", ["llama.cpp", "fp8"]),
        (["int8"] * LAYERS, "hf", ["Transformers", "int8"]),
    ],
)
def test_exports_say_the_type_or_are_refused(work, together, kv, engine, words):
    plan = work / f"{kv[0]}-{kv[1]}.json"
    write_selection(plan, work, [8, None, 8, 8, None], kv)
    done, out = export(work, plan, engine)
    if done.returncode == 0:
        text = "".join(path.read_text() for path in out.iterdir() if path.suffix in (".sh", ".yaml"))
        assert all(word in text for word in words), text
        assert "skip-layers" not in text
        return
    line = launch.error_lines(done.stderr)[-1]  # behind the note on the checksum
    assert done.returncode == 65 and all(word in line for word in words), line
    assert not out.exists()


def test_examples_that_the_window_does_not_reach_have_deltas_in_types_alone(work):
    done = launch.succeed(calibrate(work, "reach", "--window", 45, "--kv", "fp8,int4"))
    said = " are not longer than the 47 keys (window 45 + sinks 2): their deltas are 0"
    assert f"1 of 4 examples of calibration{said}, but for those with keys and values in fp8 or int4" in done.stderr
    with h5py.File(work / "reach/results.h5") as file:
        delta = file["calibration/delta_nll_by_setting"][LENGTHS.index(30)]
        for column, (_, kind) in enumerate(settings_of(file["calibration"])):
            assert (delta[:, column] == 0).all() == (kind == "bf16")
    plain = launch.succeed(calibrate(work, "reach-plain", "--window", 45))
    assert f"1 of 4 examples of calibration{said}\n" in plain.stderr
    refused = calibrate(work, "reach-none", "--window", 60, "--kv", "fp8")
    (line,) = launch.error_lines(refused.stderr)
    assert refused.returncode == 65
    assert "all its deltas would be 0, but for those with keys and values in fp8; use longer examples" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--window", 8, "--kv", "fp8,,int8"], ["--kv", '""']),
        (["--window", 8, "--kv", "fp8,fp8"], ["fp8 is given twice"]),
        (["--window", 8, "--kv", "fp16"], ["fp16", "bf16, fp8, int8 or int4"]),
        (["--window", 8, "--kv", "fp8", "--base", "windowed"], ["--base", "--kv"]),
        (["--window", 8, "--kv", "fp8", "--signals", "kl"], ["--signals", "--kv"]),
    ],
)
def test_what_is_refused(work, flags, words):
    done = calibrate(work, "refused", *flags)
    assert done.returncode == 64
    (line,) = launch.error_lines(done.stderr)
    assert all(word in line for word in words), line
    assert not (work / "refused").exists()


def test_a_type_of_a_type_is_refused(work, together):
    plan = work / "typed.json"
    write_selection(plan, work, [8, None, 8, 8, None], ["fp8"] * LAYERS)
    for pattern, word in ((f"{plan}@int8", "the file says"), ("full@fp9", "full@fp9")):
        done = evaluate(work, "refused", "--pattern", pattern)
        (line,) = launch.error_lines(done.stderr)
        assert done.returncode == 64 and word in line, line
    said = json.loads(plan.read_text())
    said["layer_kv"][2] = "fp7"
    plan.write_text(json.dumps(said))
    done = evaluate(work, "refused", "--pattern", plan)
    line = launch.error_lines(done.stderr)[-1]
    assert done.returncode == 65 and "layer_kv" in line
