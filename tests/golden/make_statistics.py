#!/usr/bin/env python3
"""Makes statistics.json: inputs and scipy's figures for results/calibration/statistics.h. Needs numpy and scipy.

    python tests/golden/make_statistics.py

Figures that depend on random draws are of two kinds. "Same draws": the draws of base/random.h are repeated here, so
the C++ figure must agree to rounding. "Own draws": scipy draws many more than the C++ code does, and the file holds the
band in which a Monte-Carlo figure of the C++ code's size must lie: SIGMAS standard errors, for a quantile q taken on
the distribution at q +- SIGMAS * sqrt(q (1 - q) (1 / n_cpp + 1 / n_scipy)).
"""

import json
import math
import pathlib

import numpy as np
import scipy
from scipy import stats

FORMAT, VERSION = "winnow-statistics-golden", 1
SIGMAS = 4.5  # 36 banded figures, 7e-6 each: one false alarm in 4,000 remakes
N_RESAMPLES, N_PERMUTATIONS, N_SPLITS = 10000, 10000, 1000  # of the C++ code
N_OWN = 20000
MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
RESAMPLE_STREAM, PERMUTATION_STREAM, SPLIT_STREAM = 1, 3, 4
SEED = 20260727


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class RandomStream:
    """base/random.h, word for word."""

    def __init__(self, seed, stream, index):
        self.state = 0
        for key in (seed, stream, index):
            self.state = mix((self.state + key + GAMMA) & MASK)

    def next(self):
        self.state = (self.state + GAMMA) & MASK
        return mix(self.state)

    def below(self, n):
        n_bits = (n - 1).bit_length()
        if n_bits == 0:
            return 0
        while True:
            value = self.next() >> (64 - n_bits)
            if value < n:
                return value

    def shuffle(self, values):
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]


def quantile_band(sample, q):
    """Where the quantile of N_RESAMPLES draws lies, given a large sample of the same distribution."""
    return band_of_size(sample, q, N_RESAMPLES)


def band_of_size(sample, q, n):
    width = SIGMAS * math.sqrt(q * (1 - q) * (1 / n + 1 / len(sample)))
    low, high = np.quantile(sample, [max(0, q - width), min(1, q + width)])
    return [low, high]


def share_tolerance(p, n_cpp, n_own):
    return SIGMAS * math.sqrt(max(p * (1 - p), 1 / n_own) * (1 / n_cpp + 1 / n_own)) + 1 / n_cpp


