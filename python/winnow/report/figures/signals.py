"""Figures of the signals: how each ranks the layers, how they agree, and what a choice by each is worth."""

from dataclasses import dataclass, field

import numpy as np

from winnow.common.text import clean
from winnow.report.agreement import average_ranks, spearman
from winnow.report.arrays import Floats
from winnow.report.drawing.charts import Cell, Grid, Rows, draw_grid, draw_rows, step_kind
from winnow.report.figures.figure import Figure
from winnow.report.reading.record import Run, dataset, figures_in, numbers, scalars, statuses, texts
from winnow.report.wording import capital, correlation, count, interval, listed, number, percent

WORDS = {
    "nll": "delta NLL",
    "exact-match": "drop of exact match",
    "token-accuracy": "drop of token accuracy",
    "kl": "KL to the base",
    "sensitivity": "generic sensitivity",
    "mass": "attention mass outside the window",
    "lazy": "1\u00a0\u2212\u00a0lazy ratio",
}
NLL = "nll"

Agreement = tuple[float, float, float, str]  # rho, the ends of its interval, name of the signal


@dataclass
class Signals:
    """Large values mean "keep full attention" for every signal."""

    names: list[str]
    values: Floats  # (signal, layer)
    rho: Floats  # (signal, signal): Spearman's over layers
    low: Floats  # its 95 % interval, NaN where there is none
    high: Floats
    transfer: dict[str, Floats] = field(
        default_factory=dict
    )  # transfer, transfer_low, transfer_high, transfer_overlap: (signal)
    scalars: dict[str, float] = field(default_factory=dict)  # top_k, partial_rho_*
    status: dict[str, str] = field(default_factory=dict)
    long_names: dict[str, str] = field(default_factory=dict)  # of signals that WORDS does not know, by the file

    def of(self, name: str) -> str:
        """The signal in words."""
        return WORDS.get(name) or self.long_names.get(name, name)


def _long_names(run: Run, names: list[str]) -> dict[str, str]:
    """What the file says of signals without words here: the variable of a signal begins with its name."""
    data = dataset(run.tree, "calibration") if run.tree is not None else None
    found: dict[str, str] = {}
    for variable in sorted(map(str, data.variables)) if data is not None else []:
        name = next((name for name in names if name not in WORDS and f"{variable}_".startswith(f"{name}_")), None)
        long_name = None if data is None else data[variable].attrs.get("long_name")
        if name is not None and isinstance(long_name, str):
            found.setdefault(name, clean(long_name))
    return found


def _from_ranking(run: Run) -> Signals:
    """What /ranking has where no further signal was measured."""
    all_of_them = {"nll": "mean_delta_nll", "exact-match": "exact_match_drop", "token-accuracy": "token_accuracy_drop"}
    names = {name: variable for name, variable in all_of_them.items() if np.isfinite(run.figures[variable]).any()}
    values = np.array([run.figures[variable] for variable in names.values()])
    rho = np.array([[float(spearman(a, b)) for b in values] for a in values])
    found = Signals(list(names), values, rho, np.full(rho.shape, np.nan), np.full(rho.shape, np.nan))
    for i, name in enumerate(found.names):
        figure = {"exact-match": "rho_exact_match", "token-accuracy": "rho_token_accuracy"}.get(name)
        if i == 0 or figure not in run.reliability:
            continue
        for table, end in ((found.rho, ""), (found.low, "_ci_low"), (found.high, "_ci_high")):
            table[0, i] = table[i, 0] = run.reliability.get(f"{figure}{end}", np.nan)
    return found


