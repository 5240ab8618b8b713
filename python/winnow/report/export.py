"""Figures as SVG or PNG files."""

import pathlib
import re
from collections.abc import Iterable

from winnow.common.errors import ExitCode, Failure
from winnow.report.drawing.drawing import WIDE
from winnow.report.figures.figure import Figure
from winnow.report.output import write_whole

LONGEST_NAME = 100  # characters of a file's name, without its ending


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
            write_whole(path, figure.draw(WIDE, index).file(kind), "--figures", kind, inputs)
            written.append(path)
    return written
