"""A window for each layer in vLLM's own model code: Qwen3, Qwen3-MoE, Llama, Mistral.

vLLM loads it by itself in every process once it is installed in its environment (entry point vllm.general_plugins).
config.json says the windows, keys with the row itself: `layer_types` and `sliding_window`, or `layer_windows`, a
number for each layer, 0 or null where it is full, for windows of several sizes. vLLM's Llama heeds `layer_types` by
itself, its Qwen3 and Qwen3-MoE run full attention without a word.
"""

import functools
import importlib
import logging
from collections.abc import Sequence
from typing import Any

__version__ = "0.1.0"

# Releases whose model code makes an Attention as is expected here: 0.32 was run, 0.33 read.
KNOWN_RELEASES = ("0.32", "0.33")
# Modules of vllm.model_executor.models that make an Attention for each of their layers; Mistral's is Llama's.
MODULES = ("qwen3", "qwen3_moe", "llama")
MODEL_TYPES = ("qwen3", "qwen3_moe", "llama", "mistral")

logger = logging.getLogger("vllm.winnow")


def layer_windows(config: Any) -> list[int | None] | None:  # noqa: ANN401 - a configuration of Transformers
    """Keys that each layer sees, None where it is full; None alone where config.json says nothing. ValueError for what
    makes no sense: a plugin that guesses would serve another model."""
    n_layers = config.num_hidden_layers
    listed = getattr(config, "layer_windows", None)
    types = getattr(config, "layer_types", None)
    if listed is not None:
        if not isinstance(listed, Sequence) or len(listed) != n_layers:
            raise ValueError(f"winnow_vllm: layer_windows: expected a number for each of {n_layers} layers: {listed}")
        if not all(keys is None or (type(keys) is int and keys >= 0) for keys in listed):
            raise ValueError(f"winnow_vllm: layer_windows: expected whole numbers of keys, 0 or null: {listed}")
        return [keys or None for keys in listed]
    if types is None:
        return None
    if len(types) != n_layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"winnow_vllm: layer_types: expected full_attention or sliding_attention for each of {n_layers} layers: "
            f"{types}"
        )
    if "sliding_attention" not in types:
        return [None] * n_layers
    keys = getattr(config, "sliding_window", None)
    if not isinstance(keys, int) or keys < 1:
        raise ValueError(f"winnow_vllm: sliding_window is {keys}, but layer_types has sliding_attention")
    return [keys if kind == "sliding_attention" else None for kind in types]


def window_of(config: Any, layer: int, model_window: int | None) -> int | None:  # noqa: ANN401
    """Keys of a layer, None where it is full. model_window: what vLLM gives layers that ask for none."""
    windows = layer_windows(config)
    if windows is None:
        return model_window
    if windows[layer] is None and model_window is not None:
        raise ValueError(
            f"winnow_vllm: layer {layer} is full, but vLLM windows every layer to {model_window} keys: config.json "
            "needs layer_types with both kinds beside sliding_window"
        )
    return windows[layer]


def _windowed(attention: type) -> type:
    """vLLM's Attention with the window of its layer."""

    @functools.wraps(attention, updated=())
    class WindowedAttention(attention):  # type: ignore[misc, valid-type]
        is_from_winnow = True

        def __init__(self, *arguments: Any, prefix: str = "", **options: Any) -> None:  # noqa: ANN401
            from vllm.config import get_current_vllm_config
            from vllm.model_executor.models.utils import extract_layer_index

            config = get_current_vllm_config().model_config.hf_text_config
            if config.model_type in MODEL_TYPES:
                cache = options.get("cache_config")
                keys = window_of(config, extract_layer_index(prefix), getattr(cache, "sliding_window", None))
                options["per_layer_sliding_window"] = keys
                logger.debug("%s: window of %s", prefix, keys or "all keys")
            super().__init__(*arguments, prefix=prefix, **options)

    return WindowedAttention


def check_release(version: str) -> None:
    """RuntimeError for a release of vLLM whose model code may pass windows otherwise."""
    if not any(version == known or version.startswith(known + ".") for known in KNOWN_RELEASES):
        raise RuntimeError(
            f"winnow_vllm {__version__} knows vLLM {', '.join(KNOWN_RELEASES)}, this is {version}: it might run other "
            "windows than asked for; install a vLLM that it knows, uninstall winnow-vllm, or leave it out with "
            "VLLM_PLUGINS"
        )


def register() -> None:
    """Called by vLLM in each of its processes, sometimes more than once."""
    import vllm

    check_release(vllm.__version__)
    for name in MODULES:
        module = importlib.import_module(f"vllm.model_executor.models.{name}")
        if not getattr(module.Attention, "is_from_winnow", False):
            module.Attention = _windowed(module.Attention)
