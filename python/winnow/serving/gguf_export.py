"""A GGUF in float32 of a checkpoint's folder, so that llama.cpp can be asked. Its vocabulary is a stand-in: tokens go
in and come out as ids. Metadata and names of tensors are those that llama.cpp's own converter writes."""

import json
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf.utility import LocalTensor, SafetensorsLocal

from winnow.common.errors import ExitCode, Failure

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Architecture:
    """A GGUF architecture. has_reordered_heads: llama.cpp rotates neighbouring rows of q and k, Transformers rows half
    a head apart. has_scales: config.json's multipliers of Granite. needs_head: it does not take the embeddings for the
    output where they are tied, so that they are written twice."""

    name: str
    has_reordered_heads: bool = False
    has_scales: bool = False
    needs_head: bool = False


BY_MODEL_TYPE = {
    "granite_swa": Architecture("granite_swa", has_reordered_heads=True, has_scales=True),
    "llama": Architecture("llama", has_reordered_heads=True),
    "mellum": Architecture("mellum", needs_head=True),
    "ministral": Architecture("llama", has_reordered_heads=True),
    "mistral": Architecture("llama", has_reordered_heads=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "qwen3_moe": Architecture("qwen3moe"),
}
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
_EXPERT = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]  # float32


def write_gguf(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Failure where the folder is of a model or has a tensor that no GGUF of these architectures can hold; OSError."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = BY_MODEL_TYPE.get(config.get("model_type"))
    if architecture is None:
        raise _refusal(folder, f"model_type is {config.get('model_type')!r}; known are {', '.join(BY_MODEL_TYPE)}")
    tensors = _renamed(folder, config, architecture)
    writer = gguf.GGUFWriter(path, architecture.name)
    _write_metadata(writer, folder, config, architecture)
    for name, tensor in tensors.items():
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), 4 * int(np.prod(tensor.shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():  # one at a time in memory
        writer.write_tensor_data(np.ascontiguousarray(tensor.read()))
    writer.close()


def _refusal(folder: pathlib.Path, why: str) -> Failure:
    return Failure(
        ExitCode.BAD_DATA, f"{folder}: cannot be made a GGUF: {why}; give the GGUF that is served with --gguf"
    )


def _write_metadata(
    writer: gguf.GGUFWriter, folder: pathlib.Path, config: dict[str, Any], architecture: Architecture
) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config.get("max_position_embeddings", 4096))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(_rope_base(folder, config))
    n_experts = config.get("num_experts") or config.get("num_local_experts")
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("sliding_window") and config.get("layer_types") and config.get("use_sliding_window") is not False:
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if architecture.has_scales:
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    _write_vocabulary(writer, config["vocab_size"])


def _write_vocabulary(writer: gguf.GGUFWriter, n_tokens: int) -> None:
    writer.add_vocab_size(n_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{token}>" for token in range(n_tokens)])
    writer.add_token_types([gguf.TokenType.NORMAL] * n_tokens)
    writer.add_token_merges(["<0> <1>"])  # llama.cpp refuses a file without any
    writer.add_add_bos_token(False)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The RoPE of full and sliding layers alike, in whichever form config.json has it."""
    rope = config.get("rope_parameters") or {}
    kinds = [each for each in rope.values() if isinstance(each, dict)]
    if kinds:
        rope = kinds[0] if all(each == kinds[0] for each in kinds) else {"rope_type": "by type of layer"}
    scaling = config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **scaling, **rope}


def _rope_base(folder: pathlib.Path, config: dict[str, Any]) -> float:
    rope = _rope(config)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3"):
        raise _refusal(folder, f"its RoPE is of kind {kind!r}; known are default and llama3")
    return float(rope["rope_theta"])


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    """What llama.cpp divides each frequency by, as Llama 3 scales them: low ones by the factor, high ones not, and
    those between by a mean of both."""
    wave = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    share = np.clip((rope["original_max_position_embeddings"] / wave - low) / (high - low), 0.0, 1.0)
    return (1 / (share + (1 - share) / factor)).astype(np.float32)


def _renamed(folder: pathlib.Path, config: dict[str, Any], architecture: Architecture) -> dict[str, _Tensor]:
    """{name in GGUF: tensor}."""
    stored = _stored(folder)
    found: dict[str, _Tensor] = {}
    experts: dict[str, dict[int, _Tensor]] = {}
    for name, tensor in stored.items():
        for target, expert in [_target(folder, name)]:
            if expert is not None:
                experts.setdefault(target, {})[expert] = tensor
            elif architecture.has_reordered_heads and (".attn_q." in target or ".attn_k." in target):
                heads = config["num_attention_heads"]
                n_heads = heads if ".attn_q." in target else config.get("num_key_value_heads") or heads
                found[target] = _reordered(tensor, n_heads)
            else:
                found[target] = tensor
    for target, members in experts.items():
        found[target] = _stacked(members)
    head, embeddings = "output.weight", "token_embd.weight"
    if config.get("tie_word_embeddings"):
        found.pop(head, None)
    if architecture.needs_head and head not in found:
        found[head] = found[embeddings]
    rope = _rope(config)
    if (rope.get("rope_type") or rope.get("type")) == "llama3":
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        factors = _llama3_factors(rope, head_dim)
        found["rope_freqs.weight"] = _Tensor(factors.shape, lambda: factors)
    return found


def _target(folder: pathlib.Path, name: str) -> tuple[str, int | None]:
    """(name in GGUF, number of the expert whose part it is)."""
    if name in _TOP:
        return _TOP[name], None
    parts = name.split(".")
    if parts[:2] == ["model", "layers"] and len(parts) > 4:
        layer, inner, last = parts[2], ".".join(parts[3:-1]), parts[-1]
        if inner == "self_attn" and last == "sinks":
            return f"blk.{layer}.attn_sinks.weight", None
        if inner.startswith("mlp.experts.") and parts[6] in _EXPERT:
            return f"blk.{layer}.{_EXPERT[parts[6]]}.{last}", int(parts[5])
        if inner in _LAYER:
            return f"blk.{layer}.{_LAYER[inner]}.{last}", None
    raise _refusal(folder, f"it has a tensor {name} whose name in GGUF is not known")


def _reordered(tensor: _Tensor, n_heads: int) -> _Tensor:
    def read() -> np.ndarray:
        figures = tensor.read()
        return figures.reshape(n_heads, 2, -1, *figures.shape[1:]).swapaxes(1, 2).reshape(figures.shape)

    return _Tensor(tensor.shape, read)


def _stacked(members: dict[int, _Tensor]) -> _Tensor:
    ordered = [members[number] for number in sorted(members)]
    return _Tensor((len(ordered), *ordered[0].shape), lambda: np.stack([each.read() for each in ordered]))


def _stored(folder: pathlib.Path) -> dict[str, _Tensor]:
    return {name: _Tensor(tensor.shape, _reader(folder, name, tensor)) for name, tensor in _files(folder)}


def _files(folder: pathlib.Path) -> Iterator[tuple[str, LocalTensor]]:
    index = folder / INDEX
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for name in names:
        try:
            yield from SafetensorsLocal(folder / name).tensors.items()
        except FileNotFoundError as error:
            raise Failure(ExitCode.NO_INPUT, f"{folder / name}: not there") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(ExitCode.BAD_DATA, f"{folder / name}: is no whole safetensors file: {error}") from error


def _reader(folder: pathlib.Path, name: str, tensor: LocalTensor) -> Callable[[], np.ndarray]:
    """The figures in float32: of all three types exactly."""
    if tensor.dtype not in ("F32", "F16", "BF16"):
        raise _refusal(folder, f"tensor {name} is of type {tensor.dtype}; known are F32, F16 and BF16")

    def read() -> np.ndarray:
        raw = np.frombuffer(tensor.mmap_bytes(), {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype])
        if tensor.dtype == "BF16":
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32).reshape(tensor.shape)

    return read
