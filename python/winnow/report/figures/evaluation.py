"""Figures of an evaluation: the front, differences from full attention, costs, free generation, the patterns."""

from functools import partial

import numpy as np

from winnow.report.arrays import Floats
from winnow.report.drawing.charts import (
    MOST_SQUARES,
    Cell,
    Grid,
    Points,
    Rows,
    draw_grid,
    draw_points,
    draw_rows,
)
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.costs import costs
from winnow.report.figures.figure import Draw, Figure, Row
from winnow.report.figures.kept import Kept
from winnow.report.figures.memory import loss_against_memory
from winnow.report.reading import evaluation as ev
from winnow.report.reading.evaluation import SHORT
from winnow.report.wording import amount, count, form_of, is_small_good, listed, number, percent, size, the_layers


def _tips(result: ev.Evaluation, metric: str) -> list[str]:
    tips = []
    for i, name in enumerate(result.patterns):
        tip = f"{name}: {int(result.full_layers[i])} of {len(result.layers)} layers full\n"
        tip += f"{SHORT[metric]} {ev.said(result, metric, i)}"
        if result.cache is not None:
            for column, length in enumerate(result.kv_lengths):
                tip += f"\n{length:,} tokens: {size(result.cache[i, column])}"
        tips.append(tip)
    return tips


def _front_reading(result: ev.Evaluation) -> str:
    metric = result.metric
    on = ev.front(result, metric)
    n, groups = len(result.layers), ev.budgets(result)
    parts = []
    if on:
        parts.append(
            f"On the front of {SHORT[metric]}: {listed(result.patterns[i] for i in on[:6])}"
            + (f" and {len(on) - 6} more" if len(on) > 6 else "")
            + "."
        )
    best = [ranked[0] for k, ranked in groups]
    values = ev.gain(metric, result.means[metric][0])
    worse = [(groups[j][0], groups[j + 1][0]) for j in range(len(best) - 1) if values[best[j + 1]] < values[best[j]]]
    parts.append(
        f"{count(len(result.patterns), 'pattern')} at {count(len(groups), 'budget')} from {groups[0][0]} to "
        f"{groups[-1][0]} of {n} full layers."
    )
    if worse:
        a, b = worse[0]
        parts.append(f"More full layers are not better by themselves: the best of {b} is behind the best of {a}.")
    return " ".join(parts)


def front(result: ev.Evaluation) -> Figure:
    """Each metric against the number of full layers, and what that costs in KV cache."""
    metrics = [result.metric, *(name for name in ev.METRICS if name in result.means and name != result.metric)]
    column = result.priced
    x, label = result.full_layers.astype(float), "layers with full attention"
    if result.cache is not None and column is not None:
        x, label = result.cache[:, column] / 2**20, f"KV cache at {result.kv_lengths[column]:,} tokens, MiB"

    def draw(metric: str, width: int) -> Drawing:
        mean, low, high = result.means[metric]
        flags = ev.front(result, metric)
        labelled = list(dict.fromkeys([*flags, *ev.order(result, range(len(result.patterns)))]))
        return draw_points(
            Points(
                x,
                mean,
                label,
                SHORT[metric],
                result.patterns,
                _tips(result, metric),
                set(flags),
                labelled,
                f"{SHORT[metric]} of each pattern against its KV cache",
                form_of(metric),
                None if is_small_good(metric) else True,
                True,
                low=low,
                high=high,
                has_list=True,
            ),
            width,
        )

    return Figure(
        "front",
        "What full layers buy",
        _front_reading(result),
        [(SHORT[metric], partial(draw, metric)) for metric in metrics],
        "A point is a pattern, its bar the 95\u00a0% bootstrap interval over examples. Filled: on the front, none "
        + ("with as few or fewer full layers" if result.windows is None else "that keeps as little or less")
        + " is better.",
        [("keep", "on the front"), ("spare", "behind it")],
    )


