"""A drawing: a matplotlib figure measured in the pixels of a page, with what its marks say when they are chosen.

Every chart is drawn twice, WIDE and NARROW pixels across, so that its text has the same size on a telephone. Files of
figures are the same objects, saved by matplotlib.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # a user's settings and fonts are not what a report is about

import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: E402
from matplotlib.collections import LineCollection, PolyCollection  # noqa: E402
from matplotlib.figure import Figure as Sheet  # noqa: E402
from matplotlib.font_manager import FontProperties  # noqa: E402
from matplotlib.textpath import text_to_path  # noqa: E402

from winnow.common.text import clean, one_line  # noqa: E402
from winnow.report.drawing.palette import INK, MARKS  # noqa: E402

WIDE = 920
NARROW = 360
TEXT = 11.0  # size
LINE = 14.0  # from one line of text to the next
LONGEST = 200  # characters of a name that are looked at
PNG_SCALE = 2.0  # pixels of a file to one of the page

_WEIGHTS = {False: "normal", True: "bold"}

matplotlib.rcdefaults()  # whatever a matplotlibrc says
matplotlib.rcParams.update(
    {
        "axes.axisbelow": True,
        "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than what browsers take
        "font.size": TEXT,
        "lines.solid_capstyle": "butt",
        "svg.fonttype": "none",
        "svg.hashsalt": "winnow",
        "text.parse_math": False,  # names hold dollar signs
    }
)
_FONTS = {strong: FontProperties(family="DejaVu Sans", size=TEXT, weight=weight) for strong, weight in _WEIGHTS.items()}


@lru_cache(maxsize=10_000)
def text_width(words: str, is_strong: bool = False) -> float:
    """Pixels across of one line."""
    return float(text_to_path.get_text_width_height_descent(words, _FONTS[is_strong], False)[0])


def shorten(text: str, limit: float) -> str:
    """The text in `limit` pixels; its middle is left out, as names often differ at their ends."""
    text = one_line(text)
    if len(text) <= LONGEST and text_width(text) <= limit:
        return text
    kept = min(len(text), LONGEST)
    short = text
    while kept > 2 and (short is text or text_width(short) > limit):
        kept -= 1
        short = text[: (kept + 1) // 2] + "\u2026" + text[len(text) - kept // 2 :]
    return short


def wrap(words: str, limit: float) -> list[str]:
    """Lines of at most `limit` pixels, where there is a space to break at."""
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def mark_kind(kind: str) -> tuple[str, str, float]:
    """(fill, outline, width of the outline) of a kind: one of MARKS, or the name of a colour."""
    fill, edge, width = MARKS.get(kind, (kind, None, 0.0))
    return INK[fill], INK[edge] if edge else "none", width


@dataclass
class Marks:
    """What belongs to one artist: of each of its marks the place among all of the drawing, and the tip."""

    places: list[int]
    tips: list[str]
    radius: float = 0.0  # of dots


@dataclass
class Picture:
    """An image of a matrix as the page has it: upright, one pixel a cell; page.js paints it anew."""

    id: str
    href: str
    is_sharp: bool
    box: tuple[float, float, float, float]  # left, top, width, height


class Drawing:
    """Places are in pixels from the upper left; `axes` is the inner area, `label` the text for who cannot see it."""

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height, self.label = float(width), float(height), clean(label)
        self.is_wide = width > 500
        self.sheet = Sheet(figsize=(width / 72, height / 72), dpi=72, facecolor=INK["panel"])
        self.marks: dict[str, Marks] = {}
        self.words: dict[str, dict[str, object]] = {}  # what page.js changes: attributes of its elements
        self.picture: Picture | None = None
        self.axes: Axes = self.add_axes(0, 0, 0, 0)

    def add_axes(self, left: float, right: float, top: float, bottom: float) -> Axes:
        """An inner area, by its margins, without anything around it."""
        axes = self.sheet.add_axes((0, 0, 1, 1), facecolor="none")
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(length=0, labelcolor=INK["muted"], pad=5)
        self.place(left, right, top, bottom, axes)
        return axes

    def place(self, left: float, right: float, top: float, bottom: float, axes: Axes | None = None) -> None:
        """Gives the inner area other margins."""
        width, height = self.width - left - right, self.height - top - bottom
        (axes or self.axes).set_position(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the inner area."""
        box = self.axes.get_position()
        return (
            box.x0 * self.width,
            (1 - box.y1) * self.height,
            box.x1 * self.width,
            (1 - box.y0) * self.height,
        )

    def spots(self, x: ArrayLike, y: ArrayLike) -> list[tuple[float, float]]:
        """Values to pixels."""
        found = self.axes.transData.transform(np.column_stack([np.asarray(x, float), np.asarray(y, float)]))
        return [(float(left), self.height - float(up)) for left, up in found]

    def text(
        self,
        x: float,
        y: float,
        words: object,
        anchor: str = "left",
        colour: str = "muted",
        is_strong: bool = False,
        **attributes: object,
    ) -> None:
        """One line, whose middle is at the height y. anchor: left, center or right; attributes: of its element."""
        name = f"words-{len(self.words)}" if attributes else None
        if name:
            self.words[name] = attributes
        self.sheet.text(
            x / self.width,
            1 - y / self.height,
            one_line(words),
            ha=anchor,
            va="center_baseline",
            color=INK[colour],
            fontweight=_WEIGHTS[is_strong],
            gid=name,
        )

    def line(self, x: ArrayLike, y: ArrayLike, colour: str, width: float = 1.0, dashes: str = "-") -> None:
        """Through values of the inner area."""
        self.axes.plot(
            np.asarray(x, float), np.asarray(y, float), dashes, color=INK[colour], linewidth=width, clip_on=False
        )

    def steps(self, x: ArrayLike, y: ArrayLike, colour: str, axes: Axes | None = None) -> None:
        """To the right at the height of each value, then up or down to the next."""
        (axes or self.axes).step(
            np.asarray(x, float), np.asarray(y, float), where="post", color=INK[colour], linewidth=1.2, clip_on=False
        )

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
        """The area between two courses."""
        self.axes.fill_between(
            np.asarray(x, float),
            np.asarray(low, float),
            np.asarray(high, float),
            color=INK["q2"],
            linewidth=0,
            clip_on=False,
        )

    def leader(self, points: Sequence[tuple[float, float]]) -> None:
        """A faint line through pixels, from a point to its name."""
        x, y = zip(*points, strict=True)
        axes_of = self.sheet.dpi_scale_trans
        (line,) = self.axes.plot([], [], color=INK["spare"], linewidth=1, clip_on=False, zorder=1, transform=axes_of)
        line.set_data([one / 72 for one in x], [(self.height - one) / 72 for one in y])

    def whiskers(self, ends: Sequence[tuple[tuple[float, float], tuple[float, float], bool]]) -> None:
        """[(values of one end, of the other, is it a filled dot's)]."""
        colours = [INK["keep" if is_filled else "faint"] for _, _, is_filled in ends]
        lines = LineCollection(
            [[begin, end] for begin, end, _ in ends], colors=colours, linewidths=1.5, clip_on=False, zorder=2
        )
        self.axes.add_collection(lines, autolim=False)

    def _name(self, marks: Marks) -> str:
        name = f"marks-{len(self.marks)}"
        self.marks[name] = marks
        return name

    def dots(self, x: ArrayLike, y: ArrayLike, kinds: Sequence[str], tips: Sequence[str], radius: float = 5.0) -> None:
        """Dots at values, all finite, that keys step through in the given order."""
        before = sum(len(marks.places) for marks in self.marks.values())
        x, y = np.asarray(x, float), np.asarray(y, float)
        for kind in sorted(set(kinds), key=lambda kind: kind == "dot-keep"):  # filled ones lie above
            at = [i for i, one in enumerate(kinds) if one == kind]
            fill, edge, width = mark_kind(kind)
            (line,) = self.axes.plot(
                x[at],
                y[at],
                "o",
                markersize=2 * radius,
                markerfacecolor=fill,
                markeredgecolor=edge,
                markeredgewidth=width,
                clip_on=False,
                zorder=3,
            )
            line.set_gid(self._name(Marks([before + i for i in at], [tips[i] for i in at], radius)))

    def cells(self, boxes: ArrayLike, kinds: Sequence[str], tips: Sequence[str] | None = None) -> None:
        """Boxes (n, 4) of left, top, right, bottom in pixels; without tips they are no marks."""
        before = sum(len(marks.places) for marks in self.marks.values())
        left, top, right, bottom = np.asarray(boxes, float).reshape(-1, 4).T
        corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 2)
        corners[:, :, 1] = self.height - corners[:, :, 1]
        looks = [mark_kind(kind) for kind in kinds]
        cells = PolyCollection(
            list(corners / 72),
            facecolors=[fill for fill, _, _ in looks],
            edgecolors=[edge for _, edge, _ in looks],
            linewidths=[width for _, _, width in looks],
            antialiaseds=[True, True],  # with one for all, matplotlib draws a cell that is alone as a dot
            clip_on=False,
            transform=self.sheet.dpi_scale_trans,
        )
        if tips is not None:
            cells.set_gid(self._name(Marks(list(range(before, before + len(looks))), list(tips))))
        self.axes.add_collection(cells, autolim=False)

    def svg_text(self) -> str:
        """As matplotlib writes it, from its first tag on."""
        out = io.StringIO()
        FigureCanvasSVG(self.sheet).print_svg(out, metadata={"Date": None})
        text = out.getvalue()
        return text[text.index("<svg") :]

    def file(self, kind: str) -> bytes:
        """A file of its own, svg or png, in light colours."""
        if kind == "svg":
            return self.svg_text().encode("utf-8", "replace")
        out = io.BytesIO()
        FigureCanvasAgg(self.sheet)
        self.sheet.savefig(out, format="png", dpi=72 * PNG_SCALE)
        return out.getvalue()
