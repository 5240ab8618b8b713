"""A chart as SVG text: scales, axes, marks. Colours come from chart.css by class, so one drawing serves both schemes.

Every chart is drawn twice, WIDE and NARROW units across, so that its text has the same size on a telephone.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from winnow.report.arrays import Form
from winnow.report.markup import Markup, tag
from winnow.report.wording import number

WIDE = 920
NARROW = 360
TEXT_WIDTH = 6.1  # of a character of 11 units' height, on average

Point = tuple[float, float]
Spot = tuple[float, float, str]  # where a text begins, ends or has its middle: the third says which


class Linear:
    """Values to units."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        span = high - low
        if not math.isfinite(span) or span <= 0:
            low, span = (low if math.isfinite(low) else 0.0) - 0.5, 1.0
        self.low, self.high, self.start, self.end = low, low + span, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / wanted))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 0.5)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Symlog(Linear):
    """Logarithmic on both sides of 0, linear within +-`threshold`: for deltas that differ by powers of ten."""

    def __init__(self, low: float, high: float, start: float, end: float, threshold: float) -> None:
        self.threshold = threshold
        super().__init__(self.squeeze(low), self.squeeze(high), start, end)

    def squeeze(self, value: float) -> float:
        return math.copysign(math.log10(1 + abs(value) / self.threshold), value)

    def __call__(self, value: float) -> float:
        return super().__call__(self.squeeze(value))

    def ticks(self, wanted: int = 6) -> list[float]:
        largest = self.threshold * (10 ** max(abs(self.low), abs(self.high)) - 1)
        first, last = math.ceil(math.log10(self.threshold)), math.floor(math.log10(max(largest, self.threshold)))
        step = max(1, math.ceil((last - first + 1) / wanted))
        powers = [10.0**power for power in range(last, first - 1, -step)]
        values = sorted([0.0, *powers, *(-power for power in powers)])
        return [value for value in values if self.low - 1e-9 <= self.squeeze(value) <= self.high + 1e-9]


def value_scale(values: ArrayLike, start: float, end: float, is_linear: bool | None = None) -> tuple[Linear, bool]:
    """(scale, is it logarithmic): logarithmic where the sizes of the values differ too much for a linear axis."""
    table = np.asarray(values, float)
    finite = table[np.isfinite(table)]
    if finite.size == 0:
        return Linear(-1, 1, start, end), False
    low, high = min(0.0, finite.min()), max(0.0, finite.max())
    pad = 0.04 * (high - low)
    sizes = np.abs(finite[finite != 0])
    threshold = threshold_of(finite)
    if is_linear or sizes.size == 0 or (is_linear is None and sizes.max() / np.median(sizes) < 25):
        return Linear(low - (pad if low < 0 else 0), high + pad, start, end), False
    return Symlog(1.25 * low, 1.25 * high, start, end, threshold), True


