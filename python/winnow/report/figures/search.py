"""Figures of a search: layers at each K, the course of the objective, verification, interactions of pairs."""

from functools import partial

import numpy as np

from winnow.report.arrays import Floats, Integers
from winnow.report.drawing.axes import is_log, needs_log, scale, x_axis, y_axis
from winnow.report.drawing.charts import MOST_SQUARES, Cell, Grid, Points, draw_grid, draw_points, evenly
from winnow.report.drawing.drawing import Drawing
from winnow.report.drawing.palette import N_SIGNED
from winnow.report.figures.figure import Draw, Figure, Row
from winnow.report.reading import search
from winnow.report.reading.search import Method, Pairs, Search
from winnow.report.wording import capital, count, form_of, interval, is_small_good, number, ranges, signed, the_layers

MOST_DOTS = 600  # patterns in the course of a search
_WORDS = {
    "mean_exact_match": "exact match",
    "mean_nll": "NLL",
    "mean_kl": "KL",
    "mean_token_accuracy": "token accuracy",
}


def _kept_reading(method: Method, layers: Integers) -> str:
    steps, nested = [], True
    for i in range(1, len(method.keep)):
        new = np.flatnonzero(method.full[i] & ~method.full[i - 1])
        nested &= not (method.full[i - 1] & ~method.full[i]).any() and method.keep[i] == method.keep[i - 1] + 1
        steps += [int(layers[position]) for position in new]
    at = search.target(method, len(layers))
    text = (
        f"With {method.keep[at]} of {count(len(layers), 'layer')} at full attention: keep "
        f"{ranges(layers[method.full[at]]) or 'none'}."
    )
    if len(method.keep) < 2:
        return text
    if nested:
        few = ", ".join(str(step) for step in steps[:12])
        return text + f" Each K adds one layer to the one before: {few}{', ...' if len(steps) > 12 else ''}."
    return text + " The best patterns are not nested: a larger K does not only add layers."


