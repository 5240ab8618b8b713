"""What a report needs of one result of calibrate, read from its DataTree, and what to say about what is missing."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from winnow.common.errors import ExitCode
from winnow.common.text import clean
from winnow.report.agreement import order_of
from winnow.report.arrays import Floats, Integers, Scalar
from winnow.report.errors import ReportError
from winnow.report.reading import opening
from winnow.report.reading.settings import setting_name
from winnow.report.wording import listed

BY_LAYER = [
    "mean_delta_nll",
    "median_delta_nll",
    "standard_error",
    "ci_low",
    "ci_high",
    "rank_low",
    "rank_high",
    "exact_match_drop",
    "token_accuracy_drop",
]

Fact = tuple[Scalar, str, str]  # value, units, long_name
OtherCell = tuple[str, str, str]  # of a sweep, without a result: name, state, reason


@dataclass
class Examples:
    """The per-example tables of one set, rows of undefined values left out."""

    ids: list[str]
    sources: list[str]  # empty where the file has none
    prompt_tokens: Floats  # (example)
    answer_tokens: Floats  # (example)
    delta: Floats  # (example, layer), nats per token
    base: dict[str, float]  # mean over examples of nll_base, exact_match_base, token_accuracy_base
    rows: Integers  # (example): the row of the file
    n_left_out: int = 0


@dataclass(kw_only=True)
class Result:
    """What results of every kind have."""

    path: str
    layers: Integers  # (layer): indices of decoder layers
    n_examples: int = 0
    provenance: dict[str, Fact] = field(default_factory=dict)
    settings: dict[str, Scalar] = field(default_factory=dict)  # attributes of the group with the statistics
    status: dict[str, str] = field(default_factory=dict)  # figure: why it is not defined
    notes: list[str] = field(default_factory=list)
    tree: xr.DataTree | None = None
    label: str = ""
    key: str = "r0"  # tells the results of a page apart, in ids
    cell: dict[str, Scalar | None] = field(default_factory=dict)  # coordinates in a collected sweep

    def fact(self, name: str, default: Scalar | None = None) -> Scalar | None:
        return self.provenance[name][0] if name in self.provenance else default

    def number(self, name: str) -> float:
        """The fact as a number; NaN where it is missing or text."""
        value = self.fact(name)
        return value if isinstance(value, (int, float)) else float("nan")

    def remarks(self) -> list[str]:
        """What the measurement warned of, and what was noticed in reading it: a sentence each."""
        return [line for line in str(self.fact("warnings", "") or "").splitlines() + self.notes if line]


@dataclass
class Control:
    """The same layers on a control set."""

    figures: dict[str, float] = field(default_factory=dict)  # of /deconfounding
    means: Floats | None = None  # (layer): mean delta NLL, nats per token
    n_examples: int = 0


@dataclass(kw_only=True)
class Run(Result):
    """Layers measured one at a time: a results file of calibrate, or a cell of a collected sweep."""

    budgets: list[int] = field(default_factory=list)  # K
    top_k: int = 0
    figures: dict[str, Floats] = field(default_factory=dict)  # name: (layer) of /ranking, NaN where not defined
    rank: Integers = field(default_factory=lambda: np.array([]))  # (layer), from 1
    p_top_k: dict[int, Floats] = field(default_factory=dict)  # K: (layer)
    examples: Examples | None = None
    controls: dict[str, Control] = field(default_factory=dict)
    reliability: dict[str, float] = field(default_factory=dict)
    cell_name: str = ""  # in a collected sweep
    agreement: dict[str, tuple[float, float]] = field(default_factory=dict)  # name of a cell: rho and Jaccard with it

    def order(self) -> Integers:
        """Positions of the layers by rank."""
        return np.argsort(self.rank, kind="stable")

    def kept(self, k: int) -> Integers:
        """Positions of the k layers that keep full attention."""
        return self.order()[:k]


def dataset(tree: xr.DataTree, group: str) -> xr.Dataset | None:
    """The group as a Dataset, or None."""
    try:
        node = tree[group]
    except KeyError:
        return None
    return node.to_dataset(inherit=False) if isinstance(node, xr.DataTree) else None


def children(tree: xr.DataTree, group: str) -> list[str]:
    try:
        return list(tree[group].children)
    except KeyError:
        return []


def numbers(data: xr.Dataset | None, name: str, dims: Sequence[str]) -> Floats | None:
    """The variable as float64 of these dimensions, in their order; None where it is missing or of another shape."""
    if data is None or name not in data.variables:
        return None
    variable = data[name]
    if set(variable.dims) != set(dims) or len(variable.dims) != len(dims) or variable.dtype.kind not in "iufb":
        return None
    return np.asarray(opening.values(variable.transpose(*dims)), float)


def texts(data: xr.Dataset | None, name: str) -> list[str] | None:
    if data is None or name not in data.variables or data[name].ndim != 1:
        return None
    return [
        clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
        for value in opening.values(data[name]).tolist()
    ]


def text_table(data: xr.Dataset | None, name: str, dims: Sequence[str]) -> list[list[str]] | None:
    """Text of these two dimensions, in their order; None where it is missing or of another shape."""
    if data is None or name not in data.variables or set(data[name].dims) != set(dims) or data[name].ndim != len(dims):
        return None
    return [
        [clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else value) for value in row]
        for row in opening.values(data[name].transpose(*dims)).tolist()
    ]


def scalars(data: xr.Dataset | None) -> dict[str, Scalar]:
    """{name: number or text} of the scalar variables."""
    values: dict[str, Scalar] = {}
    for name, variable in ({} if data is None else data.variables).items():
        if variable.ndim == 0:
            value = opening.values(variable).item()
            value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            values[str(name)] = value if isinstance(value, (int, float)) else clean(value)
    return values


def figures_in(values: Mapping[str, Scalar]) -> dict[str, float]:
    """Those of the values that are numbers."""
    return {name: value for name, value in values.items() if isinstance(value, (int, float))}


def _whole(value: float) -> int:
    return int(value) if np.isfinite(value) else 0


def plain(attributes: Mapping[Any, object]) -> dict[str, Scalar]:
    """Attributes as numbers and text; arrays as text."""
    values: dict[str, Scalar] = {}
    for name, value in attributes.items():
        value = value.item() if isinstance(value, np.generic) else value
        values[clean(name)] = value if isinstance(value, (int, float)) else clean(value)
    return values


def statuses(data: xr.Dataset | None, prefix: str = "") -> dict[str, str]:
    if data is None:
        return {}
    return {
        prefix + str(name): clean(variable.attrs["status"])
        for name, variable in data.variables.items()
        if "status" in variable.attrs
    }


def layers_of(*groups: xr.Dataset | None) -> Integers | None:
    for data in groups:
        if data is not None and "layer" in data.sizes:
            if "layer" in data.variables and data["layer"].dtype.kind in "iu":
                return opening.values(data["layer"]).astype(int)
            return np.arange(data.sizes["layer"])
    return None


def read_examples(data: xr.Dataset | None, layers: Integers) -> Examples | None:
    """The per-example tables of a set; None where there are none for these layers."""
    delta = numbers(data, "delta_nll", ("example", "layer"))
    if delta is None or delta.shape[1] != len(layers) or delta.shape[0] == 0:
        return None
    n = delta.shape[0]
    good = np.isfinite(delta).all(1)
    ids, sources = texts(data, "example_id"), texts(data, "source")
    ids = ids if ids and len(ids) == n else [f"example {i}" for i in range(n)]
    sources = sources if sources and len(sources) == n and any(sources) else []

    def column(name: str) -> Floats:
        values = numbers(data, name, ("example",))
        return np.full(n, np.nan) if values is None else values

    rows = np.flatnonzero(good)
    base = {
        name: float(np.mean(column(name)[rows])) if rows.size else float("nan")
        for name in ("nll_base", "exact_match_base", "token_accuracy_base")
    }
    return Examples(
        [ids[i] for i in rows],
        [sources[i] for i in rows] if sources else [],
        column("prompt_tokens")[rows],
        column("answer_tokens")[rows],
        delta[rows],
        base,
        rows,
        int(n - rows.size),
    )


def _read_ranking(run: Run, ranking: xr.Dataset | None) -> None:
    """Takes /ranking into the run; what it lacks is computed from the examples, without intervals."""
    n = len(run.layers)
    for name in BY_LAYER:
        values = numbers(ranking, name, ("layer",))
        run.figures[name] = values if values is not None and len(values) == n else np.full(n, np.nan)
    means = run.figures["mean_delta_nll"]
    if not np.isfinite(means).any() and run.examples is not None and run.examples.ids:
        run.figures["mean_delta_nll"] = means = run.examples.delta.mean(0)
        run.notes.append(
            "The file has no ranking; means and order were computed from its examples, without "
            "intervals. winnow stats adds them."
        )
    if not np.isfinite(means).any():
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{run.path}: it has no finite mean_delta_nll and no examples to compute it from; "
            "move it away and repeat its winnow calibrate command",
        )
    rank = numbers(ranking, "rank", ("layer",))
    if rank is not None and sorted(rank.tolist()) == list(range(1, n + 1)):
        run.rank = rank.astype(int)
        return
    run.rank = np.empty(n, int)
    run.rank[order_of(np.where(np.isfinite(means), means, -np.inf))] = np.arange(1, n + 1)
    if rank is not None:
        run.notes.append("The ranks in the file are no order of its layers; they were computed anew from the means.")


def _read_budgets(run: Run, ranking: xr.Dataset | None) -> None:
    """K = L/8, L/4, L/2 and --top-k with P(top K), where the file has them."""
    n = len(run.layers)
    wanted = sorted({max(1, n // 8), max(1, n // 4), max(1, n // 2)})
    table = numbers(ranking, "p_top_k", ("budget", "layer"))
    if ranking is not None and table is not None and "budget" in ranking.variables and table.shape[1] == n:
        for k, row in zip(opening.values(ranking["budget"]).tolist(), table, strict=True):
            if isinstance(k, int) and 1 <= k <= n:
                run.p_top_k[k] = row
    run.budgets = sorted({*wanted, *run.p_top_k})
    given = run.settings.get("top_k")
    run.top_k = int(given) if isinstance(given, (int, float)) and 1 <= given <= n else max(1, n // 4)


def _read_controls(run: Run, tree: xr.DataTree) -> None:
    names = list(dict.fromkeys([*children(tree, "control"), *children(tree, "deconfounding")]))
    for name in names:
        data = dataset(tree, f"deconfounding/{name}")
        control = Control(figures_in(scalars(data)))
        examples = read_examples(dataset(tree, f"control/{name}"), run.layers)
        if examples is not None and examples.ids:
            control.means, control.n_examples = examples.delta.mean(0), len(examples.ids)
        run.status |= statuses(data, f"{name}.")
        run.controls[clean(name)] = control


def read_common(result: Result, tree: xr.DataTree) -> None:
    """Takes into a result of any kind what all of them have: the version's note and /provenance."""
    _, version = opening.format_of(tree)
    if version < opening.FORMAT_VERSION:
        result.notes.append(
            f"The file is of format version {version}, older than this program's "
            f"{opening.FORMAT_VERSION}; shown is what both know."
        )
    result.provenance = _facts(dataset(tree, "provenance"))


