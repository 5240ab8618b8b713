#!/usr/bin/env python3
"""Writes tests/golden/rope.json: inverse frequencies and cosines as Transformers computes them on the CPU.

Needs torch and transformers; made with the versions that the file names. Floats are written in full, so that reading
them gives the same float32.
"""

import json
import pathlib

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = [
    {"head_dim": 128, "rope_theta": 10000.0, "rope_type": "default"},
    {"head_dim": 128, "rope_theta": 5e6, "rope_type": "default"},
    {"head_dim": 80, "rope_theta": 1e6, "rope_type": "default"},
    {"head_dim": 64, "rope_theta": 10000.0, "rope_type": "linear", "factor": 3.0},
    {"head_dim": 64, "rope_theta": 5e5, **LLAMA3, "original_max_position_embeddings": 8192},
    {"head_dim": 128, "rope_theta": 5e5, **LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192},
]
POSITIONS = [0, 1, 63, 1000, 24000]


def floats(tensor):
    return [float(x) for x in tensor.flatten()]


def case(parameters):
    rope = {k: v for k, v in parameters.items() if k != "head_dim"}
    config = transformers.LlamaConfig(
        hidden_size=parameters["head_dim"] * 2,
        num_attention_heads=2,
        max_position_embeddings=131072,
        rope_parameters=rope,
    )
    embedding = LlamaRotaryEmbedding(config)
    cos, sin = embedding(torch.zeros(1), torch.tensor([POSITIONS]))
    half = parameters["head_dim"] // 2
    return {
        "config": config.rope_parameters | {"head_dim": parameters["head_dim"]},
        "inverse_frequencies": floats(embedding.inv_freq),
        "cos": floats(cos[0, :, :half]),
        "sin": floats(sin[0, :, :half]),
    }


def main():
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "positions": POSITIONS,
        "cases": [case(parameters) for parameters in CASES],
    }
    path = pathlib.Path(__file__).with_name("rope.json")
    path.write_text(json.dumps(golden, indent=0).replace(",\n", ", ") + "\n")


if __name__ == "__main__":
    main()
