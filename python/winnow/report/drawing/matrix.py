"""Pictures of a matrix of signed values: the colours of its cells as a PNG, and the values for page.js to show."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from winnow.report.arrays import Floats, Integers
from winnow.report.drawing.axes import layer_axis, threshold_of
from winnow.report.drawing.drawing import Drawing, Picture, text_width
from winnow.report.drawing.palette import LIGHT_DIVERGING, N_SIGNED, Colour, blend
from winnow.report.wording import signed

N_SHADES = 127  # on either side of 0
N_TICKS = 6


class Order(TypedDict):
    """An order of the rows: their positions in the file, and (place from 0 to 1, words) of a few ticks."""

    name: str
    axis: str
    rows: list[int]
    ticks: list[tuple[float, str]]


class Sheet(TypedDict):
    """One table of values; a picture with several of them lets the reader choose."""

    name: str
    rows: list[str]  # names
    notes: list[str]  # of the rows
    data: str  # the values: result of `encode`
    n_cols: NotRequired[int]
    texts: NotRequired[list[str]]  # of the columns


class Spec(TypedDict):
    """What page.js gets of a picture, and `values` besides, which `draw` alone needs."""

    id: str
    cols: list[int]
    col_word: str
    axis: str
    row_axis: str
    threshold: float
    largest: float
    unit: str
    what: str
    label: str
    orders: list[Order]
    height: int
    values: Floats  # (row, column) of the first sheet
    repeat: int  # result of `repeat_of`
    sheets: list[Sheet]


def png(indices: NDArray[np.uint8], colours: Iterable[Colour]) -> bytes:
    """An indexed PNG; indices: (row, column); index 0 is transparent. colours: [(red, green, blue)]."""
    picture = Image.fromarray(indices, "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    out = io.BytesIO()
    picture.save(out, format="PNG", transparency=0)
    return out.getvalue()


def shades(values: Floats, threshold: float, largest: float) -> NDArray[np.uint8]:
    """Values to colour indices 1 ... 2 N_SHADES + 1, symmetric and logarithmic; 0 is NaN."""
    size = np.log1p(np.abs(values) / threshold) / math.log1p(largest / threshold)
    with np.errstate(invalid="ignore"):
        index = np.sign(values) * np.rint(np.minimum(size, 1) * N_SHADES) + N_SHADES + 1
    return np.where(np.isfinite(values), index, 0).astype(np.uint8)


def scale_of(values: Floats) -> tuple[float, float]:
    """(threshold, largest) of the colour scale; both above 0."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    return min(threshold_of(finite), largest), largest


def encode(values: Floats) -> str:
    """float32, little endian, base64."""
    most = float(np.finfo("<f4").max)
    return base64.b64encode(np.ascontiguousarray(np.clip(values, -most, most), "<f4").tobytes()).decode()


def draw(spec: Spec, width: int) -> Drawing:
    """The first sheet in its first order."""
    height = spec["height"] if width > 500 else min(spec["height"], 320)
    drawing = Drawing(width, height + 100, spec["label"])
    left = max(text_width(words) for order in spec["orders"] for _, words in order["ticks"]) + 16
    drawing.place(left, 10, 26, 74)
    drawing.text(2, 10, spec["row_axis"], class_="row-axis")
    order = spec["orders"][0]
    palette = [(0, 0, 0)] + [blend(LIGHT_DIVERGING, i / (2 * N_SHADES)) for i in range(2 * N_SHADES + 1)]
    indices = shades(spec["values"][order["rows"]], spec["threshold"], spec["largest"])
    _, top, right, bottom = drawing.box
    href = png(np.repeat(indices, spec["repeat"], axis=1), palette)
    drawing.picture = Picture(
        spec["id"],
        "data:image/png;base64," + base64.b64encode(href).decode(),
        spec["repeat"] == 1,
        (left, top, right - left, bottom - top),
    )
    n_rows, n_columns = indices.shape
    colours = np.array(palette, np.uint8)[indices]
    drawing.axes.imshow(
        np.dstack([colours, np.where(indices > 0, 255, 0).astype(np.uint8)]),
        aspect="auto",
        extent=(-0.5, n_columns - 0.5, n_rows, 0),
        interpolation="nearest" if spec["repeat"] == 1 else "auto",
    )
    for slot, (fraction, words) in enumerate(order["ticks"]):
        drawing.text(left - 7, top + fraction * (bottom - top), words, "right", class_="row-tick", data_slot=slot)
    layer_axis(drawing, spec["cols"], spec["axis"])
    _ramp(drawing, spec)
    return drawing


def _ramp(drawing: Drawing, spec: Spec) -> None:
    """The colour scale, with the values at its ends and middle."""
    left, _, right, bottom = drawing.box
    y, width = bottom + 44, min(260.0, right - left - 60)
    start = (left + right - width) / 2
    step = width / N_SIGNED
    boxes = [(start + i * step, y, start + (i + 1) * step, y + 8) for i in range(N_SIGNED)]
    drawing.cells(boxes, [f"d{i}" for i in range(N_SIGNED)])
    middle = spec["threshold"] * (math.exp(math.log1p(spec["largest"] / spec["threshold"]) / 2) - 1)
    for place, value in ((0, -spec["largest"]), (0.25, -middle), (0.5, 0.0), (0.75, middle), (1, spec["largest"])):
        drawing.text(start + place * width, y + 18, signed(value), "center")


def order(name: str, axis: str, rows: Sequence[int] | Integers, words: Sequence[str]) -> Order:
    """An order of the rows, with ticks at a few places. words: of each row, in the order of the file."""
    n = len(rows)
    slots = sorted({round(i * (n - 1) / (N_TICKS - 1)) for i in range(N_TICKS)})
    return {
        "name": name,
        "axis": axis,
        "rows": [int(row) for row in rows],
        "ticks": [((slot + 0.5) / n, words[rows[slot]]) for slot in slots],
    }


def repeat_of(values: Floats, height: int) -> int:
    """How often a column is repeated: rows beyond the height must blend when they are scaled, columns must not."""
    rows, columns = values.shape
    return 1 if rows <= height else max(1, 960 // columns)


def for_page(spec: Spec) -> dict[str, object]:
    return {key: value for key, value in spec.items() if key != "values"}
