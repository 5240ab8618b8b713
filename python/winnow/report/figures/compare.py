"""Several results, or the cells of a sweep, side by side."""

import pathlib
from collections.abc import Sequence

import numpy as np

from winnow.report.drawing.charts import Cell, Grid, draw_grid, step_kind
from winnow.report.figures import sentences
from winnow.report.figures.figure import Draw, Figure
from winnow.report.figures.layers import KEPT_LEGEND, state_of
from winnow.report.reading.plans import Plans
from winnow.report.reading.record import Result, Run
from winnow.report.reading.scores import Scores
from winnow.report.wording import count, number, percent, ranges

MOST_CELLS_NAMED = 24  # runs in the matrices of agreement
MOST_COMPARED = 100  # runs of which every pair is compared
MOST_SQUARES = 5000  # of a drawing of layers side by side

Pair = tuple[str, str, float, float, str]  # two results, rho, Jaccard, what they differ in


def coordinates(run: Result) -> dict[str, str]:
    """{model, dataset, window, ...}: what a run is about, as text."""
    if run.cell:
        given = {name: value for name, value in run.cell.items() if value not in (None, "")}
        return {name: str(value) for name, value in given.items()}

    if isinstance(run, (Scores, Plans)):
        return {"model": pathlib.PurePath(run.path).name}

    def base(name: str) -> str:
        path = pathlib.PurePath(str(run.fact(name, "") or ""))
        # A hub's cache calls the folder by a hash; the model's name is further up.
        hub = next((part for part in path.parts if part.startswith("models--")), None)
        if hub and name == "model":
            return hub.removeprefix("models--").replace("--", "/")
        return path.name or str(path)

    found = {
        "model": base("model"),
        "dataset": base("data"),
        "window": run.fact("window", ""),
        "sinks": run.fact("sinks", ""),
        "decode": run.fact("decode", ""),
        "base": run.fact("base", ""),
        "tail_rows": run.fact("tail_rows", ""),
        "target": run.fact("target", ""),
        "seed": run.settings.get("seed", ""),
    }
    return {name: str(value) for name, value in found.items() if str(value) != ""}


_UNITS = {
    "window": "window {}",
    "sinks": "sinks {}",
    "tail_rows": "tail {}",
    "seed": "seed {}",
    "decode": "decode {}",
    "base": "base {}",
    "window_keys": "keys {}",
}


def name_results(results: Sequence[Result]) -> None:
    """Gives every result a key, and a label: what tells it from others of its kind; the path where nothing does."""
    for index, result in enumerate(results):
        result.key = f"r{index}"
    for kind in dict.fromkeys(type(result) for result in results):
        _name([result for result in results if type(result) is kind])


