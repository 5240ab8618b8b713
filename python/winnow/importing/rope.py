"""Rotary embedding: from a GGUF's metadata, and the tensors in which it hides some of it, to fields of config.json."""

import math

import numpy as np

from winnow.common.errors import ExitCode, Failure
from winnow.importing.gguf_file import GgufFile, tidy

# Tensors that hold factors of frequencies and are no weights.
LLAMA3_FACTORS = "rope_freqs.weight"
LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"
FACTORS = (LLAMA3_FACTORS, LONG_FACTORS, SHORT_FACTORS)

# What published models of type llama3 have, apart from the factor.
_LOW_FREQ_FACTOR = 1.0
_HIGH_FREQ_FACTOR = 4.0
_LARGEST_ORIGINAL = 2**20
_TOLERANCE = 1e-4  # relative: converters compute the factors in float32


def rope_fields(file: GgufFile, head_dim: int) -> dict[str, object]:
    """rope_theta, rope_scaling and what goes with them. Failure for a kind of scaling that cannot be said."""
    theta = file.real("rope.freq_base", 10000.0)
    n_rotary = file.size("rope.dimension_count", head_dim)
    fields: dict[str, object] = {"rope_theta": theta}
    if n_rotary != head_dim:
        if file.architecture != "phi3":
            raise file.refusal(f"{file.architecture}.rope.dimension_count", f"the size of a head, {head_dim}")
        fields["partial_rotary_factor"] = n_rotary / head_dim
    kind = file.own("rope.scaling.type", "none")
    if LLAMA3_FACTORS in file.tensors:
        if kind not in ("none", "llama3"):
            raise file.refusal(f"{file.architecture}.rope.scaling.type", f"none beside tensor {LLAMA3_FACTORS}")
        fields["rope_scaling"] = _llama3(file, theta, head_dim)
    elif LONG_FACTORS in file.tensors or SHORT_FACTORS in file.tensors:
        fields |= _longrope(file, n_rotary)
    elif kind in ("linear", "yarn"):
        fields["rope_scaling"] = _scaling(file, kind)
    elif kind != "none":
        raise file.refusal(f"{file.architecture}.rope.scaling.type", "none, linear, yarn or longrope with its factors")
    elif file.own("rope.scale_linear", 1.0) != 1.0:
        fields["rope_scaling"] = {"rope_type": "linear", "factor": file.real("rope.scale_linear")}
    return fields


def _scaling(file: GgufFile, kind: str) -> dict[str, object]:
    scaling: dict[str, object] = {"rope_type": kind, "factor": file.real("rope.scaling.factor")}
    if kind == "yarn":
        if file.own("rope.scaling.attn_factor", 1.0) != 1.0:  # llama.cpp multiplies by it, Transformers would replace
            raise file.refusal(f"{file.architecture}.rope.scaling.attn_factor", "1 beside yarn")
        scaling["original_max_position_embeddings"] = file.size("rope.scaling.original_context_length")
        for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
            if file.own(f"rope.scaling.{key}") is not None:
                scaling[name] = file.real(f"rope.scaling.{key}")
    return scaling


def _longrope(file: GgufFile, n_rotary: int) -> dict[str, object]:
    scaling: dict[str, object] = {"rope_type": "longrope"}
    for name, key in ((LONG_FACTORS, "long_factor"), (SHORT_FACTORS, "short_factor")):
        scaling[key] = [tidy(value) for value in _factors(file, name, n_rotary // 2)]
    original = file.size("rope.scaling.original_context_length")
    # Transformers derives the same from both lengths; llama.cpp is told.
    expected = math.sqrt(1 + math.log(file.size("context_length") / original) / math.log(original))
    stated = file.own("rope.scaling.attn_factor")
    if stated is not None and not math.isclose(stated, max(1.0, expected), rel_tol=_TOLERANCE):
        scaling["attention_factor"] = file.real("rope.scaling.attn_factor")
    return {"rope_scaling": scaling, "original_max_position_embeddings": original}


def _factors(file: GgufFile, name: str, n_factors: int) -> np.ndarray:
    if name not in file.tensors:
        raise Failure(ExitCode.BAD_DATA, f"{file.path}: tensor {name} is missing")
    values = np.concatenate(list(file.rows(name, n_factors + 1))).ravel()
    if values.size != n_factors or not np.isfinite(values).all() or (values <= 0).any():
        raise Failure(ExitCode.BAD_DATA, f"{file.path}: tensor {name}: expected {n_factors} numbers above 0")
    return values


def _llama3(file: GgufFile, theta: float, head_dim: int) -> dict[str, object]:
    """The file has only what the rule makes of each frequency: the rule's own numbers are those that give the same."""
    found = _factors(file, LLAMA3_FACTORS, head_dim // 2)
    factor = tidy(float(found.max()))
    original = 1024
    while original <= _LARGEST_ORIGINAL:
        expected = llama3_factors(theta, head_dim, factor, _LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR, original)
        if np.allclose(found, expected, rtol=_TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW_FREQ_FACTOR,
                "high_freq_factor": _HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": original,
            }
        original *= 2
    raise Failure(
        ExitCode.BAD_DATA,
        f"{file.path}: tensor {LLAMA3_FACTORS}: no rope scaling of type llama3 gives these factors, so config.json "
        "could not say them",
    )


def llama3_factors(
    theta: float, head_dim: int, factor: float, low_freq_factor: float, high_freq_factor: float, original: int
) -> np.ndarray:
    """By what each of the head_dim / 2 frequencies is divided (Transformers' modeling_rope_utils.py, type llama3)."""
    turns = original * theta ** -(np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)  # within the original context
    smooth = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)
