"""Exports in Transformers itself: the exported model is the pattern that winnow measured, for every family."""

import json
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no torch: jobs/setup.sh torch")
transformers = pytest.importorskip("transformers", reason="no transformers: jobs/setup.sh torch")

import export_files  # noqa: E402
import launch  # noqa: E402

GOLDEN = launch.REPOSITORY / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
from reference import WindowedModel, WindowRule  # noqa: E402

# Of each way to a window per layer; what is behind the name is how the export is loaded.
FAMILIES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "MinistralForCausalLM",
    "mistral": "MinistralForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteSWAForCausalLM",
    "seed_oss": "GraniteSWAForCausalLM",
    "olmo2": "Olmo3ForCausalLM",
    "qwen3_moe": "MellumForCausalLM",
}
KEPT = [1, 2]
WINDOW = 40
TOLERANCE = 1e-4  # nats: float32 on both sides


@pytest.fixture(autouse=True)
def this_python(monkeypatch):
    monkeypatch.setenv("WINNOW_PYTHON", sys.executable)


def write_examples(path, family):
    """The golden's examples with every token but the first scored: each row of logits counts."""
    examples = json.loads((GOLDEN / f"{family}.json").read_text())["examples"]
    tokens = [example["tokens"] for example in examples]
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-calibration", 1
        file["tokens"] = np.concatenate(tokens).astype(np.int32)
        file["offsets"] = np.cumsum([0, *map(len, tokens)]).astype(np.int64)
        file["answer_start"] = np.array(
            [1 if i % 2 == 0 else example["answer_start"] for i, example in enumerate(examples)], np.int64
        )
        file.create_dataset("example_id", data=[str(i) for i in range(len(tokens))], dtype=h5py.string_dtype())
    return tokens


class Measured:
    """winnow's token NLLs of a pattern, and its selection."""

    def __init__(self, folder, model, family, target, *flags, base=f"list:{KEPT[0]},{KEPT[1]}", layers=0):
        self.model, self.family = model, family
        self.tokens = write_examples(folder / "data.h5", family)
        result = launch.run(
            [
                "calibrate",
                "--model",
                model,
                "--data",
                folder / "data.h5",
                "--base",
                base,
                "--window",
                WINDOW,
                "--target",
                target,
                "--layers",
                layers,
                "--per-token",
                "--device",
                "cpu",
                "--out",
                folder / "run",
                *flags,
            ],
            folder,
        )
        assert result.returncode == 0, result.stderr
        with h5py.File(folder / "run" / "results.h5") as file:
            nll = file["calibration/token_nll_base"][:]
            self.nll = [row[~np.isnan(row)] for row in nll]
        if base == "windowed":
            return
        self.selection = folder / "selection.json"
        result = launch.run(["select", folder / "run", "--method", base, "--out", self.selection], folder)
        assert result.returncode == 0, result.stderr

    def export(self, base, target, *flags):
        out = base / target
        result = launch.run(["export", self.selection, "--target", target, "--out", out, *flags], base)
        assert result.returncode == 0, result.stderr
        return out, result


def load(directory):
    # Sinks, and with them a Granite SWA, are in the eager attention alone.
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@torch.inference_mode()
def token_nlls(model, tokens, n_scored):
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1].double()
    nll = -torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    return nll[len(nll) - n_scored :].numpy()


