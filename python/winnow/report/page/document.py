"""The page: one HTML file with its style, script and data inside."""

import importlib.resources
import math
from collections.abc import Iterable, Sequence
from string import Template

import numpy as np

from winnow.report.drawing import matrix
from winnow.report.drawing.palette import chart_style, css_variables
from winnow.report.drawing.svg import NARROW, WIDE
from winnow.report.figures import compare, sentences
from winnow.report.figures import examples as example_figures
from winnow.report.figures.figure import Figure, Row, TableCell
from winnow.report.markup import Markup, escape, join, script_json, tag
from winnow.report.page import answers
from winnow.report.reading.record import Examples, OtherCell, Result, Run
from winnow.report.wording import exact, number, ranges

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


def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _cell(value: TableCell) -> Markup:
    if value is None:
        return tag("td", "n/a", class_="n")
    if isinstance(value, (int, float, np.integer, np.floating)):
        is_whole = isinstance(value, (int, np.integer))
        return tag("td", f"{value}" if is_whole else number(float(value)), class_="n", data_v=exact(value))
    return tag("td", value)


def table(columns: Sequence[str], rows: Sequence[Row], name: str, most_rows: int = MOST_ROWS) -> Markup:
    """A table with a button that copies it as CSV, in full precision."""
    shown = rows[:most_rows]
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    body = tag("tbody", *(tag("tr", *(_cell(value) for value in row)) for row in shown))
    parts = [
        tag("div", tag("button", "Copy as CSV", type="button", class_="copy", data_copy="csv"), class_="tools"),
        tag(
            "div",
            tag("table", tag("caption", name, class_="sr"), head, body, style=f"--columns:{len(columns)}"),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=name,
        ),
    ]
    if len(rows) > len(shown):
        parts.append(
            tag("p", f"The first {len(shown):,} of {len(rows):,} rows; the results file has all.", class_="caption")
        )
    return tag("div", *parts, class_="data")


def _variants(figure: Figure) -> list[Markup]:
    drawings = []
    for index, _ in enumerate(figure.drawings):
        both = [
            tag("div", figure.draw(width, index), class_=name) for width, name in ((WIDE, "wide"), (NARROW, "narrow"))
        ]
        drawings.append(tag("div", *both, class_="variant", data_variant=index, hidden=index > 0))
    return drawings


def _controls(figure: Figure) -> list[Markup]:
    """Switches above a drawing: its variants, and of a heat map its orders and sheets."""
    parts = []
    if len(figure.drawings) > 1:
        parts.append(
            tag(
                "div",
                *(
                    tag("button", name, type="button", data_show=index, aria_pressed=str(index == 0).lower())
                    for index, (name, _) in enumerate(figure.drawings)
                ),
                class_="switch",
                role="group",
                aria_label="View",
            )
        )
    spec = figure.matrix
    if spec and len(spec["orders"]) > 1:
        parts.append(
            tag(
                "div",
                *(
                    tag("button", order["name"], type="button", data_order=index, aria_pressed=str(index == 0).lower())
                    for index, order in enumerate(spec["orders"])
                ),
                class_="switch",
                role="group",
                aria_label="Order of the examples",
            )
        )
    if spec and len(spec["sheets"]) > 1:
        options = [tag("option", sheet["name"], value=index) for index, sheet in enumerate(spec["sheets"])]
        parts.append(tag("label", "Example ", tag("select", *options, data_sheet=True)))
    return [tag("div", *parts, class_="controls")] if parts else []


