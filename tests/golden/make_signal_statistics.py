#!/usr/bin/env python3
"""Makes signal_statistics.json: signals of layers and scipy's figures for results/calibration/signals.h.

Needs numpy and scipy.

    python tests/golden/make_signal_statistics.py

The draws of base/random.h are repeated here, so the C++ figures must agree to rounding. Partial rhos are the
correlation of what is left of two columns of ranks after least squares on a third, not the formula that the C++ code
has.
"""

import json
import pathlib

import numpy as np
import scipy
from make_statistics import (
    N_RESAMPLES,
    N_SPLITS,
    RESAMPLE_STREAM,
    SEED,
    SPLIT_STREAM,
    RandomStream,
    delta_of,
    drop_of,
    make_set,
)
from scipy import stats

FORMAT, VERSION = "winnow-signal-statistics-golden", 1
N_EXAMPLES, TOP_K = 20, 3
LAYER_MEANS = np.array([0.02, 1.4, 0.05, 0.3, 0.9, 0.31, 0.0, 0.1, 0.6, 0.15])
TOO_SHORT = [3, 11]  # examples without a lazy ratio


def make_signals(rng, delta):
    n, n_layers = delta.shape
    noise = [rng.lognormal(0, 1.0, (n, n_layers)) for _ in range(4)]
    kl = np.abs(delta) * noise[0] + 0.01 * noise[1]
    removed = 0.5 * np.sqrt(np.abs(delta)) + 0.3 * noise[2] * np.linspace(1, 2, n_layers)
    mass = np.clip(0.05 * noise[3] * (1 + 3 * LAYER_MEANS), 0, 0.9)
    lazy = np.clip(1 - mass * rng.uniform(0.5, 1.5, (n, n_layers)), 0, 1)
    lazy[TOO_SHORT] = np.nan
    return kl, removed, mass, lazy


def means_of(signals, rows):
    return [np.nanmean(values[rows], axis=0) for values in signals.values()]


def rhos_of(means):
    return stats.spearmanr(np.array(means), axis=1).statistic


def partial_rho(x, y, z):
    ranks = [stats.rankdata(column) for column in (x, y, z)]
    regressors = np.column_stack([ranks[2], np.ones(len(z))])
    left = [column - regressors @ np.linalg.lstsq(regressors, column, rcond=None)[0] for column in ranks[:2]]
    return float(np.corrcoef(*left)[0, 1])


def interval(values):
    return np.quantile(values, [0.025, 0.975], axis=0).tolist()


def bootstrap(signals):
    names = list(signals)
    generic = names.index("sensitivity")
    rhos, partials = [], []
    for r in range(N_RESAMPLES):
        stream = RandomStream(SEED, RESAMPLE_STREAM, r)
        means = means_of(signals, [stream.below(N_EXAMPLES) for _ in range(N_EXAMPLES)])
        rhos.append(rhos_of(means))
        partials.append([partial_rho(means[0], means[drop], means[generic]) for drop in (1, 2)])
    return interval(rhos), interval(partials)


def top(means):
    return np.argsort(-means, kind="stable")[:TOP_K]


def transfer(signals):
    shares, overlaps = [], []
    for split in range(N_SPLITS):
        order = list(range(N_EXAMPLES))
        RandomStream(SEED, SPLIT_STREAM, split).shuffle(order)
        seen, unseen = order[: N_EXAMPLES // 2], order[N_EXAMPLES // 2 :]
        judge = signals["nll"][unseen].mean(axis=0)
        chosen = [top(means) for means in means_of(signals, seen)]
        again = [top(means) for means in means_of(signals, unseen)]
        shares.append([judge[layers].sum() / judge[top(judge)].sum() for layers in chosen])
        overlaps.append([len(set(a) & set(b)) / TOP_K for a, b in zip(chosen, again, strict=True)])
    low, high = interval(shares)
    return {
        "share": np.mean(shares, axis=0).tolist(),
        "low": low,
        "high": high,
        "overlap": np.mean(overlaps, axis=0).tolist(),
    }


def main():
    rng = np.random.default_rng(SEED + 1)
    data = make_set(rng, [f"example-{i:02d}" for i in range(N_EXAMPLES)], 1.0, LAYER_MEANS)
    delta = delta_of(data)
    kl, removed, mass, lazy = make_signals(rng, delta)
    signals = {
        "nll": delta,
        "exact-match": drop_of(data, "exact_match"),
        "token-accuracy": drop_of(data, "token_accuracy"),
        "kl": kl,
        "sensitivity": removed,
        "mass": mass,
        "lazy": 1 - lazy,
    }
    means = means_of(signals, list(range(N_EXAMPLES)))
    rho_interval, partial_interval = bootstrap(signals)
    nll_removed = np.array(data["nll_base"])[:, None] + removed
    golden = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "python tests/golden/make_signal_statistics.py",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "seed": SEED,
        "top_k": TOP_K,
        "calibration": data,
        "kl": kl.tolist(),
        "nll_removed": nll_removed.tolist(),
        "mass": mass.tolist(),
        "lazy": [None if e in TOO_SHORT else row for e, row in enumerate(lazy.tolist())],
        "signal": list(signals),
        "value": [values.tolist() for values in means],
        "rho": rhos_of(means).tolist(),
        "rho_ci_low": rho_interval[0],
        "rho_ci_high": rho_interval[1],
        "partial": [partial_rho(means[0], means[drop], means[list(signals).index("sensitivity")]) for drop in (1, 2)],
        "partial_ci_low": partial_interval[0],
        "partial_ci_high": partial_interval[1],
        "transfer": transfer(signals),
    }
    path = pathlib.Path(__file__).with_name("signal_statistics.json")
    path.write_text(json.dumps(golden, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
