"""Checkpoints with quantised weights through the verbs: what is in them, their figures, what a result says of them."""

import json
import shutil

import h5py
import launch
import numpy as np
import pytest
import safetensors.numpy
import tiny

GOLDENS = launch.REPOSITORY / "tests" / "golden" / "quantized"
# mxfp4_blocks has the experts of a mixture alone, which is no model.
NAMES = sorted(path.stem for path in GOLDENS.glob("*.json") if path.stem != "mxfp4_blocks")
CLI_TOLERANCE = 2e-4  # nats, of 1 + the NLL, between float32 and float64


def golden_of(name):
    return json.loads((GOLDENS / f"{name}.json").read_text())


def write_examples(path, examples):
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-calibration", 1
        lengths = [len(example["tokens"]) for example in examples]
        file["tokens"] = np.concatenate([example["tokens"] for example in examples]).astype(np.int32)
        file["offsets"] = np.cumsum([0, *lengths]).astype(np.int64)
        file["answer_start"] = np.array([example["answer_start"] for example in examples], np.int64)
        file["example_id"] = [f"example-{i}" for i in range(len(examples))]


def calibrate(work, model, data, out, *more):
    words = [
        "calibrate",
        "--model",
        model,
        "--data",
        data,
        "--window",
        24,
        "--out",
        work / out,
        "--device",
        "cpu",
        *more,
    ]
    return launch.run(words, work / "cache")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    tiny.write_calibration(folder / "long.h5", [60, 64, 72])
    for name in ("fp8_block", "int4_packed"):
        done = calibrate(folder, GOLDENS / name, folder / "long.h5", name)
        assert done.returncode == 0, done.stderr
    return folder


def test_there_is_a_golden_of_every_format():
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_transformers(tmp_path, name):
    golden = golden_of(name)
    write_examples(tmp_path / "data.h5", golden["examples"])
    # The golden windows every layer, also one that has a window of its own.
    done = calibrate(tmp_path, GOLDENS / name, tmp_path / "data.h5", "run", "--ignore-native-window")
    assert done.returncode == 0, done.stderr
    [case] = [c for c in golden["cases"] if (c["sinks"], c["decode"], c["tail_rows"]) == (0, "windowed", None)]
    expected = np.array(case["nll"])
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        found = np.column_stack([file["calibration/nll_base"][:], file["calibration/nll"][:]])
        stated = file["provenance/weight_format"].asstr()[()]
    assert np.all(np.abs(found - expected) <= CLI_TOLERANCE * (1 + np.abs(expected)))
    assert stated == f"{golden['format']} ({len(golden['values'])} tensors)"


@pytest.mark.parametrize("name", NAMES)
def test_inspect_names_the_format(tmp_path, name):
    golden = golden_of(name)
    done = launch.run(["inspect", GOLDENS / name, "--json"], tmp_path)
    facts = json.loads(done.stdout)
    assert facts["quantization"] == {
        "method": json.loads((GOLDENS / name / "config.json").read_text())["quantization_config"]["quant_method"],
        "tensors": {golden["format"]: len(golden["values"])},
        "computed_as": "bf16 on a GPU, fp32 on the CPU",
    }
    assert facts["dtype"] == "bf16"
    assert facts["parameters"] == (84176 if name == "mxfp4_gpt_oss" else 65920)
    assert "faults" not in facts


