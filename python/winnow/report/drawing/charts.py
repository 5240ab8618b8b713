"""Charts that serve several figures: grids of cells, scatters, and rows of values with their intervals."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from winnow.report.arrays import Floats, Form
from winnow.report.drawing.palette import N_STEPS
from winnow.report.drawing.svg import TEXT_WIDTH, Canvas, place_labels, value_scale
from winnow.report.markup import Markup
from winnow.report.wording import number

MOST_NAMED = 40  # points that get a name
MOST_SQUARES = 2000  # of a grid of layers

Cell = tuple[str, str, str]  # class, text inside, tip


def step_class(share: float) -> str:
    """Class of a share or correlation from 0 to 1; below 0 as 0."""
    return "none" if not np.isfinite(share) else f"q{int(round(min(max(share, 0.0), 1.0) * (N_STEPS - 1)))}"


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


@dataclass
class Grid:
    """Cells with a value each: rows x columns."""

    rows: Sequence[object]
    columns: Sequence[object]
    cell: Callable[[int, int], Cell]  # of a row and a column
    label: str
    axis: str = "layer"
    row_axis: str = ""
    height: float = 26.0
    widest: float = 1000.0  # of a column


def draw_grid(grid: Grid, width: int) -> Markup:
    longest = max((len(str(row)) for row in grid.rows), default=1)
    limit = 34 if width > 500 else 12
    left = min(longest, limit) * 6.4 + 16
    n_rows, n_columns = len(grid.rows), max(len(grid.columns), 1)
    top = 22 if grid.row_axis else 6
    step = min((width - left - 6) / n_columns, grid.widest)
    height = min(grid.height, max(14.0, step)) if n_columns == n_rows else grid.height
    canvas = Canvas(
        width,
        top + n_rows * height + (38 if grid.axis else 22),
        left=left,
        right=width - left - step * n_columns,
        top=top,
        bottom=38 if grid.axis else 22,
    )
    if grid.row_axis:
        canvas.text(2, 14, grid.row_axis, "start", "axis")
    for r, row in enumerate(grid.rows):
        y, name = top + r * height, str(row)
        canvas.text(left - 8, y + height / 2 + 4, shorten(name, limit), "end", "tick")
        for c in range(len(grid.columns)):
            class_, words, tip = grid.cell(r, c)
            canvas.rect(
                left + c * step + 0.5,
                y + 0.5,
                max(step - 1, 0.6 * step),
                height - 1.5,
                f"mark {class_}",
                rx=min(2.0, step / 6),
                data_tip=tip,
            )
            if words and len(words) * 6.4 < step - 3 and height >= 13:
                canvas.text(left + (c + 0.5) * step, y + height / 2 + 4, words, "middle", f"on-{class_} under")
    canvas.layer_axis(grid.columns, grid.axis, y=top + n_rows * height)
    return canvas.render(grid.label)


@dataclass
class Points:
    """A scatter: positions of layers by two figures."""

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


def draw_points(points: Points, width: int) -> Markup:
    canvas = Canvas(width, 380 if width > 500 else 320, left=62, top=26, bottom=42)
    left, top, right, bottom = canvas.plot
    x_scale, x_log = value_scale(points.x, left + 8, right - 8, points.x_linear)
    ends = [end for end in (points.low, points.high) if end is not None]
    y_scale, y_log = value_scale(np.concatenate([points.y, *ends]), bottom - 8, top + 8, points.y_linear)
    canvas.bottom_axis(
        x_scale, points.x_label + (" (log)" if x_log else ""), x_scale.ticks(5 if width > 500 else 4), points.x_form
    )
    canvas.left_axis(y_scale, points.y_label + (" (log)" if y_log else ""), form=points.y_form)
    places = [(x_scale(x), y_scale(y)) for x, y in zip(points.x, points.y, strict=True)]
    good = [i for i in range(len(places)) if np.isfinite(points.x[i]) and np.isfinite(points.y[i])]
    for i in sorted(good, key=lambda i: i in points.filled):
        if len(ends) == 2 and np.isfinite([end[i] for end in ends]).all():
            canvas.line(
                places[i][0],
                y_scale(ends[0][i]),
                places[i][0],
                y_scale(ends[1][i]),
                "whisker" if i in points.filled else "whisker-spare",
            )
        canvas.dot(*places[i], 5, f"mark {'dot-keep' if i in points.filled else 'dot-spare'}", data_tip=points.tips[i])
    named = [i for i in points.labelled if i in good][:MOST_NAMED]
    others = [places[i] for i in good if i not in named]
    spots = place_labels([places[i] for i in named] + others, [points.names[i] for i in named], left, width)
    for i, spot in zip(named, spots, strict=True):
        if spot:
            canvas.text(spot[0], spot[1], points.names[i], spot[2], "strong under" if i in points.filled else "under")
    return canvas.render(points.label)


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


def draw_rows(rows: Rows, width: int) -> Markup:
    names = [shorten(name, 34 if width > 500 else 28) for name in rows.names]
    left = max(len(name) for name in names) * (TEXT_WIDTH + 0.3) + 16
    height = 26 if len(names) <= 40 else 16
    canvas = Canvas(width, height * len(names) + 52, left=left, right=22, top=8, bottom=44)
    plot_left, top, right, _ = canvas.plot
    scale, is_log = value_scale(
        np.concatenate([rows.values, rows.low, rows.high]), plot_left + 6, right - 6, rows.is_linear
    )
    canvas.bottom_axis(scale, rows.axis + (" (log)" if is_log else ""), scale.ticks(5 if width > 500 else 3), rows.form)
    for i, name in enumerate(names):
        y = top + (i + 0.5) * height
        canvas.text(plot_left - 8, y + 4, name, "end", "tick")
        if not np.isfinite(rows.values[i]):
            canvas.text(plot_left + 10, y + 4, "not defined", "start", "faint")
            continue
        is_filled = i in rows.filled
        if np.isfinite([rows.low[i], rows.high[i]]).all():
            canvas.line(scale(rows.low[i]), y, scale(rows.high[i]), y, "whisker" if is_filled else "whisker-spare")
        canvas.dot(
            scale(rows.values[i]), y, 5, f"mark {'dot-keep' if is_filled else 'dot-spare'}", data_tip=rows.tips[i]
        )
    return canvas.render(rows.label)


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of the positions 0 ... n - 1, evenly spaced, the first and the last among them."""
    return (
        list(range(n)) if n <= most else sorted({round(i * (n - 1) / (max(most, 2) - 1)) for i in range(max(most, 2))})
    )


def draw_squares(layers: Collection[int], states: Sequence[str], tips: Sequence[str], label: str, width: int) -> Markup:
    """One row of squares, a layer each; states are classes of marks."""
    cell = (width - 4) / len(layers)
    height = max(14.0, min(cell, 26 if width > 500 else 22))  # of many layers bars, not dots
    canvas = Canvas(width, height + 22, left=2, right=2, top=2, bottom=20)
    gap = min(3.0, cell * 0.18)
    for i, state in enumerate(states):
        canvas.rect(
            2 + i * cell + gap / 2,
            2,
            cell - gap,
            height - gap / 2,
            f"mark {state}",
            rx=min(3.0, cell / 5),
            data_tip=tips[i],
        )
    canvas.layer_axis(layers, "", y=height + 2)
    return canvas.render(label)
