"""Agreement of rankings: Spearman's rho, overlap of the top K, and how both grow with the number of examples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from winnow.report.arrays import Floats, Integers

N_DRAWS = 200  # random orders of the examples
N_RESAMPLES = 2000  # of the bootstrap, for differences that a file does not have
SMALLEST = 8  # examples of the first ranking, where there are twice as many


def average_ranks(values: ArrayLike) -> Floats:
    """Ranks from 1 along the last axis, ties sharing the mean of theirs. values: (..., n)."""
    table = np.asarray(values, float)
    flat = table.reshape(-1, table.shape[-1])
    ranks = np.empty_like(flat)
    for row, out in zip(flat, ranks, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        out[:] = (last - (counts - 1) / 2)[inverse]
    return ranks.reshape(table.shape)


def spearman(a: ArrayLike, b: ArrayLike) -> Floats:
    """Spearman's rho along the last axis; NaN where a side is constant, not finite, or of one value only."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    ranks_a, ranks_b = average_ranks(a), average_ranks(b)
    ranks_a = ranks_a - ranks_a.mean(-1, keepdims=True)
    ranks_b = ranks_b - ranks_b.mean(-1, keepdims=True)
    below = np.sqrt((ranks_a**2).sum(-1) * (ranks_b**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (ranks_a * ranks_b).sum(-1) / below
    return np.where(np.isfinite(a).all(-1) & np.isfinite(b).all(-1) & (below > 0), rho, np.nan)


def order_of(means: ArrayLike) -> Integers:
    """Positions from the largest to the smallest, ties to the lower position: the ranking of results/README.md."""
    return np.argsort(-np.asarray(means, float), axis=-1, kind="stable")


def top(means: ArrayLike, k: int) -> set[int]:
    """Positions of the k largest, as a set."""
    return set(order_of(means)[:k].tolist())


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else float("nan")


@dataclass
class Stability:
    """Rankings after the first `sizes[i]` examples, compared with that of all."""

    sizes: list[int]  # of examples; the last is all of them
    k: int
    ranks: Integers  # (size, layer): rank from 1, examples in the order of the file
    rho: Floats  # (size): Spearman's rho with the ranking of all
    shared: Integers  # (size): layers of the top k that the top k of all has, too
    drawn_rho: Floats  # (size, 3): 5 %, 50 %, 95 % of the same over random orders of the examples
    drawn_shared: Floats  # (size): median over random orders


def sizes_up_to(n: int) -> list[int]:
    """8, 16, 32, ... and n; of few examples 1, 2, 4, ..."""
    size = SMALLEST if n >= 2 * SMALLEST else 1
    sizes = []
    while size < n:
        sizes.append(size)
        size *= 2
    return [*sizes, n]


def stability(delta: Floats, k: int) -> Stability | None:
    """delta: (example, layer), nats per token, finite. None for one example or one layer."""
    n, n_layers = delta.shape
    if n < 2 or n_layers < 2:
        return None
    sizes = sizes_up_to(n)
    ends = np.array(sizes) - 1
    whole = delta.mean(0)
    kept = top(whole, k)
    in_whole = np.isin(np.arange(n_layers), list(kept))

    def compare(order: Integers) -> tuple[Floats, Floats, Integers]:
        means = np.cumsum(delta[order], axis=0)[ends] / np.array(sizes)[:, None]
        means[-1] = whole  # the same sum in another order differs in its last digits, and may swap equal layers
        tops = order_of(means)[:, :k]
        return means, spearman(means, whole), in_whole[tops].sum(1)

    means, rho, shared = compare(np.arange(n))
    ranks = np.empty((len(sizes), n_layers), int)
    np.put_along_axis(ranks, order_of(means), np.arange(1, n_layers + 1)[None, :], axis=1)
    random = np.random.default_rng(0)
    drawn = [compare(random.permutation(n))[1:] for _ in range(N_DRAWS)]
    drawn_rho = np.array([one[0] for one in drawn])
    quantiles = np.full((len(sizes), 3), np.nan)
    for i in range(len(sizes)):
        known = drawn_rho[np.isfinite(drawn_rho[:, i]), i]
        if known.size:
            quantiles[i] = np.quantile(known, [0.05, 0.5, 0.95])
    return Stability(sizes, k, ranks, rho, shared, quantiles, np.median([one[1] for one in drawn], axis=0))


def resampled_means(table: Floats) -> Floats:
    """Means over bootstrap resamples of the examples, the same for all rows: (row, example) to (resample, row)."""
    n, random, chunk = table.shape[1], np.random.default_rng(0), 100
    means = []
    for _ in range(N_RESAMPLES // chunk):
        drawn = random.integers(0, n, (chunk, n)) + n * np.arange(chunk)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=chunk * n).reshape(chunk, n)
        means.append(counts @ table.T / n)
    return np.concatenate(means)


def paired_interval(means: Floats, a: int, b: int) -> tuple[float, float]:
    """(low, high): 95 % interval of row a less row b of `resampled_means`."""
    low, high = np.quantile(means[:, a] - means[:, b], [0.025, 0.975])
    return float(low), float(high)
