"""Rounds keys and values with PyTorch as caches of narrower types do: the golden of kernels/kv_rounding.h.

    python3 tests/golden/make_kv_rounding.py

The result is kv_rounding.json: float32 as the integers of their bits. Rows are random, of several sizes, and then those
where rounding is delicate: ties, numbers below the least normal one, beyond the largest, heads of one value, of zeros.
Needs torch.
"""

import json
from pathlib import Path

import torch

OUT = Path(__file__).parent / "kv_rounding.json"
HEAD_DIM = 20
KV_HEADS = 2
FP8 = torch.finfo(torch.float8_e4m3fn)


def to_fp8(x, scale):
    """The cast does not saturate by itself; an engine's does."""
    codes = (x / scale).clamp(FP8.min, FP8.max).to(torch.float8_e4m3fn)
    return codes.to(torch.float32) * scale


def to_int8(x):
    scale = torch.clamp(x.abs().amax(-1, keepdim=True) / 127.0, min=1e-6)
    return torch.clamp(torch.round(x * (1.0 / scale)), -128, 127) * scale


def to_int4(x):
    """The last step in float64: a product and a sum, rounded once."""
    least = x.amin(-1, keepdim=True)
    scale = ((x.amax(-1, keepdim=True) - least) / 15.0).bfloat16().float()
    least = least.bfloat16().float()
    codes = torch.clamp(torch.round((x - least) / scale), 0, 15)
    rounded = (codes.double() * scale.double() + least.double()).float()
    return torch.where(scale > 0, rounded, least.expand_as(x))


def delicate_rows():
    """(rows, KV_HEADS, HEAD_DIM)"""
    steps = torch.arange(KV_HEADS * HEAD_DIM, dtype=torch.float32)
    ties = (16 + steps) + 0.5 * (steps % 2)
    below = (steps - 20) * 2.0**-10
    beyond = torch.tensor([447.9, 448.0, 456.0, 463.9, 464.0, 465.0, 480.0, 1e6, -1e30, 3e38] * 4)
    tiny = (steps - 7) * 1e-30
    one_value = torch.full_like(steps, -3.7)
    quarters = (steps - 20) * 0.25 * 127 / 30
    fifteenths = steps % 15 + 0.5
    return torch.stack(
        [ties, -ties, below, beyond, tiny, one_value, torch.zeros_like(steps), quarters, fifteenths]
    ).reshape(-1, KV_HEADS, HEAD_DIM)


def bits(x):
    return x.contiguous().view(torch.int32).flatten().tolist()


def main():
    torch.manual_seed(20)
    sizes = torch.tensor([0.01, 1.0, 30.0]).reshape(-1, 1, 1)
    keys = torch.cat([torch.randn(3, KV_HEADS, HEAD_DIM) * sizes, delicate_rows()])
    values = torch.cat([torch.randn(3, KV_HEADS, HEAD_DIM) * sizes + sizes, delicate_rows().flip(0)])
    cases = []
    for key_scale, value_scale in [(1.0, 1.0), (0.037, 1.7)]:
        scales = [torch.tensor(scale, dtype=torch.float32) for scale in (key_scale, value_scale)]
        rounded = [to_fp8(x, scale) for x, scale in zip((keys, values), scales, strict=True)]
        cases.append(("fp8", [float(scale) for scale in scales], rounded))
    cases.append(("int8", [1.0, 1.0], [to_int8(keys), to_int8(values)]))
    cases.append(("int4", [1.0, 1.0], [to_int4(keys), to_int4(values)]))
    golden = {
        "made_by": "python3 tests/golden/make_kv_rounding.py",
        "torch": torch.__version__,
        "n_kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "keys": bits(keys),
        "values": bits(values),
        "cases": [
            {"type": name, "scales": scales, "keys": bits(of_keys), "values": bits(of_values)}
            for name, scales, (of_keys, of_values) in cases
        ],
    }
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
