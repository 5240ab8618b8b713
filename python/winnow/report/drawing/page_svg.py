"""A drawing as SVG inside the page: its colours are variables, so that one serves light and dark."""

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup

from winnow.common.text import clean
from winnow.report.drawing.drawing import Drawing, Marks
from winnow.report.drawing.palette import NAMES

_SPACE = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_KEPT_STYLE = ("fill", "fill-opacity", "font-weight", "stroke", "stroke-dasharray", "stroke-width", "text-anchor")


def _short(text: str) -> str:
    """Numbers with one decimal, without needless space."""
    text = _NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), text)
    return " ".join(text.split())


def _style(element: ET.Element) -> str:
    """What a style sheet does not say anyway, with variables for the colours."""
    words = []
    for one in element.get("style", "").split(";"):
        name, _, value = one.partition(":")
        if name.strip() in _KEPT_STYLE:
            value = _COLOUR.sub(lambda match: f"var(--{NAMES[match[0]]})", value.strip())
            words.append(f"{name.strip()}:{_short(value)}")
    return ";".join(words)


def _element(name: str, text: str = "", **attributes: object) -> ET.Element:
    """`class_` gives class, `data_tip` data-tip; attributes that are empty are left out."""
    found = ET.Element(name)
    found.text = text or None
    for key, value in attributes.items():
        if value is not None and value != "":
            words = _short(f"{value:.2f}") if isinstance(value, float) else clean(value)
            found.set(key.rstrip("_").replace("_", "-"), words)
    return found


def _leaf(element: ET.Element, attributes: dict[str, object]) -> ET.Element | None:
    """A path or a text; None for what draws nothing."""
    name = element.tag.removeprefix(_SPACE)
    if name == "text":
        place = {key: float(element.get(key, 0)) for key in ("x", "y")}
        return _element("text", element.text or "", **place, style=_style(element), **attributes)
    if name != "path" or _style(element) == "fill:none":
        return None
    return _element("path", d=_short(element.get("d", "")), style=_style(element))


def _marks(group: ET.Element, marks: Marks) -> list[tuple[int, ET.Element]]:
    """[(place, mark)] of an artist's group."""
    name = f"{_SPACE}use" if marks.radius else f"{_SPACE}path"
    defined = {id(inner) for defs in group.iter(f"{_SPACE}defs") for inner in defs.iter()}
    drawn = [one for one in group.iter(name) if id(one) not in defined]
    found = []
    for element, place, tip in zip(drawn, marks.places, marks.tips, strict=True):
        shape: dict[str, object] = {"d": _short(element.get("d", ""))}
        if marks.radius:
            shape = {"cx": float(element.get("x", 0)), "cy": float(element.get("y", 0)), "r": marks.radius}
        words = {"class_": "mark", "style": _style(element), "data_tip": tip}
        found.append((place, _element("circle" if marks.radius else "path", "", **shape, **words)))
    return found


def _image(drawing: Drawing) -> ET.Element:
    picture = drawing.picture
    assert picture is not None  # what else would have drawn an image
    left, top, width, height = picture.box
    return _element(
        "image",
        href=picture.href,
        x=left,
        y=top,
        width=width,
        height=height,
        preserveAspectRatio="none",
        style="image-rendering:" + ("pixelated" if picture.is_sharp else "auto"),
        class_="mark matrix",
        data_matrix=picture.id,
    )


def page_svg(drawing: Drawing) -> Markup:
    """The element for the page."""
    parts: list[ET.Element] = []
    marks: list[tuple[int, ET.Element]] = []
    place_of_marks = None

    def walk(element: ET.Element, attributes: dict[str, object]) -> None:
        nonlocal place_of_marks
        own = drawing.marks.get(element.get("id", ""))
        if own is not None:
            place_of_marks = len(parts)
            marks.extend(_marks(element, own))
        elif element.tag == f"{_SPACE}image":
            parts.append(_image(drawing))
        elif element.tag not in (f"{_SPACE}defs", f"{_SPACE}metadata"):
            leaf = _leaf(element, attributes)
            if leaf is not None:
                parts.append(leaf)
            for child in element:
                walk(child, drawing.words.get(element.get("id", ""), {}))

    walk(ET.fromstring(drawing.svg_text()), {})
    if place_of_marks is not None:
        parts[place_of_marks:place_of_marks] = [mark for _, mark in sorted(marks, key=lambda one: one[0])]
    root = _element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        role="group",
        aria_label=drawing.label,
        tabindex="0",
        class_="chart",
        viewBox=f"0 0 {drawing.width:g} {drawing.height:g}",
    )
    root.extend(parts)
    return Markup(ET.tostring(root, encoding="unicode"))
