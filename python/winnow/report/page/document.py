"""The page: one HTML file with its style, script and data inside."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

from winnow.report.drawing import matrix
from winnow.report.drawing.drawing import NARROW, WIDE
from winnow.report.drawing.page_svg import page_svg
from winnow.report.drawing.palette import css_variables
from winnow.report.figures import compare, sentences
from winnow.report.figures import examples as example_figures
from winnow.report.figures.figure import Figure, Row
from winnow.report.page import answers
from winnow.report.page.parts import asset, part, render, script_json
from winnow.report.reading.record import Examples, OtherCell, Result, Run
from winnow.report.wording import exact, ranges

MOST_BYTES = 6 * 2**20
# Tried in this order: share of the values per example, and of the results that get all their figures.
SIZES = ((1.0, 1.0), (0.3, 1.0), (0.05, 1.0), (0.05, 0.5), (0.05, 0.0))
MOST_ROWS = 1000  # of a table in the page
MOST_DETAILED = 6  # results that get all their figures in one page
MOST_OPEN = 3  # of several kinds, whose sections are open
MOST_IN_SHORT = 12  # results whose answer stands at the top
MOST_SHORT_BYTES = 2**21  # of the results that get a section without figures
MOST_MATRIX_CELLS = 400_000  # of all heat maps of a page

Found = tuple[str, Figure]  # a figure, and the prefix of its id in the page
Drawn = dict[str, Markup]  # sections by their ids


def table(columns: Sequence[str], rows: Sequence[Row], name: str, most_rows: int = MOST_ROWS) -> Markup:
    """A table with a button that copies it as CSV, in full precision."""
    return part("table", columns, rows, name, most_rows)


def section(figure: Figure, prefix: str = "", drawn: Drawn | None = None) -> Markup:
    """A figure with its sentence, switches, legend, and the table behind a fold.

    drawn: sections by their ids, of an earlier try at the same page; heat maps change from one try to the next.
    """
    drawn = {} if drawn is None or figure.matrix else drawn
    name = f"{prefix}{figure.id}"
    if name not in drawn:
        drawn[name] = _section(figure, name)
    return drawn[name]


def _section(figure: Figure, name: str) -> Markup:
    views = [
        tuple(page_svg(figure.draw(width, index)) for width in (WIDE, NARROW))
        for index, _ in enumerate(figure.drawings)
    ]
    numbers = table(*figure.table, f"{figure.title}: numbers") if figure.table and figure.table[1] else None
    data = script_json(matrix.for_page(figure.matrix)) if figure.matrix else None
    return part("figure", figure, name, views, numbers, data)


def examples_table(run: Run, prefix: str, examples: Examples, most_rows: int) -> Markup:
    columns = [
        "example",
        *(["source"] if examples.sources else []),
        "prompt tokens",
        "answer tokens",
        "mean delta NLL",
        "layer that costs most",
    ]
    rows = []
    for i, name in enumerate(examples.ids):
        lengths = [int(v) if np.isfinite(v) else None for v in (examples.prompt_tokens[i], examples.answer_tokens[i])]
        rows.append(
            (
                name,
                *([examples.sources[i]] if examples.sources else []),
                *lengths,
                float(examples.delta[i].mean()),
                int(run.layers[examples.delta[i].argmax()]),
            )
        )
    inside = table(columns, rows, "Examples", most_rows)
    return part("fold", f"Examples ({len(rows):,})", inside, "figure", f"{prefix}example-list")


def provenance(run: Result, prefix: str = "") -> Markup:
    rows = [
        (name, exact(value) if isinstance(value, (int, float)) else str(value), units, long_name)
        for name, (value, units, long_name) in run.provenance.items()
    ]
    rows = [(name, text, "" if units in ("text", "1") else units, meaning) for name, text, units, meaning in rows]
    rows += [(name, exact(value), "", "setting of the statistics") for name, value in run.settings.items()]
    rows.append(("file", run.path, "", "what this page was made from"))
    return part("provenance", rows, f"{prefix}provenance")


def _one(result: Result, found: Iterable[Figure], prefix: str, share: float, drawn: Drawn) -> list[Markup]:
    """A result in full. share: of the values per example that a page of full size holds."""
    kind = answers.kind_of(result)
    answer = kind.answer(result)
    parts = [part("heading", "The answer"), answer] if answer else []
    parts += [part("heading", "How far to trust it"), part("lines", kind.lines(result))]
    parts.append(part("heading", "The evidence"))
    parts += [section(figure, prefix, drawn) for figure in found]
    if isinstance(result, Run) and result.examples is not None:
        parts.append(examples_table(result, prefix, result.examples, int(MOST_ROWS * share)))
    return [*parts, provenance(result, prefix)]


def _short(result: Result) -> Markup:
    """A result among many: its answer only."""
    kind, prefix = answers.kind_of(result), result.key + "-"
    inside = [
        part("paragraph", answers.about(result), "caption"),
        kind.answer(result) or kind.lead(result),
        part("lines", kind.lines(result)),
        *([section(answers.ranking_table(result), prefix)] if isinstance(result, Run) else []),
        provenance(result, prefix),
    ]
    return part("fold", result.label, Markup("").join(inside), "figure run", result.key)


def figures_of(results: Sequence[Result], share: float = 1.0, detail: float = 1.0) -> list[Found]:
    """All that the page shows in full; `--figures` exports the same.

    share: of the values per example that a page of full size holds; detail: of the results that are shown in full.
    """
    runs = [result for result in results if isinstance(result, Run)]
    found = [] if len(runs) < 2 else [("", figure) for figure in compare.figures(runs)]
    detailed = results[: math.ceil(len(results) * detail)] if len(results) <= MOST_DETAILED else []
    cells = int(share * min(example_figures.MOST_CELLS, MOST_MATRIX_CELLS // max(len(detailed), 1)))
    for result in detailed:
        prefix = "" if len(results) == 1 else result.key + "-"
        found += [(prefix, figure) for figure in answers.kind_of(result).figures(result, cells)]
    return found


def overview(runs: Sequence[Run], others: Sequence[OtherCell]) -> list[Markup]:
    """Table of all results of layers one at a time, and of the cells that have none."""
    columns = ["result", "layers", "examples", "K", "layers kept", "settled", "split-half"]
    rows = []
    for run in runs:
        choice = sentences.choose(run, run.top_k)
        rows.append(
            (
                run.label,
                len(run.layers),
                run.n_examples,
                run.top_k,
                ranges(run.layers[choice.kept]),
                f"{len(choice.settled)} of {choice.k}" if choice.is_known else "n/a",
                float(run.reliability.get("split_half", float("nan"))),
            )
        )
    parts = [part("boxed", table(columns, rows, "All results"))] if rows else []
    if others:
        missing = table(["cell", "state", "reason"], others, "Cells without results")
        parts += [part("heading", f"Not measured ({len(others)})", 3), part("boxed", missing)]
    return parts


def in_short(results: Sequence[Result]) -> Markup:
    """The answer of every result of a page that holds several kinds, each with a link to its section."""
    items = [
        (result.key, f"{answers.kind_of(result).word}: {result.label}", answers.kind_of(result).lead(result))
        for result in results[:MOST_IN_SHORT]
    ]
    checkpoints = {str(result.fact("checkpoint_sha256")) for result in results if result.fact("checkpoint_sha256")}
    notes = []
    if len(checkpoints) > 1:
        notes.append("These results are not all of one checkpoint, so they answer different questions.")
    if len(items) < len(results):
        notes.append(f"The first {len(items)} of {len(results):,} results.")
    return part("in_short", items, notes)


def within_size(
    results: Sequence[Result], others: Sequence[OtherCell], footer: str, studies: Sequence[Found] = ()
) -> tuple[str, list[Found]]:
    """(page, its figures): in full, or with fewer examples or figures where it would become larger than MOST_BYTES."""
    drawn: Drawn = {}
    for share, detail in SIZES if len(results) > 1 else SIZES[:3]:
        found = figures_of(results, share, detail)
        text = build(results, others, found, footer, share, drawn, studies)
        if len(text) <= MOST_BYTES:
            break
    return text, found


def _several(
    results: Sequence[Result], others: Sequence[OtherCell], found: Sequence[Found], share: float, drawn: Drawn
) -> list[Markup]:
    """The body of a page about several results."""
    runs = [result for result in results if isinstance(result, Run)]
    has_kinds = len(runs) < len(results)
    body = [in_short(results)] if has_kinds else []
    if len(runs) > 1 or others:
        words = "Layers one at a time, all results" if has_kinds else "All results"
        body += [part("heading", words), *overview(runs, others)]
    body += [section(figure, "", drawn) for prefix, figure in found if not prefix]
    body.append(part("heading", "Result by result"))
    size = 0
    for index, result in enumerate(results):
        own = [figure for prefix, figure in found if prefix == result.key + "-"]
        kind = answers.kind_of(result)
        if own:
            words = f"{kind.word}: {result.label}" if has_kinds else result.label
            inside = [
                part("paragraph", answers.about(result), "about"),
                kind.lead(result),
                *_one(result, own, result.key + "-", share, drawn),
            ]
            is_open = has_kinds and len(results) <= MOST_OPEN
            body.append(part("fold", words, Markup("\n").join(inside), "run", result.key, is_open))
        elif size < MOST_SHORT_BYTES:
            body.append(_short(result))
            size += len(body[-1])
        else:
            words = (
                f"The first {index} of {len(results):,} results have a section; a report on the run directory of "
                "another has all its figures."
            )
            body.append(part("paragraph", words, "caption"))
            break
    return body


def build(
    results: Sequence[Result],
    others: Sequence[OtherCell],
    found: Sequence[Found],
    footer: str,
    share: float,
    drawn: Drawn,
    studies: Sequence[Found] = (),
) -> str:
    """The page as text.

    results: named by compare.name_results; found: figures_of(results); others: cells without results; drawn: sections
    of an earlier try, to which this one adds; studies: what sweeps say of all their cells together, which comes first.
    """
    if len(results) == 1:
        result = results[0]
        kind = answers.kind_of(result)
        heading = kind.heading
        body = [
            part("paragraph", answers.about(result), "about"),
            kind.lead(result),
            *_one(result, [figure for _, figure in found], "", share, drawn),
        ]
        if others:
            body += overview([], others)
    elif results:
        heading = f"{len(results)} results: layers that must keep full attention"
        body = _several(results, others, found, share, drawn)
    else:
        heading = "A sweep over models"
        body = overview([], others)
    if studies:
        body = [part("heading", "All models together"), *(section(figure, prefix) for prefix, figure in studies), *body]
    return render(
        title=f"winnow report: {results[0].label if len(results) == 1 else heading}",
        heading=heading,
        style=Markup(css_variables()) + asset("page.css"),
        script=asset("page.js"),
        body=Markup("\n").join(body),
        footer=footer,
    )
