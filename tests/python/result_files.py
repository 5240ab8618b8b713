"""Results as files, written with h5py alone: of any size, and damaged in the ways that users' files are."""

import h5py
import numpy as np

TEXT = h5py.string_dtype()


def _put(group, name, data, dims=(), units="1"):
    text = isinstance(data, (str, list))
    variable = group.create_dataset(name, data=data, dtype=TEXT if text else None)
    for axis, dim in enumerate(dims):
        variable.dims[axis].attach_scale(group[dim])
    variable.attrs["units"] = "text" if text else units
    variable.attrs["long_name"] = name.replace("_", " ")
    return variable


def _scale(group, name, values):
    group.create_dataset(name, data=values).make_scale(name)


def _set(group, delta, seed, ids):
    """/calibration or a control."""
    random = np.random.default_rng(seed)
    n, n_layers = delta.shape
    _scale(group, "layer", np.arange(n_layers))
    _scale(group, "example", np.zeros(n, "f4"))
    base = random.gamma(2, 0.3, n)
    _put(group, "example_id", list(ids), ["example"])
    _put(group, "source", ["books" if i % 3 else "code" for i in range(n)], ["example"])
    _put(group, "prompt_tokens", random.integers(16384, 32768, n), ["example"], "tokens")
    _put(group, "answer_tokens", random.integers(20, 400, n), ["example"], "tokens")
    _put(group, "nll_base", base, ["example"], "nats per token")
    _put(group, "delta_nll", delta, ["example", "layer"], "nats per token")
    _put(group, "exact_match_base", np.ones(n, "u1"), ["example"])


def _ranking(group, delta, budgets, seed):
    random = np.random.default_rng(seed)
    n, n_layers = delta.shape
    _scale(group, "layer", np.arange(n_layers))
    _scale(group, "budget", np.array(budgets))
    group.attrs["top_k"], group.attrs["seed"] = np.int64(max(1, n_layers // 4)), np.int64(0)
    means = delta.mean(0)
    rank = np.empty(n_layers, int)
    rank[np.argsort(-means, kind="stable")] = np.arange(1, n_layers + 1)
    drawn = np.array([delta[random.integers(0, n, n)].mean(0) for _ in range(100)])
    ranks = np.argsort(np.argsort(-drawn, axis=1), axis=1) + 1
    has_spread = n > 1
    figures = {"mean_delta_nll": means, "median_delta_nll": np.median(delta, 0), "rank": rank,
               "standard_error": delta.std(0) / np.sqrt(n), "exact_match_drop": (delta > 1).mean(0),
               "token_accuracy_drop": np.clip(delta, 0, 1).mean(0)}
    for end, percent in (("low", 2.5), ("high", 97.5)):
        figures["ci_" + end] = np.percentile(drawn, percent, 0)
        figures["rank_" + end] = np.percentile(ranks, percent, 0).round()
    figures["p_top_k"] = np.array([(ranks <= k).mean(0) for k in budgets])
    for name, values in figures.items():
        if not has_spread and name.startswith(("ci_", "rank_", "p_", "standard")):
            values = np.full_like(values, np.nan)
        variable = _put(group, name, values, ["budget", "layer"] if name == "p_top_k" else ["layer"])
        if np.isnan(values).any():
            variable.attrs["status"] = "one example has no spread"


def write(path, n=16, n_layers=12, seed=0, ids=None, window=2048, model="/models/Made-Up-4B"):
    """A result of n examples; layers differ in effect by powers of ten. Returns its deltas."""
    random = np.random.default_rng(seed)
    effect = random.permutation(np.sort(random.exponential(0.3, n_layers)**3)[::-1])
    delta = effect * random.gamma(2, 0.5, (n, n_layers)) + random.normal(0, 0.02, (n, n_layers))
    budgets = sorted({max(1, n_layers // 8), max(1, n_layers // 4), max(1, n_layers // 2)})
    ids = ids or [f"example-{i:04d}" for i in range(n)]
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-results", np.int64(1)
        _set(file.create_group("calibration"), delta, seed, ids)
        _set(file.create_group("control/short"), 0.01 * effect + random.normal(0, 0.01, delta.shape), seed, ids)
        _ranking(file.create_group("ranking"), delta, budgets, seed)
        figures = {"spearman_rho": 0.25, "spearman_ci_low": 0.1, "spearman_ci_high": 0.4, "spearman_p": 0.03,
                   "overlap": 1.0, "jaccard": 0.2, "magnitude_ratio": 85.0, "top_k": np.int64(max(1, n_layers // 4)),
                   "n_paired": np.int64(n)}
        for name, value in figures.items():
            _put(file.require_group("deconfounding/short"), name, value)
        facts = {"model": model, "data": "/data/long.h5", "decode": "windowed", "base": "full", "winnow_version": "0.1.0",
                 "warnings": "", "window": np.int64(window), "window_keys": np.int64(window), "sinks": np.int64(4),
                 "model_layers": np.int64(n_layers)}
        for name, value in facts.items():
            _put(file.require_group("provenance"), name, value)
    return delta


def run_all_kinds(directory, launch, tiny):
    """Runs winnow on a tiny model: directory/{calibration,evaluation,search}, with all that each can measure."""
    tiny.write_checkpoint(directory / "model", layers=5, seed=8)
    tiny.write_calibration(directory / "long.h5", [60, 50, 70, 40, 64, 48, 52, 66])
    shared = ["--model", directory / "model", "--data", directory / "long.h5", "--window", 8]

    def winnow(verb, out, *more):
        done = launch.run([verb, *shared, "--out", directory / out, *more], directory / "cache")
        assert done.returncode == 0, done.stderr

    winnow("calibrate", "calibration", "--per-token", "--signals", "all", "--lazy-recent", 8, "--lazy-last", 8)
    patterns = [word for name in ("full", "windowed", "periodic:2@0", "list:1,3") for word in ("--pattern", name)]
    winnow("evaluate", "evaluation", *patterns, "--baseline", "windowed", "--generate", 3)
    for method in (["greedy-forward", "--verify", 3, "--verify-examples", 4], ["greedy-backward"], ["pairs"]):
        winnow("search", "search", "--tail-rows", 4, "--keep", 2, "--method", *method)
