"""A picture of what layers keep: the window of each, and the type of its keys and values where one is narrowed."""

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.report.drawing.charts import Bar, Cell, Grid, draw_grid, step_kind
from winnow.report.drawing.drawing import Drawing
from winnow.report.reading.settings import BITS, FULL, STORED
from winnow.report.wording import capital, listed

MOST_NAMED = 12  # windows in legend and caption
NARROWEST, WIDEST = 0.1, 0.7  # steps of the colours of windows


def _short(keys: int) -> str:
    """ "2k" for 2,048: what fits into a cell."""
    return f"{keys // 1024}k" if keys >= 1024 and keys % 1024 == 0 else str(keys)


@dataclass
class Kept:
    """Rows, such as plans or patterns, of layers."""

    names: Sequence[str]  # (row)
    layers: Sequence[int]
    windows: Sequence[Sequence[int]]  # (row, layer): keys that a row of a layer sees, FULL: all
    types: Sequence[Sequence[str]] | None  # (row, layer): of keys and values, keys of BITS; None where unknown

    @property
    def has_types(self) -> bool:
        """Whether a layer keeps keys and values in a type narrower than computed."""
        return self.types is not None and any(name != STORED for row in self.types for name in row)

    @property
    def what(self) -> str:
        return "window and type of keys and values" if self.has_types else "window"

    @property
    def sizes(self) -> list[int]:
        return sorted({keys for row in self.windows for keys in row} - {FULL})

    def _shade(self, keys: int) -> str:
        """Kind of a window: the darker, the wider."""
        if keys == FULL:
            return "keep"
        share = self.sizes.index(keys) / max(len(self.sizes) - 1, 1)
        return step_kind(NARROWEST + share * (WIDEST - NARROWEST))

    def legend(self) -> list[tuple[str, str]]:
        found = [("keep", "full attention")]
        if len(self.sizes) <= MOST_NAMED:
            found += [(self._shade(keys), f"{keys:,} tokens") for keys in reversed(self.sizes)]
        if self.types is not None and self.has_types:
            used = {name for row in self.types for name in row}
            words = {STORED: f"{STORED}, as computed"}
            found += [(f"type-{name}", words.get(name, name)) for name in BITS if name in used]
        return found

    def caption(self) -> str:
        text = "The paler a cell, the narrower the window"
        text += (
            f", of {listed(f'{keys:,}' for keys in self.sizes)} tokens." if 0 < len(self.sizes) <= MOST_NAMED else "."
        )
        if self.has_types:
            text += " The bar below a cell is as long as an element of its keys and values has bits, 16, 8 or 4."
        return text

    def draw(self, whose: str, width: int) -> Drawing:
        """whose: what a row is, as in "plan"."""
        kinds = {keys: self._shade(keys) for keys in [FULL, *self.sizes]}
        types = self.types if self.types is not None and self.has_types else None

        def cell(r: int, c: int) -> Cell:
            keys = self.windows[r][c]
            words = "full attention" if keys == FULL else f"window of {keys:,} tokens"
            words += f", {types[r][c]}" if types else ""
            inside = "" if keys == FULL else _short(keys)
            return kinds[keys], inside, f"{self.names[r]}, layer {self.layers[c]}: {words}"

        def bar(r: int, c: int) -> Bar:
            name = types[r][c] if types else STORED
            return f"type-{name}", BITS[name] / BITS[STORED], "" if name == STORED else name

        label = f"{capital(self.what)} of each layer in each {whose}"
        return draw_grid(Grid(self.names, self.layers, cell, label, bar=bar if types else None), width)
