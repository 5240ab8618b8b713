"""Makes small checkpoints in every weight format, and what winnow must read from them.

    GPTQMODEL=DIR python3 tests/golden/make_quantized.py [NAME...]     NAME: see FORMATS; default: all

Needs torch, transformers, compressed-tensors and bitsandbytes, and in DIR the unpacked source of gptqmodel 7.7, whose
functions it loads that pack and dequantise. The tests that read the goldens need none of them. Each golden is
quantized/NAME.json beside the checkpoint quantized/NAME: the SHA-256 of every quantised weight as the named program
dequantises it in float32, and of the same rounded to bfloat16, and the NLLs of Transformers in float64 with the float32
values.
"""

import argparse
import hashlib
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import quantized_formats
import torch
from make_goldens import (
    CLEARNESS,
    HERE,
    continued,
    is_clear_cut,
    load_model,
    load_reference,
    measure,
    random_weight,
    seed_of,
    to_cases,
    with_tokens,
    write_golden,
)
from reference import WindowRule
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "dtype": "bfloat16",
}
TOKENS, ANSWER, WINDOW_KEYS = 96, 8, 24
RULES = [WindowRule(WINDOW_KEYS, *r) for r in itertools.product((0, 3), ("windowed", "full"), (None, 20))]


def sha256_of(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def config_of(quantize):
    return CONFIG | quantize.model


def base_weights(quantize):
    """The model before it is quantised, in float32: bfloat16 numbers but for the weights that will be."""
    config = config_of(quantize)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    rng = np.random.default_rng(seed_of("quantized"))
    weights = {}
    for key, tensor in sorted(model.named_parameters()):
        weight = torch.from_numpy(random_weight(key, tensor.shape, rng, config["tie_word_embeddings"], False)).float()
        weights[key] = weight if quantize.takes(key) else weight.bfloat16().float()
    return weights


def model_tensors(quantize):
    tensors = {}
    for key, weight in base_weights(quantize).items():
        module = key.removesuffix(".weight")
        if not quantize.takes(key) or quantize.leaves_out(module):
            tensors[key] = weight.bfloat16()
        else:
            tensors |= {module + ending: part.contiguous() for ending, part in quantize.parts(module, weight).items()}
    return tensors


def write_checkpoint(directory, quantize):
    """The checkpoint with every linear weight quantised, but those that the format leaves out."""
    tensors = quantize.tensors() if hasattr(quantize, "tensors") else model_tensors(quantize)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = config_of(quantize) | {"quantization_config": quantize.config}
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in directory.iterdir():
        file.chmod(0o644)


def examples_of(name, directory, reference):
    plain = load_model(directory, dtype=torch.float64).eval()
    for attempt in itertools.count():
        rng = np.random.default_rng([seed_of(name), attempt])
        start = TOKENS - ANSWER
        tokens = continued(plain, rng.integers(3, CONFIG["vocab_size"], start).tolist(), ANSWER)
        CLEARNESS.reset()
        scores = measure(reference, tokens, start, ["full"], RULES)
        if is_clear_cut(scores):
            return [(tokens, start, scores)]


def score(name, directory, quantize, values):
    """The examples and cases of the whole model, with the dequantised values."""
    stored = load_file(directory / "model.safetensors")
    weights = {key: stored[key].float() for key in base_weights(quantize) if key not in values}
    weights |= {key: quantize.as_loaded(value) for key, value in values.items()}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder)
        save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
        (plain / "config.json").write_text(json.dumps(config_of(quantize) | {"dtype": "float32"}))
        examples = examples_of(name, plain, load_reference(plain))
    return {"examples": with_tokens(examples), "cases": to_cases(examples, RULES, ["full"])}


def make(name):
    quantize = quantized_formats.FORMATS[name]()
    directory = HERE / "quantized" / name
    write_checkpoint(directory, quantize)
    exact = quantize.dequantize(directory, load_file(directory / "model.safetensors"))
    assert all(value.dtype == torch.float32 for value in exact.values())
    values = {key: {"fp32": sha256_of(exact[key]), "bf16": sha256_of(exact[key].bfloat16())} for key in sorted(exact)}
    content = {
        "made_by": f"python3 tests/golden/make_quantized.py {name}",
        "dequantized_by": quantize.reference,
        "format": quantize.description,
        "values": values,
        "cases": [],
    }
    if not hasattr(quantize, "tensors"):
        content |= score(name, directory, quantize, exact)
    write_golden(f"quantized/{name}", directory, WINDOW_KEYS, content)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *quantized_formats.FORMATS], default=[])
    for name in parser.parse_args().names or quantized_formats.FORMATS:
        torch.manual_seed(0)
        make(name)


if __name__ == "__main__":
    main()