def read(run: Run) -> Signals | None:
    """The signals of a run; None where there are no two of them, or fewer than two layers."""
    data = dataset(run.tree, "signals") if run.tree is not None else None
    names, n = texts(data, "signal"), len(run.layers)
    values = numbers(data, "value", ("signal", "layer"))
    if not names or values is None or values.shape != (len(names), n):
        found = _from_ranking(run)
    else:
        shape = (len(names), len(names))
        rho, low, high = (
            table if table is not None and table.shape == shape else np.full(shape, np.nan)
            for name in ("spearman_rho", "spearman_ci_low", "spearman_ci_high")
            for table in [numbers(data, name, ("signal", "signal_other"))]
        )
        transfer = {
            name: column
            for name in ("transfer", "transfer_low", "transfer_high", "transfer_overlap")
            if (column := numbers(data, name, ("signal",))) is not None
        }
        found = Signals(names, values, rho, low, high, transfer, figures_in(scalars(data)), statuses(data))
        found.long_names = _long_names(run, names)
    return found if n > 1 and len(found.names) > 1 else None


def _ends(low: float, high: float) -> str:
    return f"95\u00a0% interval {interval(low, high)}" if np.isfinite([low, high]).all() else ""


def _with_nll(found: Signals) -> list[Agreement]:
    """[(rho, low, high, name)] of the other signals with delta NLL, most alike first."""
    if NLL not in found.names:
        return []
    at = found.names.index(NLL)
    others = [
        (found.rho[at, i], found.low[at, i], found.high[at, i], name) for i, name in enumerate(found.names) if i != at
    ]
    return sorted((one for one in others if np.isfinite(one[0])), key=lambda one: -one[0])


def _agreement_reading(found: Signals) -> str:
    others = _with_nll(found)
    if not others:
        return "No other signal has a defined agreement with delta NLL."

    def said(one: Agreement) -> str:
        ends = _ends(one[1], one[2])
        return f"{found.of(one[3])} (rho {correlation(one[0])}{', ' + ends if ends else ''})"

    text = f"{count(len(others), 'other signal')}: most like delta NLL is {said(others[0])}"
    if len(others) > 1:
        best, worst = others[0], others[-1]
        text += f", least {said(worst)}"
        if np.isfinite([best[1], worst[2]]).all() and best[1] <= worst[2]:
            text += "; their intervals overlap, so there is not enough evidence that one is more alike than the other"
    unsure = [one for one in others if np.isfinite([one[1], one[2]]).all() and one[1] <= 0 <= one[2]]
    text += "."
    if unsure:
        text += f" For {listed(found.of(one[3]) for one in unsure)} there is not enough evidence of any agreement."
    return text


def side_by_side(run: Run, found: Signals) -> Figure:
    """Ranks by every signal, and the agreement of each two."""
    n = len(run.layers)
    # 1 for the layer that the signal puts first, 0 for the last: signals of different units become comparable.
    place = np.array([(average_ranks(np.where(np.isfinite(row), row, -np.inf)) - 1) / (n - 1) for row in found.values])

    def by_layer(r: int, c: int) -> Cell:
        head, value = f"{found.of(found.names[r])}\nlayer {run.layers[c]}: ", found.values[r, c]
        if not np.isfinite(value):
            return "none", "", head + "not defined"
        rank = n - place[r, c] * (n - 1)
        return step_kind(place[r, c]), f"{rank:.0f}", f"{head}{number(value)}\nrank {rank:g}"

    def by_pair(r: int, c: int) -> Cell:
        if r == c:
            return "none", "", found.of(found.names[r])
        rho, ends = found.rho[r, c], _ends(found.low[r, c], found.high[r, c])
        tip = f"{found.of(found.names[r])} and {found.of(found.names[c])}\nrho {number(rho)}"
        return step_kind(rho), number(rho, 2), tip + (f"\n{ends}" if ends else "")

    rows = [(int(layer), *(float(row[i]) for row in found.values)) for i, layer in enumerate(run.layers)]
    return Figure(
        "signals",
        "Signals side by side",
        _agreement_reading(found),
        [
            (
                "by layer",
                lambda width: draw_grid(Grid(found.names, run.layers.tolist(), by_layer, "Layers by signal"), width),
            ),
            (
                "agreement",
                lambda width: draw_grid(
                    Grid(found.names, found.names, by_pair, "Spearman's rho between signals", "", height=40, widest=84),
                    width,
                ),
            ),
        ],
        "Rank of each layer by each signal, 1 for the largest value; agreement is Spearman's rho over layers.",
        table=(["layer", *found.names], rows),
    )


