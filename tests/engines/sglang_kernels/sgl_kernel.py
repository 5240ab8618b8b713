"""A stand-in for SGLang's kernels, whose package is for GPUs alone: what SGLang calls on a CPU without AMX, in PyTorch.
All its layers then run PyTorch's own operations; a kernel that is not here says its name where it is called."""

from typing import NoReturn

import torch


def assign_req_to_token_pool_cpu(
    rows: torch.Tensor,
    req_to_token: torch.Tensor,
    first: torch.Tensor,
    end: torch.Tensor,
    places: torch.Tensor,
    width: int,  # noqa: ARG001 - of req_to_token
) -> None:
    """Writes where tokens first to end of each request lie in the pool; places: of all requests, one after another."""
    taken = 0
    for row, low, high in zip(rows.tolist(), first.tolist(), end.tolist(), strict=True):
        req_to_token[row, low:high] = places[taken : taken + high - low].to(req_to_token.dtype)
        taken += high - low


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"the stand-in for sgl_kernel has no {name}")

    return missing
