"""Means of scores with 95 % intervals: of each pattern, and of its difference to another, examples paired."""

import dataclasses
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

PART = 1000
Scores = NDArray[numpy.float64]


@dataclasses.dataclass(frozen=True)
class Mean:
    """n: examples; an interval of one example is the value itself."""

    n: int
    mean: float
    low: float
    high: float


def means(scores: Scores, seed: int, resamples: int) -> list[Mean]:
    """scores: (patterns, examples). Percentile bootstrap over examples; all patterns have the same resamples, so that
    the difference of two rows is paired."""
    n = scores.shape[1]
    generator = numpy.random.default_rng(seed)
    parts = []
    for begin in range(0, resamples, PART):  # how often each example is drawn, many resamples at once
        counts = generator.multinomial(n, numpy.full(n, 1 / n), size=min(PART, resamples - begin))
        parts.append(counts @ scores.T / n)
    resampled = numpy.concatenate(parts)
    low, high = numpy.quantile(resampled, (0.025, 0.975), axis=0)
    return [Mean(n, *map(float, row)) for row in zip(scores.mean(axis=1), low, high, strict=True)]


def front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Whether no other is as good and cheaper, or as cheap and better."""
    pairs = list(zip(costs, values, strict=True))
    return [
        not any(
            other_cost <= cost and other >= value and (other_cost, other) != (cost, value)
            for other_cost, other in pairs
        )
        for cost, value in pairs
    ]