def agreement_table(found: Signals) -> Figure:
    """Every two signals, with the interval: the numbers behind the agreement."""
    pairs = [(i, j) for i in range(len(found.names)) for j in range(i + 1, len(found.names))]
    rows = [
        (found.names[i], found.names[j], float(found.rho[i, j]), float(found.low[i, j]), float(found.high[i, j]))
        for i, j in pairs
    ]
    names = [f"{a} \u00b7 {b}" for a, b, *_ in rows]
    values, low, high = np.array([row[2:] for row in rows]).T
    tips = [
        f"{name}\nrho {number(v)}" + (f"\n{_ends(a, b)}" if _ends(a, b) else "")
        for name, v, a, b in zip(names, values, low, high, strict=True)
    ]
    defined = [row for row in rows if np.isfinite(row[2])]
    apart = [row for row in defined if np.isfinite(row[3]) and row[3] > 0]
    text = (
        f"Of {count(len(rows), 'pair')} of signals {len(apart)} {'agrees' if len(apart) == 1 else 'agree'} with an "
        "interval above 0"
        + (
            "."
            if len(apart) == len(rows)
            else "; for the rest there is not enough evidence that they agree, or they do not."
        )
    )
    chart = Rows(
        names,
        values,
        low,
        high,
        "Spearman's rho over layers",
        tips,
        "Agreement of every two signals, with intervals",
        {i for i, row in enumerate(rows) if np.isfinite(row[3]) and row[3] > 0},
        is_linear=True,
    )
    return Figure(
        "signal-pairs",
        "How sure the agreement is",
        text,
        [("", lambda width: draw_rows(chart, width))],
        "Bars are 95\u00a0% bootstrap intervals over examples. Filled: above 0.",
        table=(["signal", "other signal", "rho", "low", "high"], rows),
    )


def given_sensitivity(run: Run, found: Signals) -> Figure | None:
    """NLL with the accuracy drops, with generic sensitivity and without; None where it was not measured."""
    rows = []
    for signal, given, plain in (
        ("exact match", "partial_rho_exact_match", "rho_exact_match"),
        ("token accuracy", "partial_rho_accuracy", "rho_token_accuracy"),
    ):
        for words, source, name in (
            (f"{signal}, as it is", run.reliability, plain),
            (f"{signal}, partial", found.scalars, given),
        ):
            rho, low, high = (float(source.get(name + end, np.nan)) for end in ("", "_ci_low", "_ci_high"))
            rows.append((words, rho, low, high))
    partial = [row for row in rows if row[0].endswith("partial")]
    if not any(np.isfinite(row[1]) for row in partial):
        return None
    parts = []
    for words, rho, low, high in partial:
        signal = words.partition(",")[0]
        if not np.isfinite(rho):
            continue
        ends = _ends(low, high)
        text = (
            f"With generic sensitivity taken out, delta NLL and the drop of {signal} agree with rho {correlation(rho)}"
        )
        text += f" ({ends})" if ends else ""
        if not ends or low <= 0 <= high:
            text += ": there is not enough evidence that they agree beyond it."
        else:
            text += (
                ": they agree beyond what generic sensitivity explains."
                if low > 0
                else ": beyond generic sensitivity they disagree."
            )
        parts.append(text)
    chart = Rows(
        [row[0] for row in rows],
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
        "Spearman's rho with delta NLL",
        [f"{row[0]}\nrho {number(row[1])}\n{_ends(row[2], row[3])}".rstrip() for row in rows],
        "Rho of delta NLL with the drops, as it is and given generic sensitivity",
        {1, 3},
        is_linear=True,
    )
    return Figure(
        "partial-rho",
        "Is it more than generic sensitivity?",
        " ".join(parts),
        [("", lambda width: draw_rows(chart, width))],
        "Generic sensitivity: what removing the layer's attention output costs. Filled: partial rho, given it.",
        table=(["drop", "rho", "low", "high"], rows),
    )