def _listed(result: ev.Evaluation, positions: list[int], most: int = 5) -> str:
    more = [f"{len(positions) - most} more"] if len(positions) > most else []
    return listed([result.patterns[i] for i in positions[:most]] + more)


def _loss_reading(result: ev.Evaluation) -> str:
    """Which patterns are within the margin; "" where the file has none."""
    if not result.verdicts or not np.isfinite(result.margin):
        return ""
    at = result.position("full")
    text = f"Margin: a loss of {amount(result.metric, result.margin)} by {SHORT[result.metric]}."
    for verdict, words in (("within", "Within it"), ("beyond", "Worse, by more than that"), ("open", "Open")):
        found = [i for i, said in enumerate(result.verdicts) if said == verdict and i != at]
        if found:
            text += f" {words}: {_listed(result, found, 20)}."
    return text


def _difference_reading(result: ev.Evaluation, other: str, name: str) -> str:
    if other == "full" and _loss_reading(result):
        return _loss_reading(result)
    triples = result.against[other]
    metric = result.metric if result.metric in triples else next(iter(triples))
    worse: list[int] = []
    better: list[int] = []
    open_: list[int] = []
    at = result.position("full" if other == "full" else result.baseline)
    for i in range(len(result.patterns)):
        value, low, high = (float(column[i]) for column in triples[metric])
        if i == at or not np.isfinite(value):
            continue
        if not np.isfinite([low, high]).all() or low <= 0 <= high:
            open_.append(i)
        else:
            (better if ev.gain(metric, value) > 0 else worse).append(i)
    parts = [
        f"By {SHORT[metric]}, {words} {name}: {_listed(result, found)}."
        for words, found in (("worse than", worse), ("better than", better), ("not told apart from", open_))
        if found
    ]
    return " ".join(parts)


def difference(result: ev.Evaluation, other: str) -> Figure | None:
    """Paired differences from full attention or the baseline; None where the file has none."""
    triples = {
        metric: triple for metric, triple in result.against.get(other, {}).items() if np.isfinite(triple[0]).any()
    }
    name = "full attention" if other == "full" else f"the baseline {result.baseline}"
    if not triples:
        return None
    p = result.mcnemar.get(other)
    ranked = ev.order(result, range(len(result.patterns)))
    metrics = sorted(triples, key=lambda metric: metric != result.metric)

    def draw(metric: str, width: int) -> Drawing:
        value, low, high = (column[ranked] for column in triples[metric])
        tips = []
        for place, i in enumerate(ranked):
            tip = f"{result.patterns[i]}\n{ev.difference_words(metric, (value[place], low[place], high[place]))}"
            if metric == "exact_match" and p is not None and np.isfinite(p[i]):
                tip += f"\nMcNemar's exact p {number(p[i])}"
            tips.append(tip)
        sure = {
            place
            for place in range(len(ranked))
            if np.isfinite([low[place], high[place]]).all() and (low[place] > 0 or high[place] < 0)
        }
        return draw_rows(
            Rows(
                [result.patterns[i] for i in ranked],
                value,
                low,
                high,
                f"{SHORT[metric]} less that of {name}",
                tips,
                f"{SHORT[metric]} of each pattern less that of {name}",
                sure,
                form_of(metric),
                None if is_small_good(metric) else True,
            ),
            width,
        )

    rows: list[Row] = []
    columns = [
        "pattern",
        *(f"{metric.replace('_', ' ')} {word}" for metric in metrics for word in ("difference", "low", "high")),
    ]
    bounded = [metric for metric in ev.METRICS if metric in result.losses] if other == "full" else []
    bound_columns = [
        f"{metric.replace('_', ' ')} loss {word}" for metric in bounded for word in ("at least", "at most")
    ]
    has_verdicts = other == "full" and bool(result.verdicts)
    for i in ranked:
        rows.append(
            (
                result.patterns[i],
                *(float(column[i]) for metric in metrics for column in triples[metric]),
                *([float(p[i])] if p is not None else []),
                *(float(ends[i]) for metric in bounded for ends in result.losses[metric][1:]),
                *([result.verdicts[i]] if has_verdicts else []),
            )
        )
    columns += (["McNemar's p"] if p is not None else []) + bound_columns + (["verdict"] if has_verdicts else [])
    return Figure(
        f"minus-{other}",
        f"Against {name}",
        _difference_reading(result, other, name),
        [(SHORT[metric], partial(draw, metric)) for metric in metrics],
        "Differences over the same examples, best pattern first. Bars are 95\u00a0% intervals of the paired bootstrap; "
        "filled: the interval leaves out 0.",
        table=(columns, rows),
    )


