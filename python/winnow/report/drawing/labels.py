"""Names beside the points of a scatter: none lies on another, or leaves the drawing."""

from collections.abc import Sequence

from winnow.report.drawing.drawing import LINE, TEXT

Point = tuple[float, float]
Spot = tuple[float, float, str]  # x of the left end, middle or right end, as the third says; y of the middle
Box = tuple[float, float, float, float]  # left, top, right, bottom

_MARGIN = 2.0  # pixels between two names
_RADIUS = 6.0  # around a point
# Where a name begins, has its middle or ends, from its point.
_AROUND = ((9, 0, "left"), (-9, 0, "right"), (0, -15, "center"), (0, 15, "center"))
_STEPPED = ((-9, 0, "right"), (-7, -13, "right"), (9, 13, "left"), (0, -15, "center"), *_AROUND, (9, -13, "left"))


def _meets(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def beside(points: Sequence[Point], widths: Sequence[float], edge: Box, has_steps: bool = False) -> list[Spot | None]:
    """A place beside each of the first points, whose names have these widths, inside `edge`; None where none is free.

    Tried to the right, left, above and below, in the order given; points without a name are kept clear of. has_steps: a
    line of steps goes from each point to the right and then up, which names are rather not to lie on.
    """
    boxes = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in points]
    found: list[Spot | None] = []
    height = TEXT / 2 + _MARGIN
    for (x, y), width in zip(points, widths, strict=False):
        size = width + 2 * _MARGIN
        places = _STEPPED if has_steps else _AROUND
        for dx, dy, anchor in places:
            start = x + dx - {"left": _MARGIN, "center": size / 2, "right": size - _MARGIN}[anchor]
            box = (start, y + dy - height, start + size, y + dy + height)
            is_inside = box[0] >= edge[0] and box[1] >= edge[1] and box[2] <= edge[2] and box[3] <= edge[3]
            if is_inside and not any(_meets(box, other) for other in boxes):
                found.append((x + dx, y + dy, anchor))
                boxes.append(box)
                break
        else:
            found.append(None)
    return found


def in_column(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights for a column of lines, each as near to its own as lines allow, between top and bottom, in their order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    places = [0.0] * len(heights)
    last = top - LINE / 2
    for i in order:
        last = places[i] = max(heights[i], last + LINE)
    last = bottom + LINE / 2
    for i in reversed(order):
        last = places[i] = min(places[i], last - LINE)
    return places