def kept(method: Method, layers: Integers, prefix: str) -> Figure:
    """A row a K: what it keeps."""
    shown = evenly(len(method.keep), MOST_SQUARES // len(layers))

    def cell(r: int, c: int) -> Cell:
        is_kept = method.full[shown[r], c]
        return (
            ("keep" if is_kept else "spare"),
            "",
            (f"K = {method.keep[shown[r]]}\nlayer {layers[c]}: {'full attention' if is_kept else 'windowed'}"),
        )

    columns = ["K", "layers", *(name.replace("_", " ") for name in method.means)]
    rows: list[Row] = [
        (
            k,
            " ".join(str(layer) for layer in layers[method.full[i]]),
            *(float(values[i]) for values in method.means.values()),
        )
        for i, k in enumerate(method.keep)
    ]
    return Figure(
        f"{prefix}-kept",
        f"{method.name}: the best pattern of each K",
        _kept_reading(method, layers),
        [
            (
                "",
                lambda width: draw_grid(
                    Grid([f"K = {method.keep[i]}" for i in shown], layers.tolist(), cell, "Layers kept at each K"),
                    width,
                ),
            )
        ],
        f"Chosen by {method.measure[1]}, {count(int(method.scalars.get('beam', 1)), 'pattern')} carried from step to "
        "step."
        + (
            ""
            if len(shown) == len(method.keep)
            else f" {len(shown)} of {len(method.keep)} K are drawn; the table has all."
        ),
        [("keep", "full attention"), ("spare", "windowed")],
        table=(columns, rows),
    )


def _course_reading(method: Method) -> str:
    variable, words = method.measure
    values, form = method.means[variable], form_of(variable)
    good = np.flatnonzero(np.isfinite(values))
    first, last = good[0], good[-1]
    text = (
        f"{capital(words)} goes from {form(values[first])} at K = {method.keep[first]} to {form(values[last])} "
        f"at K = {method.keep[last]}."
    )
    if len(good) < 2:
        return text
    gains = [(abs(values[b] - values[a]), a, b) for a, b in zip(good, good[1:], strict=False)]
    size, a, b = max(gains)
    if size > 0 and len(good) > 2:
        text += (
            f" The largest step is from K = {method.keep[a]} to {method.keep[b]} ({form(values[a])} to "
            f"{form(values[b])})."
        )
    low, high = search.step_difference(method, last - 1, last)
    if np.isfinite([low, high]).all() and low <= 0 <= high and not low == high == 0:
        text += (
            f" Between K = {method.keep[last - 1]} and {method.keep[last]} there is not enough evidence of a "
            "difference on these examples."
        )
    return text


def _draw_course(method: Method, variable: str, width: int) -> Drawing:
    drawing = Drawing(width, 320 if width > 500 else 280, f"{_WORDS[variable]} of the best pattern of each K")
    drawing.place(62, 16, 26, 42)
    means, form = method.means[variable], form_of(variable)
    each = method.examples.get(variable.removeprefix("mean_"))
    other = np.array([]) if each is None else each.mean(1)
    verified = method.means.get(variable + "_verified")
    drawing.axes.set_xlim(min(method.keep) - 0.5, max(method.keep) + 0.5)
    values = np.concatenate([means, other, [] if verified is None else verified])
    ticks = scale(drawing, "y", values, None if is_small_good(variable) else True)
    y_axis(drawing, ticks, _WORDS[variable] + (" (log)" if is_log(drawing, "y") else ""), form, 16)
    budgets = range(min(method.keep), max(method.keep) + 1)
    x_axis(drawing, [budgets[i] for i in evenly(len(budgets), 9)], "K: layers with full attention")
    shown = [i for i in evenly(len(other), MOST_DOTS) if np.isfinite([other[i], method.pattern_keep[i]]).all()]
    drawing.dots(
        method.pattern_keep[shown],
        other[shown],
        ["dot-spare"] * len(shown),
        [f"{method.patterns[i]}\n{_WORDS[variable]} {form(other[i])}" for i in shown],
        2.6,
    )
    good = [i for i in range(len(means)) if np.isfinite(means[i])]
    keep = np.array(method.keep, float)
    if good:
        drawing.line(keep[good], means[good], "keep", 1.6)
    tips = [f"best of K = {method.keep[i]}\n{search.figures_said(method, i)}" for i in good]
    drawing.dots(keep[good], means[good], ["dot-keep"] * len(good), tips)
    if verified is not None:
        both = [i for i in good if np.isfinite(verified[i])]
        tips = [
            f"K = {method.keep[i]}, every row under the window\n{_WORDS[variable]} {form(verified[i])}" for i in both
        ]
        aside = 9 * (len(budgets) or 1) / (drawing.box[2] - drawing.box[0])  # so that neither hides the other
        drawing.dots(keep[both] + aside, verified[both], ["dot-change"] * len(both), tips, 4)
    return drawing


def course(method: Method, prefix: str) -> Figure:
    variables = [
        variable
        for variable in (method.measure[0], "mean_exact_match", "mean_nll", "mean_kl")
        if variable in method.means
    ]
    variables = list(dict.fromkeys(variables))
    legend = [("keep", "best of each K"), ("spare", "others that were measured")]
    if any(name.endswith("_verified") for name in method.means):
        legend.append(("change", "the best, every row under the window"))
    return Figure(
        f"{prefix}-course",
        f"{method.name}: what each further layer buys",
        _course_reading(method),
        [(_WORDS[variable], partial(_draw_course, method, variable)) for variable in variables],
        "",
        legend,
    )


def verification(method: Method, prefix: str) -> Figure | None:
    """Tail against exact figures of the verified patterns; None where nothing was verified."""
    both = [
        (words, method.examples.get(name), method.examples.get(name + "_verified"), name)
        for name, words in (("nll", "NLL"), ("exact_match", "exact match"))
    ]
    pairs = [
        (words, *search.verified_means(tail, exact), name)
        for words, tail, exact, name in both
        if tail is not None and exact is not None and np.isfinite(exact).any() and tail.shape == exact.shape
    ]
    if not pairs:
        return None
    best = {position for i in range(len(method.keep)) if (position := search.best_position(method, i)) is not None}

    def draw(words: str, tail: Floats, exact: Floats, name: str, width: int) -> Drawing:
        form = form_of(name)
        tips = [f"{pattern}\ntail {form(tail[i])}, exact {form(exact[i])}" for i, pattern in enumerate(method.patterns)]
        # A place and a name for patterns that were verified; the others have NaN and are not drawn.
        labels = sorted(best, key=lambda i: -method.pattern_keep[i])
        is_linear = not is_small_good(name) or not needs_log(np.concatenate([tail, exact]))
        return draw_points(
            Points(
                np.where(np.isfinite(exact), tail, np.nan),
                exact,
                f"{words}, tail rows only",
                f"{words}, every row under the window",
                [f"K = {k:.0f}" for k in method.pattern_keep],
                tips,
                best,
                labels,
                f"{words} of tail and exact measurement",
                form,
                is_linear,
                is_linear,
                form,
            ),
            width,
        )

    rho = {name: method.scalars.get(f"rho_{name}", float("nan")) for *_, name in pairs}
    rows: list[Row] = [
        (
            words,
            float(rho[name]),
            *(float(method.scalars.get(f"rho_{name}_ci_{end}", float("nan"))) for end in ("low", "high")),
        )
        for words, _, _, name in pairs
    ]
    text = " ".join(search.verified(method)) or "The agreement of tail and exact figures is not defined."
    return Figure(
        f"{prefix}-verified",
        f"{method.name}: does the short cut hold?",
        text,
        [(words, partial(draw, words, tail, exact, name)) for words, tail, exact, name in pairs],
        "A point is a verified pattern. Filled: the best of its K. Wins kept: how many patterns that lost by tail "
        "figures are no better exactly.",
        table=(["figure", "rho", "low", "high"], rows),
    )


def _pairs_reading(pairs: Pairs) -> str:
    n = len(pairs.layers)
    upper = [(i, j) for i in range(n) for j in range(i + 1, n) if np.isfinite(pairs.interaction[i, j])]
    if not upper:
        return "No pair has a defined interaction."
    clear = [(i, j) for i, j in upper if pairs.low[i, j] > 0 or pairs.high[i, j] < 0]
    more = [one for one in clear if pairs.interaction[one] > 0]
    text = (
        f"Of {count(len(upper), 'pair')} {len(more)} hurt{'s' if len(more) == 1 else ''} more together than apart and "
        f"{len(clear) - len(more)} less"
    )
    rest = len(upper) - len(clear)
    text += f"; for {rest} there is not enough evidence of an interaction." if rest else "."
    if clear:
        i, j = max(clear, key=lambda one: abs(pairs.interaction[one]))
        text += (
            f" The largest is of {the_layers(sorted([pairs.layers[i], pairs.layers[j]]))}: "
            f"{signed(pairs.interaction[i, j])} nats per token (95\u00a0% interval "
            f"{interval(pairs.low[i, j], pairs.high[i, j])}), beside {number(pairs.alone[i])} and "
            f"{number(pairs.alone[j])} of each alone."
        )
    return text


def interactions(pairs: Pairs) -> Figure:
    """Delta of both windowed less the sum of each alone."""
    n = len(pairs.layers)

    def drawing(table: Floats, unit: str, has_ends: bool, width: int) -> Drawing:
        finite = np.abs(table[np.isfinite(table)])
        largest = float(finite.max()) if finite.size and finite.max() > 0 else 1.0

        def cell(r: int, c: int) -> Cell:
            value = table[r, c]
            if r == c:
                return "none", "", f"layer {pairs.layers[r]}\nalone {number(pairs.alone[r])} nats per token"
            tip = f"layers {pairs.layers[r]} and {pairs.layers[c]}\n{signed(value)} {unit}".rstrip()
            is_clear = np.isfinite(value)
            if has_ends and np.isfinite([pairs.low[r, c], pairs.high[r, c]]).all():
                tip += f"\n95\u00a0% interval {interval(pairs.low[r, c], pairs.high[r, c])}"
                is_clear &= bool(pairs.low[r, c] > 0 or pairs.high[r, c] < 0)
                tip += "" if is_clear else "\nnot enough evidence"
            middle = (N_SIGNED - 1) / 2
            kind = f"d{round(middle + middle * float(np.clip(value / largest, -1, 1)))}" if is_clear else "none"
            return kind, number(value, 2), tip

        return draw_grid(
            Grid(
                pairs.layers.tolist(),
                pairs.layers.tolist(),
                cell,
                "Interaction of every two candidates",
                "layer",
                "layer",
                height=40,
                widest=84,
            ),
            width,
        )

    drawings: list[tuple[str, Draw]] = [("NLL", partial(drawing, pairs.interaction, "nats per token", True))]
    if np.isfinite(pairs.exact_match).any():
        drawings.append(("exact match", partial(drawing, pairs.exact_match, "", False)))
    rows = [
        (
            int(pairs.layers[i]),
            int(pairs.layers[j]),
            float(pairs.both[i, j]),
            float(pairs.interaction[i, j]),
            float(pairs.low[i, j]),
            float(pairs.high[i, j]),
            float(pairs.exact_match[i, j]),
        )
        for i in range(n)
        for j in range(i + 1, n)
    ]
    return Figure(
        "pairs",
        "How two windowed layers act together",
        _pairs_reading(pairs),
        drawings,
        "Delta of both windowed less the sum of each alone: blue, they hurt more together than apart; orange, less. "
        "Grey: the 95\u00a0% interval holds 0.",
        table=(
            ["layer", "other layer", "delta NLL of both", "interaction", "low", "high", "interaction of exact match"],
            rows,
        ),
    )


def figures(result: Search) -> list[Figure]:
    found = []
    for method in result.methods:
        prefix = "".join(c if c.isalnum() else "-" for c in method.name)
        found += [kept(method, result.layers, prefix), course(method, prefix), verification(method, prefix)]
    if result.pairs is not None:
        found.append(interactions(result.pairs))
    return [figure for figure in found if figure is not None]
