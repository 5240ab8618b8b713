"""Charts that serve several figures: grids of cells, scatters, and rows of values with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from winnow.report.arrays import Floats, Form
from winnow.report.drawing.axes import is_log, layer_axis, ratio_scale, scale, x_axis, y_axis
from winnow.report.drawing.drawing import LINE, Drawing, shorten, text_width
from winnow.report.drawing.labels import Spot, beside, in_column
from winnow.report.drawing.palette import MARKS, N_STEPS
from winnow.report.wording import number

MOST_NAMED = 40  # points that get a name
MOST_LISTED = 24  # of a chart that lists the names without room
MOST_SQUARES = 2000  # of a grid of layers
MOST_WORDS = 1500  # cells of a grid with their value inside
BAR = 5.0  # height of a bar below a cell

Cell = tuple[str, str, str]  # kind, text inside, tip
Bar = tuple[str, float, str]  # kind, length as a share of the cell's width, text below


def step_kind(share: float) -> str:
    """Kind of a share or correlation from 0 to 1; below 0 as 0."""
    return "none" if not np.isfinite(share) else f"q{int(round(min(max(share, 0.0), 1.0) * (N_STEPS - 1)))}"


@dataclass
class Grid:
    """Cells with a value each: rows x columns. `bar`: a second value, as the length of a bar below the cell."""

    rows: Sequence[object]
    columns: Sequence[object]
    cell: Callable[[int, int], Cell]  # of a row and a column
    label: str
    axis: str = "layer"
    row_axis: str = ""
    height: float = 26.0
    widest: float = 1000.0  # of a column
    bar: Callable[[int, int], Bar] | None = None  # of a row and a column


def _draw_bars(
    drawing: Drawing, bars: Sequence[Sequence[Bar]], tops: Sequence[float], left: float, step: float, has_words: bool
) -> None:
    """tops: of the bars of each row; left: edge of the first column."""
    boxes, kinds = [], []
    for y, row in zip(tops, bars, strict=True):
        for c, (kind, share, word) in enumerate(row):
            inset = MARKS[kind][2] / 2  # an outline stays within its bar
            x, length = left + c * step + 0.5, max(share * max(step - 1, 0.6 * step), 1.0)
            boxes.append((x + inset, y + inset, x + max(length - inset, 2 * inset), y + BAR - inset))
            kinds.append(kind)
            if word and has_words:
                drawing.text(left + (c + 0.5) * step, y + BAR + LINE / 2, word, "center")
    drawing.cells(boxes, kinds)


def draw_grid(grid: Grid, width: int) -> Drawing:
    limit = width * (0.24 if width > 500 else 0.26)
    names = [shorten(str(row), limit) for row in grid.rows]
    left = max((text_width(name) for name in names), default=0.0) + 16
    n_rows, n_columns = len(names), max(len(grid.columns), 1)
    top, below = 22 if grid.row_axis else 6, 40 if grid.axis else 24
    step = min((width - left - 6) / n_columns, grid.widest)
    height = min(grid.height, max(LINE, step)) if n_columns == n_rows else max(grid.height, LINE)
    bars = [[grid.bar(r, c) for c in range(len(grid.columns))] for r in range(n_rows)] if grid.bar else []
    widest = max((text_width(word) for word in {word for row in bars for _, _, word in row}), default=0.0)
    has_words = 0 < widest < step - 3 and n_rows * n_columns <= MOST_WORDS
    more = [BAR + 5 + (LINE if has_words and any(word for _, _, word in row) else 0) for row in bars] or [0.0] * n_rows
    tops = np.cumsum([top, *(height + one for one in more)]).tolist()
    drawing = Drawing(width, tops[-1] + below, grid.label)
    drawing.place(left, width - left - step * n_columns, top, below)
    if grid.row_axis:
        drawing.text(2, 10, grid.row_axis)
    boxes, kinds, tips, words = [], [], [], []
    for r, name in enumerate(names):
        y = tops[r]
        drawing.text(left - 8, y + height / 2, name, "right")
        for c in range(len(grid.columns)):
            kind, inside, tip = grid.cell(r, c)
            x = left + c * step
            boxes.append((x + 0.5, y + 0.5, x + 0.5 + max(step - 1, 0.6 * step), y + height - 1))
            kinds.append(kind)
            tips.append(tip)
            if inside and text_width(inside) < step - 3:
                words.append((x + step / 2, y + height / 2, inside, kind))
    drawing.cells(boxes, kinds, tips)
    _draw_bars(drawing, bars, [y + height for y in tops[: len(bars)]], left, step, has_words)
    for x, y, inside, kind in words if len(words) <= MOST_WORDS else ():
        drawing.text(x, y, inside, "center", f"on-{kind}")
    layer_axis(drawing, grid.columns, grid.axis)
    return drawing


@dataclass
class Points:
    """A scatter: positions of layers or patterns by two figures."""

    x: Floats
    y: Floats
    x_label: str
    y_label: str
    names: list[str]  # of the points
    tips: list[str]
    filled: set[int]  # positions that are drawn filled
    labelled: list[int]  # positions that get their name, the most important first
    label: str
    y_form: Form = number
    y_linear: bool | None = None  # None: as the values need
    x_linear: bool | None = None
    x_form: Form = number
    low: Floats | None = None  # ends of the intervals of y
    high: Floats | None = None
    has_list: bool = False  # names without room beside their point are listed, with a line to it
    path: list[int] = field(default_factory=list)  # positions that a line of steps connects
    x_ratios: bool = False  # all x are above 0, and equal ratios of them equally far apart


def _log_word(drawing: Drawing, which: str) -> str:
    return " (log)" if is_log(drawing, which) else ""


def _point_axes(points: Points, width: int, height: float, right: float) -> Drawing:
    drawing = Drawing(width, height, points.label)
    drawing.place(62, right, 26, 42)
    ends = [end for end in (points.low, points.high) if end is not None]
    wanted = 5 if drawing.is_wide else 4
    if points.x_ratios:
        x_ticks = ratio_scale(drawing, "x", points.x, wanted)
    else:
        x_ticks = scale(drawing, "x", points.x, points.x_linear, wanted)
    y_ticks = scale(drawing, "y", np.concatenate([points.y, *ends]), points.y_linear, 5)
    y_axis(drawing, y_ticks, points.y_label + _log_word(drawing, "y"), points.y_form, right)
    x_axis(drawing, x_ticks, points.x_label + _log_word(drawing, "x"), points.x_form)
    return drawing


def _named_points(points: Points, width: int) -> tuple[Drawing, list[int], list[Spot | None]]:
    """(drawing, positions with a name, their places): the right margin and the height as the list of names needs."""
    good = np.isfinite(points.x) & np.isfinite(points.y)
    named = [i for i in points.labelled if good[i]][: MOST_LISTED if points.has_list else MOST_NAMED]
    others = [i for i in np.flatnonzero(good).tolist() if i not in set(named)]
    widths = [text_width(points.names[i], i in points.filled) for i in named]
    height, right = (380.0 if width > 500 else 320.0), 22.0
    for _ in range(3):  # the list takes room from the points, which may take the room beside some from them
        drawing = _point_axes(points, width, height, right)
        places = drawing.spots(points.x[named + others], points.y[named + others])
        left, top, edge, bottom = drawing.box
        edge = edge if right > 22 else width - 3.0
        spots = beside(places, widths, (left, top - 12, edge, bottom), bool(points.path))
        listed = [i for i, spot in zip(named, spots, strict=True) if spot is None]
        if not listed or not points.has_list:
            break
        room = max(widths) + 40
        height = max(height, LINE * (len(listed) + 2) + 80)
        if right == room and bottom - top >= LINE * len(listed):
            break
        right = room
    return drawing, named, spots


def draw_points(points: Points, width: int) -> Drawing:
    limit = 150 if width > 500 else 96
    points = replace(points, names=[shorten(name, limit) for name in points.names])
    drawing, named, spots = _named_points(points, width)
    good = [i for i in range(len(points.x)) if np.isfinite(points.x[i]) and np.isfinite(points.y[i])]
    low, high = points.low, points.high
    if points.path:
        drawing.steps(points.x[points.path], points.y[points.path], "keep")
    if low is not None and high is not None:
        drawing.whiskers(
            [
                ((points.x[i], low[i]), (points.x[i], high[i]), i in points.filled)
                for i in good
                if np.isfinite([low[i], high[i]]).all()
            ]
        )
    kinds = ["dot-keep" if i in points.filled else "dot-spare" for i in good]
    drawing.dots(points.x[good], points.y[good], kinds, [points.tips[i] for i in good])
    for i, spot in zip(named, spots, strict=True):
        if spot:
            drawing.text(*spot[:2], points.names[i], spot[2], "ink", i in points.filled)
    listed = [i for i, spot in zip(named, spots, strict=True) if spot is None] if points.has_list else []
    if listed:
        _draw_list(drawing, points, listed)
    return drawing


def _draw_list(drawing: Drawing, points: Points, listed: list[int]) -> None:
    """Names in a column at the right, with a line to each point."""
    _, top, right, bottom = drawing.box
    listed = listed[: int((bottom - top) // LINE)]
    places = drawing.spots(points.x[listed], points.y[listed])
    for i, (x, y), height in zip(
        listed, places, in_column([y for _, y in places], top + LINE / 2, bottom - LINE / 2), strict=True
    ):
        drawing.text(right + 34, height, points.names[i], "left", "ink", i in points.filled)
        drawing.leader([(x + 6, y), (right + 14, height), (right + 30, height)])


@dataclass
class Rows:
    """A row each: a value with its interval, along one axis. Rows without a finite value are named, and empty."""

    names: list[str]
    values: Floats
    low: Floats
    high: Floats
    axis: str
    tips: list[str]
    label: str
    filled: set[int] = field(default_factory=set)
    form: Form = number
    is_linear: bool | None = None  # None: as the values need


def draw_rows(rows: Rows, width: int) -> Drawing:
    names = [shorten(name, width * (0.3 if width > 500 else 0.4)) for name in rows.names]
    left = max(text_width(name) for name in names) + 16
    height = 26 if len(names) <= 40 else 16
    n = len(names)
    drawing = Drawing(width, height * n + 54, rows.label)
    drawing.place(left, 22, 8, 46)
    ticks = scale(
        drawing,
        "x",
        np.concatenate([rows.values, rows.low, rows.high]),
        rows.is_linear,
        5 if drawing.is_wide else 3,
    )
    drawing.axes.set_ylim(n - 0.5, -0.5)
    x_axis(drawing, ticks, rows.axis + _log_word(drawing, "x"), rows.form)
    good = [i for i in range(n) if np.isfinite(rows.values[i])]
    for i, name in enumerate(names):
        drawing.text(left - 8, 8 + (i + 0.5) * height, name, "right")
        if i not in good:
            drawing.text(left + 10, 8 + (i + 0.5) * height, "not defined", "left", "faint")
    drawing.whiskers(
        [
            ((rows.low[i], i), (rows.high[i], i), i in rows.filled)
            for i in good
            if np.isfinite([rows.low[i], rows.high[i]]).all()
        ]
    )
    kinds = ["dot-keep" if i in rows.filled else "dot-spare" for i in good]
    drawing.dots(rows.values[good], good, kinds, [rows.tips[i] for i in good])
    return drawing


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of the positions 0 ... n - 1, evenly spaced, the first and the last among them."""
    return (
        list(range(n)) if n <= most else sorted({round(i * (n - 1) / (max(most, 2) - 1)) for i in range(max(most, 2))})
    )
