"""A checkpoint of random weights and calibration files of random tokens: speed does not depend on their values."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

SEED = 0
STANDARD_DEVIATION = 0.02
SHARD_BYTES = 2 << 30
FP8_BLOCK = 128


@dataclass(frozen=True)
class Shape:
    """A Qwen3 with tied embeddings; with experts a Qwen3-MoE, whose ffn is that of an expert.

    fp8: the products' weights are in e4m3 with a scale for each block of 128 x 128, as Qwen3's and DeepSeek's FP8
    checkpoints have them.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    experts: int = 0
    top_k: int = 0
    fp8: bool = False

    def config(self):
        return (
            self.kind()
            | self.quantization()
            | {
                "hidden_act": "silu",
                "hidden_size": self.hidden,
                "intermediate_size": self.ffn,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "head_dim": self.head_dim,
                "vocab_size": self.vocab,
                "max_position_embeddings": 262144,
                "rms_norm_eps": 1e-6,
                "rope_theta": 5000000.0,
                "tie_word_embeddings": True,
                "attention_bias": False,
                "torch_dtype": "bfloat16",
                "bos_token_id": None,
                "eos_token_id": None,
            }
        )

    def quantization(self):
        if not self.fp8:
            return {}
        block = [FP8_BLOCK, FP8_BLOCK]
        way = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": block}
        return {"quantization_config": way}

    def is_fp8(self, name):
        return (
            self.fp8
            and name.startswith("model.layers.")
            and "norm" not in name
            and not name.endswith("mlp.gate.weight")
        )

    def kind(self):
        if self.experts == 0:
            return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
        return {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": self.experts,
            "num_experts_per_tok": self.top_k,
            "moe_intermediate_size": self.ffn,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }

    def mlp(self):
        """Shapes of a layer's tensors after its norms, by name."""

        def gated(prefix):
            return {
                f"{prefix}.gate_proj": (self.ffn, self.hidden),
                f"{prefix}.up_proj": (self.ffn, self.hidden),
                f"{prefix}.down_proj": (self.hidden, self.ffn),
            }

        if self.experts == 0:
            return gated("mlp")
        router = {"mlp.gate": (self.experts, self.hidden)}
        return router | {n: s for expert in range(self.experts) for n, s in gated(f"mlp.experts.{expert}").items()}

    def tensors(self):
        """Shapes by name; those of one dimension are norms."""
        shapes = {"model.embed_tokens.weight": (self.vocab, self.hidden), "model.norm.weight": (self.hidden,)}
        for layer in range(self.layers):
            shapes |= {
                f"model.layers.{layer}.{name}.weight": shape
                for name, shape in {
                    "input_layernorm": (self.hidden,),
                    "self_attn.q_proj": (self.heads * self.head_dim, self.hidden),
                    "self_attn.k_proj": (self.kv_heads * self.head_dim, self.hidden),
                    "self_attn.v_proj": (self.kv_heads * self.head_dim, self.hidden),
                    "self_attn.o_proj": (self.hidden, self.heads * self.head_dim),
                    "self_attn.q_norm": (self.head_dim,),
                    "self_attn.k_norm": (self.head_dim,),
                    "post_attention_layernorm": (self.hidden,),
                    **self.mlp(),
                }.items()
            }
        return shapes

    def layer_bytes(self):
        return self.size_bytes(lambda name: name.startswith("model.layers.0."))

    def size_bytes(self, counts=lambda name: True):
        return 2 * sum(int(np.prod(shape)) for name, shape in self.tensors().items() if counts(name))


