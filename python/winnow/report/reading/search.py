"""Joint selection: what winnow search found at each number of full layers, and how pairs of layers interact."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from winnow.common.errors import ExitCode
from winnow.common.text import clean
from winnow.report.agreement import paired_interval, resampled_means
from winnow.report.arrays import Flags, Floats, Integers
from winnow.report.errors import ReportError
from winnow.report.reading import record
from winnow.report.wording import correlation, count, form_of, interval, number, percent

OBJECTIVES = {"nll": ("mean_nll", "NLL"), "exact-match": ("mean_exact_match", "exact match"), "kl": ("mean_kl", "KL")}
PAIRS = "pairs"
PLAN = "plan"
MEANS = (
    "mean_nll",
    "mean_exact_match",
    "mean_token_accuracy",
    "mean_kl",
    "mean_nll_verified",
    "mean_exact_match_verified",
)


@dataclass
class Method:
    """A greedy search: the best pattern of each K, and everything that was measured on the way."""

    name: str
    objective: str
    keep: list[int]  # K, rising
    full: Flags  # (keep, layer)
    means: dict[str, Floats]  # name of MEANS: (keep)
    scalars: dict[str, float]
    status: dict[str, str]
    patterns: list[str]  # every pattern measured
    pattern_keep: Floats  # (pattern)
    examples: dict[str, Floats]  # nll, exact_match, kl, nll_verified, exact_match_verified: (pattern, example)

    @property
    def measure(self) -> tuple[str, str]:
        """(variable, words) of what was minimised."""
        wanted = OBJECTIVES.get(self.objective, OBJECTIVES["nll"])
        return next(found for found in (wanted, *OBJECTIVES.values()) if found[0] in self.means)


@dataclass
class Pairs:
    """Of every two candidates: what windowing both costs beyond the two apart."""

    layers: Integers  # (candidate)
    alone: Floats  # (candidate): delta NLL of the layer alone
    both: Floats  # (candidate, candidate)
    interaction: Floats  # (candidate, candidate), nats per token
    low: Floats
    high: Floats
    exact_match: Floats  # (candidate, candidate), NaN where the file has none
    scalars: dict[str, float]


@dataclass(kw_only=True)
class Search(record.Result):
    """A result of winnow search."""

    methods: list[Method] = field(default_factory=list)
    pairs: Pairs | None = None
    left_out: list[str] = field(default_factory=list)  # groups of /selection that could not be read

    @property
    def tail_rows(self) -> int | None:
        rows = self.number("tail_rows")
        return int(rows) if np.isfinite(rows) and rows >= 0 else None


def _table(data: xr.Dataset | None, name: str, dims: Sequence[str], shape: tuple[int, ...]) -> Floats | None:
    values = record.numbers(data, name, dims)
    return values if values is not None and values.shape == shape else None


def _read_method(data: xr.Dataset | None, name: str, layers: Integers) -> Method | None:
    keep = record.numbers(data, "keep", ("keep",))
    full = record.numbers(data, "full", ("keep", "layer"))
    if keep is None or full is None or full.shape != (len(keep), len(layers)) or not len(keep):
        return None
    means = {
        mean: values
        for mean in MEANS
        if (values := _table(data, mean, ("keep",), keep.shape)) is not None and np.isfinite(values).any()
    }
    if not any(variable in means for variable, _ in OBJECTIVES.values()):
        return None
    patterns = record.texts(data, "pattern") or []
    examples = {
        metric: values
        for metric in ("nll", "exact_match", "kl", "nll_verified", "exact_match_verified")
        if (values := record.numbers(data, metric, ("pattern", "example"))) is not None and len(values) == len(patterns)
    }
    pattern_keep = _table(data, "pattern_keep", ("pattern",), (len(patterns),))
    scalars = record.scalars(data)
    return Method(
        name,
        str(scalars.get("objective", "")),
        [int(k) for k in keep],
        full > 0,
        means,
        record.figures_in(scalars),
        record.statuses(data),
        patterns,
        np.full(len(patterns), np.nan) if pattern_keep is None else pattern_keep,
        examples,
    )


def _read_pairs(data: xr.Dataset | None, layers: Integers) -> Pairs | None:
    candidates = record.numbers(data, "candidate", ("candidate",))
    if candidates is None or not len(candidates):
        return None
    shape, dims = (len(candidates), len(candidates)), ("candidate", "other_candidate")
    interaction = _table(data, "interaction_nll", dims, shape)
    if interaction is None:
        return None
    nothing = np.full(shape, np.nan)
    others = [
        _table(data, name, dims, shape)
        for name in ("delta_nll_pair", "interaction_nll_ci_low", "interaction_nll_ci_high", "interaction_exact_match")
    ]
    both, low, high, exact_match = (nothing if table is None else table for table in others)
    alone = _table(data, "delta_nll", ("layer",), layers.shape)
    places = {int(layer): i for i, layer in enumerate(layers)}
    alone = np.array([np.nan if alone is None or int(c) not in places else alone[places[int(c)]] for c in candidates])
    return Pairs(
        candidates.astype(int),
        alone,
        both,
        interaction,
        low,
        high,
        exact_match,
        record.figures_in(record.scalars(data)),
    )


def read(tree: xr.DataTree, path: pathlib.Path) -> Search:
    """The search of a results file. ReportError where no method of it can be read."""
    names = record.children(tree, "selection")
    groups = {name: record.dataset(tree, f"selection/{name}") for name in names}
    layers = record.layers_of(*groups.values())
    result = Search(path=str(path), layers=np.array([], int) if layers is None else layers, tree=tree)
    record.read_common(result, tree)
    for name, data in groups.items():
        own = record.layers_of(data)
        is_same = own is not None and own.tolist() == result.layers.tolist()
        if name == PAIRS and is_same:
            result.pairs = _read_pairs(data, result.layers)
        found = _read_method(data, clean(name), result.layers) if name != PAIRS and is_same else None
        if found is not None:
            result.methods.append(found)
        elif name != PAIRS or result.pairs is None:
            result.left_out.append(clean(name))
        ids = record.texts(data, "example_id")
        result.n_examples = max(result.n_examples, len(ids) if ids else 0)
    if not result.methods and result.pairs is None:
        if PLAN in groups:
            raise ReportError(
                ExitCode.BAD_DATA,
                f"{path}: holds plans for budgets of memory, which winnow plan shows; report what winnow evaluate "
                "measured of them",
            )
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: no method in its /selection has patterns with figures; move it away and repeat its "
            "winnow search command",
        )
    return result


def target(method: Method, n_layers: int) -> int:
    """Position of the K that the search was for: the last step, with neither all layers full nor none."""
    ks = [i for i, k in enumerate(method.keep) if 0 < k < n_layers]
    if not ks:
        return len(method.keep) - 1
    return ks[0] if method.name == "greedy-backward" else ks[-1]


def figures_said(method: Method, i: int) -> str:
    """ "exact match 98 % (100 % with every row under the window), NLL 0.06"."""
    parts = []
    for variable, words in (("mean_exact_match", "exact match"), ("mean_nll", "NLL"), ("mean_kl", "KL")):
        values, form = method.means.get(variable), form_of(variable)
        if values is None or not np.isfinite(values[i]):
            continue
        text = f"{words} {form(values[i])}"
        verified = method.means.get(variable + "_verified")
        if verified is not None and np.isfinite(verified[i]):
            text += f" ({form(verified[i])} with every row under the window)"
        parts.append(text)
    return ", ".join(parts)


def best_position(method: Method, i: int) -> int | None:
    """Position among `patterns` of the best pattern of the i-th K; None where it is not among them."""
    k = method.keep[i]
    found = np.flatnonzero(method.pattern_keep == k)
    return int(found[0]) if found.size else None  # by step, best first


def step_difference(method: Method, i: int, j: int) -> tuple[float, float]:
    """(low, high) of the difference in the objective between the best patterns of two K, over the same examples."""
    each = method.examples.get(method.measure[0].removeprefix("mean_"))
    a, b = best_position(method, i), best_position(method, j)
    if each is None or a is None or b is None or not np.isfinite(each[[a, b]]).all() or each.shape[1] < 2:
        return float("nan"), float("nan")
    return paired_interval(resampled_means(each[[a, b]]), 0, 1)


def lines(result: Search) -> list[str]:
    """How far to trust it."""
    found = []
    if result.tail_rows is not None:
        found.append(
            f"Tail figures: only the answer and {result.tail_rows} rows before it obey the window"
            + (
                "."
                if any("n_verified" in method.scalars for method in result.methods)
                else "; --verify N measures finalists with every row under the window."
            )
        )
    for method in result.methods:
        found += verified(method) + cost(method.name, method.scalars)
    if result.pairs is not None:
        found += cost(PAIRS, result.pairs.scalars)
    if result.methods:
        found.append(
            "Patterns were chosen on these examples, so their figures are better than on others: winnow evaluate "
            "measures them on a held-out set."
        )
    if result.left_out:
        found.append(f"Not readable, and left out: {', '.join(result.left_out)}.")
    found += [f"{method.name}, {name}: {why}." for method in result.methods for name, why in method.status.items()]
    return [clean(line) for line in found + result.remarks()]


def verified_means(tail: Floats, exact: Floats) -> tuple[Floats, Floats]:
    """(tail, exact) means of each pattern over the examples that were verified; NaN where none was."""
    known = np.isfinite(exact)
    with np.errstate(invalid="ignore"):
        over_tail, over_exact = (np.where(known, table, 0).sum(1) / known.sum(1) for table in (tail, exact))
    return over_tail, over_exact


def verified(method: Method) -> list[str]:
    """Sentences on how tail and exact figures agree."""
    rho = method.scalars.get("rho_nll", float("nan"))
    if "n_verified" not in method.scalars or not np.isfinite(rho):
        return []
    low, high = (method.scalars.get(f"rho_nll_ci_{end}", float("nan")) for end in ("low", "high"))
    n = method.scalars.get("n_verified_examples")
    text = (
        f"{method.name}: over {count(int(method.scalars['n_verified']), 'verified pattern')}"
        + (f" on {count(int(n), 'example')}" if isinstance(n, int) else "")
        + f" tail and exact NLL agree with rho {correlation(rho)}"
    )
    if np.isfinite([low, high]).all():
        text += f" (95\u00a0% interval {interval(low, high)})"
        text += "" if low > 0 else ": not enough evidence that the short cut ranks patterns as exact figures do"
    wins = method.scalars.get("wins_kept", float("nan"))
    if np.isfinite(wins):
        text += f"; {percent(wins)} of the wins are kept"
    return [text + "."]


def cost(name: str, scalars: dict[str, float]) -> list[str]:
    seconds = scalars.get("search_seconds", float("nan"))
    if not np.isfinite(seconds):
        return []
    exact = scalars.get("predicted_seconds_exact", float("nan"))
    more = f" (predicted with every row under the window: {number(exact)} s)" if np.isfinite(exact) else ""
    return [f"{name} took {number(seconds)} s{more}."]
