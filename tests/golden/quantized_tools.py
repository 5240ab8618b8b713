"""What the weight formats share: what one is, gptqmodel's functions, and weights in blocks."""

import importlib
import logging
import os
import sys
import types
from pathlib import Path

import torch

GROUP = 32
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# What the functions that are used import beside torch and each other.
GPTQMODEL_STUBS = {
    "logger": {"setup_logger": lambda: logging.getLogger("gptqmodel")},
    "torch": {"HAS_NPU": False},
}


class Format:
    config: dict
    reference: str  # whose code dequantises
    description: str  # as winnow names it
    model: dict = {}  # what its model has in place of make_quantized.py's CONFIG

    def takes(self, key):
        """Whether a tensor is quantised, if the format does not leave its module out."""
        return key.split(".")[-2] in LINEAR

    def as_loaded(self, value):
        """A dequantised value as the model has it."""
        return value

    def leaves_out(self, module):
        return False


def gptqmodel(module):
    """A module of gptqmodel's source, without its packages, which need a compiler."""
    root = Path(os.environ["GPTQMODEL"]) / "gptqmodel"
    for package in ("", ".utils", ".quantization", ".quantization.awq", ".quantization.awq.utils"):
        if "gptqmodel" + package not in sys.modules:
            stub = types.ModuleType("gptqmodel" + package)
            stub.__path__ = [str(root.joinpath(*package.split(".")))]
            sys.modules["gptqmodel" + package] = stub
    for name, content in GPTQMODEL_STUBS.items():
        stub = sys.modules.setdefault("gptqmodel.utils." + name, types.ModuleType(name))
        stub.__dict__.update(content)
    return importlib.import_module("gptqmodel." + module)


def blocks(weight, rows, cols):
    """The largest magnitude of each block of a weight, in a grid."""
    n, k = weight.shape
    padded = torch.nn.functional.pad(weight.abs(), (0, -k % cols, 0, -n % rows))
    return padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // cols, cols).amax((1, 3))


def spread(grid, rows, cols, shape):
    """The grid's values at every element of the weight."""
    return grid.repeat_interleave(rows, 0).repeat_interleave(cols, 1)[: shape[0], : shape[1]]


def to_fp8(weight, scale):
    return (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def modules_with(stored, ending):
    return sorted(key.removesuffix(ending) for key in stored if key.endswith(ending))


def nearest_e2m1(numbers):
    """Codes of four bits, one in a byte: the nearest of the eight magnitudes, and the sign above them."""
    magnitudes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    codes = (numbers.abs()[..., None] - magnitudes).abs().argmin(-1)
    return (codes + 8 * (numbers < 0)).to(torch.uint8)
