"""Selections for `winnow export`, and what it writes."""

import hashlib
import json
import os
import shlex

import launch

LAYERS = 6
KEPT = [1, 4]
WINDOW = 8
SHA256 = "0" * 64

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 64,
    "max_position_embeddings": 4096,
    "rope_theta": 5e5,
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "float32",
}
MISTRAL = LLAMA | {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 8,
    "sliding_window": 4096,
}


def write_selection(path, model, model_type="qwen3", **changes):
    selection = {
        "format": "winnow-selection",
        "format_version": 1,
        "method": "nll",
        "keep": len(KEPT),
        "layers": KEPT,
        "n_layers": LAYERS,
        "window": WINDOW,
        "window_keys": WINDOW,
        "sinks": 0,
        "decode": "windowed",
        "tail_rows": -1,
        "target": "",
        "model": str(model),
        "model_type": model_type,
        "checkpoint_sha256": SHA256,
        "provenance": {},
    } | changes
    if "layers" in changes:
        selection["keep"] = len(changes["layers"])
    # results/README.md, "Checksums".
    text = json.dumps(selection, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    selection["content_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(selection))
    return path


def export(tmp_path, selection, target, *flags, hashed=False, out="out"):
    flags = [*flags] if hashed else [*flags, "--no-hash"]
    return launch.run(["export", selection, "--target", target, "--out", tmp_path / out, *flags], tmp_path)


def config_only(tmp_path, config, **changes):
    """A selection for a model of which config.json is all there is."""
    model = tmp_path / "other"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    return write_selection(tmp_path / "other.json", model, config["model_type"], **changes)


def types(kept=KEPT):
    return ["full_attention" if layer in kept else "sliding_attention" for layer in range(LAYERS)]


def served(tmp_path):
    """The words of serve.sh's command; the last stands for further flags."""
    script = tmp_path / "out" / "serve.sh"
    assert os.access(script, os.X_OK)
    words = shlex.split(script.read_text(), comments=True)
    assert words[0] == "exec" and words[-1] == "$@"
    return words[1:-1]