def _facts(data: xr.Dataset | None) -> dict[str, Fact]:
    if data is None:
        return {}
    return {
        name: (value, clean(data[name].attrs.get("units", "")), clean(data[name].attrs.get("long_name", "")))
        for name, value in scalars(data).items()
    }


def _raced(tree: xr.DataTree) -> str:
    """Under which settings layers were raced, where they differ in types of keys and values."""
    race = dataset(tree, "race")
    windows, kinds = numbers(race, "window", ("window",)), texts(race, "window_kv")
    if windows is None or kinds is None or len(windows) != len(kinds) or not np.isfinite(windows).all():
        return ""
    return ", under " + listed(setting_name(int(window), kind) for window, kind in zip(windows, kinds, strict=True))


def read_run(tree: xr.DataTree, path: pathlib.Path) -> Run:
    """A results file as a Run. ReportError where there is nothing to report on."""
    calibration, ranking = dataset(tree, "calibration"), dataset(tree, "ranking")
    layers = layers_of(ranking, calibration)
    if layers is None or len(layers) == 0:
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: it has no /ranking, /calibration, /selection or /evaluation with layers; move it away and "
            "repeat its winnow calibrate command",
        )
    run = Run(path=str(path), layers=layers, tree=tree)
    read_common(run, tree)
    run.examples = read_examples(calibration, layers)
    if run.examples is None:
        run.notes.append("The file has no table per example; figures that need one are left out.")
    elif run.examples.n_left_out and (counts := numbers(calibration, "layer_examples", ("layer",))) is not None:
        run.notes.append(
            f"Layers were measured on {int(counts.min()):,} to {int(counts.max()):,} examples, until their places were "
            f"certain (--until{_raced(tree)}); figures per example are of the {len(run.examples.ids):,} that all have."
        )
    elif run.examples.n_left_out:
        run.notes.append(
            f"{run.examples.n_left_out} examples with values that are not finite are left out of the "
            "figures per example."
        )
        run.examples = run.examples if run.examples.ids else None
    run.settings = {} if ranking is None else plain(ranking.attrs)
    _read_ranking(run, ranking)
    _read_budgets(run, ranking)
    run.status = statuses(ranking)
    _read_controls(run, tree)
    reliability = dataset(tree, "reliability")
    run.reliability = figures_in(scalars(reliability))
    run.status |= statuses(reliability)
    run.n_examples = len(run.examples.ids) if run.examples else _whole(run.number("n_examples"))
    return run


