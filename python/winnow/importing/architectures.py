"""The architectures of GGUF that can be imported, a row each, and the names of their tensors in both worlds."""

from dataclasses import dataclass, field

# Both names of a tensor of a layer, behind "blk.N." and "model.layers.N.".
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_FFN = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_PRE_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = _ATTENTION | _FFN | _PRE_NORMS


@dataclass(frozen=True)
class Architecture:
    """What a GGUF architecture is in Transformers. biases: the tensors (as keys of `tensors`) that may have one; those
    of a group have all or none, and the group's name is the field of config.json that says so ("": always)."""

    name: str  # general.architecture
    model_type: str
    transformers_class: str
    tensors: dict[str, str] = field(default_factory=lambda: _LLAMA)
    biases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # llama.cpp rotates neighbouring rows of these, Transformers rows half a head apart: the converter has reordered
    # the rows of q and k.
    has_reordered_heads: bool = False
    norm_offset: float = 0.0  # that the converter has added to the weights of all norms
    defaults: dict[str, object] = field(default_factory=dict)  # further fields of config.json


_LLAMA_BIASES = {"attention_bias": tuple(_ATTENTION), "mlp_bias": tuple(_FFN)}

ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture(
            name="llama",
            model_type="llama",
            transformers_class="LlamaForCausalLM",
            biases=_LLAMA_BIASES,
            has_reordered_heads=True,
        ),
        # Not an architecture of GGUF's own: what a file of architecture llama is that says so by its name.
        Architecture(
            name="mistral",
            model_type="mistral",
            transformers_class="MistralForCausalLM",
            has_reordered_heads=True,
            defaults={"sliding_window": None},
        ),
        Architecture(
            name="qwen2",
            model_type="qwen2",
            transformers_class="Qwen2ForCausalLM",
            biases={"": ("attn_q", "attn_k", "attn_v")},
            defaults={"use_sliding_window": False},
        ),
        Architecture(
            name="qwen3",
            model_type="qwen3",
            transformers_class="Qwen3ForCausalLM",
            tensors=_LLAMA | _QK_NORMS,
            defaults={"attention_bias": False, "use_sliding_window": False},
        ),
        Architecture(
            name="granite",
            model_type="granite",
            transformers_class="GraniteForCausalLM",
            biases=_LLAMA_BIASES,
            has_reordered_heads=True,
        ),
        Architecture(
            name="phi3",
            model_type="phi3",
            transformers_class="Phi3ForCausalLM",
            tensors=_PRE_NORMS
            | {"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj"}
            | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"},
        ),
        Architecture(
            name="gemma3",
            model_type="gemma3_text",
            transformers_class="Gemma3ForCausalLM",
            tensors=_ATTENTION
            | _FFN
            | _QK_NORMS
            | {
                "attn_norm": "input_layernorm",
                "post_attention_norm": "post_attention_layernorm",
                "ffn_norm": "pre_feedforward_layernorm",
                "post_ffw_norm": "post_feedforward_layernorm",
            },
            norm_offset=1.0,
            defaults={"attention_bias": False, "hidden_activation": "gelu_pytorch_tanh"},
        ),
    )
}
BY_NAME_ONLY = {"mistral"}  # rows that no file names as its general.architecture
