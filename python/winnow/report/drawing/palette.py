"""Colours, in one place: the page takes them as CSS variables, files of figures as they stand here.

Blue stands for "keep full attention" and for harm, orange for the opposite sign: this pair stays apart for all common
kinds of colour blindness, and every use has a second cue (outline, position or number) besides.
"""

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
}
# From the largest fall of NLL over none to the largest rise.
LIGHT_DIVERGING = ["#7a3f05", "#c8741f", "#efc795", "#f6f4ef", "#b4d0ea", "#5a97d0", "#1b4f8c"]
DARK_DIVERGING = ["#f8c489", "#b87327", "#5d4122", "#22252a", "#244a6f", "#4a8ccb", "#b3daff"]
Colour = tuple[int, int, int]  # red, green, blue in 0..255
N_STEPS = 11  # q0 ... q10: a share or a correlation from 0 to 1
N_SIGNED = 19  # d0 ... d18: a signed value, from the largest fall to the largest rise


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()


def blend(stops: list[str], position: float) -> Colour:
    """The colour at `position` in [0, 1] of evenly spaced stops."""
    place = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    low, high = _channels(stops[index]), _channels(stops[index + 1])
    red, green, blue = (round(a + (b - a) * (place - index)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _variables(colours: dict[str, str], diverging: list[str]) -> dict[str, str]:
    steps = {f"q{i}": _hex(blend(diverging[3:], i / (N_STEPS - 1))) for i in range(N_STEPS)}
    steps |= {f"d{i}": _hex(blend(diverging, i / (N_SIGNED - 1))) for i in range(N_SIGNED)}
    # Text on a step: the ink of whichever scheme stands out more from it.
    for name, colour in list(steps.items()):
        red, green, blue = _channels(colour)
        steps["on-" + name] = "#15171a" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else "#fcfbf9"
    return colours | steps | {"on-none": colours["muted"]}


def _apart(colours: dict[str, str]) -> dict[str, str]:
    """The same colours, those that are alike one step of blue apart, so that a colour tells its name."""
    found: dict[str, str] = {}
    for name, colour in colours.items():
        red, green, blue = _channels(colour)
        step = 1 if blue < 128 else -1
        while colour in found.values():
            blue += step
            colour = _hex((red, green, blue))
        found[name] = colour
    return found


# What charts are drawn with, by name, and the names by colour: the page has variables of these names in their place.
INK = _apart(_variables(LIGHT, LIGHT_DIVERGING))
NAMES = {colour: name for name, colour in INK.items()}

# How a mark of a kind is drawn: names of fill and outline, and the outline's width.
MARKS = {
    "keep": ("keep", None, 0.0),
    "open": ("open", "keep", 1.0),
    "rival": ("spare", "rival", 1.5),
    "spare": ("spare", None, 0.0),
    "none": ("shade", None, 0.0),
    "type-bf16": ("faint", None, 0.0),
    "type-fp8": ("rival", None, 0.0),
    "type-int8": ("panel", "rival", 1.4),
    "type-int4": ("rival", None, 0.0),
    "dot-keep": ("keep", None, 0.0),
    "dot-spare": ("panel", "faint", 1.6),
    "dot-change": ("rival", None, 0.0),
}


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
