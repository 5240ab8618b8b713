"""What every figure is made of, whatever it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from winnow.report.drawing.drawing import WIDE, Drawing
from winnow.report.drawing.matrix import Spec

Draw = Callable[[int], Drawing]  # of the width
TableCell = str | float | np.integer | np.floating | None
Row = Sequence[TableCell]


@dataclass
class Strip:
    """One row of squares of the page, a layer each."""

    layers: Sequence[int]
    kinds: Sequence[str]  # of marks
    tips: Sequence[str]
    label: str


@dataclass
class Figure:
    """`drawings`: (name of the variant, what draws it at a width). `matrix`: data for page.js."""

    id: str
    title: str
    reading: str
    drawings: list[tuple[str, Draw]]
    caption: str = ""
    legend: list[tuple[str, str]] = field(default_factory=list)  # (class of the swatch, words)
    table: tuple[Sequence[str], Sequence[Row]] | None = None  # (column names, rows) for a table below the figure
    matrix: Spec | None = None
    shown: int = 0  # position of the drawing that the page shows first

    def draw(self, width: int = WIDE, variant: int = 0) -> Drawing:
        return self.drawings[variant][1](width)
