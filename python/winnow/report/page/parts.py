"""The templates of the page: parts.html's macros as functions that return markup, and the page around them."""

import json
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from winnow.common.text import clean
from winnow.report.wording import exact, number


def _shown(value: object) -> str:
    return f"{value}" if isinstance(value, (int, np.integer)) else number(float(str(value)))


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else clean("" if value is None else value)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("winnow.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
    )
    found.filters |= {"exact": exact, "shown": _shown}
    found.tests["text"] = lambda value: isinstance(value, str)
    return found


@cache
def _macros() -> Any:  # noqa: ANN401 - macros have no types
    return _environment().get_template("parts.html").module


def part(name: str, *arguments: object) -> Markup:
    """The macro `name` of parts.html."""
    return Markup(getattr(_macros(), name)(*arguments))


def render(**values: object) -> str:
    """page.html with values for all of its names."""
    return _environment().get_template("page.html").render(**values)


def asset(name: str) -> Markup:
    """A style sheet or script of this folder, as it stands."""
    loader = _environment().loader
    assert loader is not None
    return Markup(loader.get_source(_environment(), name)[0])


def script_json(value: object) -> Markup:
    """JSON that may stand inside <script>: no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
