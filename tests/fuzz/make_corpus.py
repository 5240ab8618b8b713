#!/usr/bin/env python3
"""Writes the seeds of the fuzz corpus: one folder of corpus/ for each parser, one small file per rule of it.

Files named found-* beside them came out of the fuzzers and are left alone.
"""

import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
T = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


def image(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**fields):
    return image({"t": T | fields}, b"\0" * 4)


SAFETENSORS = {
    "empty-file": b"",
    "short-length": b"\1\0\0",
    "no-tensors": image({}),
    "plain": image(
        {
            "a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
            "b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [2, 10]},
            "c": {"dtype": "F16", "shape": [0, 3], "data_offsets": [10, 10]},
            "d": {"dtype": "F32", "shape": [], "data_offsets": [10, 14]},
            "__metadata__": {"format": "pt"},
        },
        b"\0" * 14,
    ),
    "padded-header": image(b"{}      "),
    "packed": image({"t": {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}}, b"\0\0"),
    "header-beyond-file": image({}, length=3),
    "header-huge": image({}, length=2**64 - 1),
    "not-json": image(b'{"a":'),
    "list": image([]),
    "key-twice": image(b'{"t":{},"t":{}}'),
    "deep": image(b'{"t":' + b"[" * 100 + b"]" * 100 + b"}"),
    "metadata-number": image({"__metadata__": {"a": 1}}),
    "reversed": one(data_offsets=[4, 0]),
    "beyond": one(data_offsets=[4, 8]),
    "far-beyond": one(data_offsets=[2**63 - 5, 2**63 - 1]),
    "shape-mismatch": one(shape=[5]),
    "shape-overflow": one(shape=[2**32, 2**32], dtype="F32"),
    "shape-wraps-to-zero": one(shape=[2, 2**62], dtype="BF16", data_offsets=[0, 0]),
    "shape-zero-and-huge": one(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "shape-negative": one(shape=[-4]),
    "shape-float": one(shape=[4.0]),
    "dtype-unknown": one(dtype="BF17"),
    "overlap": image({"a": T, "b": T | {"data_offsets": [2, 6]}}, b"\0" * 6),
    "hole": image({"a": T | {"data_offsets": [1, 5]}}, b"\0" * 5),
    "uncovered": one() + b"\0",
    "truncated": one()[:-1],
    "many-empty": image({f"t{i}": T | {"shape": [0], "data_offsets": [0, 0]} for i in range(500)}),
    "not-finite": image(b'{"t":{"dtype":"U8","shape":[NaN],"data_offsets":[0,Infinity]}}'),
    "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 12\n",
    "page": b"<!DOCTYPE html>",
    "error-message": b'{"error":"not found"}',
    "zip": b"PK\3\4\0\0\10\10",
    "pickle": b"\x80\2}q\1.______",
    "gguf": b"GGUF\3\0\0\0",
    "tar": b"n" * 257 + b"ustar",
    "zeros": b"\0" * 64,
}

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 28,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def config(**fields):
    return json.dumps(QWEN3 | fields, separators=(",", ":")).encode()


CONFIG = {
    "empty": b"",
    "list": b"[]",
    "defaults": b'{"model_type":"qwen2"}',
    "qwen3": config(),
    "qwen3-transformers5": config(
        dtype="float32",
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        layer_types=["full_attention"] * 3 + ["sliding_attention"],
        use_sliding_window=True,
        sliding_window=64,
    ),
    "qwen2-window": config(
        architectures=None, model_type="qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=2
    ),
    "llama3": config(architectures=None, model_type="llama", rope_scaling=LLAMA3, head_dim=None),
    "llama-linear": config(architectures=None, model_type="llama", rope_scaling={"type": "linear", "factor": 2}),
    "mistral": config(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4096),
    "qwen3-moe": config(
        architectures=None, model_type="qwen3_moe", num_experts=8, mlp_only_layers=[0], decoder_sparse_step=2
    ),
    "mixtral": config(architectures=None, model_type="mixtral", num_local_experts=4),
    "glm4-moe": config(
        architectures=None, model_type="glm4_moe", n_routed_experts=8, n_group=2, topk_group=1, num_experts_per_tok=2
    ),
    "minimax-m2": config(architectures=None, model_type="minimax_m2", scoring_func="sigmoid", rotary_dim=8),
    "ernie4-5-moe": config(architectures=None, model_type="ernie4_5_moe", moe_layer_end_index=2, moe_k=2),
    "experts-huge": config(architectures=None, model_type="mixtral", num_local_experts=2**31 - 1),
    "yarn": config(rope_scaling={"type": "yarn", "factor": 4.0}),
    "granite-swa": config(
        architectures=["GraniteSWAForCausalLM"], model_type="granite_swa", layer_rope_theta=[1e4, 0, 1e4, 2e6]
    ),
    "gpt-oss": config(
        architectures=["GptOssForCausalLM"],
        model_type="gpt_oss",
        num_local_experts=8,
        experts_per_token=4,
        swiglu_limit=7.0,
        quantization_config={"quant_method": "mxfp4"},
    ),
    "fp8": config(quantization_config={"quant_method": "fp8"}),
    "layers-huge": config(num_hidden_layers=2**31 - 1),
    "size-overflow": config(num_attention_heads=2**31 - 2, head_dim=2**31 - 2),
    "size-float": config(hidden_size=64.5),
    "size-1e300": config(hidden_size=1e300),
    "key-twice": b'{"model_type":"qwen3","model_type":"llama"}',
    "deep": b"[" * 100,
    "not-finite": config(time_step_limit=[0.0, float("inf")], x=float("nan"), y=[-float("inf")]),
    "not-finite-field": config(rope_theta=float("inf")),
    "dtype-auto": config(torch_dtype="auto"),
    "swish": config(hidden_act="swish"),
    "lfs-pointer": SAFETENSORS["lfs-pointer"],
}


def module(quantization, **parts):
    """A line with a config.json, and an image with the parts of one module: (dtype, shape, bytes) each."""
    header, data = {}, b""
    for ending, (dtype, shape, content) in parts.items():
        name = "m." + ending.replace("__", ".")
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return json.dumps({"quantization_config": quantization}).encode() + b"\n" + image(header, data)


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def groups(name, **weights):
    return {
        "quant_method": "compressed-tensors",
        "format": name,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head", "re:.*norm"],
    }


CODES = bytes(range(256))
HALVES = struct.pack("<8e", *range(1, 9))
FP8 = {"quant_method": "fp8", "weight_block_size": [2, 3], "modules_to_not_convert": ["lm_head"]}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
STATE = json.dumps({"blocksize": 8, "shape": [2, 8], "nested_blocksize": 2, "nested_offset": 0.5}).encode()
NF4_PARTS = {
    "weight": ("U8", [8, 1], CODES[:8]),
    "weight__quant_map": ("F32", [16], floats(*range(16))),
    "weight__quant_state__bitsandbytes__nf4": ("U8", [len(STATE)], STATE),
}
QUANTIZATION = {
    "fp8-block": module(
        FP8, weight=("F8_E4M3", [3, 4], CODES[:12]), weight_scale_inv=("F32", [2, 2], floats(1, 2, 3, 4))
    ),
    "fp8-exponents": module(
        FP8, weight=("F8_E4M3", [3, 4], CODES[:12]), weight_scale=("F8_E8M0", [2, 2], b"\x7f\x00\x01\xfe")
    ),
    "fp8-missing-scale": module(FP8, weight=("F8_E4M3", [3, 4], CODES[:12])),
    "fp8-zero-columns": module(FP8, weight=("F8_E4M3", [3, 0], b""), weight_scale_inv=("F32", [2, 0], b"")),
    "gptq-huge-and-empty": module(
        GPTQ,
        qweight=("I32", [2**40, 0], b""),
        qzeros=("I32", [2**43, 0], b""),
        scales=("F16", [2**43, 0], b""),
        g_idx=("I32", [0], b""),
    ),
    "fbgemm": module(
        {"quant_method": "fbgemm_fp8"},
        weight=("F8_E4M3", [2, 2], CODES[:4]),
        weight_scale=("F32", [2, 1], floats(1, 2)),
    ),
    "packed": module(
        groups("pack-quantized", num_bits=3, type="int", strategy="group", group_size=6, symmetric=False),
        weight_packed=("I32", [2, 2], CODES[:16]),
        weight_scale=("F32", [2, 2], floats(1, 2, 3, 4)),
        weight_shape=("I64", [2], struct.pack("<2q", 2, 12)),
        weight_zero_point=("I32", [1, 2], CODES[:8]),
        weight_g_idx=("I32", [12], struct.pack("<12i", *[0, 1] * 6)),
    ),
    "mxfp4": module(
        groups("mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32),
        weight_packed=("U8", [1, 32], CODES[:32]),
        weight_scale=("U8", [1, 2], b"\x7f\x80"),
    ),
    "mxfp4-blocks": module(
        {"quant_method": "mxfp4"}, e_blocks=("U8", [1, 2, 1, 16], CODES[:32]), e_scales=("U8", [1, 2, 1], b"\x7f\x80")
    ),
    "nvfp4": module(
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        weight=("U8", [1, 16], CODES[:16]),
        weight_scale=("F8_E4M3", [1, 2], b"\x38\x00"),
        weight_scale_2=("F32", [], floats(0.5)),
    ),
    "awq": module(
        {"quant_method": "awq", "bits": 4, "group_size": 2, "zero_point": True, "version": "gemm"},
        qweight=("I32", [2, 1], CODES[:8]),
        qzeros=("I32", [1, 1], CODES[:4]),
        scales=("F16", [1, 8], HALVES),
    ),
    "gptq": module(
        GPTQ,
        qweight=("I32", [1, 8], CODES[:32]),
        qzeros=("I32", [1, 1], CODES[:4]),
        scales=("F16", [1, 8], HALVES),
        g_idx=("I32", [8], bytes(32)),
    ),
    "nf4": module(NF4, **NF4_PARTS, weight__absmax=("F32", [2], floats(1, 2))),
    "nf4-nested": module(
        NF4 | {"bnb_4bit_use_double_quant": True},
        **NF4_PARTS,
        weight__absmax=("U8", [2], b"\1\2"),
        weight__nested_absmax=("F32", [1], floats(3)),
        weight__nested_quant_map=("F32", [256], floats(*range(256))),
    ),
    "unknown": module({"quant_method": "hqq"}),
    "expression": module(FP8 | {"modules_to_not_convert": ["(a*)*b", "m"]}, weight=("F8_E4M3", [1, 1], b"\0")),
}

JSON = {
    "words": b'[NaN,Infinity,-Infinity,{"NaN":-1.5e-7,"a":"Infinity"}]',
    "words-joined": b"[1NaN,NaN1,--Infinity,-Infinity-]",
    "word-alone": b"-Infinity",
    "string-open": b'{"a":NaN,"b\\',
    "order": b'{"z":1,"a":{"y":[],"b":{}},"m":null}',
    "text": b'["\xc3\xa9\\ud83d\\ude00\\u0000"]',
    "key-twice": b'{"a":{"b":1},"a":2}',
    "out-of-range": b"[1e999]",
    "numbers": b"[0,-0,-0.0,18446744073709551615,18446744073709551616,-9223372036854775808,1E+2]",
}


GOOD_SWEEP = b"""name: night
output: out
models:
- {name: a, path: models/a, ranks_per_node: 2, time: 1-02:00:00, memory: 64G, sbatch: [--x]}
- {name: b, path: models/b}
datasets:
- {name: long, data: 'data/{model}/long.h5', controls: {short: short.h5}}
windows: [64, 128]
sinks: [0, 4]
targets: [swaa-hf]
seeds: [0, 7]
layers: 0-11,20
base: list:1,4
limit: 3
per_token: true
max_memory: 8GiB
defaults: {threads: 1}
exclude: [{model: a, window: [64]}]
overrides: [{match: {model: b}, set: {limit: 2}}]
max_parallel: 2
"""


def bomb(levels, width):
    """Aliases of aliases, which stand for width ** levels values."""
    lines = ["a0: &a0 [" + ", ".join(["x"] * width) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * width) + "]" for i in range(1, levels)]
    return "\n".join([*lines, f"models: *a{levels - 1}", ""]).encode()


SWEEP = {
    "empty-file": b"",
    "good": GOOD_SWEEP,
    "two-documents": GOOD_SWEEP + b"---\nwindows: [1]\n",
    "empty-second-document": GOOD_SWEEP + b"---\n",
    "bomb": bomb(9, 9),
    "alias-within-itself": b"models: &a [*a]\n",
    "aliases-as-a-chain": b"\n".join([b"a0: &a0 []"] + [b"a%d: &a%d [*a%d]" % (i, i, i - 1) for i in range(1, 99)]),
    "deep": b"[" * 2000,
    "deep-maps": b"{a: " * 2000,
    "deep-blocks": b"".join(b" " * i + b"a:\n" for i in range(200)),
    "not-utf8": b"name: n\xe9\n",
    "overlong": b"name: \xc0\xaf\n",
    "utf16": "\ufeffname: night\n".encode("utf-16-le"),
    "byte-order-mark": b"\xef\xbb\xbf" + GOOD_SWEEP,
    "end-of-text": b"name: a\n\x04\nwindows: [1]\n",
    "escapes": b'name: "\\e[31m"\noutput: "a\\nb\\x00"\n',
    "dashes": b"name: -x\nmodels: [{name: -y, path: -z}]\n",
    "long-name": b"name: " + b"a" * 5000 + b"\n",
    "long-digits": b"tail_rows: " + b"1" * 5000 + b"\nlayers: 0" + b",0" * 20000 + b"\n",
    "long-list": b"windows: [" + b"8," * 5000 + b"]\n",
    "long-key": b"n" * 5000 + b": 1\n",
    "merge-key": b"a: &a {name: x}\nmodels:\n- <<: *a\n",
    "key-of-a-list": b"? [a, b]\n: c\n",
    "tags": b"name: !!binary aGVsbG8=\nwindows: !!set {8}\n",
    "carriage-returns": GOOD_SWEEP.replace(b"\n", b"\r\n"),
}


def sbatch(exit_code, out, err=b""):
    return bytes([exit_code, len(out)]) + out + err


SBATCH = {
    "parsable": sbatch(0, b"5001\n"),
    "cluster": sbatch(0, b"5001;east\n"),
    "announced": sbatch(0, b"Submitted batch job 5001 on cluster east\n"),
    "on-stderr": sbatch(0, b"", b"sbatch: Submitted batch job 5001\n"),
    "colours": sbatch(0, b"\x1b[1;32m5001\x1b[0m\r\n\x1b]0;title\x07"),
    "chatter": sbatch(0, b"-----\nWelcome, 42 users\n-----\n5001\nbye\n"),
    "two-numbers": sbatch(0, b"5001\n5002\n"),
    "number-too-long": sbatch(0, b"50015001500150015001\n"),
    "zero": sbatch(0, b"0\n"),
    "nothing": sbatch(0, b""),
    "cut-escape": sbatch(0, b"5001\n\x1b[", b"\x1b]"),
    "refused": sbatch(1, b"", b"sbatch: error: invalid partition specified: nowhere\n"),
    "timed-out": sbatch(
        1, b"", b"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    ),
    "killed": sbatch(137, b"5001\n"),
}


def main():
    corpora = {
        "safetensors": SAFETENSORS,
        "config": CONFIG,
        "json": JSON,
        "quantization": QUANTIZATION,
        "sweep": SWEEP,
        "sbatch": SBATCH,
    }
    for target, seeds in corpora.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
