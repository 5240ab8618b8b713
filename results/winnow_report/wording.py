"""Numbers and lists as a reader wants them."""

import math

import numpy as np


def number(value, digits=3):
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


def signed(value):
    return ("+" if math.isfinite(value) and value > 0 else "") + number(value)


def percent(share):
    """A share as a percentage; never 0 % or 100 % for what is not."""
    if share is None or not math.isfinite(share):
        return "n/a"
    if 0 < share < 0.005:
        return "< 1\u00a0%"
    if 0.995 < share < 1:
        return "> 99\u00a0%"
    return f"{100 * share:.0f}\u00a0%".replace("-", "\u2212")


def correlation(rho):
    """Two digits; never 1 for what is less."""
    return "> 0.99" if 0.995 <= rho < 1 else number(rho, 2)


def is_small_good(measure):
    """Of the name of a measure, such as mean_nll: whether less of it is better."""
    return "nll" in measure or "kl" in measure


def form_of(measure):
    """How its values are written: nats as numbers, shares in per cent."""
    return number if is_small_good(measure) else percent


def count(value, word, plural=None):
    return f"{value:,} {word if value == 1 else plural or word + 's'}"


def interval(low, high):
    return f"{number(low)} to {number(high)}"


def ranges(layers):
    """[1, 4, 5, 6] is "1, 4–6"."""
    layers = sorted(int(layer) for layer in layers)
    parts, start = [], 0
    for i in range(1, len(layers) + 1):
        if i < len(layers) and layers[i] == layers[i - 1] + 1:
            continue
        run = layers[start:i]
        parts += [f"{run[0]}\u2013{run[-1]}"] if len(run) > 2 else [str(layer) for layer in run]
        start = i
    return ", ".join(parts)


def listed(words):
    """ "a, b and c"."""
    words = [str(word) for word in words]
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def the_layers(layers):
    """ "layer 4", "layers 1 and 4", "layers 1, 4–6"."""
    layers = list(layers)
    if len(layers) == 1:
        return f"layer {int(layers[0])}"
    text = ranges(layers)
    head, comma, tail = text.rpartition(", ")
    return f"layers {head} and {tail}" if comma and len(layers) < 6 else f"layers {text}"


def exact(value):
    """The number so that reading it gives the same number back; whole numbers without a point."""
    if isinstance(value, (int, np.integer, str)):
        return str(value)
    value = float(value)
    return "" if math.isnan(value) else repr(value)


def capital(text):
    return text[:1].upper() + text[1:]