_GENERATED = {
    "generated_tokens": "tokens, mean",
    "generated_stopped": "stopped",
    "generated_cache_bytes": "cache, bytes",
    "prefill_rate": "prefill, tokens/s",
    "decode_rate": "decode, tokens/s",
    "texts_together": "texts at a time",
}


def _measured(result: ev.Evaluation, found: dict[str, Floats], tips: list[str]) -> list[tuple[str, Draw]]:
    """The rate and the cache of each pattern, where they were measured."""
    drawings: list[tuple[str, Draw]] = []
    nothing = np.full(len(result.patterns), np.nan)
    for key, words in (("decode_rate", "decode rate"), ("generated_cache_bytes", "cache")):
        if key in found and np.isfinite(found[key]).any():
            values = found[key] / (2**20 if "bytes" in key else 1)
            axis = "largest cache of a text, MiB" if "bytes" in key else "new tokens per second"
            one = Rows(
                result.patterns, values, nothing, nothing, axis, tips, f"{words} of each pattern", set(), number, True
            )
            drawings.append((words, partial(draw_rows, one)))
    return drawings


def generation(result: ev.Evaluation) -> Figure | None:
    """What the patterns wrote by themselves; None where nothing was generated."""
    if "generated_exact_match" not in result.means:
        return None
    mean, low, high = result.means["generated_exact_match"]
    forced = result.means["exact_match"][0] if "exact_match" in result.means else np.full(len(mean), np.nan)
    differ = [i for i in range(len(mean)) if np.isfinite([mean[i], forced[i]]).all() and mean[i] != forced[i]]
    best = int(np.nanargmax(mean))
    text = f"Writing by itself, {result.patterns[best]} gives the answer in {percent(mean[best])} of the examples."
    text += (
        f" In {count(len(differ), 'pattern')} this is not what exact match over the given answer says "
        f"({listed(f'{result.patterns[i]} {percent(mean[i])} and {percent(forced[i])}' for i in differ[:3])})."
        if differ
        else " Exact match over the given answer says the same for every pattern."
    )
    found = {name: result.generated[name] for name in _GENERATED if name in result.generated}
    at = result.position("full")
    rate = found.get("decode_rate")
    if rate is not None and at is not None and np.isfinite(rate).all() and rate[at] > 0 and len(rate) > 1:
        fastest = int(np.argmax(rate))
        text += (
            f" Decoding is fastest with {result.patterns[fastest]}, {number(rate[fastest] / rate[at])} times full "
            "attention's rate."
        )
    tips = [
        f"{name}\ngenerated: {ev.said(result, 'generated_exact_match', i)}\nanswer given: {percent(forced[i])}"
        + "".join(f"\n{words} {number(found[key][i])}" for key, words in _GENERATED.items() if key in found)
        for i, name in enumerate(result.patterns)
    ]
    chart = Rows(
        result.patterns,
        mean,
        low,
        high,
        "exact match of generated text",
        tips,
        "Exact match of what each pattern wrote",
        set(ev.front(result, "exact_match")),
        percent,
        True,
    )
    drawings: list[tuple[str, Draw]] = [("exact match", partial(draw_rows, chart))]
    drawings += _measured(result, found, tips)
    rows: list[Row] = [
        (name, float(mean[i]), float(low[i]), float(high[i]), *(float(values[i]) for values in found.values()))
        for i, name in enumerate(result.patterns)
    ]
    most = result.settings.get("max_new_tokens")
    return Figure(
        "generation",
        "What each pattern writes by itself",
        text,
        drawings,
        f"Greedy decoding{f' of up to {most} tokens' if most else ''} with a cache of window and sinks alone in "
        "windowed layers. Filled: on the front of exact match over the given answer. Rates are those of the machine "
        "that measured, while it did nothing else at best.",
        table=(["pattern", "generated exact match", "low", "high", *(_GENERATED[name] for name in found)], rows),
    )


