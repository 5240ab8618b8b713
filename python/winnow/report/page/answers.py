"""What a page says first about a result of each kind: the answer, how far to trust it, and which figures show it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from winnow.report.arrays import Flags, Integers
from winnow.report.drawing.charts import draw_squares
from winnow.report.drawing.svg import NARROW, WIDE
from winnow.report.figures import compare, layers, sentences, signals
from winnow.report.figures import evaluation as evaluation_figures
from winnow.report.figures import examples as example_figures
from winnow.report.figures import search as search_figures
from winnow.report.figures.figure import Draw, Figure
from winnow.report.markup import Markup, tag
from winnow.report.reading import evaluation, search
from winnow.report.reading.record import Result, Run
from winnow.report.wording import capital, count, percent, ranges

MOST_CARDS = 8  # budgets in the answer of an evaluation


R = TypeVar("R", bound=Result)


@dataclass
class Kind(Generic[R]):
    """The parts of a section; each takes the result, `figures` also the most cells of a heat map."""

    word: str  # names the section where a page has several kinds
    heading: str  # of a page about one result
    lead: Callable[[R], Markup]  # the answer in a sentence
    answer: Callable[[R], Markup | None]
    lines: Callable[[R], list[str]]  # how far to trust it
    figures: Callable[[R, int], list[Figure]]


def kind_of(result: R) -> Kind[R]:
    return KINDS[type(result)]


def about(result: Result) -> str:
    """One line: what was measured."""
    words = compare.coordinates(result)
    parts = [words.get("model", ""), words.get("dataset", ""), f"window {words['window']}" if "window" in words else ""]
    if words.get("sinks", "0") not in ("0", ""):
        parts.append(f"{words['sinks']} sinks")
    parts.append(count(result.n_examples, "example") if result.n_examples else "")
    parts.append(count(len(result.layers), "layer"))
    if words.get("base", "full") != "full":
        parts.append(f"base {words['base']}")
    if words.get("target"):
        parts.append(f"for {words['target']}")
    if isinstance(result, evaluation.Evaluation):
        parts.append(count(len(result.patterns), "pattern"))
    return " \u00b7 ".join(part for part in parts if part)


def _card(head: str, of: str, kept: Integers, strip: Draw, sentences: Iterable[Markup], k: int) -> Markup:
    """One budget: its layers to copy, drawn, and what to say about them. strip: function of the width."""
    copied = ",".join(str(layer) for layer in sorted(kept.tolist()))
    return tag(
        "div",
        tag(
            "div",
            tag("span", head, class_="k"),
            tag("span", of, class_="of"),
            tag("button", "Copy list", type="button", class_="copy", data_copy=copied),
            class_="head",
        ),
        tag(
            "p",
            tag("span", "Keep ", class_="keepword"),
            tag("b", ranges(kept) or "none", class_="layers"),
            class_="keeplist",
        ),
        tag("div", tag("div", strip(WIDE), class_="wide"), tag("div", strip(NARROW), class_="narrow")),
        *sentences,
        class_="budget",
        data_budget=k,
    )


def _legend(entries: Iterable[tuple[str, str]]) -> Markup:
    return tag(
        "p", *(tag("span", tag("i", class_=f"swatch sw-{class_}"), words) for class_, words in entries), class_="legend"
    )


PATTERN_LEGEND = [("keep", "full attention"), ("spare", "windowed")]


def _pattern_strip(layers: Integers, mask: Flags, label: str) -> Draw:
    states = ["keep" if kept else "spare" for kept in mask]
    tips = [
        f"layer {layer}: {'full attention' if kept else 'windowed'}" for layer, kept in zip(layers, mask, strict=True)
    ]
    return lambda width: draw_squares(layers, states, tips, label, width)


# ---- layers one at a time -------------------------------------------------------------------------------------------


def _run_lead(run: Run) -> Markup:
    """The answer at the run's own K, in one sentence."""
    choice, n = sentences.choose(run, run.top_k), len(run.layers)
    if choice.k == n:
        return tag(
            "p", f"All {n} measured layers are kept at K = {choice.k}; a smaller --top-k chooses.", class_="lead"
        )
    kept = run.layers[choice.kept]
    word = "layer " if choice.k == 1 else "layers "
    text = ""
    if choice.is_known:
        text = (
            " Every place is settled."
            if not choice.open
            else f" {len(choice.settled)} of the {choice.k} places "
            f"{'is' if len(choice.settled) == 1 else 'are'} settled; for the rest there is not "
            "enough evidence to tell close layers apart."
        )
    return tag(
        "p",
        "Keep full attention in ",
        tag("b", word, ranges(kept), class_="layers"),
        f" ({choice.k} of {n}) and window the rest.",
        text,
        class_="lead",
    )


