"""Colours, in one place: the page takes them as CSS variables, exported figures as literals.

Blue stands for "keep full attention" and for harm, orange for the opposite sign: this pair stays apart for all common
kinds of colour blindness, and every use has a second cue (outline, position or number) besides.
"""

import importlib.resources
import re

LIGHT = {
    "paper": "#fcfbf9",
    "panel": "#ffffff",
    "ink": "#1c1e21",
    "muted": "#62656b",
    "faint": "#8d9097",
    "line": "#e3e0da",
    "grid": "#eceae5",
    "keep": "#1f5fa6",
    "open": "#8fb8e0",
    "spare": "#dcd8d0",
    "rival": "#b7560b",
    "focus": "#b7560b",
    "shade": "#f3f1ec",
    "link": "#1f5fa6",
    "c0": "#1f5fa6",
    "c1": "#b7560b",
    "c2": "#2b8a6f",
    "c3": "#8e4a97",
    "c4": "#8a7b1d",
    "c5": "#5a6472",
}
DARK = {
    "paper": "#15171a",
    "panel": "#1b1e22",
    "ink": "#e8e6e1",
    "muted": "#a3a6ac",
    "faint": "#7c8087",
    "line": "#30343a",
    "grid": "#282c31",
    "keep": "#74b2f0",
    "open": "#3d6f9f",
    "spare": "#3a3e45",
    "rival": "#f0a35a",
    "focus": "#f0a35a",
    "shade": "#22262b",
    "link": "#8cc0f5",
    "c0": "#74b2f0",
    "c1": "#f0a35a",
    "c2": "#63c7a6",
    "c3": "#cf97d8",
    "c4": "#d3c25a",
    "c5": "#a7b0bd",
}
# From the largest fall of NLL over none to the largest rise.
LIGHT_DIVERGING = ["#7a3f05", "#c8741f", "#efc795", "#f6f4ef", "#b4d0ea", "#5a97d0", "#1b4f8c"]
DARK_DIVERGING = ["#f8c489", "#b87327", "#5d4122", "#22252a", "#244a6f", "#4a8ccb", "#b3daff"]
Colour = tuple[int, int, int]  # red, green, blue in 0..255
N_STEPS = 11  # classes q0 ... q10 of a share or a correlation from 0 to 1


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def blend(stops: list[str], position: float) -> Colour:
    """The colour at `position` in [0, 1] of evenly spaced stops."""
    place = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    low, high = _channels(stops[index]), _channels(stops[index + 1])
    red, green, blue = (round(a + (b - a) * (place - index)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _variables(colours: dict[str, str], diverging: list[str]) -> dict[str, str]:
    steps = {f"q{i}": "#" + bytes(blend(diverging[3:], i / (N_STEPS - 1))).hex() for i in range(N_STEPS)}
    steps |= {f"m{i}": colour for i, colour in enumerate(diverging)}
    # Text on a step: the ink of whichever scheme stands out more from it.
    for name, colour in list(steps.items()):
        red, green, blue = _channels(colour)
        steps["on-" + name] = "#15171a" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else "#fcfbf9"
    return colours | steps | {f"d{i}": colour for i, colour in enumerate(diverging)}


def css_variables() -> str:
    """Light by default, dark where the system or the reader's switch says so; paper is white."""

    def block(colours: dict[str, str], diverging: list[str]) -> str:
        pairs = _variables(colours, diverging) | {
            "diverging": '"' + ",".join(diverging) + '"',
            "diverging-light": '"' + ",".join(LIGHT_DIVERGING) + '"',
        }
        return "".join(f"--{name}:{value};" for name, value in pairs.items())

    light, dark = block(LIGHT, LIGHT_DIVERGING), block(DARK, DARK_DIVERGING)
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )


def chart_style() -> str:
    """The style sheet of every drawing, whose colours are variables."""
    return importlib.resources.files(__package__).joinpath("chart.css").read_text(encoding="utf-8")


def literal(css: str) -> str:
    """The style sheet with the light scheme's colours in place of its variables."""
    values = _variables(LIGHT, LIGHT_DIVERGING)
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: values[match.group(1)], css)
