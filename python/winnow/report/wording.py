"""Numbers and lists as a reader wants them."""

import math
from collections.abc import Iterable

import numpy as np

from winnow.report.arrays import Form

BYTE_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, a true minus sign; n/a for what is not defined."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{digits}g}"
        if "e" in text:
            text = f"{value:,.0f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "\u2212")


def signed(value: float) -> str:
    return ("+" if math.isfinite(value) and value > 0 else "") + number(value)


def percent(share: float | None) -> str:
    """A share as a percentage; never 0 % or 100 % for what is not."""
    if share is None or not math.isfinite(share):
        return "n/a"
    if 0 < share < 0.005:
        return "< 1\u00a0%"
    if 0.995 < share < 1:
        return "> 99\u00a0%"
    return f"{100 * share:.0f}\u00a0%".replace("-", "\u2212")


def correlation(rho: float) -> str:
    """Two digits; never 1 for what is less."""
    return "> 0.99" if 0.995 <= rho < 1 else number(rho, 2)


def is_small_good(measure: str) -> bool:
    """Of the name of a measure, such as mean_nll: whether less of it is better."""
    return "nll" in measure or "kl" in measure


def amount(measure: str, loss: float) -> str:
    """A loss with its unit, as the terminal's table writes it."""
    if is_small_good(measure):
        return f"{number(loss)} nats per token"
    return f"{np.round(100 * loss, 1) + 0.0:.1f} points".replace("-", "\u2212")


def form_of(measure: str) -> Form:
    """How its values are written: nats as numbers, shares in per cent."""
    return number if is_small_good(measure) else percent


def size(value: float) -> str:
    """Bytes as a reader wants them."""
    for unit, of_unit in BYTE_UNITS:
        if value >= of_unit:
            return f"{number(value / of_unit)} {unit}"
    return f"{number(value)} bytes"


def byte_unit(largest: float) -> tuple[str, int]:
    """Unit of an axis up to `largest` bytes, and how many bytes it has."""
    return next((one for one in BYTE_UNITS if largest >= one[1]), BYTE_UNITS[-1])


def count(value: int, word: str, plural: str | None = None) -> str:
    return f"{value:,} {word if value == 1 else plural or word + 's'}"


def interval(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def ranges(layers: Iterable[int]) -> str:
    """[1, 4, 5, 6] is "1, 4–6"."""
    indices = sorted(int(layer) for layer in layers)
    parts: list[str] = []
    start = 0
    for i in range(1, len(indices) + 1):
        if i < len(indices) and indices[i] == indices[i - 1] + 1:
            continue
        run = indices[start:i]
        parts += [f"{run[0]}\u2013{run[-1]}"] if len(run) > 2 else [str(layer) for layer in run]
        start = i
    return ", ".join(parts)


def listed(words: Iterable[object]) -> str:
    """ "a, b and c"."""
    texts = [str(word) for word in words]
    if len(texts) < 2:
        return "".join(texts)
    return ", ".join(texts[:-1]) + " and " + texts[-1]


def the_layers(layers: Iterable[int]) -> str:
    """ "layer 4", "layers 1 and 4", "layers 1, 4–6"."""
    indices = list(layers)
    if len(indices) == 1:
        return f"layer {int(indices[0])}"
    text = ranges(indices)
    head, comma, tail = text.rpartition(", ")
    return f"layers {head} and {tail}" if comma and len(indices) < 6 else f"layers {text}"


def exact(value: float | np.integer | np.floating | str) -> str:
    """The number so that reading it gives the same number back; whole numbers without a point."""
    if isinstance(value, (int, np.integer, str)):
        return str(value)
    value = float(value)
    return "" if math.isnan(value) else repr(value)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