def section(figure: Figure, prefix: str = "") -> Markup:
    """A figure with its sentence, switches, legend, and the table behind a fold."""
    name = f"{prefix}{figure.id}"
    parts = [tag("h3", figure.title, id=f"{name}-title"), tag("p", figure.reading, class_="reading")]
    if figure.drawings:
        legend = [tag("span", tag("i", class_=f"swatch sw-{class_}"), words) for class_, words in figure.legend]
        parts += _controls(figure)
        parts += [tag("div", *_variants(figure), class_="drawings")]
        parts += [tag("p", *legend, class_="legend")] if legend else []
    parts += [tag("p", figure.caption, class_="caption")] if figure.caption else []
    if figure.table and figure.table[1]:
        inside = table(*figure.table, f"{figure.title}: numbers")
        is_open = not figure.drawings
        parts.append(tag("details", tag("summary", "Numbers"), inside, open=is_open))
    if figure.matrix:
        parts.append(
            tag("script", script_json(matrix.for_page(figure.matrix)), type="application/json", class_="matrix-data")
        )
    kind = "figure" if figure.drawings else "section"
    return tag(kind, *parts, id=name, class_="figure", aria_labelledby=f"{name}-title")


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
    return tag(
        "details",
        tag("summary", f"Examples ({len(rows):,})"),
        table(columns, rows, "Examples", most_rows),
        class_="figure",
        id=f"{prefix}example-list",
    )


def provenance(run: Result, prefix: str = "") -> Markup:
    rows = []
    for name, (value, units, long_name) in run.provenance.items():
        text = exact(value) if isinstance(value, (int, float)) else str(value)
        shown = tag("pre", text) if "\n" in text or len(text) > 120 else text
        rows.append(
            tag(
                "tr",
                tag("th", name, scope="row"),
                tag("td", shown, data_v=text),
                tag("td", "" if units in ("text", "1") else units),
                tag("td", long_name),
            )
        )
    for name, value in run.settings.items():
        rows.append(
            tag(
                "tr",
                tag("th", name, scope="row"),
                tag("td", exact(value), data_v=exact(value)),
                tag("td"),
                tag("td", "setting of the statistics"),
            )
        )
    rows.append(
        tag(
            "tr",
            tag("th", "file", scope="row"),
            tag("td", run.path, data_v=run.path),
            tag("td"),
            tag("td", "what this page was made from"),
        )
    )
    head = tag("thead", tag("tr", *(tag("th", word, scope="col") for word in ("name", "value", "units", "meaning"))))
    return tag(
        "details",
        tag("summary", "Provenance, in full"),
        tag(
            "div",
            tag("div", tag("button", "Copy as CSV", type="button", class_="copy", data_copy="csv"), class_="tools"),
            tag(
                "div",
                tag("table", head, tag("tbody", *rows)),
                class_="scroll",
                tabindex="0",
                role="region",
                aria_label="Provenance",
            ),
            class_="data provenance",
        ),
        class_="figure",
        id=f"{prefix}provenance",
    )


def _one(result: Result, found: Iterable[Figure], prefix: str, share: float) -> list[Markup]:
    """A result in full. share: of the values per example that a page of full size holds."""
    kind = answers.kind_of(result)
    answer = kind.answer(result)
    parts = [tag("h2", "The answer"), answer] if answer else []
    parts += [tag("h2", "How far to trust it"), _lines(kind.lines(result)), tag("h2", "The evidence")]
    parts += [section(figure, prefix) for figure in found]
    if isinstance(result, Run) and result.examples is not None:
        parts.append(examples_table(result, prefix, result.examples, int(MOST_ROWS * share)))
    return [*parts, provenance(result, prefix)]


def _lines(lines: Sequence[str]) -> Markup:
    return tag("ul", *(tag("li", line) for line in lines), class_="lines") if lines else Markup()


def _short(result: Result) -> Markup:
    """A result among many: its answer only."""
    kind, prefix = answers.kind_of(result), result.key + "-"
    ranking = [section(answers.ranking_table(result), prefix)] if isinstance(result, Run) else []
    return tag(
        "details",
        tag("summary", result.label),
        tag("p", answers.about(result), class_="caption"),
        kind.answer(result) or kind.lead(result),
        _lines(kind.lines(result)),
        *ranking,
        provenance(result, prefix),
        class_="figure run",
        id=result.key,
    )


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
    parts = [tag("div", table(columns, rows, "All results"), class_="figure")] if rows else []
    if others:
        parts += [
            tag("h3", f"Not measured ({len(others)})"),
            tag("div", table(["cell", "state", "reason"], others, "Cells without results"), class_="figure"),
        ]
    return parts


