"""What whole patterns lose against full attention, by the memory that their keys and values take."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from winnow.report.arrays import Floats
from winnow.report.drawing.charts import Points, draw_points
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.figure import Draw, Figure, Row
from winnow.report.fronts import front
from winnow.report.reading import evaluation as ev
from winnow.report.reading.evaluation import SHORT, Evaluation, Triple
from winnow.report.wording import amount, byte_unit, interval, is_small_good, listed, percent, size

MOST_PATTERNS = 60  # with a drawing for each metric and length; of more, NLL has one length
MOST_LISTED = 6  # of a front, in words
SHARES = ((8, "1/8"), (4, "1/4"), (2, "1/2"))  # of full attention's memory, in words


@dataclass
class Trade:
    """Loss by one metric against memory at one length."""

    metric: str
    column: int  # of Evaluation.cache
    length: int  # tokens of a sequence
    memory: Floats  # (pattern): bytes, NaN where undefined
    losses: Triple
    on: list[int]  # the front, by rising memory


def _trade(result: Evaluation, metric: str, losses: Triple, column: int) -> Trade:
    assert result.cache is not None
    given = result.cache[:, column]
    memory = np.where(np.isfinite(given) & (given > 0), given, np.nan)
    return Trade(metric, column, result.kv_lengths[column], memory, losses, front(memory, losses[0]))


def _loss_words(metric: str, losses: Triple, i: int) -> str:
    """ "3.9 points (95 % interval 2.4 to 5.5)"."""
    loss, low, high = (float(values[i]) for values in losses)
    if not np.isfinite([low, high]).all():
        return amount(metric, loss)
    if is_small_good(metric):
        ends = interval(low, high)
    else:
        ends = " to ".join(amount(metric, end).removesuffix(" points") for end in (low, high))
    return f"{amount(metric, loss)} (95\u00a0% interval {ends})"


def _tips(result: Evaluation, trade: Trade) -> list[str]:
    tips = []
    for i, name in enumerate(result.patterns):
        share = ev.share(result.cache, result, i, trade.column)
        of_full = f", {percent(share)} of full attention's" if np.isfinite(share) else ""
        tips.append(
            f"{name}: {result.settings_of(i)}\n{size(trade.memory[i])} at {trade.length:,} tokens{of_full}\n"
            f"loss by {SHORT[trade.metric]} {_loss_words(trade.metric, trade.losses, i)}"
        )
    return tips


def _draw(result: Evaluation, trade: Trade, width: int) -> Drawing:
    unit, of_unit = byte_unit(float(np.nanmax(trade.memory)))
    is_nats = is_small_good(trade.metric)
    loss, low, high = (values if is_nats else 100 * values for values in trade.losses)
    # The best first; a pattern that lies upon another gets its name where there is room for all.
    _, distinct = np.unique(np.column_stack([trade.memory, loss]), axis=0, return_index=True)
    off = set(range(len(result.patterns))) - set(trade.on)
    named = [*trade.on, *sorted(off, key=lambda i: (i not in distinct, float(loss[i]), i))]
    points = Points(
        trade.memory / of_unit,
        loss,
        f"keys and values of {trade.length:,} tokens, {unit}",
        f"loss against full attention by {SHORT[trade.metric]}, {'nats per token' if is_nats else 'points'}",
        result.patterns,
        _tips(result, trade),
        set(trade.on),
        named,
        f"Loss of each pattern by {SHORT[trade.metric]} against the memory of its keys and values",
        y_linear=None if is_nats else True,
        x_ratios=True,
        low=low,
        high=high,
        has_list=True,
        path=trade.on,
    )
    return draw_points(points, width)


def _reading(result: Evaluation, trade: Trade) -> str:
    metric, loss = trade.metric, trade.losses[0]
    n = int((np.isfinite(trade.memory) & np.isfinite(loss)).sum())
    names = [result.patterns[i] for i in trade.on]
    more = [f"{len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    text = f"At {trade.length:,} tokens {len(names)} of {n} patterns are on the front of {SHORT[metric]}: "
    text += f"{listed(names[:MOST_LISTED] + more)}."
    at = result.position("full")
    best: dict[int, str] = {}  # of a share of the memory, the first that it is best of
    for part, words in SHARES if at is not None else ():
        within = [i for i in trade.on if trade.memory[i] <= trade.memory[at] / part]
        if within:
            best.setdefault(min(within, key=lambda i: loss[i]), words)
    if best:
        said = (
            f"within {words} {result.patterns[i]}, {_loss_words(metric, trade.losses, i)}" for i, words in best.items()
        )
        text += f" The least loss by share of full attention's memory: {'; '.join(said)}."
    return text


def _usual_column(result: Evaluation) -> int:
    """The length nearest, as a ratio, to the measured examples; where these are not known that of other figures."""
    if not result.median_tokens > 0:
        return result.priced or 0
    return int(np.argmin(np.abs(np.log(np.maximum(result.kv_lengths, 1) / result.median_tokens))))


def _table(result: Evaluation, trades: Sequence[Trade]) -> tuple[list[str], list[Row]]:
    """A row for each pattern and length, the least memory of a length first."""
    metrics = list(dict.fromkeys(trade.metric for trade in trades))
    columns = ["pattern", "tokens", "memory, bytes", "of full attention"]
    for metric in metrics:
        words = metric.replace("_", " ")
        columns += [f"{words} loss", f"{words} low", f"{words} high", f"{words} front"]
    rows: list[Row] = []
    for column in sorted({trade.column for trade in trades}):
        own = [trade for trade in trades if trade.column == column]
        for i in np.argsort(own[0].memory, kind="stable").tolist():
            row: list[str | float] = [
                result.patterns[i],
                own[0].length,
                float(own[0].memory[i]),
                ev.share(result.cache, result, i, column),
            ]
            for trade in own:
                row += [*(float(values[i]) for values in trade.losses), "on it" if i in trade.on else "behind it"]
            rows.append(row)
    return columns, rows


def loss_against_memory(result: Evaluation) -> Figure | None:
    """Every pattern by memory and loss, at each length of the file; None where it lacks either."""
    losses = {metric: found for metric in (result.metric, "nll") if (found := ev.losses_of(result, metric)) is not None}
    if result.cache is None or result.cache.shape != (len(result.patterns), len(result.kv_lengths)):
        return None
    trades = [
        _trade(result, metric, found, column)
        for metric, found in losses.items()
        for column in range(len(result.kv_lengths))
    ]
    usual = _usual_column(result)
    first = next((trade for trade in trades if trade.column == usual and trade.on), None)
    if first is None:
        return None
    drawn = [
        trade
        for trade in trades
        if trade.on and (len(result.patterns) <= MOST_PATTERNS or trade.metric == first.metric or trade.column == usual)
    ]
    drawings: list[tuple[str, Draw]] = [
        (
            (f"{SHORT[trade.metric]}, " if len(losses) > 1 else "") + f"{trade.length:,} tokens",
            partial(_draw, result, trade),
        )
        for trade in drawn
    ]
    measured = f" (median {result.median_tokens:,.0f} tokens)" if result.median_tokens > 0 else ""
    return Figure(
        "loss-memory",
        "Loss against memory",
        _reading(result, first),
        drawings,
        "A point is a pattern, its bar the 95\u00a0% interval of the paired bootstrap over the same examples. The line "
        "joins the front: no other pattern has as little memory and loss, and less of one. Where intervals overlap, "
        f"other examples may order patterns otherwise. Losses are of the measured examples{measured}; memory is "
        "computed for one sequence of the length named.",
        [("keep", "on the front"), ("spare", "behind it")],
        _table(result, trades),
        shown=drawn.index(first),
    )
