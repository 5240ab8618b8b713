"""Exports in the forms that llama.cpp and MLX run, of small checkpoints: the same weights under an architecture that
has a window per layer."""

import json
import os
import pathlib
import struct

import numpy as np

SINK = -1e4  # exp(-1e4) is 0: a sink that takes nothing


def write_tensors(path, tensors):
    """tensors: {name: (type, shape, bytes)}."""
    header, offset = {}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def read_tensors(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        n_header = struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8 : 8 + n_header]).items():
            if name != "__metadata__":
                begin, end = (8 + n_header + offset for offset in entry["data_offsets"])
                found[name] = (entry["dtype"], entry["shape"], raw[begin:end])
    return found


def zeros(shape, value=0.0):
    return "F32", shape, np.full(shape, value, "<f4").tobytes()


def rope(config):
    if "rope_parameters" in config:
        return config["rope_parameters"]
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    return scaling | {"rope_theta": config.get("rope_theta", 10000.0)}


def as_mellum(config, tensors):
    """A Qwen3 as a mixture of one expert; a mixture as it is."""
    fields = {"model_type": "mellum", "architectures": ["MellumForCausalLM"], "norm_topk_prob": True}
    fields["rope_parameters"] = {"full_attention": rope(config), "sliding_attention": rope(config)}
    fields["mlp_layer_types"] = ["sparse"] * config["num_hidden_layers"]
    n_experts = config.get("num_experts") or config.get("num_local_experts")
    fields |= {"num_experts": n_experts or 1, "num_local_experts": n_experts or 1}
    if not n_experts:
        fields["num_experts_per_tok"] = 1
        fields["moe_intermediate_size"] = config["intermediate_size"]
        tensors = {name.replace(".mlp.", ".mlp.experts.0."): tensor for name, tensor in tensors.items()}
        for layer in range(config["num_hidden_layers"]):
            tensors[f"model.layers.{layer}.mlp.gate.weight"] = zeros([1, config["hidden_size"]])
    dropped = ("use_sliding_window", "max_window_layers", "decoder_sparse_step", "mlp_only_layers", "rope_theta")
    return {k: v for k, v in (config | fields).items() if k not in (*dropped, "rope_scaling")}, tensors


def as_granite(config, tensors):
    heads = config["num_attention_heads"]
    fields = {"model_type": "granite_swa", "architectures": ["GraniteSWAForCausalLM"], "rope_parameters": rope(config)}
    fields |= {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}
    fields["attention_multiplier"] = (config.get("head_dim") or config["hidden_size"] // heads) ** -0.5
    fields["attention_bias"] = config["model_type"] == "qwen2"
    tensors = dict(tensors)
    for layer in range(config["num_hidden_layers"]):
        tensors[f"model.layers.{layer}.self_attn.sinks"] = zeros([heads], SINK)
        if fields["attention_bias"]:
            tensors[f"model.layers.{layer}.self_attn.o_proj.bias"] = zeros([config["hidden_size"]])
    dropped = ("use_sliding_window", "max_window_layers", "rope_theta", "rope_scaling")
    return {k: v for k, v in (config | fields).items() if k not in dropped}, tensors


def as_itself(config, tensors):
    """MLX reads layer_types of a Llama, and rope_theta at the top alone."""
    return config | {"model_type": "llama", "rope_theta": rope(config)["rope_theta"]}, tensors


FORMS = {"mellum": as_mellum, "granite_swa": as_granite, "llama": as_itself}


def write_export(folder, checkpoint, form, windows):
    """windows: keys of each layer, None where it is full."""
    folder, checkpoint = pathlib.Path(folder), pathlib.Path(checkpoint)
    os.makedirs(folder)
    config, tensors = FORMS[form](json.loads((checkpoint / "config.json").read_text()), read_tensors(checkpoint))
    config["sliding_window"] = next(keys for keys in windows if keys is not None)
    config["layer_types"] = ["full_attention" if keys is None else "sliding_attention" for keys in windows]
    write_tensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    record = {"format": "winnow-export", "format_version": 1, "target": form, "windows": windows}
    (folder / "winnow-export.json").write_text(json.dumps(record | {"model": str(checkpoint)}))
    return folder
