"""The axes of a drawing: scales as the values need them, and ticks whose words do not meet."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator, NullLocator, SymmetricalLogLocator
from numpy.typing import ArrayLike

from winnow.report.arrays import Floats, Form
from winnow.report.drawing.drawing import INK, LINE, Drawing, shorten, text_width, wrap
from winnow.report.wording import number

MOST_LINES = 3  # of an axis label
NICE = (1, 2, 4, 8, 16, 32, 64)


def threshold_of(values: ArrayLike) -> float:
    """Where a symmetric logarithmic scale turns linear: a tenth of the median size, at least 1e-4 of the largest."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if sizes.size == 0:
        return 1.0
    return float(max(np.median(sizes) / 10, sizes.max() * 1e-4))


def needs_log(values: ArrayLike) -> bool:
    """Whether the sizes of the values differ too much for a linear axis."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return sizes.size > 0 and bool(sizes.max() / np.median(sizes) >= 25)


def scale(drawing: Drawing, which: str, values: ArrayLike, is_linear: bool | None = None, wanted: int = 5) -> Floats:
    """Gives the axis x or y the limits and scale that the values need, 0 among them; returns its ticks, rising.

    is_linear: None where the values decide between a linear axis and one that is logarithmic on both sides of 0.
    """
    axes = drawing.axes
    table = np.asarray(values, float)
    finite = table[np.isfinite(table)]
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if finite.size == 0 or not finite.any():
        low, high = (-1.0, 1.0)
    else:
        low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
    if (needs_log(finite) if is_linear is None else not is_linear) and finite.any():
        threshold = threshold_of(finite)
        (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", linthresh=threshold, linscale=0.5)
        low, high = 1.25 * low, 1.25 * high
        powers = SymmetricalLogLocator(base=10, linthresh=threshold)
        powers.set_params(numticks=wanted + 1)
        locator: Locator = powers
    else:
        pad = 0.04 * (high - low)
        low, high = low - (pad if low < 0 else 0), high + pad
        locator = MaxNLocator(nbins=wanted + 1, steps=[1, 2, 5, 10])
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(NullLocator())  # ticks are drawn once it is known which have room
    axis.set_minor_locator(NullLocator())
    set_limits(low, high)
    ticks = np.asarray(locator.tick_values(low, high), float)
    return ticks[(ticks >= low) & (ticks <= high)]


def ratio_scale(drawing: Drawing, which: str, values: ArrayLike, wanted: int = 5) -> Floats:
    """Gives the axis x or y limits around values above 0 on a logarithmic scale; returns its ticks, powers of 2."""
    axes = drawing.axes
    table = np.asarray(values, float)
    finite = table[np.isfinite(table) & (table > 0)]
    low, high = (float(finite.min()) / 1.25, float(finite.max()) * 1.25) if finite.size else (0.5, 2.0)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=2)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(NullLocator())
    axis.set_minor_locator(NullLocator())
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    powers = np.arange(np.ceil(np.log2(low)), np.floor(np.log2(high)) + 1)
    ticks = 2.0 ** powers[:: max(1, int(np.ceil(len(powers) / (2 * wanted))))]
    return ticks if len(ticks) > 1 else np.array([low, high])


def is_log(drawing: Drawing, which: str) -> bool:
    return (drawing.axes.get_xscale() if which == "x" else drawing.axes.get_yscale()) != "linear"


def _apart(places: Sequence[float], sizes: Sequence[float], first: Iterable[int]) -> list[int]:
    """Positions of words of these sizes, centred at the places, that do not meet; those of `first` are kept."""
    kept: list[int] = []
    for i in [*first, *range(len(places))]:
        if all(abs(places[i] - places[j]) >= (sizes[i] + sizes[j]) / 2 for j in kept):
            kept.append(i)
    return sorted(kept)


def _grid(drawing: Drawing, which: str, ticks: Floats) -> None:
    line = drawing.axes.axvline if which == "x" else drawing.axes.axhline
    for tick in ticks:
        line(float(tick), color=INK["faint" if tick == 0 else "grid"], linewidth=1, zorder=0.5, clip_on=False)


def y_axis(drawing: Drawing, ticks: ArrayLike, label: str, form: Form = number, right: float = 12) -> None:
    """Ticks with lines across, the label above, and the margins that both need. Before `x_axis`."""
    values = np.asarray(ticks, float)
    _, top, _, bottom = drawing.box
    words = [form(value) for value in values]
    left = max((text_width(word) for word in words), default=0.0) + 14
    lines = [shorten(line, drawing.width - 12) for line in wrap(label, drawing.width - 12)[:MOST_LINES]]
    drawing.place(left, right, LINE * len(lines) + 14, drawing.height - bottom)
    places = [y for _, y in drawing.spots(np.full(len(values), _any_x(drawing)), values)]
    kept = _apart(places, [LINE] * len(places), np.flatnonzero(values == 0).tolist())
    _grid(drawing, "y", values[kept])
    for i in kept:
        drawing.text(left - 7, places[i], words[i], "right")
    for i, line in enumerate(lines):
        drawing.text(4, LINE * (i + 0.5) + 2, line)


def _any_x(drawing: Drawing) -> float:
    return float(drawing.axes.get_xlim()[0])


def x_axis(drawing: Drawing, ticks: ArrayLike, label: str, form: Form = number, has_lines: bool = True) -> None:
    """Ticks below with lines upwards, and the label below them. After `y_axis`."""
    values = np.asarray(ticks, float)
    left, _, right, bottom = drawing.box
    words = [form(value) for value in values]
    places = [x for x, _ in drawing.spots(values, np.full(len(values), float(drawing.axes.get_ylim()[0])))]
    # A word at the end of the axis moves inwards where it would leave the drawing.
    places = [
        min(max(x, text_width(word) / 2 + 1), drawing.width - text_width(word) / 2 - 1)
        for x, word in zip(places, words, strict=True)
    ]
    kept = _apart(places, [text_width(word) + 8 for word in words], np.flatnonzero(values == 0).tolist())
    if has_lines:
        _grid(drawing, "x", values[kept])
    for i in kept:
        drawing.text(places[i], bottom + 12, words[i], "center")
    _label_below(drawing, label, bottom + 30)


def _label_below(drawing: Drawing, label: str, y: float) -> None:
    left, _, right, _ = drawing.box
    label = shorten(label, drawing.width - 8)
    half = text_width(label) / 2
    middle = min(max((left + right) / 2, half + 2), drawing.width - half - 2)
    drawing.text(middle, y, label, "center")


def layer_axis(
    drawing: Drawing, names: Sequence[object], label: str = "layer", bottom: float | None = None
) -> Callable[[float], float]:
    """Names below evenly spaced columns, as many as have room; the values of x are columns from 0 on.

    Returns the pixel of a column's middle.
    """
    n = max(len(names), 1)
    drawing.axes.set_xlim(-0.5, n - 0.5)
    left, _, right, lowest = drawing.box
    bottom = lowest if bottom is None else bottom
    step = (right - left) / n
    longest = max((text_width(str(name)) for name in names), default=1.0)
    wanted = int(np.ceil((longest + 6) / step))
    every = next((nice for nice in NICE if nice >= wanted), max(wanted, 1))
    for i, name in enumerate(names):
        if i % every == 0:
            drawing.text(left + (i + 0.5) * step, bottom + 12, name, "center")
    if label:
        _label_below(drawing, label, bottom + 29)
    return lambda column: left + (column + 0.5) * step