def _word_of_budget(k: int, n: int) -> str:
    names = [words for divisor, words in ((8, "1/8"), (4, "1/4"), (2, "1/2")) if k == max(1, n // divisor)]
    return f"{names[0]} of the layers" if names else "--top-k"


def _run_answer(run: Run) -> Markup:
    """Which layers to keep at each budget, and how sure."""
    n, cards = len(run.layers), []
    for k in run.budgets:
        choice = sentences.choose(run, k)
        share = sentences.cache_share(run, k)
        memory = (
            []
            if share is None
            else [
                tag(
                    "p",
                    f"KV cache at the median prompt of {share[1]:,.0f} tokens: "
                    f"{percent(share[0])} of full attention's.",
                    class_="caption",
                )
            ]
        )
        cards.append(
            _card(
                f"{k} of {n}",
                _word_of_budget(k, n),
                run.layers[choice.kept],
                partial(layers.strip, run, choice),
                [tag("p", sentences.certainty(run, choice), class_="sure"), *memory],
                k,
            )
        )
    return tag("div", *cards, _legend(layers.KEPT_LEGEND), class_="answer")


def _run_lines(run: Run) -> list[str]:
    lines = [
        sentences.too_few(run),
        sentences.base_quality(run),
        sentences.split_half(run) if run.reliability else "",
        *(sentences.control(run, name) for name in run.controls),
    ]
    if not run.controls:
        lines.append(
            "There is no control set, so the ranking may be about layers that matter everywhere, not about long "
            "context: --control NAME=FILE measures one."
        )
    return [line for line in lines if line] + run.remarks()


def ranking_table(run: Run) -> Figure:
    columns = [
        "rank",
        "layer",
        "mean delta NLL",
        "low",
        "high",
        "median",
        "standard error",
        "rank low",
        "rank high",
        "exact-match drop",
        "token-accuracy drop",
        *(f"P(top {k})" for k in run.p_top_k),
    ]
    names = [
        "mean_delta_nll",
        "ci_low",
        "ci_high",
        "median_delta_nll",
        "standard_error",
        "rank_low",
        "rank_high",
        "exact_match_drop",
        "token_accuracy_drop",
    ]
    rows = [
        (
            int(run.rank[i]),
            int(run.layers[i]),
            *(float(run.figures[name][i]) for name in names),
            *(float(p[i]) for p in run.p_top_k.values()),
        )
        for i in run.order()
    ]
    return Figure(
        "ranking",
        "Ranking",
        "All layers by mean delta NLL, nats per token.",
        [],
        "Intervals are 95 % bootstrap intervals over examples.",
        table=(columns, rows),
    )


def _run_figures(run: Run, most_cells: int) -> list[Figure]:
    """Every figure that the result has data for, in the order of the page."""
    found: list[Figure | None] = [layers.deltas(run), layers.certainty(run)]
    if run.examples is not None:
        found.append(example_figures.heat_map(run, run.examples, max(most_cells, len(run.layers))))
    found += [
        *layers.controls(run),
        layers.exact_match(run),
        example_figures.tokens(run, max(most_cells // 4, 1)),
        example_figures.growth(run),
        *signals.figures(run),
        ranking_table(run),
    ]
    return [figure for figure in found if figure is not None]


# ---- joint selection ------------------------------------------------------------------------------------------------


def _search_lead(result: search.Search) -> Markup:
    n = len(result.layers)
    words: list[str] = []
    for method in result.methods:
        at = search.target(method, n)
        words += [
            f"With {method.keep[at]} of {n} at full attention {method.name} keeps ",
            tag(
                "b",
                "layer " if method.keep[at] == 1 else "layers ",
                ranges(result.layers[method.full[at]]) or "none",
                class_="layers",
            ),
            f": {search.figures_said(method, at)}. ",
        ]
    if result.pairs is not None and not result.methods:
        words = [
            f"Interactions of {len(result.pairs.layers)} layers: no selection, but what windowing two of them costs "
            "beyond the two apart."
        ]
    return tag("p", *words, class_="lead")


def _search_answer(result: search.Search) -> Markup | None:
    n, cards = len(result.layers), []
    for method in result.methods:
        at = search.target(method, n)
        wanted = {max(1, n // 8), max(1, n // 4), max(1, n // 2), method.keep[at]}
        for i, k in enumerate(method.keep):
            if k not in wanted or (not 0 < k < n and i != at):
                continue
            cards.append(
                _card(
                    f"{k} of {n}",
                    method.name,
                    result.layers[method.full[i]],
                    _pattern_strip(result.layers, method.full[i], f"Layers kept by {method.name} at K = {k}"),
                    [tag("p", capital(search.figures_said(method, i)) + ".", class_="sure")],
                    k,
                )
            )
    return tag("div", *cards, _legend(PATTERN_LEGEND), class_="answer") if cards else None


# ---- whole patterns -------------------------------------------------------------------------------------------------


def _evaluation_answer(result: evaluation.Evaluation) -> Markup:
    """The best pattern of each number of full layers; of many, those on the front."""
    n, metric = len(result.layers), result.metric
    groups = [(k, ranked) for k, ranked in evaluation.budgets(result) if k < n] or evaluation.budgets(result)
    if len(groups) > MOST_CARDS:
        on = {int(result.full_layers[i]) for i in evaluation.front(result, metric)}
        groups = sorted(groups, key=lambda group: (group[0] not in on, group[0]))[:MOST_CARDS]
    cards = []
    for k, ranked in sorted(groups, key=lambda group: group[0]):
        i = ranked[0]
        words = evaluation.METRICS[metric].partition(",")[0]
        text = f"{capital(words)} {evaluation.said(result, metric, i)}"
        text += f"; {evaluation.loss(result, i)}." if evaluation.loss(result, i) else "."
        caption = evaluation.caption_of_cost(result, i)
        cards.append(
            _card(
                f"{k} of {n}",
                result.patterns[i] + (f", best of {len(ranked)}" if len(ranked) > 1 else ""),
                result.layers[result.full[i]],
                _pattern_strip(result.layers, result.full[i], f"Layers of {result.patterns[i]}"),
                [
                    tag("p", text + evaluation.rival(result, ranked), class_="sure"),
                    *([tag("p", caption, class_="caption")] if caption else []),
                ],
                k,
            )
        )
    return tag("div", *cards, _legend(PATTERN_LEGEND), class_="answer")


KINDS: dict[type[Result], Kind[Any]] = {
    evaluation.Evaluation: Kind(
        "Whole patterns on held-out examples",
        "Patterns of full and windowed layers, measured",
        lambda result: tag("p", evaluation.lead(result), class_="lead"),
        _evaluation_answer,
        evaluation.lines,
        lambda result, _: evaluation_figures.figures(result),
    ),
    search.Search: Kind(
        "Joint selection",
        "Layers to keep, chosen together",
        _search_lead,
        _search_answer,
        search.lines,
        lambda result, _: search_figures.figures(result),
    ),
    Run: Kind(
        "Layers one at a time", "Layers that must keep full attention", _run_lead, _run_answer, _run_lines, _run_figures
    ),
}
