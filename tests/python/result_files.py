"""Results as files, written with h5py alone: of any size, and damaged in the ways that users' files are."""

import hashlib
import pathlib

import h5py
import numpy as np

TEXT = h5py.string_dtype()


def seal(path):
    """Gives a file the checksum that winnow's own have. The last thing to do: h5py takes it away again."""
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content + b"\nwinnow sha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n")


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
    figures = {
        "mean_delta_nll": means,
        "median_delta_nll": np.median(delta, 0),
        "rank": rank,
        "standard_error": delta.std(0) / np.sqrt(n),
        "exact_match_drop": (delta > 1).mean(0),
        "token_accuracy_drop": np.clip(delta, 0, 1).mean(0),
    }
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
    effect = random.permutation(np.sort(random.exponential(0.3, n_layers) ** 3)[::-1])
    delta = effect * random.gamma(2, 0.5, (n, n_layers)) + random.normal(0, 0.02, (n, n_layers))
    budgets = sorted({max(1, n_layers // 8), max(1, n_layers // 4), max(1, n_layers // 2)})
    ids = ids or [f"example-{i:04d}" for i in range(n)]
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-results", np.int64(1)
        _set(file.create_group("calibration"), delta, seed, ids)
        _set(file.create_group("control/short"), 0.01 * effect + random.normal(0, 0.01, delta.shape), seed, ids)
        _ranking(file.create_group("ranking"), delta, budgets, seed)
        figures = {
            "spearman_rho": 0.25,
            "spearman_ci_low": 0.1,
            "spearman_ci_high": 0.4,
            "spearman_p": 0.03,
            "overlap": 1.0,
            "jaccard": 0.2,
            "magnitude_ratio": 85.0,
            "top_k": np.int64(max(1, n_layers // 4)),
            "n_paired": np.int64(n),
        }
        for name, value in figures.items():
            _put(file.require_group("deconfounding/short"), name, value)
        facts = {
            "model": model,
            "data": "/data/long.h5",
            "decode": "windowed",
            "base": "full",
            "winnow_version": "0.1.0",
            "warnings": "",
            "window": np.int64(window),
            "window_keys": np.int64(window),
            "sinks": np.int64(4),
            "model_layers": np.int64(n_layers),
        }
        for name, value in facts.items():
            _put(file.require_group("provenance"), name, value)
    return delta


def add_tokens(path, n_tokens, data):
    """NLL of each answer token, as --per-token keeps it; data: path of the calibration file."""
    with h5py.File(path, "a") as file:
        group = file["calibration"]
        delta = group["delta_nll"][:]
        _scale(group, "answer_token", np.zeros(n_tokens, "f4"))
        base = np.ones((len(delta), n_tokens), "f4")
        _put(group, "token_nll_base", base, ["example", "answer_token"], "nats")
        _put(
            group,
            "token_nll",
            base[:, None, :] + delta[:, :, None].astype("f4"),
            ["example", "layer", "answer_token"],
            "nats",
        )
        del file["provenance/data"]
        _put(file["provenance"], "data", data)
        _put(file["provenance"], "data_sha256", hashlib.sha256(pathlib.Path(data).read_bytes()).hexdigest())


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


SIGNALS = ["nll", "exact-match", "token-accuracy", "kl", "sensitivity", "mass", "lazy"]


def _ends(group, stem, values, dims, width=0.1, units="1"):
    """`stem`_ci_low and `stem`_ci_high around the values."""
    for end, sign in (("low", -1), ("high", 1)):
        _put(group, f"{stem}_ci_{end}", np.asarray(values) + sign * width, dims, units)


def _names(group, name, words):
    group.create_dataset(name, data=list(words), dtype=TEXT).make_scale(name)


def add_signals(path, seed=0):
    """/signals as a run with all signals has it."""
    random = np.random.default_rng(seed)
    with h5py.File(path, "a") as file:
        means = file["ranking/mean_delta_nll"][:]
        n, n_layers = len(SIGNALS), len(means)
        group = file.create_group("signals")
        _names(group, "signal", SIGNALS)
        _names(group, "signal_other", SIGNALS)
        _scale(group, "layer", np.arange(n_layers))
        value = means * np.linspace(1, 0.2, n)[:, None] + random.normal(0, 0.1, (n, n_layers)) * np.arange(n)[:, None]
        rho = np.clip(1 - 0.2 * np.abs(np.subtract.outer(np.arange(n), np.arange(n))), -1, 1)
        _put(group, "value", value, ["signal", "layer"])
        _put(group, "spearman_rho", rho, ["signal", "signal_other"])
        _ends(group, "spearman", rho, ["signal", "signal_other"])
        for name, rho in (("partial_rho_exact_match", 0.6), ("partial_rho_accuracy", 0.05)):
            _put(group, name, rho)
            _ends(group, name, rho, [])
        _put(group, "top_k", np.int64(max(1, n_layers // 4)))
        transfer = np.linspace(0.98, 0.1, n)
        _put(group, "transfer", transfer, ["signal"])
        _put(group, "transfer_low", transfer - 0.2, ["signal"])
        _put(group, "transfer_high", transfer + 0.01, ["signal"])
        _put(group, "transfer_overlap", transfer / 2, ["signal"])


def _facts(file, n_layers, **more):
    facts = {
        "model": "/models/Made-Up-4B",
        "data": "/data/test.h5",
        "decode": "windowed",
        "base": "full",
        "winnow_version": "0.1.0",
        "warnings": "",
        "window": np.int64(2048),
        "window_keys": np.int64(2048),
        "sinks": np.int64(4),
        "tail_rows": np.int64(-1),
        "model_layers": np.int64(n_layers),
    } | more
    for name, value in facts.items():
        _put(file.require_group("provenance"), name, value)


def write_evaluation(path, patterns=None, n=40, n_layers=12, generate=True, seed=0, has_losses=True):
    """An evaluation. patterns: {name: (layers with full attention, share of exact matches)}."""
    random = np.random.default_rng(seed)
    every = list(range(n_layers))
    patterns = patterns or {
        "full": (every, 1.0),
        "windowed": ([], 0.0),
        "periodic:4@0": (every[::4], 0.3),
        "list:1,4,5": ([1, 4, 5], 0.8),
        "nll:6": (every[:6], 0.85),
    }
    n_patterns = len(patterns)
    share = np.array([one for _, one in patterns.values()])
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-results", np.int64(1)
        _facts(file, n_layers)
        group = file.create_group("evaluation")
        group.attrs["baseline"] = "periodic:4@0" if "periodic:4@0" in patterns else ""
        for name, value in {"seed": 0, "window_keys": 2048, "tail_rows": -1, "max_new_tokens": 32}.items():
            group.attrs[name] = np.int64(value)
        _names(group, "pattern", patterns)
        _scale(group, "layer", np.arange(n_layers))
        _scale(group, "kv_length", np.array([8192, 1048576]))
        _scale(group, "example", np.zeros(n, "f4"))
        full = np.array([[layer in kept for layer in every] for kept, _ in patterns.values()], "u1")
        _put(group, "full_attention", full, ["pattern", "layer"])
        _put(group, "full_layers", full.sum(1).astype("i8"), ["pattern"])
        _put(group, "example_id", [f"held-out-{i}" for i in range(n)], ["example"])
        _put(group, "prompt_tokens", random.integers(1000, 2000, n), ["example"], "tokens")
        tables = {
            "exact_match": (random.random((n_patterns, n)) < share[:, None]).astype("u1"),
            "nll": random.random((n_patterns, n)) * 0.1 + 2 * (1 - share[:, None]),
            "token_accuracy": np.clip(share[:, None] + random.random((n_patterns, n)) * 0.1, 0, 1),
        }
        if generate:
            tables["generated_exact_match"] = (random.random((n_patterns, n)) < share[:, None]).astype("u1")
            _put(
                group,
                "generated_cache_bytes",
                np.full((n_patterns, n), 4096) * (1 + full.sum(1))[:, None],
                ["pattern", "example"],
            )
            _put(group, "decode_rate", 100.0 + np.arange(n_patterns), ["pattern"])
        for name, table in tables.items():
            mean = table.mean(1)
            _put(group, name, table, ["pattern", "example"])
            _put(group, f"mean_{name}", mean, ["pattern"])
            _ends(group, name, mean, ["pattern"], 0.05)
            for other in ["full", "baseline"] if name != "generated_exact_match" and group.attrs["baseline"] else []:
                at = list(patterns).index("full" if other == "full" else group.attrs["baseline"])
                _put(group, f"{name}_minus_{other}", mean - mean[at], ["pattern"])
                _ends(group, f"{name}_minus_{other}", mean - mean[at], ["pattern"], 0.05)
        for other in ("full", "baseline"):
            _put(group, f"mcnemar_p_{other}", np.linspace(1, 0.001, n_patterns), ["pattern"])
        rows = full.sum(1)[:, None] * group["kv_length"][:] + (n_layers - full.sum(1))[:, None] * 2052.0
        _put(group, "kv_cache_bytes", rows * 1024, ["pattern", "kv_length"], "bytes")
        _put(group, "prefill_flop", rows * 1e6, ["pattern", "kv_length"], "flop")
        for name in ("exact_match", "nll"):
            _put(group, f"on_front_{name}", (np.arange(n_patterns) % 2).astype("u1"), ["pattern"])
        if has_losses:
            _losses(group, 1 - tables["exact_match"].mean(1))


def add_settings(path, windows, types):
    """Windows, 0: all, and types of keys and values of an evaluation: (pattern, layer)."""
    with h5py.File(path, "a") as file:
        group = file["evaluation"]
        _put(group, "layer_window_keys", np.asarray(windows, "i8"), ["pattern", "layer"], "tokens")
        kinds = group.create_dataset("layer_kv", data=np.asarray(types, object), dtype=TEXT)
        for axis, dim in enumerate(("pattern", "layer")):
            kinds.dims[axis].attach_scale(group[dim])


def _losses(group, loss):
    """What is lost by exact match: up to 0.25 is within the margin, from 0.5 beyond it."""
    words = {"leading_figure": "exact_match", "margin_figure": "exact_match", "cheapest_within_margin": ""}
    words |= {"leading_sentence": "Exact match leads <here>.", "answer": "The answer of the <file>."}
    for name, value in words.items():
        group.attrs[name] = value
    _put(group, "margin", 0.3)
    for name, ends in (("lower", loss - 0.1), ("upper", loss + 0.1)):
        _put(group, f"exact_match_loss_{name}", ends, ["pattern"])
    verdicts = np.where(loss < 0.25, "within", np.where(loss > 0.5, "beyond", "open"))
    _put(group, "verdict", verdicts.tolist(), ["pattern"])
    _put(group, "examples_needed", np.where(loss < 0.3, 99.0, np.nan), ["pattern"])


def write_search(path, n_layers=12, n=20, seed=0, methods=("greedy-forward", "pairs")):
    """A search of greedy methods, verified, and of pairs."""
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-results", np.int64(1)
        _facts(file, n_layers, tail_rows=np.int64(32), data="/data/long.h5")
        for method in methods:
            group = file.create_group(f"selection/{method}")
            _scale(group, "layer", np.arange(n_layers))
            _scale(group, "example", np.zeros(n, "f4"))
            _put(group, "example_id", [f"e{i}" for i in range(n)], ["example"])
            for name, value in (
                ("objective", "exact-match"),
                ("predicted_seconds_exact", 60.0),
                ("search_seconds", 9.5),
            ):
                _put(group, name, value)
            (_pairs if method == "pairs" else _greedy)(group, n_layers, n, random)


def _greedy(group, n_layers, n, random):
    keep = np.arange(max(2, n_layers // 2))
    added = random.permutation(n_layers)[: len(keep)]
    full = np.array([[layer in added[:k] for layer in range(n_layers)] for k in keep], "u1")
    tables = {
        "nll": random.random((2 * len(keep), n)),
        "exact_match": (random.random((2 * len(keep), n)) < 0.7).astype("f8"),
    }
    _scale(group, "keep", keep)
    _names(group, "pattern", [f"list:{i}" for i in range(2 * len(keep))])
    _put(group, "full", full, ["keep", "layer"])
    _put(group, "pattern_keep", np.repeat(keep, 2), ["pattern"])
    _put(group, "beam", np.int64(1))
    for name, table in tables.items():
        exact = table * 0.9
        exact[1::2] = np.nan
        for suffix, values in (("", table), ("_verified", exact)):
            variable = _put(group, name + suffix, values, ["pattern", "example"])
            if suffix:
                variable.attrs["status"] = "not measured with every row under the window"
            _put(group, f"mean_{name}{suffix}", values[::2].mean(1), ["keep"])
        _put(group, f"rho_{name}", 0.9)
        _ends(group, f"rho_{name}", 0.9, [], 0.05)
    _put(group, "n_verified", np.int64(len(keep)))
    _put(group, "wins_kept", 0.75)


def _pairs(group, n_layers, n, random):
    candidates = np.arange(min(4, n_layers))
    _scale(group, "candidate", candidates)
    _scale(group, "other_candidate", candidates)
    dims, shape = ["candidate", "other_candidate"], (len(candidates), len(candidates))
    table = np.where(np.eye(len(candidates)), 0, random.normal(0, 1, shape))
    table = table + table.T
    _put(group, "delta_nll", random.random(n_layers), ["layer"])
    _put(group, "delta_nll_pair", table + 1, dims)
    _put(group, "interaction_nll", table, dims)
    _ends(group, "interaction_nll", table, dims, 0.5)
    _put(group, "interaction_exact_match", table / 10, dims)


PLAN_FULL_BYTES = 12 * 1024 * 256
PLAN_WINDOWS = {
    "25%": [64, 1024, 64, None, *([64] * 8)],
    "50%": [64, 1024, 64, None, None, *([1024] * 3), *([64] * 4)],
    "100%": [None] * 12,
}
PLAN_TYPES = {
    "25%": ["fp8", "int8", "int4", *(["bf16"] * 9)],
    "50%": ["bf16", *(["fp8"] * 11)],
    "100%": None,
}


def plans(has_types=False):
    """As winnow plan --json prints them: of the ideal engine, of one that pads, of one that has one window."""
    found = []
    for i, (budget, windows) in enumerate(PLAN_WINDOWS.items()):
        used = sum(256 * (keys or 1024) for keys in windows)
        found.append(
            {
                "budget": budget,
                "budget_bytes": used + 10,
                "engine": "ideal",
                "max_seq_len": 1024,
                "concurrency": 2,
                "bytes": used,
                "full_attention_bytes": PLAN_FULL_BYTES,
                "least_bytes": 1000,
                "layer_windows": windows,
                "predicted_delta_nll": 0.8 / 4**i if i < 2 else 0.0,
                "ci_low": 0.7 / 4**i if i < 2 else 0.0,
                "ci_high": 0.9 / 4**i if i < 2 else 0.0,
                "allocated_bytes": {"ideal": used, "vllm": 2 * used, "mlx": None if i == 1 else used, "swaa": None},
            }
        )
        if has_types and PLAN_TYPES[budget]:
            found[-1]["layer_kv"] = PLAN_TYPES[budget]
    return {"format": "winnow-plans", "format_version": 1, "plans": found}


def add_layer_settings(path, settings, seed=0):
    """Gives the results of a calibration made-up figures of each layer under each setting, (keys or 0, type
    of keys and values), as --kv keeps them: a narrower window loses more, a narrower type a little. Returns the deltas
    (example, layer, setting)."""
    random = np.random.default_rng(seed)
    with h5py.File(path, "a") as file:
        group = file["calibration"]
        base = group["nll_base"][:]
        n_layers = len(group["layer"])
        effect = random.exponential(0.3, n_layers) ** 3
        delta = effect * random.gamma(2, 0.5, (len(base), n_layers)) + random.normal(0, 0.005, (len(base), n_layers))
        by_setting = np.empty((*delta.shape, len(settings)))
        for s, (keys, kind) in enumerate(settings):
            of_window = delta * (512 / keys) ** 0.8 if keys else np.zeros_like(delta)
            by_setting[:, :, s] = of_window + (0 if kind == "bf16" else random.normal(0.002, 0.002, delta.shape))
        nll = base[:, None, None] + by_setting
        _scale(group, "setting", np.zeros(len(settings), "f4"))
        _put(group, "setting_window", np.array([keys for keys, _ in settings]), ["setting"], "tokens")
        _put(group, "setting_kv", [kind for _, kind in settings], ["setting"])
        dims = ["example", "layer", "setting"]
        _put(group, "nll_by_setting", nll, dims, "nats per token")
        _put(group, "delta_nll_by_setting", nll - base[:, None, None], dims, "nats per token")
        _put(group, "exact_match_by_setting", np.ones(nll.shape, "u1"), dims)
        _put(group, "token_accuracy_by_setting", np.ones(nll.shape), dims)
    return nll - base[:, None, None]