def read_collection(tree: xr.DataTree, path: pathlib.Path) -> tuple[list[Run], list[OtherCell]]:
    """(runs, other cells): one Run for each finished cell; of the others (cell, state, reason)."""
    root = dataset(tree, "/")
    if root is None or "cell" not in root.sizes or "layer" not in root.sizes:
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: it has no dimensions cell and layer; collect the sweep anew with winnow sweep collect",
        )
    cells, states = texts(root, "cell") or [], texts(root, "state") or []
    reasons = texts(root, "reason") or [""] * len(cells)
    between = dataset(tree, "agreement")
    rho, jaccard = (numbers(between, name, ("cell", "other_cell")) for name in ("spearman_rho", "jaccard"))
    compared = texts(between, "other_cell") or []  # the same cells; xarray leaves out a coordinate that is the root's
    runs: list[Run] = []
    others: list[OtherCell] = []
    for i, cell in enumerate(cells):
        state = states[i] if i < len(states) else "done"
        if state == "done":
            run = _read_cell(tree, root.isel(cell=i), path, cells, cell)
            if run is not None:
                if rho is not None and jaccard is not None and cell in compared:
                    at = compared.index(cell)
                    run.agreement = dict(zip(compared, zip(rho[at], jaccard[at], strict=True), strict=True))
                runs.append(run)
                continue
        others.append((cell, state, reasons[i]))
    return runs, others