@torch.inference_mode()
def decoded_nlls(model, tokens, n_scored):
    """The same with the prompt first, then token by token out of the KV cache, as in serving."""
    start = len(tokens) - n_scored
    output = model(torch.tensor([tokens[:start]]), use_cache=True)
    rows = [output.logits[0, -1]]
    for token in tokens[start:-1]:
        output = model(torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
        rows.append(output.logits[0, -1])
    log_p = torch.log_softmax(torch.stack(rows).double(), -1)
    return -log_p.gather(1, torch.tensor(tokens[start:])[:, None])[:, 0].numpy(), output.past_key_values


def assert_same(model, measured):
    for tokens, expected in zip(measured.tokens, measured.nll, strict=True):
        np.testing.assert_allclose(token_nlls(model, tokens, len(expected)), expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module", params=FAMILIES)
def measured(request, tmp_path_factory):
    return Measured(tmp_path_factory.mktemp(request.param), GOLDEN / request.param, request.param, "hf")


def test_exported_model_is_what_winnow_measured(measured, tmp_path):
    out, result = measured.export(tmp_path, "hf", "--check")
    assert "layers are as asked for." in result.stdout
    model = load(out)
    assert type(model).__name__ == FAMILIES[measured.family]
    assert_same(model, measured)
    # The window matters here: the checkpoint itself says something else.
    plain = token_nlls(load(measured.model), measured.tokens[0], len(measured.nll[0]))
    assert np.abs(plain - measured.nll[0]).max() > 0.05
    # Served out of the cache it is the same model, and windowed layers hold no more than their window.
    n_scored = min(len(measured.nll[-1]), 20)
    nll, cache = decoded_nlls(model, measured.tokens[-1], n_scored)
    np.testing.assert_allclose(nll, measured.nll[-1][-n_scored:], rtol=0, atol=TOLERANCE)
    for layer, held in enumerate(cache.layers):
        assert held.keys.shape[-2] == (len(measured.tokens[-1]) - 1 if layer in KEPT else WINDOW - 1)


BY_TYPE = {"positions": "by type"}


@pytest.mark.parametrize(
    "family, positions",
    [
        ("gemma2", {}),
        ("gpt_oss", {}),
        ("granite_swa", {}),
        ("gemma3_text", BY_TYPE),
        ("olmo3", BY_TYPE),
        ("exaone4", BY_TYPE),
        ("cohere2", BY_TYPE),
    ],
)
def test_layers_with_a_window_of_their_own_keep_it(family, positions, tmp_path):
    """The one layer of full attention is windowed, too."""
    model = GOLDEN / family
    measured = Measured(tmp_path, model, family, "hf", base="windowed", layers=2)
    measured.selection = export_files.write_selection(
        tmp_path / "selection.json",
        model,
        family,
        n_layers=3,
        layers=[],
        window=WINDOW,
        window_keys=WINDOW,
        native_window=WINDOW,
        native_window_layers=[0, 1],
        **positions,
    )
    out, result = measured.export(tmp_path, "hf", "--check", "--no-hash")
    assert "All 3 layers are as asked for." in result.stdout
    assert_same(load(out), measured)
    plain = token_nlls(load(model), measured.tokens[0], len(measured.nll[0]))
    assert np.abs(plain - measured.nll[0]).max() > 0.01


@pytest.mark.parametrize(
    "family, target, served",
    [
        ("qwen3", "sglang", "mellum"),
        ("qwen3", "llamacpp", "mellum"),
        ("qwen2", "sglang", "granite_swa"),
        ("llama", "sglang", "granite_swa"),
        ("mistral", "sglang", "granite_swa"),
    ],
)
def test_another_name_changes_no_logit(family, target, served, tmp_path):
    """What SGLang and llama.cpp are given, beside what Transformers is given."""
    measured = Measured(tmp_path, GOLDEN / family, family, "hf")
    usual, _ = measured.export(tmp_path, "hf")
    other, result = measured.export(tmp_path, target, "--check")
    assert "layers are as asked for." in result.stdout
    assert json.loads((other / "config.json").read_text())["model_type"] == served
    tokens = torch.tensor([measured.tokens[0]])
    with torch.inference_mode():
        expected, found = (load(folder)(tokens, use_cache=False).logits for folder in (usual, other))
    assert (found - expected).abs().max().item() == 0.0


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_vllm_overrides_mean_the_same(family, tmp_path):
    measured = Measured(tmp_path, GOLDEN / family, family, "vllm")
    out, result = measured.export(tmp_path, "vllm", "--check")
    assert "All 4 layers are as asked for." in result.stdout
    # As vLLM does: set on the configuration after it was built.
    config = transformers.AutoConfig.from_pretrained(GOLDEN / family)
    config.update(json.loads((out / "hf_overrides.json").read_text()))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        GOLDEN / family, config=config, dtype=torch.float32
    ).eval()
    assert_same(model, measured)


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("target, window_keys", [("swaa-hf", WINDOW), ("swaa-vllm", WINDOW + 1)])
def test_swaa_settings_mean_what_winnow_measured(family, target, window_keys, tmp_path):
    measured = Measured(tmp_path, GOLDEN / family, family, target, "--sinks", 3)
    out, _ = measured.export(tmp_path, "swaa")
    setting = json.loads((out / "swaa_settings.json").read_text())[0]["swaa_config"]
    # SWAA's Transformers counts the row itself in the window, its vLLM does not.
    keys = setting["sliding_window_size"] + (1 if target == "swaa-vllm" else 0)
    assert keys == window_keys
    reference = WindowedModel(load(GOLDEN / family))
    rule = WindowRule(keys, setting["keep_first"], "full" if setting["force_fa_decode"] else "windowed")
    pattern = [layer not in setting["non_sliding_layers"] for layer in range(4)]
    for tokens, expected in zip(measured.tokens, measured.nll, strict=True):
        scores = reference.score(tokens, len(tokens) - len(expected), [pattern], rule)[0]
        np.testing.assert_allclose(scores.nll.numpy(), expected, rtol=0, atol=TOLERANCE)


def test_llama_without_optional_fields(tmp_path):
    """What config.json leaves out is filled with Llama's defaults, not with Ministral's."""
    model = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama", model)
    config = json.loads((model / "config.json").read_text())
    # 8 heads: as many KV heads where the field is not there. The weights are made to fit.
    del config["num_key_value_heads"]
    config |= {"rope_theta": 10000.0, "rope_scaling": None}
    del config["rope_theta"], config["rms_norm_eps"]
    (model / "config.json").write_text(json.dumps(config))
    fresh = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(model))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.normal_(std=parameter.shape[-1] ** -0.5 * 1.6)
    fresh.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "saved" / "model.safetensors", model / "model.safetensors")
    measured = Measured(tmp_path, model, "llama", "hf")
    out, _ = measured.export(tmp_path, "hf", "--check")
    assert_same(load(out), measured)


