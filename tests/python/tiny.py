"""Tiny checkpoints and calibration files, written with numpy and h5py alone."""

import json
import pathlib
import struct

import h5py
import numpy as np


def write_safetensors(path, tensors):
    """tensors: {name: array}, float32 stored as F32, uint8 as the codes of F8_E4M3. Format: 8 bytes header length, JSON
    header, data."""
    header, offset = {}, 0
    for name, array in tensors.items():
        kind = "F8_E4M3" if array.dtype == np.uint8 else "F32"
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for array in tensors.values():
            kind = np.uint8 if array.dtype == np.uint8 else "<f4"
            file.write(np.ascontiguousarray(array, dtype=kind).tobytes())


def write_checkpoint(
    directory, layers=4, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=64, vocab=64, seed=0, poison_layer=None
):
    """A Qwen3 checkpoint with random weights; poison_layer: that layer's MLP makes values that are not finite."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def matrix(rows, cols):
        return (random.standard_normal((rows, cols)) * (1.5 / np.sqrt(cols))).astype("<f4")

    tensors = {"model.embed_tokens.weight": random.standard_normal((vocab, hidden)).astype("<f4")}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            prefix + "input_layernorm.weight": np.ones(hidden, "<f4"),
            prefix + "self_attn.q_proj.weight": matrix(heads * head_dim, hidden) * 2,
            prefix + "self_attn.k_proj.weight": matrix(kv_heads * head_dim, hidden) * 2,
            prefix + "self_attn.v_proj.weight": matrix(kv_heads * head_dim, hidden),
            prefix + "self_attn.o_proj.weight": matrix(hidden, heads * head_dim),
            prefix + "self_attn.q_norm.weight": np.full(head_dim, 1.5, "<f4"),
            prefix + "self_attn.k_norm.weight": np.full(head_dim, 1.5, "<f4"),
            prefix + "post_attention_layernorm.weight": np.ones(hidden, "<f4"),
            prefix + "mlp.gate_proj.weight": matrix(ffn, hidden),
            prefix + "mlp.up_proj.weight": matrix(ffn, hidden),
            prefix + "mlp.down_proj.weight": matrix(hidden, ffn),
        }
        if layer == poison_layer:
            tensors[prefix + "mlp.down_proj.weight"] = np.full((hidden, ffn), 1e38, "<f4")
            tensors[prefix + "mlp.up_proj.weight"] *= np.float32(1e30)
    tensors["model.norm.weight"] = np.ones(hidden, "<f4")
    write_safetensors(directory / "model.safetensors", tensors)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "torch_dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_calibration(path, lengths, answer=6, vocab=64, seed=0, prefix="example"):
    """One example of each length, the last `answer` tokens scored."""
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "winnow-calibration"
        file.attrs["format_version"] = 1
        file["tokens"] = random.integers(0, vocab, sum(lengths)).astype(np.int32)
        file["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        file["answer_start"] = np.array([n - answer for n in lengths], np.int64)
        file.create_dataset(
            "example_id", data=[f"{prefix}{i}" for i in range(len(lengths))], dtype=h5py.string_dtype("utf-8")
        )
    return pathlib.Path(path)


def write_tokenizer(directory, words):
    """A tokenizer.json whose token i is words[i]."""
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": words[0]},
    }
    (pathlib.Path(directory) / "tokenizer.json").write_text(json.dumps(tokenizer))


def tables(path):
    """Every variable of results.h5 but /provenance: {name: array}, for comparison bit for bit."""
    found = {}

    def keep(name, node):
        if isinstance(node, h5py.Dataset) and not name.startswith("provenance"):
            found[name] = node[()]

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return found


def assert_same_tables(left, right):
    left, right = tables(left), tables(right)
    assert left.keys() == right.keys()
    for name, values in left.items():
        same = np.asarray(values).tobytes() == np.asarray(right[name]).tobytes()
        if np.asarray(values).dtype == object:
            same = np.array_equal(values, right[name])
        assert same, f"{name} differs"
