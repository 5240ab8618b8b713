"""Elements of HTML and SVG as text. Whatever is not markup already is escaped: names come from files of others."""

import json
from collections.abc import Iterable

import markupsafe
from markupsafe import Markup

from winnow.common.text import clean


def escape(value: object) -> Markup:
    return value if isinstance(value, Markup) else markupsafe.escape(clean(value))


def join(parts: Iterable[object], between: str = "") -> Markup:
    return Markup(between.join(escape(part) for part in parts))


def tag(_name: str, *children: object, **attributes: object) -> Markup:
    """<name attribute="...">children</name>. `class_` gives class, `data_tip` data-tip; None and False leave it out."""
    words = [_name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escape("" if value is True else value)}"')
    head = " ".join(words)
    if not children and _name in _VOID:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{join(children)}</{_name}>")


_VOID = {"br", "hr", "img", "meta", "link", "rect", "line", "circle", "path", "image", "stop", "polyline", "polygon"}


def script_json(value: object) -> Markup:
    """JSON that may stand inside <script>: no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