def _transfer_reading(found: Signals, k: float | str) -> str:
    value, low, high = (
        found.transfer.get(name, np.full(len(found.names), np.nan))
        for name in ("transfer", "transfer_low", "transfer_high")
    )
    order = [
        int(i)
        for i in np.argsort(-np.where(np.isfinite(value), value, -np.inf), kind="stable")
        if np.isfinite(value[i])
    ]
    if not order:
        return f"Transfer is not defined: {found.status.get('transfer', 'the file does not have it')}."
    best = order[0]
    text = (
        f"The top {k} by {found.of(found.names[best])}, chosen on half of the examples, "
        f"{'keeps' if k == 1 else 'keep'} "
        f"{percent(value[best])} of what the other half's own best {k} would"
    )
    behind = [i for i in order[1:] if np.isfinite([high[i], low[best]]).all() and high[i] < low[best]]
    near = [i for i in order[1:] if i not in behind]
    text += "."
    if behind:
        said = [f"{found.of(found.names[i])} ({percent(value[i])})" for i in behind]
        text += f" {capital(listed(said))} {'keeps' if len(behind) == 1 else 'keep'} less."
    if near:
        text += (
            f" Of {listed(found.of(found.names[i]) for i in near)} the intervals overlap with it: not enough evidence "
            "of a difference."
        )
    return text


def transfer(found: Signals) -> Figure | None:
    """What a choice by each signal is worth on examples it has not seen; None where the file has no transfer."""
    if "transfer" not in found.transfer:
        return None
    nothing = np.full(len(found.names), np.nan)
    value, low, high, overlap = (
        found.transfer.get(name, nothing) for name in ("transfer", "transfer_low", "transfer_high", "transfer_overlap")
    )
    k = found.scalars.get("top_k", "K")
    tips = [
        f"{found.of(name)}\n{percent(value[i])} of the best {k}'s cost is kept\nmiddle 95\u00a0% of the splits: "
        f"{percent(low[i])} to {percent(high[i])}\nboth halves share {percent(overlap[i])} of the top {k}"
        for i, name in enumerate(found.names)
    ]
    best = set(np.flatnonzero(value == np.nanmax(value)).tolist()) if np.isfinite(value).any() else set()
    worth = Rows(
        found.names,
        value,
        low,
        high,
        f"share of the best top {k}'s cost, on the other half",
        tips,
        "Transfer of each signal's choice to the held-out half",
        best,
        percent,
        True,
    )
    shared = Rows(
        found.names,
        overlap,
        nothing,
        nothing,
        f"share of the top {k} that both halves choose",
        tips,
        "Overlap of the choices on two halves",
        set(),
        percent,
        True,
    )
    rows = [
        (name, float(value[i]), float(low[i]), float(high[i]), float(overlap[i])) for i, name in enumerate(found.names)
    ]
    return Figure(
        "transfer",
        "Does the choice hold on unseen examples?",
        _transfer_reading(found, k),
        [("worth", lambda width: draw_rows(worth, width)), ("overlap", lambda width: draw_rows(shared, width))],
        "The examples are halved at random; layers chosen on one half are priced on the other. Bars: the middle "
        "95\u00a0% of the splits.",
        table=(["signal", "transfer", "low", "high", "overlap"], rows),
    )


def figures(run: Run) -> list[Figure]:
    """Every figure of the signals that the run has data for."""
    found = read(run)
    if found is None:
        return []
    given = [side_by_side(run, found)]
    if found.scalars and np.isfinite(found.low).any():  # of /signals; the three of /ranking have a figure of their own
        given.append(agreement_table(found))
    return [figure for figure in (*given, given_sensitivity(run, found), transfer(found)) if figure is not None]
