"""Exports in their engines, on the CPU in float32: each runs the hybrid that winnow measured; a wrong one is caught.

Every engine is in an environment of its own (jobs/setup.sh engines); one that is not there is skipped.
"""

import json
import os
import shutil
import subprocess

import h5py
import launch
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

GOLDEN = launch.REPOSITORY / "tests/golden"
PYTHONS = {
    "transformers": launch.REPOSITORY / ".venv-torch/bin/python",
    "llamacpp": launch.REPOSITORY / ".venv-engines/llamacpp/bin/python",
    "mlx": launch.REPOSITORY / ".venv-engines/mlx/bin/python",
    "vllm": launch.REPOSITORY / ".venv-engines/vllm/bin/python",
    "sglang": launch.REPOSITORY / ".venv-engines/sglang/bin/python",
}
SLOW = {"vllm", "sglang"}  # make test-engines-all
CHECKS = launch.BUILD / "engine-checks"
WINDOW, OWN_WINDOW, REAL_WINDOW = 40, 24, 256
N_NEW = 100  # tokens that are written past the window
SECONDS = 3000

# Targets with --model-impl: vLLM's own model code with python/winnow_vllm, SGLang's code for models of Transformers.
MODEL_IMPL = {"plugin": ("vllm", "plugin"), "sglang-transformers": ("sglang", "transformers")}

FAMILIES = {"qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe"}

# (engine, golden checkpoint, target of winnow export).
RIGHT = [
    ("transformers", "qwen3", "hf"),
    ("transformers", "qwen2", "hf"),
    ("transformers", "llama", "hf"),
    ("transformers", "mistral", "hf"),
    ("transformers", "qwen3_moe", "hf"),
    ("transformers", "qwen2", "llamacpp"),
    ("llamacpp", "qwen3", "llamacpp"),
    ("llamacpp", "qwen3_moe", "llamacpp"),
    ("llamacpp", "qwen2", "llamacpp"),
    ("llamacpp", "llama", "llamacpp"),
    ("llamacpp", "mistral", "llamacpp"),
    ("llamacpp", "granite", "llamacpp"),
    ("mlx", "qwen3", "mlx"),
    ("mlx", "qwen3_moe", "mlx"),
    ("mlx", "llama", "mlx"),
    ("mlx", "mistral", "mlx"),
    ("mlx", "qwen2", "mlx"),
    ("vllm", "qwen3", "vllm"),
    ("vllm", "qwen2", "vllm"),
    ("vllm", "llama", "vllm"),
    ("vllm", "mistral", "vllm"),
    ("vllm", "qwen3", "plugin"),
    ("vllm", "qwen3_moe", "vllm"),
    ("vllm", "qwen3_moe", "plugin"),
    ("vllm", "llama", "plugin"),
    ("vllm", "mistral", "plugin"),
    ("sglang", "qwen3", "sglang"),
    ("sglang", "qwen3_moe", "sglang"),
    ("sglang", "qwen3", "sglang-transformers"),
    ("sglang", "qwen2", "sglang-transformers"),
    ("sglang", "llama", "sglang-transformers"),
]
# Of these the engine knows no window per layer: it runs full attention without a word.
IGNORED = [
    ("llamacpp", "qwen3", "hf"),
    ("llamacpp", "llama", "hf"),
    ("mlx", "qwen3", "hf"),
    ("sglang", "qwen3", "hf"),
]


def python_of(engine):
    python = PYTHONS[engine]
    if engine in SLOW and not os.environ.get("WINNOW_ALL_ENGINES"):
        pytest.skip("make test-engines-all runs it")
    if not python.exists():
        pytest.skip(f"no {python.parents[1]}: make test-engines makes it and needs a network once")
    return python


def serve_check(export, engine, name, n_new=N_NEW, *flags):
    """(exit code, JSON), which is kept for matrix.py."""
    CHECKS.mkdir(exist_ok=True)
    out = CHECKS / f"{engine}-{name}.json"
    out.unlink(missing_ok=True)
    words = ["serve-check", export, "--engine", engine, "--python", python_of(engine), "--out", out]
    words += ["--generate", n_new, "--threads", "1", *flags]
    done = subprocess.run(
        launch.command(words), env=launch.environment(CHECKS / "cache"), capture_output=True, text=True, timeout=SECONDS
    )
    print(done.stdout, done.stderr)
    return done.returncode, json.loads(out.read_text()) if out.exists() else None


def checkpoint_of(folder, engine, family):
    """A small random checkpoint: a golden, or another where an engine does not run that one."""
    if engine == "vllm" and family != "qwen3":
        return wide_heads(folder / family, family)
    if (engine, family) == ("llamacpp", "mistral"):  # the golden's heads are no hidden / heads wide
        return wide_heads(folder / family, family, head_dim=16)
    if family != "qwen3_moe":
        return GOLDEN / family
    # Engines norm the weights of a mixture's experts, as published mixtures of Qwen3 want it; the golden whose layers
    # are all mixtures does not want it.
    model = shutil.copytree(GOLDEN / "qwen3_moe_plain", folder / family)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"norm_topk_prob": True}))
    return model


