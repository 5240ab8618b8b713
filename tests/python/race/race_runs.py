"""Races on the demo model: command lines, and what a look says, computed here from a table of deltas."""

import functools
import itertools
import math

import launch
import numpy as np
import run_folder

DEMO = launch.REPOSITORY / "tests/demo"
LIMIT = 32  # examples


def demo_folder(directory):
    for name in ("model", "long.h5", "short.h5"):
        (directory / name).symlink_to(DEMO / name)
    return directory


def arguments(work, out, *more):
    """A calibration with tail rows, of the first LIMIT examples."""
    limit = [] if "--limit" in more else ["--limit", LIMIT]
    return run_folder.arguments("calibrate", work, out, "--tail-rows", 8, *limit, "--threads", 1, *more)


def calibrate(work, out, *more, ranks=None):
    return launch.run(arguments(work, out, *more), work / "cache", ranks)


def measured(work, out, *more, ranks=None):
    done = launch.succeed(calibrate(work, out, *more, ranks=ranks))
    return work / out / "results.h5", done


def stopped(work, out, n_shards, signal, *more):
    """Starts a run and stops it when so many shards are there."""
    process = launch.start(arguments(work, out, *more), work / "cache")
    launch.wait_for(lambda: len(run_folder.shards(work / out)) >= n_shards, process)
    process.send_signal(signal)
    process.communicate()


@functools.cache
def student_above(error, degrees):
    """t that Student's t exceeds with that probability: the density's integral over the angle whose tangent is
    t / sqrt(degrees), by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def integral(low, high):
        angles = low + (high - low) * (nodes + 1.0) / 2.0
        return (high - low) / 2.0 * float(weights @ np.cos(angles) ** (degrees - 1))

    whole = 2.0 * integral(0.0, math.pi / 2.0)
    low, high = 0.0, math.pi / 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if integral(middle, math.pi / 2.0) / whole > error else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def lower_bound(values, error):
    """Of the mean, as results/README.md has it ("Bounds"); a long limb below, which the values may lack, widens it."""
    n = len(values)
    spread = values.std(ddof=1)
    if (values == values[0]).all():
        return -math.inf
    skewness = n / ((n - 1) * (n - 2)) * (((values - values.mean()) / spread) ** 3).sum()
    return values.mean() - (1.0 + max(0.0, -skewness)) * student_above(error, n - 1) * spread / math.sqrt(n)


class Race:
    """One race as results/README.md has it: bounds of all pairs, the last layer costing nothing."""

    def __init__(self, n_layers, budgets, confidence, n_races):
        self.budgets, self.confidence, self.n_races = budgets, confidence, n_races
        self.n_layers = n_layers
        self.low = np.full((n_layers + 1, n_layers + 1), -math.inf)
        self.mean = np.zeros(n_layers)
        self.needs = np.ones(n_layers, bool)
        self.settled = [0] * len(budgets)
        self.looks = []  # (tolerance, exchanges, n_open)
        self.is_over = False

    def least_cost(self):
        return np.maximum(self.low[:-1, -1], 0.0).sum()

    def places(self, k):
        certain = self.low[:-1, :-1] > 0.0
        n_below, n_above = certain.sum(axis=1), certain.sum(axis=0)
        return np.where(n_below >= self.n_layers - k, 1, np.where(n_above >= k, -1, 0))

    def look(self, deltas, tolerance):
        """deltas: (examples, layers); tolerance: a function, as a share may be one of this look's bounds."""
        n = len(deltas)
        k = len(self.looks) + 1
        error = (1.0 - self.confidence) / (k * (k + 1))
        error /= self.n_races * (self.n_layers + 1) * self.n_layers
        seen = [*np.flatnonzero(self.needs), self.n_layers]
        with_zero = np.hstack([deltas, np.zeros((n, 1))])
        for a, b in itertools.permutations(seen, 2):
            bound = lower_bound(with_zero[:, a] - with_zero[:, b], error)
            self.low[a, b] = max(self.low[a, b], bound)
        self.mean[self.needs] = deltas[:, self.needs].mean(axis=0)
        order = sorted(range(self.n_layers), key=lambda layer: (-self.mean[layer], layer))
        limit = tolerance()
        exchanges, n_open = [], []
        needs = np.zeros(self.n_layers, bool)
        for index, budget in enumerate(self.budgets):
            is_open = self.places(budget) == 0
            kept = [layer for layer in order[:budget] if is_open[layer]]
            others = [layer for layer in order[budget:] if is_open[layer]]
            exchanges.append(max([0.0, *(-self.low[a, b] for a, b in itertools.product(kept, others))]))
            n_open.append(int(is_open.sum()))
            if exchanges[-1] > limit:
                needs |= is_open
                self.settled[index] = 0
            elif self.settled[index] == 0:
                self.settled[index] = n
        self.needs = needs
        self.looks.append((limit, exchanges, n_open))
        self.is_over = not needs.any() and all(exchange <= limit for exchange in exchanges)


def looks_of(n_examples):
    sizes = itertools.chain.from_iterable((16 << i, 24 << i) for i in itertools.count())
    for size in sizes:
        yield min(size, n_examples)
        if size >= n_examples:
            return


def raced(deltas, settings, budgets, confidence, tolerance=None):
    """Races of all settings over deltas (examples, layers, settings). tolerance: nats, or None for 1 % of the whole.
    Returns the races, the examples of each layer, and the looks."""
    n_layers = deltas.shape[1]
    races = [Race(n_layers, budgets, confidence, len(settings)) for _ in settings]
    windows = [s for s, (window, kind) in enumerate(settings) if window > 0 and kind == "bf16"]
    narrowest = min(windows, key=lambda s: settings[s][0])
    counts = np.zeros(n_layers, int)
    needs = np.ones(n_layers, bool)
    looks = []
    for n in looks_of(len(deltas)):
        counts[needs] = n
        looks.append(n)
        for s, race in enumerate(races):
            if race.is_over:
                continue
            whole = races[narrowest] if settings[s][0] == 0 else race
            race.look(
                deltas[:n, :, s], lambda whole=whole: 0.01 * whole.least_cost() if tolerance is None else tolerance
            )
        needs = np.any([race.needs for race in races], axis=0)
        if not needs.any():
            break
    return races, counts, looks