def _read_cell(tree: xr.DataTree, row: xr.Dataset, path: pathlib.Path, cells: list[str], cell: str) -> Run | None:
    """One of `cells`, whose values at the root are `row`."""
    means = numbers(row, "mean_delta_nll", ("layer",))
    if means is None or not np.isfinite(means).any():
        return None
    row = row.isel(layer=np.flatnonzero(np.isfinite(means)))
    facts, layers = scalars(row), layers_of(row)
    if layers is None:
        return None
    figures = figures_in(facts)
    run = Run(path=str(path), layers=layers, label=cell, cell_name=cell)
    run.settings = {"top_k": figures["top_k"]} if np.isfinite(figures.get("top_k", np.nan)) else {}
    _read_ranking(run, row)
    _read_budgets(run, row)
    run.p_top_k = {k: p for k, p in run.p_top_k.items() if np.isfinite(p).any()}
    n = len(run.layers)
    run.budgets = sorted({max(1, n // 8), max(1, n // 4), max(1, n // 2), *run.p_top_k})
    run.cell = {
        name: facts.get(name)
        for name in ("model", "dataset", "window", "window_keys", "sinks", "decode", "target", "seed")
    }
    run.provenance = {name: fact for name, fact in _facts(row).items() if name != "layer"}
    run.reliability = {name: value for name, value in figures.items() if name.startswith(("split_half", "rho_"))}
    for i, name in enumerate(texts(row, "control") or []):
        values = figures_in(scalars(row.isel(control=i)))
        if np.isfinite(values.get("spearman_rho", np.nan)):
            run.controls[name] = Control(values)
    more = dataset(tree, "provenance")
    if more is not None and "cell" in more.sizes:
        names = texts(more, "cell") or cells
        if cell in names and len(names) == more.sizes["cell"]:
            run.provenance = _facts(more.isel(cell=names.index(cell))) | run.provenance
    run.n_examples = _whole(run.number("n_examples"))
    return run