def wide_heads(folder, family, head_dim=32):
    """vLLM's attention on a CPU has no heads as narrow as the goldens', nor its mixture of experts widths that are
    no multiple of 32. A Qwen3 without norms of q and k is a Llama, with biases a Qwen2."""
    tiny.write_checkpoint(folder, layers=4, hidden=64, heads=4, kv_heads=2, head_dim=head_dim, vocab=200)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": family, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2}
    config["architectures"] = [FAMILIES.get(family, family.capitalize()) + "ForCausalLM"]
    if family == "qwen3_moe":
        tensors = with_experts(tensors, config)
    elif family != "qwen3":
        tensors = {name: tensor for name, tensor in tensors.items() if "q_norm" not in name and "k_norm" not in name}
        config.pop("attention_bias")
    if family == "qwen2":
        random = np.random.default_rng(1)
        for name in [name for name in tensors if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))]:
            bias = random.standard_normal(len(tensors[name])).astype("<f4")
            tensors[name.replace(".weight", ".bias")] = bias
    tiny.write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_experts(tensors, config, n_experts=4):
    """The MLP of each layer, with noise, becomes that many experts."""
    random = np.random.default_rng(2)
    mixed = {name: tensor for name, tensor in tensors.items() if ".mlp." not in name}
    for name, tensor in tensors.items():
        if ".mlp." not in name:
            continue
        for expert in range(n_experts):
            noise = random.standard_normal(tensor.shape).astype("<f4") * tensor.std()
            mixed[name.replace(".mlp.", f".mlp.experts.{expert}.")] = tensor + noise
    for layer in range(config["num_hidden_layers"]):
        gate = random.standard_normal((n_experts, config["hidden_size"])).astype("<f4")
        mixed[f"model.layers.{layer}.mlp.gate.weight"] = gate
    config |= {"num_experts": n_experts, "num_experts_per_tok": 2, "moe_intermediate_size": config["intermediate_size"]}
    config |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    return mixed


def windows_of(checkpoint, window):
    """The second and third layer are full, so that both kinds stand beside each other and beside their like."""
    n_layers = json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]
    return [None if layer in (1, 2) and layer < n_layers - 1 else window for layer in range(n_layers)]


def export(folder, checkpoint, target, window=WINDOW, flags=(), **selected):
    windows = windows_of(checkpoint, window)
    config = json.loads((checkpoint / "config.json").read_text())
    selection = {"format": "winnow-selection", "format_version": 1, "method": "list", "n_layers": len(windows)}
    selection["layers"] = [layer for layer, keys in enumerate(windows) if keys is None]
    selection |= {"keep": len(selection["layers"]), "window": window, "window_keys": window, "sinks": 0}
    selection |= {"decode": "windowed", "tail_rows": -1, "target": "", "model": str(checkpoint), "provenance": {}}
    selection |= {"model_type": config["model_type"], "checkpoint_sha256": "0" * 64}
    (folder / "selection.json").write_text(json.dumps(selection | selected))
    name, impl = MODEL_IMPL.get(target, (target, "auto"))
    words = ["--target", name, "--model-impl", impl] if target in MODEL_IMPL else ["--target", name]
    done = launch.run(
        ["export", folder / "selection.json", *words, "--no-hash", *flags, "--out", folder / target], folder
    )
    assert done.returncode == 0, done.stderr
    return folder / target


@pytest.mark.parametrize("engine, family, target", RIGHT)
def test_the_engine_runs_the_hybrid(engine, family, target, tmp_path):
    code, record = serve_check(
        export(tmp_path, checkpoint_of(tmp_path, engine, family), target), engine, f"{family}-{target}"
    )
    assert code == 0 and record["verdict"] == "hybrid"
    for name, candidate in record["candidates"].items():
        assert (candidate["rms_nats"] <= record["tolerance_nats"]) == (name == "hybrid")
    assert record["text"] == {"tokens": N_NEW, "equal": N_NEW, "parts_at_a_tie": False}


@pytest.mark.parametrize("engine, family, target", IGNORED)
def test_windows_that_an_engine_ignores_are_found(engine, family, target, tmp_path):
    folder = export(tmp_path, checkpoint_of(tmp_path, engine, family), target)
    code, record = serve_check(folder, engine, f"{family}-{target}-ignored", 0)
    assert code == 65 and record["verdict"] == "full"