def threshold_of(values: ArrayLike) -> float:
    """Where a symmetric logarithmic scale turns linear: a tenth of the median size, at least 1e-4 of the largest."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if sizes.size == 0:
        return 1.0
    return float(max(np.median(sizes) / 10, sizes.max() * 1e-4))


class Canvas:
    """Marks in units from the upper left; `plot` = (left, top, right, bottom) is the inner area."""

    def __init__(
        self, width: float, height: float, left: float = 52, right: float = 12, top: float = 14, bottom: float = 40
    ) -> None:
        self.width, self.height = width, height
        self.plot = (left, top, width - right, height - bottom)
        self.is_wide = width > 500
        self._parts: list[Markup] = []

    def add(self, *parts: Markup) -> None:
        self._parts += parts

    def text(self, x: float, y: float, words: object, anchor: str = "middle", class_: str = "", **more: object) -> None:
        self.add(tag("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=f"t {class_}".strip(), **more))

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str, **more: object) -> None:
        self.add(tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_, **more))

    def rect(self, x: float, y: float, width: float, height: float, class_: str, **more: object) -> None:
        self.add(
            tag(
                "rect",
                x=float(x),
                y=float(y),
                width=float(max(width, 0.3)),
                height=float(max(height, 0.3)),
                class_=class_,
                **more,
            )
        )

    def dot(self, x: float, y: float, radius: float, class_: str, **more: object) -> None:
        self.add(tag("circle", cx=float(x), cy=float(y), r=float(radius), class_=class_, **more))

    def polyline(self, points: Iterable[Point], class_: str) -> None:
        self.add(tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_))

    def polygon(self, points: Iterable[Point], class_: str) -> None:
        self.add(tag("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_))

    def left_axis(self, scale: Linear, label: str, ticks: Iterable[float] | None = None, form: Form = number) -> None:
        left, top, right, _ = self.plot
        last = None
        for value in ticks if ticks is not None else scale.ticks():
            y = scale(value)
            if last is not None and abs(y - last) < 12 and value != 0:
                continue
            last = y
            self.line(left, y, right, y, "zero" if value == 0 else "grid")
            self.text(left - 7, y + 3.7, form(value), "end", "tick")
        self.text(left - 44 if left > 46 else 4, top - 12, label, "start", "axis")

    def bottom_axis(self, scale: Linear, label: str, ticks: Iterable[float] | None = None, form: Form = number) -> None:
        left, top, right, bottom = self.plot
        end = -math.inf  # of the label before
        for value in ticks if ticks is not None else scale.ticks():
            x = scale(value)
            self.line(x, top, x, bottom, "zero" if value == 0 else "grid")
            half = len(form(value)) * TEXT_WIDTH / 2
            if x - half > end + 3:
                self.text(x, bottom + 15, form(value), "middle", "tick")
                end = x + half
        self.text((left + right) / 2, bottom + 32, label, "middle", "axis")

    def layer_axis(
        self, names: Collection[object], label: str = "layer", y: float | None = None
    ) -> Callable[[float], float]:
        """Names below evenly spaced columns, as many as have room. The centre of column i is column(i)."""
        left, _, right, bottom = self.plot
        step = (right - left) / max(len(names), 1)
        longest = max((len(str(name)) for name in names), default=1)
        every = max(1, math.ceil((longest * TEXT_WIDTH + 5) / step))
        every = next((nice for nice in (1, 2, 4, 8, 16, 32, 64) if nice >= every), every)
        y = bottom if y is None else y
        for i, name in enumerate(names):
            if i % every == 0:
                self.text(left + (i + 0.5) * step, y + 15, name, "middle", "tick")
        if label:
            self.text((left + right) / 2, y + 31, label, "middle", "axis")
        return lambda i: left + (i + 0.5) * step

    def render(self, label: str) -> Markup:
        return Markup(
            tag(
                "svg",
                *self._parts,
                xmlns="http://www.w3.org/2000/svg",
                role="group",
                aria_label=label,
                tabindex="0",
                class_="chart",
                viewBox=f"0 0 {self.width:g} {self.height:g}",
            )
        )


def place_labels(
    points: Sequence[Point],
    labels: Sequence[str],
    left: float = 0.0,
    right: float = float("inf"),
    width: float = TEXT_WIDTH,
    height: float = 11,
) -> list[Spot | None]:
    """Places for labels beside the first points, between `left` and `right`; None: there is none that is free.

    Tried right, left, above, below, in the order given.
    """
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    places: list[Spot | None] = []
    for (x, y), label in zip(points, labels, strict=False):  # points without a label are to be kept clear of
        size = len(str(label)) * width
        spots = [
            (x + 6, y + 4, "start", x + 6),
            (x - 6, y + 4, "end", x - 6 - size),
            (x, y - 7, "middle", x - size / 2),
            (x, y + 15, "middle", x - size / 2),
        ]

        def clashes(spot: tuple[float, float, str, float], size: float = size) -> int:
            start, base = spot[3], spot[1]
            box = (start, base - height + 2, start + size, base + 1)
            return (
                (start < left)
                + (start + size > right)
                + sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
            )

        best = min(spots, key=clashes)
        places.append(None if clashes(best) else best[:3])
        if places[-1]:
            taken.append((best[3], best[1] - height + 2, best[3] + size, best[1] + 1))
    return places
