"""Small GGUF files, written with the gguf package, and what is read of the folders that they become."""

import json
import pathlib
import struct

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 256, 512, 2, 4, 2, 64
SPECIAL = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = ["h e", "l l", "he ll"]


def byte_alphabet():
    """GPT-2's characters for the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]


TOKENS = [*byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
BF16_BITS = 16


def metadata(architecture="llama", **changes):
    """{key: value} of a file with byte-level BPE; a change of None takes a key away, __ stands for a dot."""
    own = {
        "block_count": LAYERS,
        "context_length": 512,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500000.0,
    }
    fields = {f"{architecture}.{key}": value for key, value in own.items()}
    fields |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * (len(TOKENS) - len(SPECIAL)) + [3] * len(SPECIAL),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": len(TOKENS) - 2,
        "tokenizer.ggml.eos_token_id": len(TOKENS) - 1,
        "tokenizer.chat_template": TEMPLATE,
    }
    fields |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in fields.items() if value is not None}


def matrices(seed=0, names=None, head=False):
    """{name: float32 array} of the tensors that llama has."""
    random = np.random.default_rng(seed)
    shapes = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    if head:
        shapes["output.weight"] = (len(TOKENS), HIDDEN)
    layer = {
        "attn_norm": (HIDDEN,),
        "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM),
        "ffn_norm": (HIDDEN,),
        "ffn_gate": (FFN, HIDDEN),
        "ffn_up": (FFN, HIDDEN),
        "ffn_down": (HIDDEN, FFN),
    } | (names or {})
    shapes |= {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items() if shape}
    return {
        name: (random.standard_normal(shape) * (0.1 if len(shape) > 1 else 0.02) + (len(shape) == 1)).astype("<f4")
        for name, shape in shapes.items()
    }


def quantised(array, kind):
    """The array in that type; of a K type, for which the package has no code, random blocks of sane scale."""
    if array.ndim == 1:
        return array, Type.F32
    try:
        return gguf.quants.quantize(array, kind), kind
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        random = np.random.default_rng(array.shape[0])
        blocks = random.integers(0, 256, (array.size // block, size), np.uint8)
        scales = random.uniform(0.001, 0.01, (array.size // block, 2)).astype("<f2")
        blocks[:, :4] = scales.view(np.uint8)  # d and dmin of Q4_K
        return blocks.reshape(array.shape[0], -1), kind


def write_gguf(path, fields=None, tensors=None, kind=Type.F32, architecture="llama"):
    """tensors: arrays, or pairs of raw bytes and their type. Returns {name: (data, type)} as written."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata(architecture) if fields is None else fields).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    written = {}
    for name, array in (matrices() if tensors is None else tensors).items():
        data, its_kind = array if isinstance(array, tuple) else quantised(array, kind)
        writer.add_tensor(name, data, raw_dtype=None if its_kind == Type.F32 else its_kind)
        written[name] = (data, its_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def reordered(weight, n_heads):
    """The rows of q or k as the converters of llama.cpp lay them out: halves of a head become neighbours."""
    return weight.reshape(n_heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def read_folder(folder):
    """{name: uint16 array} of all weights of a checkpoint in bfloat16."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        for name, entry in header.items():
            assert entry["dtype"] == "BF16" and name not in found
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], "<u2").reshape(entry["shape"])
    return found


def bf16(array):
    """The gguf package's own rounding, as uint16."""
    return gguf.quants.quantize(array, Type.BF16).view("<u2")
