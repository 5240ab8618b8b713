"""winnow report: the command line."""

import argparse
import os
import pathlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

import xarray as xr

from . import answers, compare, evaluation, export, opening, page, record, search
from .errors import BAD_DATA, INTERNAL, NO_INPUT, USAGE, ReportError
from .record import OtherCell, Result

EXAMPLE = """\
Example:
  winnow report run --out report.html
  winnow report calibration search evaluation --out choice.html
  winnow report run-1024 run-2048 --out windows.html --figures figures --format png
  winnow report night/collected.h5 --out night.html

The page needs nothing beside it and asks for nothing from a network. results/README.md explains its figures.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ReportError(USAGE, f"{message} (see {self.prog} --help)")


def parser(version: str) -> argparse.ArgumentParser:
    flags = _Parser(
        prog="winnow report",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Writes a report on results as one HTML file: which layers must keep full attention, and "
        "how sure that is.",
    )
    flags.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="run directory of calibrate, search or evaluate, results.h5, or collected.h5 of a sweep; "
        "several share a page, those of calibrate are compared",
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


def read(paths: Sequence[str], stack: ExitStack) -> tuple[list[Result], list[OtherCell]]:
    """(results, cells without results) of all paths, by kind; the files stay open until `stack` closes."""
    results: list[Result] = []
    others: list[OtherCell] = []
    for path in paths:
        file = opening.find(path)
        tree = stack.enter_context(opening.open(file))
        try:
            more, without = _read_one(tree, file)
        except ReportError:
            raise
        except Exception as error:  # whatever a damaged file makes of the libraries' reading
            raise ReportError(
                BAD_DATA,
                f"{file}: not readable as a result ({type(error).__name__}: {error}); copy it "
                "again, or delete it and repeat the command that wrote it",
            ) from error
        results += more
        others += without
    if not results:
        raise ReportError(NO_INPUT, f"{paths[0]}: no cell has results yet; winnow sweep submit measures them")
    order = list(answers.KINDS)
    return sorted(results, key=lambda result: order.index(type(result))), others


def report(flags: argparse.Namespace, version: str) -> None:
    with ExitStack() as stack:
        results, others = read(flags.results, stack)
        compare.name_results(results)
        made_by = sorted({str(run.fact("winnow_version")) for run in results if run.fact("winnow_version")})
        footer = f"Written by winnow-report {version}"
        if made_by:
            footer += f" from results of winnow {', '.join(made_by)}"
        if made_by and made_by != [version]:
            print(
                f"winnow: note: winnow-report {version} reads results of winnow {', '.join(made_by)}", file=sys.stderr
            )
        text, found = page.within_size(results, others, footer + ".")
        if flags.figures:
            files = export.write_figures(found, flags.figures, flags.format or "svg")
            print(f"{len(files)} figures in {flags.figures}")
        export.write_whole(flags.out, text.encode("utf-8", "replace"))
        print(f"{flags.out}: {len(results)} result{'' if len(results) == 1 else 's'}, {len(text) / 2**20:.1f} MiB")


def _check(flags: argparse.Namespace) -> None:
    if flags.format and not flags.figures:
        raise ReportError(USAGE, "--format is the format of --figures; give --figures DIR, too")
    out = pathlib.Path(flags.out)
    if out.exists() and not out.is_file():  # a rename would put the page in the place of a device
        raise ReportError(
            USAGE, f"--out {out} is a {'directory' if out.is_dir() else 'device or pipe'}; give the name of a file"
        )
    for path in flags.results:
        if out.exists() and pathlib.Path(path).exists() and os.path.samefile(path, out):
            raise ReportError(USAGE, f"--out {out} is one of the results; give another name")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or one of sysexits.h with one line on stderr."""
    from . import __version__

    warnings.simplefilter("ignore")  # what the libraries think of a file; ours are lines of the page
    try:
        flags = parser(__version__).parse_args(arguments)
        _check(flags)
        report(flags, __version__)
    except ReportError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("winnow: interrupted; nothing was written", file=sys.stderr)
        return 130
    except MemoryError:
        print("winnow: out of memory; report on fewer results at once", file=sys.stderr)
        return 71
    except Exception as error:  # the last resort: still one line
        if os.environ.get("WINNOW_TRACE"):
            raise
        words = " ".join(str(error).split())
        print(
            f"winnow: internal error in winnow-report: {type(error).__name__}: {words}; please report it, with the "
            "traceback that WINNOW_TRACE=1 shows",
            file=sys.stderr,
        )
        return INTERNAL
    return 0
