"""config.json and generation_config.json from a GGUF's metadata."""

from typing import Any

from winnow.common.errors import ExitCode, Failure
from winnow.importing.architectures import ARCHITECTURES, BY_NAME_ONLY, Architecture
from winnow.importing.gguf_file import GgufFile
from winnow.importing.rope import rope_fields

EMBEDDINGS = "token_embd.weight"
HEAD = "output.weight"
# Metadata that changes nothing, or says again what others say.
_HARMLESS = frozenset(
    {
        "vocab_size",
        "tensor_data_layout",
        "rope.scaling.finetuned",
        # Of no meaning where rope.scaling.type does not ask for them.
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
    }
)
_LAYERS_OF_GEMMA3_27B = 62
Config = dict[str, Any]


def find_architecture(file: GgufFile) -> Architecture:
    """The row of the file's architecture; Failure where there is none."""
    name = file.architecture
    if name not in ARCHITECTURES or name in BY_NAME_ONLY:
        known = ", ".join(sorted(set(ARCHITECTURES) - BY_NAME_ONLY))
        raise Failure(ExitCode.BAD_DATA, f"{file.path}: general.architecture is {name!r}; {known} can be imported")
    if file.own("expert_count", 0):
        raise file.refusal(f"{name}.expert_count", "none: mixtures of experts cannot be imported")
    if name == "llama" and any(
        "mistral" in str(file.field(f"general.{key}", "")).lower() for key in ("name", "basename")
    ):
        return ARCHITECTURES["mistral"]
    return ARCHITECTURES[name]


def model_config(file: GgufFile, architecture: Architecture) -> Config:
    """config.json as the hub has it (torch_dtype, rope_theta and rope_scaling at its top level). Failure for metadata
    that is missing, or that config.json cannot say."""
    n_heads = file.size("attention.head_count")
    hidden = file.size("embedding_length")
    head_dim = file.size("attention.key_length", hidden // n_heads if hidden % n_heads == 0 else None)
    if file.size("attention.value_length", head_dim) != head_dim:
        raise file.refusal(f"{file.architecture}.attention.value_length", f"the length of a key, {head_dim}")
    if not file.own("attention.causal", True):
        raise file.refusal(f"{file.architecture}.attention.causal", "true")
    config: Config = {
        "architectures": [architecture.transformers_class],
        "model_type": architecture.model_type,
        "torch_dtype": "bfloat16",
        "vocab_size": _vocabulary_size(file),
        "hidden_size": hidden,
        "intermediate_size": file.size("feed_forward_length"),
        "num_hidden_layers": file.size("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": file.size("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "max_position_embeddings": file.size("context_length"),
        "rms_norm_eps": file.real("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": HEAD not in file.tensors,
        **architecture.defaults,
        **rope_fields(file, head_dim),
        **_FURTHER.get(architecture.name, _nothing)(file, head_dim),
        **_biases(file, architecture),
        **token_ids(file),
    }
    if "hidden_activation" not in config:
        config["hidden_act"] = "silu"
    file.check_all_was_asked(_HARMLESS)
    return config


def token_ids(file: GgufFile) -> Config:
    """bos_token_id, eos_token_id, pad_token_id: those that the file has."""
    found = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        value = file.field(f"tokenizer.ggml.{key}_token_id")
        if value is not None:
            found[f"{name}_token_id"] = value
    return found


def generation_config(file: GgufFile) -> Config:
    """generation_config.json: the tokens that end an answer, the end of a turn among them."""
    config = token_ids(file)
    ends = [file.field(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    unique = list(dict.fromkeys(end for end in ends if end is not None))
    if len(unique) > 1:
        config["eos_token_id"] = unique
    return config


def _vocabulary_size(file: GgufFile) -> int:
    if EMBEDDINGS not in file.tensors:
        raise Failure(ExitCode.BAD_DATA, f"{file.path}: tensor {EMBEDDINGS} is missing")
    return int(file.tensors[EMBEDDINGS].shape[-1])


def _biases(file: GgufFile, architecture: Architecture) -> dict[str, bool]:
    return {name: f"blk.0.{tensors[0]}.bias" in file.tensors for name, tensors in architecture.biases.items() if name}


def _nothing(file: GgufFile, head_dim: int) -> Config:
    return {}


def _granite(file: GgufFile, head_dim: int) -> Config:
    return {
        "attention_multiplier": file.real("attention.scale", head_dim**-0.5),
        "embedding_multiplier": file.real("embedding_scale", 1.0),
        "residual_multiplier": file.real("residual_scale", 1.0),
        "logits_scaling": file.real("logit_scale", 1.0),
    }


def _phi3(file: GgufFile, head_dim: int) -> Config:
    return {"sliding_window": file.own("attention.sliding_window", 0) or None}


def _gemma3(file: GgufFile, head_dim: int) -> Config:
    n_layers = file.size("block_count")
    period = file.own("attention.sliding_window_pattern", 6)
    if not isinstance(period, int) or period < 1:
        raise file.refusal(f"{file.architecture}.attention.sliding_window_pattern", "a whole number above 0")
    scale_dim = head_dim
    if n_layers == _LAYERS_OF_GEMMA3_27B:  # the one size whose scale is not that of its heads; no metadata says so
        scale_dim = file.size("embedding_length") // file.size("attention.head_count")
    cap = file.own("final_logit_softcapping", 0.0)
    return {
        "query_pre_attn_scalar": scale_dim,
        "sliding_window": file.size("attention.sliding_window"),
        "layer_types": [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(n_layers)
        ],
        "rope_local_base_freq": file.real("rope.freq_base_swa", 10000.0),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": file.real("final_logit_softcapping") if cap else None,
    }


_FURTHER = {"granite": _granite, "phi3": _phi3, "gemma3": _gemma3}
