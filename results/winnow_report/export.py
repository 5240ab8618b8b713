"""Figures as SVG or PNG files, and files that appear whole or not at all."""

import os
import pathlib
import re
import tempfile
from collections.abc import Iterable

from .errors import CANNOT_CREATE, IO_ERROR, UNAVAILABLE, ReportError
from .figures import Figure
from .markup import Markup
from .page import asset
from .palette import LIGHT, literal
from .svg import WIDE

PNG_SCALE = 2.0  # pixels to a unit of the drawing


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes bytes under a temporary name beside `path`, and renames; an older file of that name is replaced."""
    path = pathlib.Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:60]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise ReportError(IO_ERROR, f"{path}: {error.strerror}; nothing was written") from error
        raise ReportError(CANNOT_CREATE, f"{path}: cannot be created: {error.strerror}; give another --out") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def standalone(svg: str) -> Markup:
    """A drawing of the page as an SVG file of its own: light colours inside, nothing that only the page uses."""
    svg = re.sub(r' (data-[a-z]+|tabindex)="[^"]*"', "", svg)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None  # Canvas.render writes it
    width, height = size.groups()
    head = f'width="{width}" height="{height}">'
    paper = f'<rect width="{width}" height="{height}" fill="{LIGHT["panel"]}"/>'
    style = literal(asset("chart.css"))
    return Markup(svg.replace(">", f" {head}<style>{style}</style>{paper}", 1))


def _to_png(svg: str) -> bytes:
    try:
        import vl_convert
    except ImportError as error:
        raise ReportError(
            UNAVAILABLE, "--format png needs the Python package vl-convert-python; install it, or use --format svg"
        ) from error
    return vl_convert.svg_to_png(svg, scale=PNG_SCALE)


def write_figures(
    found: Iterable[tuple[str, Figure]], directory: str | os.PathLike[str], kind: str
) -> list[pathlib.Path]:
    """Each view of each figure as a file; returns their paths. found: [(prefix, Figure)]."""
    directory = pathlib.Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            CANNOT_CREATE, f"{directory}: cannot be created: {error.strerror}; give another --figures"
        ) from error
    written = []
    for prefix, figure in found:
        for index, (variant, _) in enumerate(figure.drawings):
            words = re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")
            name = f"{prefix}{figure.id}" + (f"-{words}" if words and len(figure.drawings) > 1 else "")
            svg = standalone(figure.draw(WIDE, index))
            data = svg.encode() if kind == "svg" else _to_png(svg)
            write_whole(directory / f"{name}.{kind}", data)
            written.append(directory / f"{name}.{kind}")
    return written
