"""What a report needs of one result of calibrate, read from its DataTree, and what to say about what is missing."""

from dataclasses import dataclass, field

import numpy as np

from . import opening
from .agreement import order_of
from .errors import BAD_DATA, ReportError
from .markup import clean

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


@dataclass
class Examples:
    """The per-example tables of one set, rows of undefined values left out."""

    ids: list
    sources: list  # empty where the file has none
    prompt_tokens: np.ndarray  # (example)
    answer_tokens: np.ndarray  # (example)
    delta: np.ndarray  # (example, layer), nats per token
    base: dict  # mean over examples of nll_base, exact_match_base, token_accuracy_base
    rows: np.ndarray  # (example): the row of the file
    n_left_out: int = 0


@dataclass(kw_only=True)
class Result:
    """What results of every kind have."""

    path: str
    layers: np.ndarray  # (layer): indices of decoder layers
    n_examples: int = 0
    provenance: dict = field(default_factory=dict)  # name: (value, units, long_name)
    settings: dict = field(default_factory=dict)  # attributes of the group with the statistics
    status: dict = field(default_factory=dict)  # figure: why it is not defined
    notes: list = field(default_factory=list)
    tree: object = None
    label: str = ""
    key: str = "r0"  # tells the results of a page apart, in ids
    cell: dict = field(default_factory=dict)  # coordinates in a collected sweep

    def fact(self, name, default=None):
        return self.provenance[name][0] if name in self.provenance else default

    def remarks(self):
        """What the measurement warned of, and what was noticed in reading it: a sentence each."""
        return [line for line in str(self.fact("warnings", "") or "").splitlines() + self.notes if line]


@dataclass(kw_only=True)
class Run(Result):
    """Layers measured one at a time: a results file of calibrate, or a cell of a collected sweep."""

    budgets: list = field(default_factory=list)  # K
    top_k: int = 0
    figures: dict = field(default_factory=dict)  # name: (layer) of /ranking, NaN where not defined
    rank: np.ndarray = field(default_factory=lambda: np.array([]))  # (layer), from 1
    p_top_k: dict = field(default_factory=dict)  # K: (layer)
    examples: Examples | None = None
    controls: dict = field(default_factory=dict)  # name: {"means": (layer) or None, figures of /deconfounding}
    reliability: dict = field(default_factory=dict)

    def order(self):
        """Positions of the layers by rank."""
        return np.argsort(self.rank, kind="stable")

    def kept(self, k):
        """Positions of the k layers that keep full attention."""
        return self.order()[:k]


def dataset(tree, group):
    """The group as a Dataset, or None."""
    try:
        node = tree[group]
    except KeyError:
        return None
    return node.to_dataset(inherit=False) if hasattr(node, "to_dataset") else None


def children(tree, group):
    try:
        return list(tree[group].children)
    except KeyError:
        return []


def numbers(data, name, dims):
    """The variable as float64 of these dimensions, in their order; None where it is missing or of another shape."""
    if data is None or name not in data.variables:
        return None
    variable = data[name]
    if set(variable.dims) != set(dims) or len(variable.dims) != len(dims) or variable.dtype.kind not in "iufb":
        return None
    return np.asarray(variable.transpose(*dims).values, float)


def texts(data, name):
    if data is None or name not in data.variables or data[name].ndim != 1:
        return None
    return [
        clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
        for value in data[name].values.tolist()
    ]


def scalars(data):
    """{name: number or text} of the scalar variables."""
    values = {}
    for name, variable in ({} if data is None else data.variables).items():
        if variable.ndim == 0:
            value = variable.values.item()
            value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            values[str(name)] = clean(value) if isinstance(value, str) else value
    return values


def _whole(value):
    return int(value) if isinstance(value, (int, float)) and np.isfinite(value) else 0


def plain(attributes):
    """Attributes as numbers and text; arrays as text."""
    values = {}
    for name, value in attributes.items():
        value = value.item() if isinstance(value, np.generic) else value
        values[clean(name)] = value if isinstance(value, (int, float)) else clean(value)
    return values


def statuses(data, prefix=""):
    if data is None:
        return {}
    return {
        prefix + str(name): clean(variable.attrs["status"])
        for name, variable in data.variables.items()
        if "status" in variable.attrs
    }


def layers_of(*groups):
    for data in groups:
        if data is not None and "layer" in data.sizes:
            if "layer" in data.variables and data["layer"].dtype.kind in "iu":
                return data["layer"].values.astype(int)
            return np.arange(data.sizes["layer"])
    return None


def read_examples(data, layers):
    """The per-example tables of a set; None where there are none for these layers."""
    delta = numbers(data, "delta_nll", ("example", "layer"))
    if delta is None or delta.shape[1] != len(layers) or delta.shape[0] == 0:
        return None
    n = delta.shape[0]
    good = np.isfinite(delta).all(1)
    ids, sources = texts(data, "example_id"), texts(data, "source")
    ids = ids if ids and len(ids) == n else [f"example {i}" for i in range(n)]
    sources = sources if sources and len(sources) == n and any(sources) else []

    def column(name):
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


def _read_ranking(run, ranking):
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
            BAD_DATA,
            f"{run.path}: it has no finite mean_delta_nll and no examples to compute it from; "
            "delete it and repeat its winnow calibrate command",
        )
    rank = numbers(ranking, "rank", ("layer",))
    if rank is not None and sorted(rank.tolist()) == list(range(1, n + 1)):
        run.rank = rank.astype(int)
        return
    run.rank = np.empty(n, int)
    run.rank[order_of(np.where(np.isfinite(means), means, -np.inf))] = np.arange(1, n + 1)
    if rank is not None:
        run.notes.append("The ranks in the file are no order of its layers; they were computed anew from the means.")