def _layers_reading(result: ev.Evaluation) -> str:
    mixed = np.flatnonzero((result.full_layers > 0) & (result.full_layers < len(result.layers)))
    if not mixed.size:
        return "No pattern mixes full and windowed layers."
    always = result.layers[result.full[mixed].all(0)]
    if always.size:
        return f"Of {count(mixed.size, 'pattern')} that mix both kinds, all keep {the_layers(always)}."
    return f"No layer is kept by all {count(mixed.size, 'pattern')} that mix both kinds."


def layers_of_each(result: ev.Evaluation) -> Figure:
    """Which layers each pattern keeps; where the file says windows and types, these."""
    ranked = ev.order(result, range(len(result.patterns)))
    drawn = ranked[: max(2, MOST_SQUARES // len(result.layers))]
    layers, names = result.layers.tolist(), [result.patterns[i] for i in drawn]
    columns = ["pattern", "full layers", "layers"]
    rows: list[list[str | int]] = [
        [result.patterns[i], int(result.full_layers[i]), " ".join(str(one) for one in result.layers[result.full[i]])]
        for i in ranked
    ]
    caption, legend = "Best pattern first.", [("keep", "full attention"), ("spare", "windowed")]

    def cell(r: int, c: int) -> Cell:
        kept = result.full[drawn[r], c]
        words = "full attention" if kept else "windowed"
        return "keep" if kept else "spare", "", f"{names[r]}\nlayer {layers[c]}: {words}"

    draw = partial(draw_grid, Grid(names, layers, cell, "Layers with full attention in each pattern"))
    if result.windows is not None:
        types = None if result.types is None else [result.types[i] for i in drawn]
        kept = Kept(names, layers, result.windows[drawn].tolist(), types)
        draw, legend = partial(kept.draw, "pattern"), kept.legend()
        caption += f" {kept.caption()}"
        columns.append("windows")
        for row, i in zip(rows, ranked, strict=True):
            row.append(result.settings_of(i))
    if len(ranked) > len(drawn):
        caption += f" The first {len(drawn)} of {len(ranked)} are drawn; the table has all."
    return Figure(
        "patterns",
        "Layers of each pattern",
        _layers_reading(result),
        [("", draw)],
        caption,
        legend,
        table=(columns, rows),
    )


def all_numbers(result: ev.Evaluation) -> Figure:
    """Every mean with its interval, a row a pattern."""
    columns = ["pattern", "full layers"]
    for metric in result.means:
        words = metric.replace("_", " ")
        columns += [f"mean {words}", f"{words} low", f"{words} high"]
    rows: list[Row] = [
        (
            result.patterns[i],
            int(result.full_layers[i]),
            *(float(values[i]) for triple in result.means.values() for values in triple),
        )
        for i in ev.order(result, range(len(result.patterns)))
    ]
    return Figure(
        "evaluation",
        "All patterns",
        "Means over examples with 95\u00a0% bootstrap intervals, best pattern first.",
        [],
        table=(columns, rows),
    )


def figures(result: ev.Evaluation) -> list[Figure]:
    found = [
        front(result),
        loss_against_memory(result),
        difference(result, "full"),
        difference(result, "baseline") if result.baseline else None,
        costs(result),
        generation(result),
        layers_of_each(result),
        all_numbers(result),
    ]
    return [figure for figure in found if figure is not None]
