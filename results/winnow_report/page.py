"""The page: one HTML file with its style, script and data inside."""

import importlib.resources
from string import Template

import numpy as np

from . import compare, figures, figures_examples, matrix, patterns, reading, signals
from .markup import Markup, escape, join, script_json, tag
from .palette import css_variables
from .svg import NARROW, WIDE
from .wording import exact, number, percent, ranges

MOST_BYTES = 6 * 2**20
SHARES = (1.0, 0.5, 0.2, 0.05)  # of the values per example, tried in this order
MOST_ROWS = 1000       # of a table in the page
MOST_DETAILED = 6      # results that get all their figures in one page
MOST_SHORT_BYTES = 2**21  # of the results that get a section without figures
MOST_MATRIX_CELLS = 400_000  # of all heat maps of a page


def asset(name):
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _cell(value):
    if value is None:
        return tag("td", "n/a", class_="n")
    if isinstance(value, (int, float, np.integer, np.floating)):
        is_whole = isinstance(value, (int, np.integer))
        return tag("td", f"{value}" if is_whole else number(value), class_="n", data_v=exact(value))
    return tag("td", value)


def table(columns, rows, name, most_rows=MOST_ROWS):
    """A table with a button that copies it as CSV, in full precision."""
    shown = rows[:most_rows]
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    body = tag("tbody", *(tag("tr", *(_cell(value) for value in row)) for row in shown))
    parts = [tag("div", tag("button", "Copy as CSV", type="button", class_="copy", data_copy="csv"), class_="tools"),
             tag("div", tag("table", tag("caption", name, class_="sr"), head, body), class_="scroll", tabindex="0",
                 role="region", aria_label=name)]
    if len(rows) > len(shown):
        parts.append(tag("p", f"The first {len(shown):,} of {len(rows):,} rows; the results file has all.", class_="caption"))
    return tag("div", *parts, class_="data")


def _variants(figure):
    drawings = []
    for index, _ in enumerate(figure.drawings):
        both = [tag("div", figure.draw(width, index), class_=name) for width, name in ((WIDE, "wide"), (NARROW, "narrow"))]
        drawings.append(tag("div", *both, class_="variant", data_variant=index, hidden=index > 0))
    return drawings


def _controls(figure):
    """Switches above a drawing: its variants, and of a heat map its orders and sheets."""
    parts = []
    if len(figure.drawings) > 1:
        parts.append(tag("div", *(tag("button", name, type="button", data_show=index, aria_pressed=str(index == 0).lower())
                                  for index, (name, _) in enumerate(figure.drawings)), class_="switch", role="group",
                         aria_label="View"))
    spec = figure.matrix
    if spec and len(spec["orders"]) > 1:
        parts.append(tag("div", *(tag("button", order["name"], type="button", data_order=index,
                                      aria_pressed=str(index == 0).lower())
                                  for index, order in enumerate(spec["orders"])), class_="switch", role="group",
                         aria_label="Order of the examples"))
    if spec and len(spec["sheets"]) > 1:
        options = [tag("option", sheet["name"], value=index) for index, sheet in enumerate(spec["sheets"])]
        parts.append(tag("label", "Example ", tag("select", *options, data_sheet=True)))
    return [tag("div", *parts, class_="controls")] if parts else []


def section(figure, prefix=""):
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
        parts.append(tag("script", script_json(matrix.for_page(figure.matrix)), type="application/json",
                         class_="matrix-data"))
    kind = "figure" if figure.drawings else "section"
    return tag(kind, *parts, id=name, class_="figure", aria_labelledby=f"{name}-title")


def lead(run):
    """The answer at the run's own K, in one sentence."""
    choice, n = reading.choose(run, run.top_k), len(run.layers)
    if choice.k == n:
        return tag("p", f"All {n} measured layers are kept at K = {choice.k}; a smaller --top-k chooses.", class_="lead")
    kept = run.layers[choice.kept]
    word = "layer " if choice.k == 1 else "layers "
    text = ""
    if choice.is_known:
        text = (" Every place is settled." if not choice.open else
                f" {len(choice.settled)} of the {choice.k} places {'is' if len(choice.settled) == 1 else 'are'} settled; "
                f"for the rest there is not enough evidence to tell close layers apart.")
    return tag("p", "Keep full attention in ", tag("b", word, ranges(kept), class_="layers"),
               f" ({choice.k} of {n}) and window the rest.", text, class_="lead")


