"""What a page says first about a result of each kind: the answer, how far to trust it, and which figures show it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from markupsafe import Markup

from winnow.report.arrays import Flags, Integers
from winnow.report.drawing.drawing import NARROW, WIDE
from winnow.report.figures import compare, layers, sentences, signals
from winnow.report.figures import evaluation as evaluation_figures
from winnow.report.figures import examples as example_figures
from winnow.report.figures import plans as plan_figures
from winnow.report.figures import scores as score_figures
from winnow.report.figures import search as search_figures
from winnow.report.figures.figure import Figure, Strip
from winnow.report.page.parts import part
from winnow.report.reading import evaluation, plans, scores, search
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
    if isinstance(result, scores.Scores):
        return f"{count(result.n_examples, 'answer')} \u00b7 {count(len(result.patterns), 'pattern')}"
    if isinstance(result, plans.Plans):
        return f"{count(len(result.plans), 'plan')} \u00b7 {count(len(result.layers), 'layer')}"
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


def _every(n: int, width: float) -> int:
    """How many squares share a name in this width."""
    wanted = math.ceil(22 * n / width)
    return next((nice for nice in (1, 2, 4, 8, 16, 32, 64) if nice >= wanted), wanted)


def _card(head: str, of: str, kept: Integers, strip: Strip, sure: str, caption: str, k: int) -> Markup:
    """One budget: its layers to copy, drawn, and what to say about them."""
    copied = ",".join(str(layer) for layer in sorted(kept.tolist()))
    n = len(strip.layers)
    drawn = part("strip", strip, _every(n, WIDE), _every(n, NARROW - 20))
    return part("card", head, of, ranges(kept), copied, k, drawn, sure, caption)


PATTERN_LEGEND = [("keep", "full attention"), ("spare", "windowed")]


def _pattern_strip(layers: Integers, mask: Flags, label: str) -> Strip:
    kinds = ["keep" if kept else "spare" for kept in mask]
    tips = [
        f"layer {layer}: {'full attention' if kept else 'windowed'}" for layer, kept in zip(layers, mask, strict=True)
    ]
    return Strip(layers.tolist(), kinds, tips, label)


# ---- layers one at a time -------------------------------------------------------------------------------------------


def _run_lead(run: Run) -> Markup:
    """The answer at the run's own K, in one sentence."""
    choice, n = sentences.choose(run, run.top_k), len(run.layers)
    if choice.k == n:
        text = f"All {n} measured layers are kept at K = {choice.k}; a smaller --top-k chooses."
        return part("lead", [(text, False)])
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
    text = f" ({choice.k} of {n}) and window the rest.{text}"
    return part("lead", [("Keep full attention in ", False), (word + ranges(kept), True), (text, False)])


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
            f"KV cache at the median prompt of {share[1]:,.0f} tokens: {percent(share[0])} of full attention's."
            if share
            else ""
        )
        cards.append(
            _card(
                f"{k} of {n}",
                _word_of_budget(k, n),
                run.layers[choice.kept],
                layers.strip_of(run, choice),
                sentences.certainty(run, choice),
                memory,
                k,
            )
        )
    return part("answer", cards, layers.KEPT_LEGEND)


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
    words: list[tuple[str, bool]] = []
    for method in result.methods:
        at = search.target(method, n)
        kept = ("layer " if method.keep[at] == 1 else "layers ") + (ranges(result.layers[method.full[at]]) or "none")
        words += [
            (f"With {method.keep[at]} of {n} at full attention {method.name} keeps ", False),
            (kept, True),
            (f": {search.figures_said(method, at)}. ", False),
        ]
    if result.pairs is not None and not result.methods:
        text = (
            f"Interactions of {len(result.pairs.layers)} layers: no selection, but what windowing two of them costs "
            "beyond the two apart."
        )
        words = [(text, False)]
    return part("lead", words)


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
                    capital(search.figures_said(method, i)) + ".",
                    "",
                    k,
                )
            )
    return part("answer", cards, PATTERN_LEGEND) if cards else None


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
        cards.append(
            _card(
                f"{k} of {n}",
                result.patterns[i] + (f", best of {len(ranked)}" if len(ranked) > 1 else ""),
                result.layers[result.full[i]],
                _pattern_strip(result.layers, result.full[i], f"Layers of {result.patterns[i]}"),
                text + evaluation.rival(result, ranked),
                evaluation.caption_of_cost(result, i),
                k,
            )
        )
    return part("answer", cards, PATTERN_LEGEND)


KINDS: dict[type[Result], Kind[Any]] = {
    plans.Plans: Kind(
        "Plans",
        "Which window each layer gets for its memory",
        lambda result: part("lead", [(plans.lead(result), False)]),
        lambda _: None,
        plans.lines,
        lambda result, _: plan_figures.figures(result),
    ),
    scores.Scores: Kind(
        "Scores of what patterns wrote",
        "What patterns wrote, scored",
        lambda result: part("lead", [(scores.lead(result), False)]),
        lambda _: None,
        scores.lines,
        lambda result, _: score_figures.figures(result),
    ),
    evaluation.Evaluation: Kind(
        "Whole patterns on held-out examples",
        "Patterns of full and windowed layers, measured",
        lambda result: part("lead", [(evaluation.lead(result), False)]),
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