def _name(runs: Sequence[Result]) -> None:
    all_of_them = [coordinates(run) for run in runs]
    names = list(dict.fromkeys(name for one in all_of_them for name in one))
    # A setting that not every file has does not tell runs apart.
    differing = [
        name
        for name in names
        if all(name in one for one in all_of_them) and len({one[name] for one in all_of_them}) > 1
    ]
    if "window" in differing and "window_keys" in differing:
        differing.remove("window_keys")
    shown = differing or ["model"]
    for run, one in zip(runs, all_of_them, strict=True):
        run.label = " \u00b7 ".join(_UNITS.get(name, "{}").format(one[name]) for name in shown if name in one)
    for run in runs:
        if not run.label or sum(other.label == run.label for other in runs) > 1:
            parent = pathlib.PurePath(run.path)
            run.label = f"{run.label} ({parent.parent.name or parent.name})".strip() if len(runs) > 1 else run.label
    seen: dict[str, int] = {}
    for run in runs:
        seen[run.label] = seen.get(run.label, 0) + 1
        if seen[run.label] > 1:
            run.label += f" #{seen[run.label]}"


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs over the same layers, together: only these can be compared layer by layer."""
    found: dict[tuple[int, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run.layers.tolist()), []).append(run)
    return list(found.values())


def kept_side_by_side(runs: Sequence[Run], index: int) -> Figure:
    """A row a run, a column a layer: what is kept at the run's own K."""
    choices = [sentences.choose(run, run.top_k) for run in runs]
    layers = runs[0].layers

    def kept(r: int, c: int) -> Cell:
        run, choice = runs[r], choices[r]
        p = run.p_top_k.get(run.top_k)
        tip = f"{run.label}\nlayer {layers[c]}, rank {run.rank[c]}"
        return state_of(choice, c), "", tip + (f"\nP(top {run.top_k}) = {percent(p[c])}" if p is not None else "")

    def rank(r: int, c: int) -> Cell:
        n = len(layers)
        share = 1 - (runs[r].rank[c] - 1) / max(n - 1, 1)
        return step_kind(share), str(runs[r].rank[c]), f"{runs[r].label}\nlayer {layers[c]}, rank {runs[r].rank[c]}"

    names = [run.label for run in runs[: max(1, MOST_SQUARES // len(layers))]]
    sets = [set(choice.kept) for choice in choices]
    common = set.intersection(*sets)
    any_ = set.union(*sets)
    if len(runs) == 1:
        text = (
            "One result is over these layers, so there is nothing to compare; it keeps "
            f"{ranges(layers[sorted(common)])}."
        )
    else:
        text = (
            f"Kept in all {len(runs)}: {ranges(layers[sorted(common)])}."
            if common
            else f"No layer is kept in all {len(runs)}."
        )
    if any_ - common:
        text += f" In some only: {ranges(layers[sorted(any_ - common)])}."
    rows = [
        (run.label, run.top_k, " ".join(str(layer) for layer in sorted(layers[choice.kept])))
        for run, choice in zip(runs, choices, strict=True)
    ]
    height = 24 if len(runs) <= 40 else 12
    return Figure(
        f"kept-{index}",
        f"Layers kept, side by side ({count(len(layers), 'layer')})",
        text,
        [
            (
                "kept",
                lambda width: draw_grid(
                    Grid(names, layers.tolist(), kept, "Layers kept by each result", height=height), width
                ),
            ),
            (
                "ranks",
                lambda width: draw_grid(
                    Grid(names, layers.tolist(), rank, "Rank of each layer in each result", height=height), width
                ),
            ),
        ],
        "" if len(names) == len(runs) else f"The first {len(names)} of {len(runs):,} are drawn; the table has all.",
        KEPT_LEGEND,
        (["result", "K", "layers kept"], rows),
    )


def _kind(a: Run, b: Run) -> list[str]:
    """What two runs differ in."""
    one, other = coordinates(a), coordinates(b)
    return [
        name
        for name in dict.fromkeys([*one, *other])
        if name in one and name in other and one[name] != other[name] and name != "window_keys"
    ]


_KINDS = {"model": "models", "dataset": "data sets", "window": "windows", "seed": "seeds"}


def agreement(runs: Sequence[Run], index: int) -> Figure | None:
    """Spearman's rho and Jaccard of the top K of every pair; None for one run."""
    if len(runs) < 2 or len(runs[0].layers) < 2:
        return None
    n_runs, runs = len(runs), runs[:MOST_COMPARED]
    pairs = {(i, j): sentences.pair(runs[i], runs[j]) for i in range(len(runs)) for j in range(i + 1, len(runs))}
    shown = runs[:MOST_CELLS_NAMED]
    names = [run.label for run in shown]

    def drawing(which: int, word: str) -> Draw:
        def cell(r: int, c: int) -> Cell:
            if r == c:
                return "none", "", names[r]
            value = pairs[min(r, c), max(r, c)][which]
            return step_kind(value), number(value, 2), f"{names[r]}\n{names[c]}\n{word} {number(value)}"

        numbers = [str(i + 1) for i in range(len(shown))]
        labelled = [f"{i + 1} {name}" for i, name in enumerate(names)]
        return lambda width: draw_grid(
            Grid(labelled, numbers, cell, f"{word} between results", "", height=36, widest=72), width
        )

    rows = [
        (runs[i].label, runs[j].label, rho, shared, ", ".join(_kind(runs[i], runs[j])))
        for (i, j), (rho, shared) in pairs.items()
    ]
    text = _agreement_reading(rows)
    more = f" The first {len(shown)} are drawn." if len(shown) < n_runs else ""
    more += f" The first {len(runs)} of {n_runs:,} are compared." if len(runs) < n_runs else ""
    return Figure(
        f"agreement-{index}",
        f"Do the rankings agree? ({count(len(runs[0].layers), 'layer')})",
        text,
        [("rho", drawing(0, "rho")), ("Jaccard of the top K", drawing(1, "Jaccard"))],
        "Spearman's rho over layers between mean deltas; Jaccard of the layers kept." + more,
        table=(["result", "other result", "rho", "jaccard", "differ in"], rows),
    )


def _agreement_reading(rows: Sequence[Pair]) -> str:
    known = [row for row in rows if np.isfinite(row[2])]
    if not known:
        return "No two results have a defined agreement."
    parts = []
    for name, words in _KINDS.items():
        same = [row for row in known if row[4] == name]
        if same:
            parts.append(
                f"Between {words}, all else equal: median rho {number(float(np.median([r[2] for r in same])), 2)}, "
                f"Jaccard {number(float(np.nanmedian([r[3] for r in same])), 2)} "
                f"({count(len(same), 'pair')})."
            )
    if not parts:
        parts.append(
            f"Median rho over {count(len(known), 'pair')} {number(float(np.median([r[2] for r in known])), 2)}."
        )
    worst = min(known, key=lambda row: row[2])
    if len(known) > 1:
        parts.append(f"Least alike: {worst[0]} and {worst[1]} (rho {number(worst[2], 2)}).")
    return " ".join(parts)


def figures(runs: Sequence[Run]) -> list[Figure]:
    found: list[Figure | None] = []
    for index, group in enumerate(groups(runs)):
        found.append(kept_side_by_side(group, index))
        found.append(agreement(group, index))
    return [figure for figure in found if figure is not None]
