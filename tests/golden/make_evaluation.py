#!/usr/bin/env python3
"""Makes evaluation.json: inputs and numpy's and scipy's figures for results/evaluation/ (evaluation.h, serving_cost.h).

    python tests/golden/make_evaluation.py

The bootstrap repeats the draws of base/random.h, so that intervals agree to rounding. Bands of scipy's own draws
stand beside them: make_statistics.py says what they are. Costs are counted from masks, row by row.
"""

import json
import pathlib

import numpy as np
import scipy
from make_statistics import N_OWN, N_RESAMPLES, RESAMPLE_STREAM, SEED, RandomStream, quantile_band
from scipy import stats

FORMAT, VERSION = "winnow-evaluation-golden", 1
LAYERS = {
    "full": [0, 1, 2, 3, 4, 5],
    "periodic:2@0": [0, 2, 4],
    "nll:2": [1, 4],
    "exact-match:2": [1, 3],
    "first:2": [0, 1],
    "windowed": [],
}
BASELINE = "periodic:2@0"


def make_tables(rng, n):
    damage = np.array([0.0, 0.6, 0.25, 0.1, 1.5, 4.0])
    nll = rng.gamma(2.0, 0.02, n) + damage[:, None] * rng.lognormal(0, 0.9, (len(damage), n))
    exact_match = (rng.random((len(damage), n)) < np.exp(-0.7 * nll)).astype(int)
    token_accuracy = np.round(np.exp(-0.3 * nll) * 32) / 32
    kl = nll * rng.random(nll.shape) * (damage[:, None] > 0)
    return {"nll": nll, "exact_match": exact_match, "token_accuracy": token_accuracy, "kl": kl}


def same_draws(tables, n):
    means = {name: np.empty((N_RESAMPLES, len(LAYERS))) for name in tables}
    for r in range(N_RESAMPLES):
        stream = RandomStream(SEED, RESAMPLE_STREAM, r)
        rows = [stream.below(n) for _ in range(n)]
        for name, table in tables.items():
            means[name][r] = table[:, rows].mean(axis=1)
    return means


def figures(mean, resampled):
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return {"mean": mean.tolist(), "ci_low": low.tolist(), "ci_high": high.tolist()}


def comparison(tables, means, reference):
    result = {
        name: figures(table.mean(axis=1) - table[reference].mean(), means[name] - means[name][:, [reference]])
        for name, table in tables.items()
        if name != "kl"
    }
    hits = tables["exact_match"].astype(bool)
    more, fewer = (hits & ~hits[reference]).sum(axis=1), (~hits & hits[reference]).sum(axis=1)
    result["mcnemar_p"] = [
        float(stats.binomtest(int(a), int(a + b), 0.5).pvalue) if a + b else 1.0
        for a, b in zip(more, fewer, strict=True)
    ]
    return result


def own_bands(table, reference, rng):
    """Bands of the interval of the paired difference of means, by scipy's bootstrap."""
    bands = []
    for p in range(len(table)):
        if p == reference:
            bands.append(None)
            continue
        sample = stats.bootstrap(
            (table[p], table[reference]),
            lambda x, y, axis: x.mean(axis) - y.mean(axis),
            paired=True,
            n_resamples=N_OWN,
            method="percentile",
            rng=rng,
        ).bootstrap_distribution
        bands.append({"ci_low": quantile_band(sample, 0.025), "ci_high": quantile_band(sample, 0.975)})
    return bands


def front(costs, quality):
    return [
        int(
            not any(
                c <= costs[p] and q >= quality[p] and (c < costs[p] or q > quality[p])
                for c, q in zip(costs, quality, strict=True)
            )
        )
        for p in range(len(costs))
    ]


def cost_case(model, window, n_full, n):
    """From the mask of every row: True where row t sees key j."""
    t, j = np.arange(n)[:, None], np.arange(n)[None, :]
    full = j <= t
    windowed = full & ((t - j < window["keys"]) | (j < window["sinks"]))
    if window["tail_rows"] >= 0:
        windowed = np.where(t >= n - window["tail_rows"], windowed, full)
    # The cache of the next token: what the last row sees, or all where answers decode with full attention.
    last = (t == n - 1) & full & ((t - j < window["keys"]) | (j < window["sinks"]))
    kept = n if window["decode_full"] else int(last.sum())
    n_windowed = model["layers"] - n_full
    q_dim, kv_dim = model["heads"] * model["head_dim"], model["kv_heads"] * model["head_dim"]
    per_row = sum(
        2 * rows * cols
        for rows, cols in [
            (model["hidden"], q_dim),
            (model["hidden"], kv_dim),
            (model["hidden"], kv_dim),
            (q_dim, model["hidden"]),
            (model["hidden"], model["ffn"]),
            (model["hidden"], model["ffn"]),
            (model["ffn"], model["hidden"]),
        ]
    )
    pairs = n_full * int(full.sum()) + n_windowed * int(windowed.sum())
    flop = n * model["layers"] * per_row + pairs * 2 * 2 * q_dim + 2 * model["hidden"] * model["vocab"]
    cache = (n_full * n + n_windowed * kept) * 2 * kv_dim * model["kv_element_bytes"]
    return {"window": window, "full": n_full, "tokens": n, "kv_cache_bytes": cache, "prefill_flop": flop}


def costs():
    model = {
        "layers": 6,
        "hidden": 48,
        "ffn": 100,
        "vocab": 77,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "kv_element_bytes": 2,
    }
    cases = []
    for keys, sinks, decode_full, tail in [
        (8, 0, False, -1),
        (8, 3, False, -1),
        (8, 3, True, -1),
        (9, 2, False, 0),
        (9, 2, False, 5),
        (9, 2, False, 200),
        (500, 4, False, -1),
    ]:
        window = {"keys": keys, "sinks": sinks, "decode_full": decode_full, "tail_rows": tail}
        cases += [cost_case(model, window, full, n) for full in (0, 2, 6) for n in (1, 9, 12, 100)]
    return {"model": model, "cases": cases}


def main():
    rng = np.random.default_rng(SEED)
    n = 40
    tables = make_tables(rng, n)
    means = same_draws(tables, n)
    names = list(LAYERS)
    cost = [len(layers) for layers in LAYERS.values()]
    golden = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "python tests/golden/make_evaluation.py",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "seed": SEED,
        "layers": 6,
        "pattern": names,
        "full_layers": list(LAYERS.values()),
        "baseline": BASELINE,
        "tables": {name: table.tolist() for name, table in tables.items()},
        "figures": {name: figures(table.mean(axis=1), means[name]) for name, table in tables.items()},
        "minus_full": comparison(tables, means, 0),
        "minus_baseline": comparison(tables, means, names.index(BASELINE)),
        "own_bands_nll_minus_full": own_bands(tables["nll"], 0, rng),
        "on_front_exact_match": front(cost, tables["exact_match"].mean(axis=1)),
        "on_front_nll": front(cost, -tables["nll"].mean(axis=1)),
        "mcnemar": [
            {"only_first": a, "only_second": b, "p": float(stats.binomtest(a, a + b, 0.5).pvalue) if a + b else 1.0}
            for a, b in [(0, 0), (1, 0), (0, 5), (3, 3), (4, 11), (30, 61), (0, 64), (500, 560), (3000, 2900)]
        ],
        "costs": costs(),
    }
    path = pathlib.Path(__file__).with_name("evaluation.json")
    path.write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
