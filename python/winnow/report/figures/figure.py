"""What every figure is made of, whatever it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from winnow.report.drawing.matrix import Spec
from winnow.report.drawing.svg import WIDE
from winnow.report.markup import Markup

Draw = Callable[[int], Markup]  # of the width
TableCell = str | float | np.integer | np.floating | None
Row = Sequence[TableCell]


@dataclass
class Figure:
    """`drawings`: (name of the variant, function of the width that returns SVG). `matrix`: data for page.js."""

    id: str
    title: str
    reading: str
    drawings: list[tuple[str, Draw]]
    caption: str = ""
    legend: list[tuple[str, str]] = field(default_factory=list)  # (class of the swatch, words)
    table: tuple[Sequence[str], Sequence[Row]] | None = None  # (column names, rows) for a table below the figure
    matrix: Spec | None = None

    def draw(self, width: int = WIDE, variant: int = 0) -> Markup:
        return self.drawings[variant][1](width)
