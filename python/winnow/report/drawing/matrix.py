"""Pictures of a matrix of signed values: the colours of its cells as a PNG, and the values for page.js to show."""

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from winnow.report.arrays import Floats, Integers
from winnow.report.drawing.palette import LIGHT_DIVERGING, Colour, blend
from winnow.report.drawing.svg import Canvas, threshold_of
from winnow.report.markup import Markup, tag
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


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(indices: NDArray[np.uint8], colours: Iterable[Colour]) -> bytes:
    """An indexed PNG; indices: (row, column) uint8; index 0 is transparent. colours: [(red, green, blue)]."""
    rows, columns = indices.shape
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), indices], axis=1).tobytes()  # filter "none" before each row
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", b"".join(bytes(colour) for colour in colours))
        + _chunk(b"tRNS", b"\x00")
        + _chunk(b"IDAT", zlib.compress(raw, 6))
        + _chunk(b"IEND", b"")
    )


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


def draw(spec: Spec, width: int) -> Markup:
    """The first sheet in its first order."""
    values = spec["values"]
    is_wide = width > 500
    height = spec["height"] if is_wide else min(spec["height"], 320)
    canvas = Canvas(width, height + 100, left=66, right=10, top=26, bottom=74)
    left, top, right, bottom = canvas.plot
    canvas.text(2, 14, spec["row_axis"], "start", "axis row-axis")
    order = spec["orders"][0]
    palette = [(0, 0, 0)] + [blend(LIGHT_DIVERGING, i / (2 * N_SHADES)) for i in range(2 * N_SHADES + 1)]
    indices = shades(values[order["rows"]], spec["threshold"], spec["largest"])
    picture = png(np.repeat(indices, spec["repeat"], axis=1), palette)
    canvas.rect(left, top, right - left, bottom - top, "none")
    canvas.add(
        tag(
            "image",
            href="data:image/png;base64," + base64.b64encode(picture).decode(),
            x=left,
            y=top,
            width=float(right - left),
            height=float(bottom - top),
            preserveAspectRatio="none",
            style="image-rendering:" + ("pixelated" if spec["repeat"] == 1 else "auto"),
            class_="mark matrix",
            data_matrix=spec["id"],
        )
    )
    canvas.rect(left, top, right - left, bottom - top, "edge")
    for slot, (fraction, words) in enumerate(order["ticks"]):
        canvas.text(left - 7, top + fraction * (bottom - top) + 4, words, "end", "tick row-tick", data_slot=slot)
    canvas.layer_axis(spec["cols"], spec["axis"])
    _ramp(canvas, spec, f"ramp-{spec['id']}-{width}")
    return canvas.render(spec["label"])


def _ramp(canvas: Canvas, spec: Spec, name: str) -> None:
    """The colour scale, with the values at its ends and middle."""
    left, _, right, bottom = canvas.plot
    y, width = bottom + 46, min(260.0, right - left - 60)
    start = (left + right - width) / 2
    stops = [tag("stop", offset=f"{100 * i / 6:.1f}%", class_=f"d{i}") for i in range(7)]
    canvas.add(
        tag("linearGradient", *stops, id=name),
        tag("rect", x=start, y=float(y), width=width, height=8.0, fill=f"url(#{name})", rx="2"),
    )
    middle = spec["threshold"] * (math.exp(math.log1p(spec["largest"] / spec["threshold"]) / 2) - 1)
    for place, value in ((0, -spec["largest"]), (0.25, -middle), (0.5, 0.0), (0.75, middle), (1, spec["largest"])):
        canvas.text(start + place * width, y + 20, signed(value), "middle", "tick")


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
