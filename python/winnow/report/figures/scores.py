"""Figures of the scores of what patterns wrote: against the KV budget, and against a baseline."""

from functools import partial

import numpy as np

from winnow.report.drawing.charts import Points, Rows, draw_points, draw_rows
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.figure import Draw, Figure, Row
from winnow.report.reading import scores
from winnow.report.reading.scores import Group, Scores
from winnow.report.wording import listed, percent

MOST_GROUPS = 12  # tasks and bins of lengths with a drawing


def _draw_front(result: Scores, group: Group, width: int) -> Drawing:
    mean, low, high = group.means
    on = sorted(np.flatnonzero(group.on_front).tolist(), key=lambda i: result.cache[i])
    tips = [
        f"{pattern}: {percent(result.cache[i])} of the KV cache\nscore {scores.said(result, group, i)}\n"
        f"{group.n:,} examples, {group.name}"
        for i, pattern in enumerate(result.patterns)
    ]
    points = Points(
        result.cache,
        mean,
        "KV cache at 131,072 tokens, share of full attention's",
        f"score, {group.name}",
        result.patterns,
        tips,
        set(on),
        list(dict.fromkeys([*on, *np.argsort(-mean, kind="stable").tolist()])),
        f"Score of each pattern against its KV cache, {group.name}",
        percent,
        True,
        True,
        percent,
        low,
        high,
        has_list=True,
        path=on,
    )
    return draw_points(points, width)


def _table(result: Scores) -> tuple[list[str], list[Row]]:
    columns = ["pattern", "examples of", "examples", "full layers", "KV cache", "score", "low", "high"]
    columns += [f"less {result.baseline}", "low", "high"] if result.baseline else []
    rows: list[Row] = [
        (
            pattern,
            group.name,
            group.n,
            float(result.full_layers[i]),
            float(result.cache[i]),
            *(float(column[i]) for column in group.means),
            *((float(column[i]) for column in group.minus) if result.baseline else ()),
        )
        for group in result.groups
        for i, pattern in enumerate(result.patterns)
    ]
    return columns, rows


def front(result: Scores) -> Figure:
    """Score against KV budget; without budgets its numbers alone."""
    drawings: list[tuple[str, Draw]] = []
    if result.has_budgets:
        drawings = [(group.name, partial(_draw_front, result, group)) for group in result.groups[:MOST_GROUPS]]
    cut = f" The first {MOST_GROUPS} of {len(result.groups)} are drawn." if len(result.groups) > MOST_GROUPS else ""
    return Figure(
        "score-front",
        "What full layers buy in score",
        scores.lead(result),
        drawings,
        "A point is a pattern, its bar the 95\u00a0% bootstrap interval over examples. The line joins the front: no "
        "pattern is as good with a smaller KV cache." + cut,
        [("keep", "on the front"), ("spare", "behind it")],
        _table(result),
    )


def _draw_difference(result: Scores, group: Group, width: int) -> Drawing:
    value, low, high = group.minus
    sure = {i for i in range(len(value)) if low[i] > 0 or high[i] < 0}
    tips = [
        f"{pattern}\n{100 * value[i]:+.1f} points ({100 * low[i]:+.1f} to {100 * high[i]:+.1f})".replace("-", "\u2212")
        for i, pattern in enumerate(result.patterns)
    ]
    axis = f"score less that of {result.baseline}, {group.name}"
    return draw_rows(Rows(result.patterns, value, low, high, axis, tips, axis, sure, percent, True), width)


def difference(result: Scores) -> Figure | None:
    """Paired differences from the baseline; None where there is none."""
    groups = [group for group in result.groups if np.isfinite(group.minus[0]).all()]
    if not groups or not result.baseline:
        return None
    value, low, high = groups[0].minus
    parts = []
    for words, at in (("Worse than", high < 0), ("Better than", low > 0)):
        if at.any():
            parts.append(f"{words} {result.baseline}: {listed(np.array(result.patterns)[at])}.")
    open_ = [
        f"{pattern} (loses at most {max(0.0, -100 * low[i]):.1f} points)"
        for i, pattern in enumerate(result.patterns)
        if low[i] <= 0 <= high[i] and pattern != result.baseline
    ]
    if open_:
        parts.append(f"Not told apart from it: {listed(open_)}.")
    return Figure(
        "score-minus-baseline",
        f"Score against {result.baseline}",
        " ".join(parts) or "Only the baseline was scored.",
        [(group.name, partial(_draw_difference, result, group)) for group in groups[:MOST_GROUPS]],
        "Differences over the same examples; bars are 95\u00a0% intervals of the paired bootstrap. Filled: without 0.",
    )


def figures(result: Scores) -> list[Figure]:
    return [figure for figure in (front(result), difference(result)) if figure is not None]
