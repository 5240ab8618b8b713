"""What no other beats: the front of a cost and a loss."""

import numpy as np
from numpy.typing import ArrayLike


def front(cost: ArrayLike, loss: ArrayLike) -> list[int]:
    """Positions, by rising cost, than which none has as little or less of both and less of one.

    Those that are alike in both are on it together. Without a finite cost and loss a position is not.
    """
    costs, losses = np.asarray(cost, float), np.asarray(loss, float)
    found: list[int] = []
    least = np.inf
    good = np.flatnonzero(np.isfinite(costs) & np.isfinite(losses))
    for i in sorted(good.tolist(), key=lambda i: (costs[i], losses[i], i)):
        last = found[-1] if found else None
        is_alike = last is not None and costs[i] == costs[last] and losses[i] == losses[last]
        if losses[i] < least or is_alike:
            found.append(i)
            least = float(losses[i])
    return found
