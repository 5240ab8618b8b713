"""The small random models that make_goldens.py writes, one for each switch of a family."""

from dataclasses import dataclass, field

import torch

VOCABULARY = 200
WINDOW_KEYS = 40


@dataclass
class Checkpoint:
    """A small random model in one of the forms that checkpoints come in."""

    config: dict
    dtype: torch.dtype
    shard_size: str = "10MB"
    hub_dialect: dict | None = None  # fields as model hubs have them: torch_dtype, rope_theta, rope_scaling on top
    bases: list = field(default_factory=lambda: ["full"])
    has_bf16: bool = True
    gains: dict = field(default_factory=dict)  # by the last part of a tensor's name


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
CHECKPOINTS = {
    "qwen3": Checkpoint(
        COMMON
        | {
            "model_type": "qwen3",
            "head_dim": 32,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
        torch.bfloat16,
        bases=["full", "windowed", "list:1,2"],
    ),
    "qwen2": Checkpoint(
        COMMON
        | {
            "model_type": "qwen2",
            "num_key_value_heads": 1,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        torch.float16,
        shard_size="100KB",
        hub_dialect={"torch_dtype": "float16", "rope_theta": 1e4},
    ),
    "llama": Checkpoint(
        COMMON
        | {
            "model_type": "llama",
            "num_attention_heads": 8,
            "tie_word_embeddings": False,
            "rope_parameters": LLAMA3_ROPE | {"rope_theta": 5e5},
        },
        torch.float32,
        hub_dialect={"torch_dtype": "float32", "rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE},
    ),
    "mistral": Checkpoint(
        COMMON
        | {
            "model_type": "mistral",
            "num_key_value_heads": 4,
            "head_dim": 24,
            "tie_word_embeddings": True,
            "sliding_window": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        torch.bfloat16,
        shard_size="150KB",
    ),
}
# One for each switch that the four above have not; small, since each is a checkpoint in this folder.
SMALL = COMMON | {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "tie_word_embeddings": True,
}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 1e4}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e5,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.3,
}
N_SMALL_PAIRS = 8 // 2  # of a head of 8 dimensions
SMALL_CHECKPOINTS = {
    "ministral3": {"head_dim": 16, "sliding_window": None, "rope_parameters": YARN_ROPE},
    "llama_yarn": {
        "model_type": "llama",
        "head_dim": 16,
        "rope_parameters": {k: v for k, v in YARN_ROPE.items() if not k.startswith(("mscale", "llama_4"))}
        | {"truncate": False, "beta_fast": 8.0},
    },
    "llama_linear": {"model_type": "llama", "rope_parameters": DEFAULT_ROPE | {"rope_type": "linear", "factor": 3.0}},
    # Sequences are longer than max_position_embeddings, so that the base grows with them.
    "llama_dynamic": {
        "model_type": "llama",
        "max_position_embeddings": 100,
        "rope_parameters": DEFAULT_ROPE | {"rope_type": "dynamic", "factor": 2.0},
    },
    "seed_oss": {"head_dim": 16, "mlp_bias": True, "rope_parameters": DEFAULT_ROPE},
    "smollm3": {"no_rope_layers": [1, 0, 1], "rope_parameters": DEFAULT_ROPE},
    "granite": {
        "embedding_multiplier": 1.5,
        "residual_multiplier": 0.8,
        "attention_multiplier": 0.6,
        "logits_scaling": 0.7,
        "mlp_bias": True,
        "rope_parameters": DEFAULT_ROPE,
    },
    "phi3": {
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 160,
        "sliding_window": None,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.2],
            "long_factor": [1.0, 2.0, 4.0],
        },
    },
    "glm4": {
        "head_dim": 16,
        "tie_word_embeddings": False,
        "rope_parameters": DEFAULT_ROPE | {"partial_rotary_factor": 0.5},
    },
    "hunyuan_v1_dense": {
        "head_dim": 16,
        "rope_parameters": DEFAULT_ROPE | {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0},
    },
    "olmo2": {"tie_word_embeddings": False, "rope_parameters": DEFAULT_ROPE},
}
CHECKPOINTS |= {
    name: Checkpoint({"model_type": name} | SMALL | fields, torch.float16, has_bf16=False)
    for name, fields in SMALL_CHECKPOINTS.items()
}
# Those with windows of their own, in all layers but the last.
NATIVE_WINDOW = {
    "sliding_window": WINDOW_KEYS,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
LOCAL_ROPE = {
    "sliding_attention": DEFAULT_ROPE,
    "full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0},
}
HYBRID_CHECKPOINTS = {
    "gemma2": {
        "head_dim": 16,
        "query_pre_attn_scalar": 1,
        "attn_logit_softcapping": 12.0,
        "final_logit_softcapping": 20.0,
        "rope_parameters": DEFAULT_ROPE,
    },
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 2, "rope_parameters": LOCAL_ROPE},
    "olmo3": {"tie_word_embeddings": False, "rope_parameters": LOCAL_ROPE},
    "exaone4": {"rope_parameters": DEFAULT_ROPE},
    "cohere2": {"logit_scale": 0.5, "rope_parameters": DEFAULT_ROPE},
    "gpt_oss": {
        "head_dim": 16,
        "intermediate_size": 32,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e5,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 8.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    },
    "granite_swa": {
        "attention_bias": True,
        "embedding_multiplier": 1.5,
        "residual_multiplier": 0.8,
        "attention_multiplier": 0.6,
        "logits_scaling": 0.7,
        "rope_parameters": DEFAULT_ROPE,
        "layer_rope_theta": [1e4, 0, 1e5],
    },
}
# Mixtures of experts: every kind of router, shared experts, layers without any.
SMALL_EXPERTS = {
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
    "rope_parameters": DEFAULT_ROPE,
}
EXPERT_CHECKPOINTS = {
    "qwen3_moe": SMALL_EXPERTS | {"head_dim": 16, "num_local_experts": 8, "mlp_only_layers": [1]},
    "qwen3_moe_plain": SMALL_EXPERTS
    | {"model_type": "qwen3_moe", "head_dim": 16, "num_local_experts": 6, "norm_topk_prob": False},
    "mixtral": {
        "intermediate_size": 32,
        "num_local_experts": 6,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "rope_parameters": DEFAULT_ROPE,
    },
    "olmoe": {
        "intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": False,
        "tie_word_embeddings": False,
        "rope_parameters": DEFAULT_ROPE,
    },
    "glm4_moe": SMALL_EXPERTS
    | {
        "head_dim": 16,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "use_qk_norm": True,
        "attention_bias": True,
        "rope_parameters": DEFAULT_ROPE | {"partial_rotary_factor": 0.5},
    },
    "minimax_m2": {
        "head_dim": 16,
        "intermediate_size": 32,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "tie_word_embeddings": False,
        "rope_parameters": DEFAULT_ROPE | {"partial_rotary_factor": 0.5},
    },
    "ernie4_5_moe": {
        "moe_intermediate_size": 32,
        "moe_num_experts": 8,
        "moe_k": 3,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "tie_word_embeddings": True,
        "rope_parameters": DEFAULT_ROPE,
    },
}
CHECKPOINTS |= {
    name: Checkpoint({"model_type": name} | SMALL | fields, torch.float16, has_bf16=False)
    for name, fields in EXPERT_CHECKPOINTS.items()
}
# As the hub has it, with the number of experts under its other name.
CHECKPOINTS["qwen3_moe"].hub_dialect = {
    "torch_dtype": "float16",
    "rope_theta": 1e4,
    "num_experts": 8,
}
# The same weights with full attention before and behind the layer that has a window of its own: what a measurement
# does with such a model, which windows the other layers by another window than that.
NATIVE_LAYER_TYPES = ["full_attention", "sliding_attention", "full_attention"]
ABLATION_KEYS = 24
# Models with a tower for images, of which only the one for text counts.
TOWER_CHECKPOINTS = {
    "qwen3_vl": {
        "text_config": SMALL
        | {
            "model_type": "qwen3_vl_text",
            "head_dim": 16,
            "rope_parameters": DEFAULT_ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 48,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [],
        },
    },
    "mistral3": {
        "text_config": SMALL
        | {"model_type": "mistral", "head_dim": 16, "sliding_window": None, "rope_parameters": DEFAULT_ROPE},
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": 32,
            "patch_size": 16,
        },
    },
}
CHECKPOINTS |= {
    name: Checkpoint({"model_type": name, "tie_word_embeddings": True} | fields, torch.float16, has_bf16=False)
    for name, fields in TOWER_CHECKPOINTS.items()
}
CHECKPOINTS |= {
    name: Checkpoint(
        {"model_type": name} | SMALL | NATIVE_WINDOW | fields, torch.float16, bases=["list:2"], has_bf16=False
    )
    for name, fields in HYBRID_CHECKPOINTS.items()
}
# Large enough that some gates and ups are clamped.
CHECKPOINTS["gpt_oss"].gains = {"gate_up_proj": 4.0}
