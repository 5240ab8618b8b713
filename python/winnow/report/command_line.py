"""winnow report: the command line."""

import argparse
import json
import pathlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack

import xarray as xr

from winnow import __version__
from winnow.common.errors import ExitCode, Failure
from winnow.common.program import Parser, Program
from winnow.common.streams import open_standard_streams
from winnow.report import output, terminal
from winnow.report.reading import checksum, evaluation, opening, plans, record, scores, search
from winnow.report.reading.record import OtherCell, Result

EXAMPLE = """\
Example:
  winnow report run --out report.html
  winnow report calibration search evaluation --out choice.html
  winnow report run-1024 run-2048 --out windows.html --figures figures --format png
  winnow report night/collected.h5 --out night.html

The page needs nothing beside it and asks for nothing from a network. results/README.md explains its figures.
"""
NO_CHECKSUM = (
    "The file has no checksum (it is older, or another program has written to it): damage would not be noticed."
)

ORDER: list[type[Result]] = [evaluation.Evaluation, scores.Scores, plans.Plans, search.Search, record.Run]  # of a page

PROGRAM = Program(
    name="winnow-report",
    prefix="winnow: ",
    interrupted=(130, "interrupted; no file is half written"),
    out_of_memory="report on fewer results at once",
)


def parser(version: str) -> argparse.ArgumentParser:
    flags = Parser(
        say=terminal.say_as_it_is,
        prog="winnow report",
        epilog=EXAMPLE,
        description="Writes a report on results as one HTML file: which layers must keep full attention, and "
        "how sure that is.",
    )
    flags.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="run directory of calibrate, search or evaluate, results.h5, collected.h5 of a sweep, or JSON file of "
        "score, plan --json, plan or select; several share a page, those of calibrate are compared",
    )
    flags.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: %(default)s)")
    flags.add_argument("--figures", metavar="DIR", help="also writes every figure as a file into DIR")
    flags.add_argument("--format", choices=["svg", "png"], default=None, help="of --figures (default: svg)")
    flags.add_argument("--version", action="version", version=f"winnow-report {version}")
    return flags


def _read_one(tree: xr.DataTree, file: pathlib.Path) -> tuple[list[Result], list[OtherCell]]:
    """(results, cells without results) of one file, of whatever kind its groups are."""
    if opening.format_of(tree)[0] == opening.COLLECTION:
        runs, others = record.read_collection(tree, file)
        return [*runs], others
    found: list[Result] = []
    if "evaluation" in tree.children:
        found.append(evaluation.read(tree, file))
    if "selection" in tree.children:
        found.append(search.read(tree, file))
    if not found or {"calibration", "ranking"} & set(tree.children):
        found.append(record.read_run(tree, file))
    return found, []


def _read_json(file: pathlib.Path) -> Result:
    """Plans or scores, as the file says."""
    try:
        start = json.loads(file.read_bytes()) if file.stat().st_size <= plans.LARGEST else None
    except (ValueError, RecursionError):
        start = None  # scores.read() says what is wrong
    if isinstance(start, dict) and start.get("format") in plans.FORMATS:
        return plans.read(start, file)
    return scores.read(file)


Sweep = tuple[pathlib.Path, xr.DataTree]  # with a study of its cells


def read(files: Sequence[pathlib.Path], stack: ExitStack) -> tuple[list[Result], list[OtherCell], list[Sweep]]:
    """(results by kind, cells without results, sweeps); the files stay open until `stack` closes."""
    results: list[Result] = []
    others: list[OtherCell] = []
    sweeps: list[Sweep] = []
    for file in files:
        if file.suffix == ".json":
            results.append(_read_json(file))
            continue
        tree = stack.enter_context(opening.open_without_lock(file))
        try:
            more, without = _read_one(tree, file)
            sweeps += [(file, tree)] if "study" in tree.children else []
            if not checksum.is_there(file):
                for result in more[:1]:  # of a sweep, one line for all cells
                    result.notes.append(NO_CHECKSUM)
        except Exception as error:  # whatever a damaged file makes of the libraries' reading
            raise opening.explain(file, error, "not readable as a result") from error
        results += more
        others += without
    if not results and not sweeps:
        raise Failure(ExitCode.NO_INPUT, f"{files[0]}: no cell has results yet; winnow sweep submit measures them")
    return sorted(results, key=lambda result: ORDER.index(type(result))), others, sweeps


def report(flags: argparse.Namespace, version: str) -> None:
    """Writes what the flags ask for, then says so."""
    files = [opening.find(path) for path in flags.results]
    out = pathlib.Path(flags.out)
    output.check(out, "--out", "html", files)
    with ExitStack() as stack:
        results, others, sweeps = read(files, stack)
        try:  # what draws takes a moment to load: not before there is something to draw
            from winnow.report import export, study
            from winnow.report.figures import compare
            from winnow.report.page import document as page
        except ImportError as error:
            raise Failure(
                ExitCode.UNAVAILABLE, f"a package that winnow-report needs does not load in {sys.executable}: {error}"
            ) from error
        studies: list[page.Found] = []
        for index, (file, tree) in enumerate(sweeps):
            try:
                studies += [(f"s{index}-" if index else "", figure) for figure in study.figures(tree)]
            except Exception as error:  # as in read()
                raise opening.explain(file, error, "not readable as a collected sweep") from error
        compare.name_results(results)
        made_by = sorted({str(run.fact("winnow_version")) for run in results if run.fact("winnow_version")})
        footer = f"Written by winnow-report {version}"
        if made_by:
            footer += f" from results of winnow {', '.join(made_by)}"
        if made_by and made_by != [version]:
            PROGRAM.complain(f"note: winnow-report {version} reads results of winnow {', '.join(made_by)}")
        text, found = page.within_size(results, others, footer + ".", studies)
        said = []
        if flags.figures:
            written = export.write_figures(found, pathlib.Path(flags.figures), flags.format or "svg", files)
            said.append(f"{len(written)} figures in {flags.figures}")
        output.write_whole(out, text.encode("utf-8", "replace"), "--out", "html", files)
    said.append(f"{out}: {len(results)} result{'' if len(results) == 1 else 's'}, {len(text) / 2**20:.1f} MiB")
    terminal.say(*said)
    without = [file for file in files if file.suffix != ".json" and not checksum.is_there(file)]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        PROGRAM.complain(f"note: {checksum.note(f'{without[0]}{more}')}")


def _run(arguments: Sequence[str] | None) -> None:
    warnings.simplefilter("ignore")  # what the libraries think of a file; ours are lines of the page
    flags = parser(__version__).parse_args(arguments)
    if flags.format and not flags.figures:
        raise Failure(ExitCode.USAGE, "--format is the format of --figures; give --figures DIR, too")
    report(flags, __version__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or one of sysexits.h with one line on stderr."""
    open_standard_streams()
    return PROGRAM.run(lambda: _run(arguments))