def spearman_cases(rng):
    pairs = [
        ([1.0, 2.0], [5.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 2.0]),
        ([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]),
        (list(range(36)), [float(i // 5) for i in range(36)]),
    ]
    for n in (5, 7, 12, 36):
        pairs.append((rng.normal(size=n), rng.normal(size=n)))
        pairs.append((rng.integers(0, 4, n), rng.integers(0, 3, n)))
        x = rng.normal(size=n)
        pairs.append((x, x + rng.normal(size=n)))
    return [
        {"x": [float(v) for v in x], "y": [float(v) for v in y], "rho": float(stats.spearmanr(x, y).statistic)}
        for x, y in pairs
    ]


def permutation_cases(cases, rng):
    """Exact p by all n! orders up to n = 7, else by scipy's random orders; statistic |rho|, ours too."""
    result = []
    for case in cases:
        x, y = np.array(case["x"]), np.array(case["y"])
        exact = len(x) <= 7
        rank_x, rank_y = stats.rankdata(x), stats.rankdata(y)
        scale = np.std(rank_x) * np.std(rank_y) * len(x)

        def magnitude(a, axis, rank_y=rank_y, scale=scale):
            return np.abs(np.sum((a - a.mean(axis=axis, keepdims=True)) * (rank_y - rank_y.mean()), axis=axis)) / scale

        test = stats.permutation_test(
            (rank_x,),
            magnitude,
            permutation_type="pairings",
            vectorized=True,
            alternative="greater",
            n_resamples=np.inf if exact else 100000,
            rng=rng,
        )
        n_own = 10**9 if exact else 100000
        result.append(
            {
                "x": case["x"],
                "y": case["y"],
                "p": float(test.pvalue),
                "exact": exact,
                "tolerance": share_tolerance(float(test.pvalue), N_PERMUTATIONS, n_own),
            }
        )
    return result


def make_set(rng, ids, scale, layer_means):
    n, n_layers = len(ids), len(layer_means)
    nll_base = rng.gamma(2.0, 0.4, n)
    delta = scale * layer_means * rng.lognormal(0, 0.8, (n, n_layers)) + scale * 0.05 * rng.normal(size=(n, n_layers))
    exact_match_base = (rng.random(n) < 0.9).astype(int)
    exact_match = exact_match_base[:, None] * (rng.random((n, n_layers)) < np.exp(-delta.clip(0)))
    token_accuracy_base = np.round(rng.random(n) * 16 + 16) / 32
    token_accuracy = np.round(token_accuracy_base[:, None] * np.exp(-0.5 * delta.clip(0)) * 32) / 32
    return {
        "example_id": ids,
        "nll_base": nll_base.tolist(),
        "nll": (nll_base[:, None] + delta).tolist(),
        "exact_match_base": exact_match_base.tolist(),
        "exact_match": exact_match.tolist(),
        "token_accuracy_base": token_accuracy_base.tolist(),
        "token_accuracy": token_accuracy.tolist(),
    }


def delta_of(data):
    return np.array(data["nll"]) - np.array(data["nll_base"])[:, None]


def drop_of(data, name):
    return np.array(data[name + "_base"], dtype=float)[:, None] - np.array(data[name], dtype=float)


def ranks_of(mean):
    """Rank 1 = largest, ties by index, along the last axis."""
    order = np.argsort(-mean, axis=-1, kind="stable")
    return np.argsort(order, axis=-1, kind="stable") + 1


def same_draws(delta):
    n = len(delta)
    means = np.empty((N_RESAMPLES, delta.shape[1]))
    for r in range(N_RESAMPLES):
        stream = RandomStream(SEED, RESAMPLE_STREAM, r)
        means[r] = delta[[stream.below(n) for _ in range(n)]].mean(axis=0)
    ranks = ranks_of(means)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    rank_low, rank_high = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
    n_layers = delta.shape[1]
    budget = sorted({max(1, n_layers // 8), max(1, n_layers // 4), max(1, n_layers // 2)})
    return {
        "ci_low": low.tolist(),
        "ci_high": high.tolist(),
        "rank_low": rank_low.tolist(),
        "rank_high": rank_high.tolist(),
        "budget": budget,
        "p_top_k": [(ranks <= k).mean(axis=0).tolist() for k in budget],
    }


def own_draws(delta, rng):
    bands = {"ci_low": [], "ci_high": []}
    for column in delta.T:
        sample = stats.bootstrap(
            (column,), np.mean, n_resamples=N_OWN, method="percentile", rng=rng
        ).bootstrap_distribution
        bands["ci_low"].append(quantile_band(sample, 0.025))
        bands["ci_high"].append(quantile_band(sample, 0.975))
    return bands


def rho_of_rows(x, y):
    def rho(rows, other_rows=None):
        return stats.spearmanr(x[rows].mean(axis=0), y[rows if other_rows is None else other_rows].mean(axis=0))[0]

    return rho


def rho_band(x, y, paired, rng):
    """Spearman between column means, examples resampled by scipy.stats.bootstrap."""
    rows = (np.arange(len(x)),) if paired else (np.arange(len(x)), np.arange(len(y)))
    sample = stats.bootstrap(
        rows, rho_of_rows(x, y), vectorized=False, n_resamples=N_OWN, method="percentile", rng=rng
    ).bootstrap_distribution
    assert np.isfinite(sample).all()
    return {
        "rho": float(stats.spearmanr(x.mean(axis=0), y.mean(axis=0))[0]),
        "ci_low": quantile_band(sample, 0.025),
        "ci_high": quantile_band(sample, 0.975),
    }


def split_half(delta, rng):
    half = len(delta) // 2
    rhos = []
    for _ in range(N_OWN):
        order = rng.permutation(len(delta))
        rhos.append(stats.spearmanr(delta[order[:half]].mean(axis=0), delta[order[half : 2 * half]].mean(axis=0))[0])
    rhos = np.array(rhos)
    return {
        "mean_rho": float(rhos.mean()),
        "tolerance": SIGMAS * float(rhos.std()) * math.sqrt(1 / N_SPLITS + 1 / N_OWN),
        "rho_low": band_of_size(rhos, 0.025, N_SPLITS),
        "rho_high": band_of_size(rhos, 0.975, N_SPLITS),
    }


def deconfounding(long_delta, short_delta, paired, rng):
    long_mean, short_mean = long_delta.mean(axis=0), short_delta.mean(axis=0)
    k = max(1, len(long_mean) // 4)
    top, control_top = ({int(i) for i in np.argsort(-m, kind="stable")[:k]} for m in (long_mean, short_mean))
    result = rho_band(long_delta, short_delta, paired, rng)
    result.update(
        top_k=k,
        overlap=len(top & control_top),
        jaccard=len(top & control_top) / len(top | control_top),
        magnitude_ratio=float(np.abs(long_mean).mean() / np.abs(short_mean).mean()),
    )
    return result


def random_stream_figures():
    stream = RandomStream(SEED, PERMUTATION_STREAM, 5)
    words = [str(stream.next()) for _ in range(4)]
    draws = [stream.below(n) for n in (1, 2, 3, 7, 24, 64, 1000, 10**12)]
    values = list(range(9))
    stream.shuffle(values)
    return {
        "seed": SEED,
        "stream": PERMUTATION_STREAM,
        "index": 5,
        "words": words,
        "below": [1, 2, 3, 7, 24, 64, 1000, 10**12],
        "draws": draws,
        "shuffled": values,
    }


def main():
    rng = np.random.default_rng(SEED)
    layer_means = np.array([0.02, 1.4, 0.05, 0.3, 0.9, 0.31, 0.0, 0.1])
    ids = [f"example-{i:02d}" for i in range(24)]
    calibration = make_set(rng, ids, 1.0, layer_means)
    same_ids = make_set(rng, ids, 0.02, layer_means[[0, 3, 2, 1, 4, 5, 7, 6]])
    other_ids = make_set(rng, [f"short-{i:02d}" for i in range(15)], 0.02, layer_means[::-1])
    delta = delta_of(calibration)
    cases = spearman_cases(rng)
    sample = np.sort(np.round(rng.normal(size=37), 2))
    golden = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "python tests/golden/make_statistics.py",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "seed": SEED,
        "random": random_stream_figures(),
        "spearman": cases,
        "permutation": permutation_cases([c for c in cases if len(c["x"]) in (5, 7, 12)], rng),
        "quantiles": {
            "sorted": sample.tolist(),
            "q": [0, 0.025, 0.3, 0.5, 0.975, 1],
            "linear": np.quantile(sample, [0, 0.025, 0.3, 0.5, 0.975, 1]).tolist(),
            "step": np.quantile(sample, [0, 0.025, 0.3, 0.5, 0.975, 1], method="inverted_cdf").tolist(),
        },
        "calibration": calibration,
        "control_same_ids": same_ids,
        "control_other_ids": other_ids,
        "ranking": {
            "mean": delta.mean(axis=0).tolist(),
            "median": np.median(delta, axis=0).tolist(),
            "standard_error": stats.sem(delta, axis=0).tolist(),
            "rank": ranks_of(delta.mean(axis=0)).tolist(),
            "exact_match_drop": drop_of(calibration, "exact_match").mean(axis=0).tolist(),
            "token_accuracy_drop": drop_of(calibration, "token_accuracy").mean(axis=0).tolist(),
            "same_draws": same_draws(delta),
            "own_draws": own_draws(delta, rng),
        },
        "same_ids": deconfounding(delta, delta_of(same_ids), True, rng),
        "other_ids": deconfounding(delta, delta_of(other_ids), False, rng),
        "rho_exact_match": rho_band(delta, drop_of(calibration, "exact_match"), True, rng),
        "rho_token_accuracy": rho_band(delta, drop_of(calibration, "token_accuracy"), True, rng),
        "split_half": split_half(delta, rng),
    }
    path = pathlib.Path(__file__).with_name("statistics.json")
    path.write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