@pytest.mark.parametrize(
    "engine, family, target",
    [
        ("transformers", "qwen3", "hf"),
        ("llamacpp", "llama", "llamacpp"),
        ("mlx", "qwen3", "mlx"),
        ("vllm", "qwen3", "vllm"),
        ("sglang", "qwen3", "sglang"),
    ],
)
@pytest.mark.parametrize(
    "ran, changes",
    [
        ("full", lambda config: {"sliding_window": 4096}),
        ("window-minus-1", lambda config: {"sliding_window": WINDOW - 1}),
        ("window-plus-1", lambda config: {"sliding_window": WINDOW + 1}),
        ("something else", lambda config: {"layer_types": config["layer_types"][::-1]}),
    ],
)
def test_a_wrong_export_is_caught(engine, family, target, ran, changes, tmp_path):
    """config.json, or what is given on top of it, says something else than the record."""
    folder = export(tmp_path, checkpoint_of(tmp_path, engine, family), target)
    file = next(folder / name for name in ("config.json", "hf_overrides.json") if (folder / name).exists())
    config = json.loads(file.read_text())
    if ran == "something else" and config["layer_types"] == config["layer_types"][::-1]:
        config["layer_types"] = config["layer_types"][1:] + config["layer_types"][:1]
        changes = dict
    file.unlink()
    file.write_text(json.dumps(config | changes(config)))
    code, record = serve_check(folder, engine, f"{family}-{target}-wrong-{ran.replace(' ', '-')}", 0)
    assert code == 65 and record["verdict"] == ran


def test_vllm_with_the_plugin_runs_windows_of_two_sizes(tmp_path):
    """The last layer keeps the window that the model has by itself."""
    checkpoint = wide_heads(tmp_path / "qwen3", "qwen3")
    config = json.loads((checkpoint / "config.json").read_text())
    config["layer_types"] = ["full_attention"] * 3 + ["sliding_attention"]
    config |= {"sliding_window": OWN_WINDOW, "use_sliding_window": True}
    (checkpoint / "config.json").write_text(json.dumps(config))
    folder = export(tmp_path, checkpoint, "plugin", native_window=OWN_WINDOW, native_window_layers=[3])
    windows = [WINDOW, None, None, OWN_WINDOW]
    assert json.loads((folder / "hf_overrides.json").read_text())["layer_windows"] == windows
    code, record = serve_check(folder, "vllm", "qwen3-plugin-two-windows")
    assert code == 0 and record["verdict"] == "hybrid" and record["windows"] == windows


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3_moe"])
def test_vllm_with_the_plugin_runs_a_plan(family, tmp_path):
    """The windows of a plan, whose hybrid winnow measures token by token; one that is off is found by its name."""
    checkpoint = wide_heads(tmp_path / family, family)
    measured = {"checkpoint_sha256": checksum_of(checkpoint, tmp_path)}
    windows = [WINDOW, None, OWN_WINDOW, WINDOW]
    folder = export(
        tmp_path, checkpoint, "plugin", format_version=2, layers=[1], keep=1, layer_windows=windows, **measured
    )
    overrides = json.loads((folder / "hf_overrides.json").read_text())
    assert overrides["layer_windows"] == windows
    code, record = serve_check(folder, "vllm", f"{family}-plugin-plan")
    assert code == 0 and record["verdict"] == "hybrid" and record["windows"] == windows
    assert record["text"]["equal"] == N_NEW
    assert all(each["rms_from_hybrid_nats"] > 0.01 for ran, each in record["candidates"].items() if ran != "hybrid")
    if family == "llama":
        overrides["layer_windows"] = [keys and keys + 1 for keys in windows]
        (folder / "hf_overrides.json").write_text(json.dumps(overrides))
        code, record = serve_check(folder, "vllm", f"{family}-plugin-plan-wrong-window-plus-1", 0)
        assert code == 65 and record["verdict"] == "window-plus-1"


def checksum_of(checkpoint, scratch):
    """The hash of a checkpoint that a selection bears, from a run of winnow's."""
    tiny.write_calibration(scratch / "data.h5", [48], vocab=200)
    words = ["calibrate", "--model", checkpoint, "--data", scratch / "data.h5", "--out", scratch / "run"]
    words += ["--window", 16, "--target", "hf", "--layers", 0, "--device", "cpu", "--threads", 1]
    done = launch.run(words, scratch)
    assert done.returncode == 0, done.stderr
    with h5py.File(scratch / "run/results.h5") as file:
        return file["provenance/checkpoint_sha256"].asstr()[()]


def test_vllm_s_own_qwen3_ignores_windows_without_the_plugin(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "none")
    folder = export(tmp_path, GOLDEN / "qwen3", "plugin")
    code, record = serve_check(folder, "vllm", "qwen3-plugin-left-out", 0)
    assert code == 65 and record["verdict"] == "full"


@pytest.mark.parametrize("engine, target", [("transformers", "hf"), ("llamacpp", "llamacpp"), ("mlx", "mlx")])
def test_a_real_model(engine, target, smollm2, tmp_path):
    folder = export(tmp_path, smollm2, target, REAL_WINDOW)
    # llama.cpp's threads wait for each other in a loop: beside other programs two are slower by far than one.
    threads = "1" if engine == "llamacpp" else str(os.cpu_count() or 1)
    code, record = serve_check(folder, engine, f"smollm2-135m-{target}", N_NEW, "--threads", threads)
    shutil.rmtree(folder)
    assert code == 0 and record["verdict"] == "hybrid"
    assert record["text"]["equal"] == N_NEW or record["text"]["parts_at_a_tie"]
