"""Figures as SVG or PNG files."""

import pathlib
import re
from collections.abc import Iterable

from winnow.common.errors import ExitCode, Failure
from winnow.report.drawing.palette import LIGHT, chart_style, literal
from winnow.report.drawing.svg import WIDE
from winnow.report.figures.figure import Figure
from winnow.report.markup import Markup
from winnow.report.output import write_whole

PNG_SCALE = 2.0  # pixels to a unit of the drawing
LONGEST_NAME = 100  # characters of a file's name, without its ending


def standalone(svg: Markup) -> Markup:
    """A drawing of the page as an SVG file of its own: light colours inside, nothing that only the page uses."""
    text = re.sub(r' (data-[a-z]+|tabindex)="[^"]*"', "", str(svg))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None  # Canvas.render writes it
    width, height = size.groups()
    head = f'width="{width}" height="{height}">'
    paper = f'<rect width="{width}" height="{height}" fill="{LIGHT["panel"]}"/>'
    style = literal(chart_style())
    return Markup(text.replace(">", f" {head}<style>{style}</style>{paper}", 1))


def _to_png(svg: str) -> bytes:
    try:
        import vl_convert
    except ImportError as error:
        raise Failure(
            ExitCode.UNAVAILABLE,
            "--format png needs the Python package vl-convert-python; install it, or use --format svg",
        ) from error
    return vl_convert.svg_to_png(svg, scale=PNG_SCALE)


def write_figures(
    found: Iterable[tuple[str, Figure]], directory: pathlib.Path, kind: str, inputs: Iterable[pathlib.Path]
) -> list[pathlib.Path]:
    """Each view of each figure as a file; returns their paths. found: (prefix, figure); inputs are not replaced."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            ExitCode.CANNOT_CREATE, f"{directory}: cannot be created: {error.strerror}; give another --figures"
        ) from error
    written: list[pathlib.Path] = []
    for prefix, figure in found:
        for index, (variant, _) in enumerate(figure.drawings):
            words = re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")
            name = f"{prefix}{figure.id}"[:LONGEST_NAME] + (f"-{words}" if words and len(figure.drawings) > 1 else "")
            path = directory / f"{name}.{kind}"
            if path in written:  # methods of a search whose names differ in what a file name cannot hold
                path = directory / f"{name}-{len(written)}.{kind}"
            svg = standalone(figure.draw(WIDE, index))
            data = svg.encode() if kind == "svg" else _to_png(svg)
            write_whole(path, data, "--figures", kind, inputs)
            written.append(path)
    return written