QWEN3_4B = Shape(layers=36, hidden=2560, heads=32, kv_heads=8, head_dim=128, ffn=9728, vocab=151936)
QWEN3_30B_A3B = Shape(
    layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128, ffn=768, vocab=151936, experts=128, top_k=8
)
QWEN3_32B = Shape(layers=64, hidden=5120, heads=64, kv_heads=8, head_dim=128, ffn=25600, vocab=151936)
# The dimensions of Llama 3 70B.
FP8_70B = Shape(layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, ffn=28672, vocab=128256, fp8=True)
TINY = Shape(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=300)
TINY_MOE = replace(TINY, ffn=32, experts=8, top_k=2)
TINY_FP8 = replace(TINY, fp8=True)
SHAPES = {
    "qwen3-4b": QWEN3_4B,
    "qwen3-32b": QWEN3_32B,
    "qwen3-30b-a3b": QWEN3_30B_A3B,
    "70b-fp8": FP8_70B,
    "tiny": TINY,
    "tiny-moe": TINY_MOE,
    "tiny-fp8": TINY_FP8,
}


def shards_of(shape):
    """Lists of tensor names, each of about SHARD_BYTES."""
    shards, size = [[]], 0
    for name, dimensions in shape.tensors().items():
        size_bytes = 2 * int(np.prod(dimensions))
        if size > 0 and size + size_bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += size_bytes
    return shards


def write_checkpoint(directory, shape, device):
    """As Transformers writes one; nothing is done where the directory has it already. The index is written last."""
    directory = Path(directory)
    index, config = directory / "model.safetensors.index.json", json.dumps(shape.config(), indent=2)
    if index.exists() and (directory / "config.json").read_text() == config:
        return
    directory.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    (directory / "config.json").write_text(config)
    generator = torch.Generator(device).manual_seed(SEED)
    weight_map, shards, shapes = {}, shards_of(shape), shape.tensors()
    for number, names in enumerate(shards, 1):
        tensors = {}
        for name in names:
            if len(shapes[name]) == 1:
                tensors[name] = torch.ones(shapes[name], dtype=torch.bfloat16)
                continue
            values = torch.empty(shapes[name], dtype=torch.bfloat16, device=device)
            values.normal_(0.0, 1.0 if shape.is_fp8(name) else STANDARD_DEVIATION, generator=generator)
            if shape.is_fp8(name):
                blocks = [-(-n // FP8_BLOCK) for n in shapes[name]]
                values = values.to(torch.float8_e4m3fn)
                tensors[f"{name}_scale_inv"] = torch.full(blocks, STANDARD_DEVIATION)
            tensors[name] = values.cpu()
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    index.write_text(json.dumps({"metadata": {"total_size": shape.size_bytes()}, "weight_map": weight_map}))


def write_calibration(path, n_tokens, n_answer, n_examples, vocab):
    """n_examples of n_tokens random tokens; the last n_answer of each are scored."""
    rng = np.random.default_rng(SEED)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-calibration", 1
        file["tokens"] = rng.integers(0, vocab, n_examples * n_tokens, dtype=np.int32)
        file["offsets"] = np.arange(n_examples + 1, dtype=np.int64) * n_tokens
        file["answer_start"] = np.full(n_examples, n_tokens - n_answer, np.int64)
        file.create_dataset(
            "example_id", data=[f"random-{e}" for e in range(n_examples)], dtype=h5py.string_dtype("utf-8")
        )
    return Path(path)


def write_inputs(directory, options):
    """(checkpoint, calibration file): of options.shape, tokens, answer and examples.

    The checkpoint is in options.model_dir where that is given, and made on a GPU where there is one.
    """
    shape = SHAPES[options.shape]
    model = Path(options.model_dir or Path(directory) / "model")
    write_checkpoint(model, shape, "cuda" if torch.cuda.is_available() else "cpu")
    return model, write_calibration(
        Path(directory) / "data.h5", options.tokens, options.answer, options.examples, shape.vocab
    )


def read_calibration(path):
    """(tokens, answer_start) of each example."""
    with h5py.File(path) as file:
        offsets, tokens = file["offsets"][:], file["tokens"][:].astype(np.int64)
        return [
            (torch.from_numpy(tokens[offsets[e] : offsets[e + 1]]), int(start))
            for e, start in enumerate(file["answer_start"][:])
        ]