def test_check_finds_what_does_not_run_as_asked(tmp_path):
    """A Llama that is given Qwen's fields keeps full attention: the helper sees it."""
    program = launch.WINNOW.parent / "winnow-check-hf"
    overrides = tmp_path / "overrides.json"
    overrides.write_text(json.dumps({"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 4}))
    result = subprocess.run(
        [sys.executable, program, GOLDEN / "llama", "--overrides", overrides],
        capture_output=True,
        text=True,
        timeout=launch.TIMEOUT_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["attention"] == [None] * 4  # masks nothing
    assert report["cache"] == [WINDOW] * 4  # and yet forgets in decoding
    result = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, text=True, timeout=launch.TIMEOUT_SECONDS
    )
    assert result.returncode == 65 and "Traceback" not in result.stderr


def test_python_without_transformers_is_skipped(tmp_path, monkeypatch):
    """A bare interpreter has no packages: the check says so, the export stays."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {pathlib.Path(sys.base_prefix, "bin", "python3")} -S -E "$@"\n')
    bare.chmod(0o755)
    measured = Measured(tmp_path, GOLDEN / "qwen3", "qwen3", "hf")
    monkeypatch.setenv("WINNOW_PYTHON", str(bare))
    out, result = measured.export(tmp_path, "hf", "--check")
    assert "not checked" in result.stdout and "WINNOW_PYTHON" in result.stdout
    assert (out / "config.json").exists()