def _read_budgets(run, ranking):
    """K = L/8, L/4, L/2 and --top-k with P(top K), where the file has them."""
    n = len(run.layers)
    wanted = sorted({max(1, n // 8), max(1, n // 4), max(1, n // 2)})
    table = numbers(ranking, "p_top_k", ("budget", "layer"))
    if table is not None and "budget" in ranking.variables and table.shape[1] == n:
        for k, row in zip(ranking["budget"].values.tolist(), table):
            if isinstance(k, int) and 1 <= k <= n:
                run.p_top_k[k] = row
    run.budgets = sorted({*wanted, *run.p_top_k})
    given = run.settings.get("top_k")
    run.top_k = int(given) if isinstance(given, (int, float)) and 1 <= given <= n else max(1, n // 4)


def _read_controls(run, tree):
    names = list(dict.fromkeys([*children(tree, "control"), *children(tree, "deconfounding")]))
    for name in names:
        data = dataset(tree, f"deconfounding/{name}")
        control = scalars(data)
        examples = read_examples(dataset(tree, f"control/{name}"), run.layers)
        control["means"] = examples.delta.mean(0) if examples is not None and examples.ids else None
        control["n_examples"] = len(examples.ids) if examples else 0
        run.status |= statuses(data, f"{name}.")
        run.controls[clean(name)] = control


def read_common(result):
    """Takes into a result of any kind what all of them have: the version's note and /provenance."""
    _, version = opening.format_of(result.tree)
    if version < opening.FORMAT_VERSION:
        result.notes.append(
            f"The file is of format version {version}, older than this program's "
            f"{opening.FORMAT_VERSION}; shown is what both know."
        )
    provenance = dataset(result.tree, "provenance")
    for name, value in scalars(provenance).items():
        attributes = provenance[name].attrs
        result.provenance[name] = (value, clean(attributes.get("units", "")), clean(attributes.get("long_name", "")))


def read_run(tree, path):
    """A results file as a Run. ReportError where there is nothing to report on."""
    calibration, ranking = dataset(tree, "calibration"), dataset(tree, "ranking")
    layers = layers_of(ranking, calibration)
    if layers is None or len(layers) == 0:
        raise ReportError(
            BAD_DATA,
            f"{path}: it has no /ranking, /calibration, /selection or /evaluation with layers; delete it and "
            "repeat its winnow calibrate command",
        )
    run = Run(path=str(path), layers=layers, tree=tree)
    read_common(run)
    run.examples = read_examples(calibration, layers)
    if run.examples is None:
        run.notes.append("The file has no table per example; figures that need one are left out.")
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
    run.reliability = scalars(reliability)
    run.status |= statuses(reliability)
    run.n_examples = len(run.examples.ids) if run.examples else _whole(run.fact("n_examples"))
    return run


def read_collection(tree, path):
    """(runs, other cells): one Run for each finished cell; of the others (cell, state, reason)."""
    root = dataset(tree, "/")
    if "cell" not in root.sizes or "layer" not in root.sizes:
        raise ReportError(
            BAD_DATA, f"{path}: it has no dimensions cell and layer; collect the sweep anew with winnow sweep collect"
        )
    cells, states = texts(root, "cell") or [], texts(root, "state") or []
    reasons = texts(root, "reason") or [""] * len(cells)
    runs, others = [], []
    for i, cell in enumerate(cells):
        state = states[i] if i < len(states) else "done"
        if state == "done":
            run = _read_cell(tree, root.isel(cell=i), path, cell)
            if run is not None:
                runs.append(run)
                continue
        others.append((cell, state, reasons[i]))
    return runs, others


def _read_cell(tree, row, path, cell):
    means = numbers(row, "mean_delta_nll", ("layer",))
    if means is None or not np.isfinite(means).any():
        return None
    row = row.isel(layer=np.flatnonzero(np.isfinite(means)))
    facts = scalars(row)
    run = Run(path=str(path), layers=layers_of(row), label=cell)
    run.settings = {"top_k": facts["top_k"]} if np.isfinite(facts.get("top_k", np.nan)) else {}
    _read_ranking(run, row)
    _read_budgets(run, row)
    run.p_top_k = {k: p for k, p in run.p_top_k.items() if np.isfinite(p).any()}
    n = len(run.layers)
    run.budgets = sorted({max(1, n // 8), max(1, n // 4), max(1, n // 2), *run.p_top_k})
    run.cell = {
        name: facts.get(name)
        for name in ("model", "dataset", "window", "window_keys", "sinks", "decode", "target", "seed")
    }
    run.provenance = {
        name: (value, row[name].attrs.get("units", ""), clean(row[name].attrs.get("long_name", "")))
        for name, value in facts.items()
        if name not in ("layer",)
    }
    run.reliability = {name: value for name, value in facts.items() if name.startswith(("split_half", "rho_"))}
    for i, name in enumerate(texts(row, "control") or []):
        values = scalars(row.isel(control=i))
        if np.isfinite(values.get("spearman_rho", np.nan)):
            run.controls[name] = values | {"means": None, "n_examples": 0}
    more = dataset(tree, "provenance")
    if more is not None and "cell" in more.sizes:
        names = texts(more, "cell") or []
        if cell in names:
            one = more.isel(cell=names.index(cell))
            for name, value in scalars(one).items():
                run.provenance.setdefault(
                    name, (value, clean(one[name].attrs.get("units", "")), clean(one[name].attrs.get("long_name", "")))
                )
    run.n_examples = _whole(run.fact("n_examples"))
    return run