def in_short(results: Sequence[Result]) -> list[Markup]:
    """The answer of every result of a page that holds several kinds, each with a link to its section."""
    items = [
        tag(
            "li",
            tag("a", f"{answers.kind_of(result).word}: {result.label}", href=f"#{result.key}"),
            answers.kind_of(result).lead(result),
        )
        for result in results[:MOST_IN_SHORT]
    ]
    checkpoints = {str(result.fact("checkpoint_sha256")) for result in results if result.fact("checkpoint_sha256")}
    note = (
        [tag("p", "These results are not all of one checkpoint, so they answer different questions.", class_="caption")]
        if len(checkpoints) > 1
        else []
    )
    if len(items) < len(results):
        note.append(tag("p", f"The first {len(items)} of {len(results):,} results.", class_="caption"))
    return [tag("h2", "In short"), tag("div", tag("ul", *items, class_="lines short"), *note, class_="answer")]


def within_size(results: Sequence[Result], others: Sequence[OtherCell], footer: str) -> tuple[str, list[Found]]:
    """(page, its figures): in full, or with fewer examples or figures where it would become larger than MOST_BYTES."""
    for share, detail in SIZES if len(results) > 1 else SIZES[:3]:
        found = figures_of(results, share, detail)
        text = build(results, others, found, footer, share)
        if len(text) <= MOST_BYTES:
            break
    return text, found


def _several(
    results: Sequence[Result], others: Sequence[OtherCell], found: Sequence[Found], share: float
) -> list[Markup]:
    """The body of a page about several results."""
    runs = [result for result in results if isinstance(result, Run)]
    has_kinds = len(runs) < len(results)
    body = in_short(results) if has_kinds else []
    if len(runs) > 1 or others:
        body += [
            tag("h2", "Layers one at a time, all results" if has_kinds else "All results"),
            *overview(runs, others),
        ]
    body += [section(figure) for prefix, figure in found if not prefix]
    body.append(tag("h2", "Result by result"))
    size = 0
    for index, result in enumerate(results):
        own = [figure for prefix, figure in found if prefix == result.key + "-"]
        kind = answers.kind_of(result)
        if own:
            words = f"{kind.word}: {result.label}" if has_kinds else result.label
            body.append(
                tag(
                    "details",
                    tag("summary", words),
                    tag("p", answers.about(result), class_="about"),
                    kind.lead(result),
                    *_one(result, own, result.key + "-", share),
                    class_="run",
                    id=result.key,
                    open=has_kinds and len(results) <= MOST_OPEN,
                )
            )
        elif size < MOST_SHORT_BYTES:
            body.append(_short(result))
            size += len(body[-1])
        else:
            body.append(
                tag(
                    "p",
                    f"The first {index} of {len(results):,} results have a section; a report on the run "
                    "directory of another has all its figures.",
                    class_="caption",
                )
            )
            break
    return body


def build(
    results: Sequence[Result], others: Sequence[OtherCell], found: Sequence[Found], footer: str, share: float = 1.0
) -> str:
    """The page as text.

    results: named by compare.name_results; found: figures_of(results); others: cells without results.
    """
    if len(results) == 1:
        result = results[0]
        kind = answers.kind_of(result)
        heading = kind.heading
        body = [
            tag("p", answers.about(result), class_="about"),
            kind.lead(result),
            *_one(result, [figure for _, figure in found], "", share),
        ]
        if others:
            body += overview([], others)
    else:
        heading = f"{len(results)} results: layers that must keep full attention"
        body = _several(results, others, found, share)
    template = Template(_asset("page.html"))
    return template.substitute(
        title=escape(f"winnow report: {results[0].label if len(results) == 1 else heading}"),
        heading=escape(heading),
        style=Markup(css_variables() + chart_style() + _asset("page.css")),
        script=Markup(_asset("page.js")),
        body=join(body, "\n"),
        footer=escape(footer),
    )
