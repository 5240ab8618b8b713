"""Which pattern of windows an engine ran, from token NLLs alone. Pure functions."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


class Ran(enum.Enum):
    """What an engine ran. The values are those of the JSON, and of the line for people."""

    HYBRID = "hybrid"
    FULL = "full"
    WINDOWED = "windowed"
    ONE_LESS = "window-minus-1"
    ONE_MORE = "window-plus-1"
    OTHER = "something else"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Difference:
    """Of two rows of token NLLs, nats: root of the mean square, and the largest."""

    rms: float
    largest: float


@dataclass(frozen=True)
class Verdict:
    """before: engine less hybrid where no window reaches yet. past: engine less each candidate beyond. apart: each
    candidate less the one that the engine is closest to. reason: a clause on why, "" where it is the hybrid."""

    ran: Ran
    reason: str
    before: Difference
    past: dict[Ran, Difference]
    apart: dict[Ran, float]


def difference(left: np.ndarray, right: np.ndarray) -> Difference:
    """left, right: (n) nats. Infinite where a value is not finite; 0 of nothing."""
    gap = np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64))
    if gap.size == 0:
        return Difference(0.0, 0.0)
    if not np.isfinite(gap).all():
        return Difference(float("inf"), float("inf"))
    return Difference(float(np.sqrt(np.mean(gap**2))), float(gap.max()))


def judge(engine: np.ndarray, candidates: Mapping[Ran, np.ndarray], n_before: int, tolerance: float) -> Verdict:
    """engine: (n) token NLLs in nats; candidates: the same of winnow, HYBRID among them; those that are the hybrid by
    their pattern are left out. n_before: leading tokens that are the same under every candidate. tolerance: the most
    that rms may be where both run the same, nats.

    A match counts only where it excludes the others: candidates within twice the tolerance of each other could both
    have given what the engine gave."""
    before = difference(engine[:n_before], candidates[Ran.HYBRID][:n_before])
    past = {name: difference(engine[n_before:], nll[n_before:]) for name, nll in candidates.items()}
    nearest = min(past, key=lambda name: past[name].rms)
    apart = {
        name: difference(nll[n_before:], candidates[nearest][n_before:]).rms
        for name, nll in candidates.items()
        if name is not nearest
    }

    def said(ran: Ran, reason: str) -> Verdict:
        return Verdict(ran, reason, before, past, apart)

    if not np.isfinite(engine).all():
        return said(Ran.OTHER, "its log-probabilities are not finite")
    if before.rms > tolerance:
        return said(
            Ran.OTHER, "it differs before a window matters: other weights, other positions (RoPE), or less than float32"
        )
    if past[nearest].rms > tolerance:
        return said(Ran.OTHER, f"it differs where windows matter, from {nearest.value} least: other windows")
    rivals = [name.value for name, gap in apart.items() if gap <= 2 * tolerance]
    if rivals:
        return said(
            Ran.CANNOT_TELL,
            f"{nearest.value} and {', '.join(rivals)} lie closer together than twice the tolerance: the tokens do not "
            "tell them apart",
        )
    return said(nearest, "" if nearest is Ran.HYBRID else f"its figures are those of {nearest.value}")


@dataclass(frozen=True)
class TextVerdict:
    """equal: leading tokens that are the same. is_tie: where they part, the engine itself was undecided."""

    equal: int
    n_tokens: int
    is_tie: bool

    @property
    def is_same(self) -> bool:
        return self.equal == self.n_tokens or self.is_tie


def compare_texts(engine: list[int], margins: list[float], expected: list[int], tolerance: float) -> TextVerdict:
    """margins: log-probability of each greedy token less that of the next best, nats. Two that lie within twice the
    tolerance may change places; what follows is another text by right."""
    n_tokens = len(expected)
    equal = next((i for i, pair in enumerate(zip(engine, expected, strict=False)) if pair[0] != pair[1]), None)
    if equal is None:
        return TextVerdict(min(len(engine), n_tokens), n_tokens, False)
    return TextVerdict(equal, n_tokens, margins[equal] <= 2 * tolerance)
