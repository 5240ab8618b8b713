"""The figure "score against KV budget": a panel for each bin of lengths, whose line joins the front."""

import numpy as np
from matplotlib.axes import Axes

from winnow.report.drawing.drawing import INK, NARROW, Drawing, text_width
from winnow.report.drawing.labels import beside
from winnow.score.results import Group, Results

HEIGHT = 290
MARGINS = (44.0, 12.0, 40.0, 46.0)  # of a panel: left, right, top, bottom


def draw(results: Results, kind: str) -> bytes:
    """kind: "svg" or "png"."""
    groups = [group for group in results.groups if group.task is None and group.length_bin]
    groups = groups or [group for group in results.groups if group.task is None]
    n_columns = min(2, len(groups))
    n_rows = (len(groups) + n_columns - 1) // n_columns
    drawing = Drawing(NARROW * n_columns, HEIGHT * n_rows, "Score against KV budget")
    for i, group in enumerate(groups):
        row, column = divmod(i, n_columns)
        left, right, top, bottom = MARGINS
        axes = drawing.add_axes(
            column * NARROW + left,
            (n_columns - 1 - column) * NARROW + right,
            row * HEIGHT + top,
            (n_rows - 1 - row) * HEIGHT + bottom,
        )
        _draw_panel(drawing, axes, results, group)
        x, y = column * NARROW + left, row * HEIGHT
        drawing.text(x, y + 10, f"prompt length {group.length_bin}" if group.length_bin else "all", "left", "ink", True)
        drawing.text(x, y + 26, "score, %")
        middle = (column + 0.5) * NARROW
        drawing.text(middle, y + HEIGHT - 12, "KV cache at 128k, % of full attention", "center")
    return drawing.file(kind)


def _draw_panel(drawing: Drawing, axes: Axes, results: Results, group: Group) -> None:
    budget = np.array([100 * results.budgets[pattern].kv_cache_share for pattern in results.patterns])
    score, low, high = (100 * np.array([getattr(one, name) for one in group.means]) for name in ("mean", "low", "high"))
    on_front = np.array(group.on_front or [False] * len(budget))
    axes.set_xlim(0, 105)
    axes.set_ylim(0, 103)
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(color=INK["grid"])
    order = np.flatnonzero(on_front)[np.argsort(budget[on_front], kind="stable")]
    drawing.steps(budget[order], score[order], "keep", axes)
    for is_front in (False, True):
        at = on_front == is_front
        ends = np.maximum([score[at] - low[at], high[at] - score[at]], 0)
        colour = INK["keep" if is_front else "faint"]
        axes.errorbar(budget[at], score[at], ends, fmt="o", markersize=7, color=colour, elinewidth=1.2, clip_on=False)
    # Those on the front are named first; what has no room beside its point stays without a name.
    named = sorted(range(len(budget)), key=lambda i: not on_front[i])
    box = axes.get_position()
    edge = (
        box.x0 * drawing.width,
        (1 - box.y1) * drawing.height - 8,
        box.x1 * drawing.width + 8,
        (1 - box.y0) * drawing.height + 8,
    )
    pixels = axes.transData.transform(np.column_stack([budget[named], score[named]]))
    widths = [text_width(results.patterns[i], bool(on_front[i])) for i in named]
    spots = beside([(x, drawing.height - up) for x, up in pixels], widths, edge, True)
    for i, spot in zip(named, spots, strict=True):
        if spot:
            drawing.text(*spot[:2], results.patterns[i], spot[2], "ink", bool(on_front[i]))