def test_a_checkpoint_that_asks_for_quantised_keys_is_measured_without(tmp_path, work):
    """Its weights are the same; the result says what was left out."""
    shutil.copytree(GOLDENS / "fp8_block", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    path.write_text(json.dumps(config))
    facts = json.loads(launch.run(["inspect", tmp_path / "model", "--json"], tmp_path).stdout)
    assert facts["quantization"]["keys_and_values"] == "not quantised, kv_cache_scheme is left out"
    done = calibrate(tmp_path, tmp_path / "model", work / "long.h5", "run")
    assert done.returncode == 0, done.stderr
    assert "warning: keys and values are not quantised" in done.stderr
    with h5py.File(tmp_path / "run" / "results.h5") as file, h5py.File(work / "fp8_block" / "results.h5") as plain:
        assert "kv_cache_scheme" in file["provenance/warnings"].asstr()[()]
        np.testing.assert_array_equal(file["calibration/nll"][:], plain["calibration/nll"][:])


def fp8_blocks(weight, block):
    """(codes in E4M3, scales of blocks, the values that they stand for), all exact in float32."""
    exponents, fractions = np.divmod(np.arange(127), 8)
    values = np.where(exponents == 0, fractions * 2.0**-9, (1 + fractions / 8) * 2.0 ** (exponents - 7.0))
    rows, cols = weight.shape
    scales = np.zeros((-(-rows // block), -(-cols // block)), np.float32)
    for i, j in np.ndindex(scales.shape):
        scales[i, j] = np.abs(weight[i * block : (i + 1) * block, j * block : (j + 1) * block]).max() / values[-1]
    of_each = scales.repeat(block, 0)[:rows].repeat(block, 1)[:, :cols]
    codes = np.abs(np.abs(weight / of_each)[..., None] - values).argmin(axis=-1)
    decoded = (np.sign(weight) * values[codes]).astype(np.float32) * of_each
    return (codes + 128 * (weight < 0)).astype(np.uint8), scales, decoded


def test_experts_in_fp8_blocks_are_computed_with_their_values(tmp_path, work):
    golden, block = GOLDENS.parent / "qwen3_moe", 20  # which divides neither hidden nor the experts' size
    config = json.loads((golden / "config.json").read_text()) | {"torch_dtype": "bfloat16"}
    quantised, plain, kept = {}, {}, []
    for name, weight in safetensors.numpy.load_file(golden / "model.safetensors").items():
        weight = weight.astype(np.float32)
        stem = name.removesuffix(".weight")
        if stem.endswith("_proj"):
            codes, scales, plain[name] = fp8_blocks(weight, block)
            quantised |= {name: codes, f"{stem}.weight_scale_inv": scales}
        else:
            quantised[name] = plain[name] = weight
            kept += [stem] if stem.endswith(("mlp.gate", "lm_head")) else []
    assert sum(".experts." in name for name in quantised) == 2 * 2 * 3 * 8
    method = {"quant_method": "fp8", "weight_block_size": [block, block], "modules_to_not_convert": kept}
    found = {}
    for kind, tensors in {"quantised": quantised, "plain": plain}.items():
        (tmp_path / kind).mkdir()
        tiny.write_safetensors(tmp_path / kind / "model.safetensors", tensors)
        fields = config | ({"quantization_config": method} if kind == "quantised" else {})
        (tmp_path / kind / "config.json").write_text(json.dumps(fields))
        done = calibrate(tmp_path, tmp_path / kind, work / "long.h5", f"{kind}-run")
        assert done.returncode == 0, done.stderr
        with h5py.File(tmp_path / f"{kind}-run" / "results.h5") as file:
            found[kind] = file["calibration/nll"][...]
    np.testing.assert_array_equal(found["quantised"], found["plain"])


def test_a_plain_checkpoint_is_stated_as_such(work, tmp_path):
    tiny.write_checkpoint(tmp_path / "model")
    done = calibrate(tmp_path, tmp_path / "model", work / "long.h5", "run")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        assert file["provenance/weight_format"].asstr()[()] == "plain"
    assert "quantization" not in json.loads(launch.run(["inspect", tmp_path / "model", "--json"], tmp_path).stdout)


def test_a_damaged_one_is_one_line(work, tmp_path):
    shutil.copytree(GOLDENS / "fp8_block", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["quantization_config"]["weight_block_size"] = [16, 32]
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    done = calibrate(tmp_path, tmp_path / "model", work / "long.h5", "run")
    assert done.returncode == 65
    [line] = done.stderr.strip().splitlines()
    assert "weight_scale_inv" in line
    assert "expected shape" in line
    told = launch.run(["inspect", tmp_path / "model", "--json"], tmp_path)
    assert told.returncode == 65
    assert json.loads(told.stdout)["faults"]["count"] == 13


def test_stats_compares_two_calibrations(work):
    done = launch.run(["stats", work / "fp8_block", work / "int4_packed"], work / "cache")
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("fp8 in blocks of 32 x 32 (13 tensors) against int4 in groups of 32 (13 tensors): Spearman")
    assert "3 examples of 3 and 3 paired" in line
    facts = json.loads(launch.run(["stats", work / "fp8_block", work / "int4_packed", "--json"], work / "cache").stdout)
    assert facts["layers"] == 2
    assert facts["paired_examples"] == 3
    assert facts["spearman_rho"] in (-1, 1)
    assert facts["overlap"] in (0, 1)
    same = json.loads(launch.run(["stats", work / "fp8_block", work / "fp8_block", "--json"], work / "cache").stdout)
    assert (same["spearman_rho"], same["overlap"], same["magnitude_ratio"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("more", "what"), [(["--window", 16], "window_keys"), (["--sinks", 2], "sinks"), (["--layers", "0"], "layers")]
)
def test_stats_refuses_two_that_measured_different_things(work, tmp_path, more, what):
    words = ["calibrate", "--model", GOLDENS / "awq", "--data", work / "long.h5", "--out", tmp_path / "run"]
    more = more if "--window" in more else [*more, "--window", 24]
    assert launch.run([*words, "--device", "cpu", *more], work / "cache").returncode == 0
    done = launch.run(["stats", work / "fp8_block", tmp_path / "run"], work / "cache")
    assert done.returncode == 78
    [line] = done.stderr.strip().splitlines()
    assert what in line
    assert done.stdout == ""
