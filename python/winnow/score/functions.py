"""How alike two functions are, as RepoQA measures it: sentence BLEU of their words."""

import collections
import math
from collections.abc import Sequence

MOST_WORDS = 4
SMOOTHING = 5  # of Chen and Cherry's fourth method


def similarity(code: str, reference: str) -> float:
    """BLEU of up to four words in a row with weights of a quarter each, smoothed by Chen and Cherry's method 4 (2014),
    words cut at white space."""
    found, wanted = code.split(), reference.split()
    if not found or not wanted:
        return 0.0
    logarithms, n_smoothed = 0.0, 0
    for n in range(1, MOST_WORDS + 1):
        pairs = _counts(found, n) & _counts(wanted, n)
        n_right, n_all = sum(pairs.values()), max(1, len(found) - n + 1)
        if n == 1 and n_right == 0:
            return 0.0
        share = n_right / n_all
        if n_right == 0 and len(found) > 1:
            n_smoothed += 1
            share = math.log(len(found)) / (2**n_smoothed * SMOOTHING) / n_all
        if share > 0:
            logarithms += math.log(share) / MOST_WORDS
    brevity = 1.0 if len(found) > len(wanted) else math.exp(1 - len(wanted) / len(found))
    return brevity * math.exp(logarithms)


def _counts(words: Sequence[str], n: int) -> collections.Counter[tuple[str, ...]]:
    return collections.Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