def _word_of_budget(k, n):
    names = [words for divisor, words in ((8, "1/8"), (4, "1/4"), (2, "1/2")) if k == max(1, n // divisor)]
    return f"{names[0]} of the layers" if names else "--top-k"


def answer(run):
    """Which layers to keep at each budget, and how sure."""
    n, cards = len(run.layers), []
    for k in run.budgets:
        choice = reading.choose(run, k)
        kept = run.layers[choice.kept]
        copied = ",".join(str(layer) for layer in sorted(kept.tolist()))
        share = reading.cache_share(run, k)
        memory = [] if share is None else [tag("p", f"KV cache at the median prompt of {share[1]:,.0f} tokens: "
                                                     f"{percent(share[0])} of full attention's.", class_="caption")]
        cards.append(tag("div",
                         tag("div", tag("span", f"{k} of {n}", class_="k"), tag("span", _word_of_budget(k, n), class_="of"),
                             tag("button", "Copy list", type="button", class_="copy", data_copy=copied), class_="head"),
                         tag("p", tag("span", "Keep ", class_="keepword"), tag("b", ranges(kept), class_="layers"),
                             class_="keeplist"),
                         tag("div", tag("div", figures.strip(run, choice, WIDE), class_="wide"),
                             tag("div", figures.strip(run, choice, NARROW), class_="narrow")),
                         tag("p", reading.certainty(run, choice), class_="sure"), *memory, class_="budget",
                         data_budget=k))
    legend = tag("p", *(tag("span", tag("i", class_=f"swatch sw-{class_}"), words)
                        for class_, words in figures.KEPT_LEGEND), class_="legend")
    return tag("div", *cards, legend, class_="answer")


def bottom_lines(run):
    """How far to trust the answer, in a few sentences."""
    lines = [reading.too_few(run), reading.base_quality(run), reading.split_half(run) if run.reliability else "",
             *(reading.control(run, name) for name in run.controls)]
    if not run.controls:
        lines.append("There is no control set, so the ranking may be about layers that matter everywhere, not about long "
                     "context: --control NAME=FILE measures one.")
    lines += str(run.fact("warnings", "") or "").splitlines() + run.notes
    return tag("ul", *(tag("li", line) for line in lines if line), class_="lines")


def ranking_table(run):
    columns = ["rank", "layer", "mean delta NLL", "low", "high", "median", "standard error", "rank low", "rank high",
               "exact-match drop", "token-accuracy drop", *(f"P(top {k})" for k in run.p_top_k)]
    names = ["mean_delta_nll", "ci_low", "ci_high", "median_delta_nll", "standard_error", "rank_low", "rank_high",
             "exact_match_drop", "token_accuracy_drop"]
    rows = [(int(run.rank[i]), int(run.layers[i]), *(float(run.figures[name][i]) for name in names),
             *(float(p[i]) for p in run.p_top_k.values())) for i in run.order()]
    return figures.Figure("ranking", "Ranking", "All layers by mean delta NLL, nats per token.", [],
                          "Intervals are 95 % bootstrap intervals over examples.", table=(columns, rows))


def examples_table(run, prefix, most_rows):
    table_ = run.examples
    columns = ["example", *(["source"] if table_.sources else []), "prompt tokens", "answer tokens", "mean delta NLL",
               "layer that costs most"]
    rows = []
    for i, name in enumerate(table_.ids):
        lengths = [int(v) if np.isfinite(v) else None for v in (table_.prompt_tokens[i], table_.answer_tokens[i])]
        rows.append((name, *([table_.sources[i]] if table_.sources else []), *lengths, float(table_.delta[i].mean()),
                     int(run.layers[table_.delta[i].argmax()])))
    return tag("details", tag("summary", f"Examples ({len(rows):,})"), table(columns, rows, "Examples", most_rows), class_="figure",
               id=f"{prefix}example-list")


def provenance(run, prefix=""):
    rows = []
    for name, (value, units, long_name) in run.provenance.items():
        text = exact(value) if isinstance(value, (int, float)) else str(value)
        value = tag("pre", text) if "\n" in text or len(text) > 120 else text
        rows.append(tag("tr", tag("th", name, scope="row"), tag("td", value, data_v=text),
                        tag("td", "" if units in ("text", "1") else units), tag("td", long_name)))
    for name, value in run.settings.items():
        rows.append(tag("tr", tag("th", name, scope="row"), tag("td", exact(value), data_v=exact(value)), tag("td"),
                        tag("td", "setting of the statistics")))
    rows.append(tag("tr", tag("th", "file", scope="row"), tag("td", run.path, data_v=run.path), tag("td"),
                    tag("td", "what this page was made from")))
    head = tag("thead", tag("tr", *(tag("th", word, scope="col") for word in ("name", "value", "units", "meaning"))))
    return tag("details", tag("summary", "Provenance, in full"),
               tag("div", tag("div", tag("button", "Copy as CSV", type="button", class_="copy", data_copy="csv"),
                              class_="tools"),
                   tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll", tabindex="0", role="region",
                       aria_label="Provenance"), class_="data provenance"), class_="figure",
               id=f"{prefix}provenance")


def run_figures(run, most_cells):
    """Every figure that the result has data for, in the order of the page."""
    found = [figures.deltas(run), figures.certainty(run)]
    if run.examples is not None:
        found.append(figures_examples.heat_map(run, max(most_cells, len(run.layers))))
    found += [*figures.controls(run), figures.exact_match(run), figures_examples.tokens(run, max(most_cells // 4, 1)),
              figures_examples.growth(run), *signals.figures(run), ranking_table(run)]
    return [figure for figure in found if figure is not None]


def about(run):
    """One line: what was measured."""
    words = compare.coordinates(run)
    parts = [words.get("model", ""), words.get("dataset", ""), f"window {words['window']}" if "window" in words else ""]
    if words.get("sinks", "0") not in ("0", ""):
        parts.append(f"{words['sinks']} sinks")
    parts.append(f"{run.n_examples:,} example{'' if run.n_examples == 1 else 's'}" if run.n_examples else "")
    parts.append(f"{len(run.layers)} layers")
    if words.get("base", "full") != "full":
        parts.append(f"base {words['base']}")
    if words.get("target"):
        parts.append(f"for {words['target']}")
    return " \u00b7 ".join(part for part in parts if part)


def _one(run, found, prefix, share):
    parts = [tag("h2", "The answer"), answer(run), tag("h2", "How far to trust it"), bottom_lines(run),
             tag("h2", "The evidence")]
    parts += [section(figure, prefix) for figure in found]
    if run.examples is not None:
        parts.append(examples_table(run, prefix, int(MOST_ROWS * share)))
    return [*parts, provenance(run, prefix)]


def _short(run):
    """A result among many: its answer only."""
    return tag("details", tag("summary", run.label), tag("p", about(run), class_="caption"), answer(run),
               bottom_lines(run), section(ranking_table(run), run.key + "-"), provenance(run, run.key + "-"), class_="figure run")


def figures_of(contents, share=1.0):
    """[(prefix of its id, figure)] of all that the page shows in full; `--figures` exports the same.

    share: of the values per example that a page of full size holds.
    """
    runs = contents.runs
    found = [] if len(runs) <= 1 else [("", figure) for figure in compare.figures(runs)]
    detailed = runs if len(runs) <= MOST_DETAILED else []
    cells = int(share * min(figures_examples.MOST_CELLS, MOST_MATRIX_CELLS // max(len(detailed), 1)))
    for run in detailed:
        prefix = "" if len(runs) == 1 else run.key + "-"
        found += [(prefix, figure) for figure in run_figures(run, cells)]
    for index, result in enumerate(contents.patterns[:MOST_DETAILED]):
        result.key = f"p{index}"
        found += [(f"p{index}-", figure) for figure in patterns.figures_of(result)]
    return found


def overview(runs, others):
    """Table of all results, and of the cells that have none."""
    columns = ["result", "layers", "examples", "K", "layers kept", "settled", "split-half"]
    rows = []
    for run in runs:
        choice = reading.choose(run, run.top_k)
        rows.append((run.label, len(run.layers), run.n_examples, run.top_k, ranges(run.layers[choice.kept]),
                     f"{len(choice.settled)} of {choice.k}" if choice.is_known else "n/a",
                     float(run.reliability.get("split_half", float("nan")))))
    parts = [tag("div", table(columns, rows, "All results"), class_="figure")]
    if others:
        parts += [tag("h3", f"Not measured ({len(others)})"),
                  tag("div", table(["cell", "state", "reason"], others, "Cells without results"), class_="figure")]
    return parts


def within_size(contents, footer):
    """(page, its figures): in full, or with fewer examples where it would become larger than MOST_BYTES."""
    for share in SHARES:
        found = figures_of(contents, share)
        text = build(contents, found, footer, share)
        if len(text) <= MOST_BYTES:
            break
    return text, found


def _several(runs, others, found, share):
    """Runs beside each other, then one by one."""
    body = [tag("h2", "All results"), *overview(runs, others)]
    body += [section(figure) for prefix, figure in found if not prefix]
    body.append(tag("h2", "Result by result"))
    size = 0
    for index, run in enumerate(runs):
        own = [figure for prefix, figure in found if prefix == run.key + "-"]
        if own:
            body.append(tag("details", tag("summary", run.label), tag("p", about(run), class_="about"),
                            lead(run), *_one(run, own, run.key + "-", share), class_="run"))
        elif size < MOST_SHORT_BYTES:
            body.append(_short(run))
            size += len(body[-1])
        else:
            body.append(tag("p", f"The first {index} of {len(runs):,} results have a section; a report on the run "
                                 "directory of another has all its figures.", class_="caption"))
            break
    return body


def _pattern_sections(results, found, is_alone):
    """Evaluations and searches, each under its own heading."""
    body = []
    for index, result in enumerate(results):
        if not is_alone:
            body.append(tag("h2", patterns.title(result)))
        body += [tag("p", about(result), class_="about"), tag("p", patterns.lead(result), class_="lead")]
        own = [figure for prefix, figure in found if prefix == f"p{index}-"]
        if not own:
            body.append(tag("p", f"Figures are drawn for {MOST_DETAILED} of these results; a report on this one alone has "
                                 "them.", class_="caption"))
        warnings = str(result.fact("warnings", "") or "").splitlines()
        body += [tag("ul", *(tag("li", line) for line in warnings), class_="lines")] if warnings else []
        body += [tag("h2", "The evidence") if is_alone else "", *(section(figure, f"p{index}-") for figure in own),
                 provenance(result, f"p{index}-")]
    return body


def build(contents, found, footer, share=1.0):
    """The page as text. contents.runs: named by compare.name_runs; found: figures_of(contents)."""
    runs, others = contents.runs, contents.others
    is_alone = len(contents.results) == 1
    title = heading = "Layers that must keep full attention"
    if len(runs) == 1:
        run = runs[0]
        title = run.label
        body = [tag("p", about(run), class_="about"), lead(run),
                *_one(run, [figure for prefix, figure in found if not prefix], "", share)]
        body += overview([], others)[1:] if others else []
    elif runs:
        title = heading = f"{len(runs)} results: layers that must keep full attention"
        body = _several(runs, others, found, share)
    else:
        title = heading = patterns.title(contents.patterns[0]) if is_alone else "Whole patterns of full and windowed layers"
        body = []
    body += _pattern_sections(contents.patterns, found, is_alone)
    template = Template(asset("page.html"))
    return template.substitute(title=escape(f"winnow report: {title}"), heading=escape(heading),
                               style=Markup(css_variables() + asset("chart.css") + asset("page.css")),
                               script=Markup(asset("page.js")), body=join(body, "\n"), footer=escape(footer))
