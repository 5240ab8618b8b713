"""What each pattern costs: KV cache and prefill at each length, computed from the model's shape."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from winnow.report.arrays import Floats
from winnow.report.drawing.charts import Cell, Grid, draw_grid, step_kind
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.figure import Figure, Row
from winnow.report.reading import evaluation as ev
from winnow.report.wording import listed, number, percent, size

MOST_ROWS = 60  # of the picture; the table has all
MOST_NAMED = 6  # patterns of a row, in its tip

Group = tuple[str, list[int]]  # name of a row, its patterns: they cost the same


def _groups(result: ev.Evaluation, tables: Sequence[Floats]) -> list[Group]:
    """Patterns with as many full layers, apart where other windows or types make them cost other than one another."""
    found: list[Group] = []
    for k, ranked in ev.budgets(result):
        alike: dict[bytes, list[int]] = {}
        for i in ranked:
            alike.setdefault(np.concatenate([table[i] for table in tables]).tobytes(), []).append(i)
        if len(alike) == 1:
            found.append((f"{k} full", ranked))
            continue
        for own in sorted(alike.values(), key=lambda own: float(tables[0][own[0]].sum())):
            more = f" and {len(own) - 1} more" if len(own) > 1 else ""
            found.append((f"{result.patterns[own[0]]}{more}", own))
    return found


def _draw(result: ev.Evaluation, groups: list[Group], words: str, table: Floats, width: int) -> Drawing:
    def cell(r: int, c: int) -> Cell:
        i, *others = groups[r][1]
        part = ev.share(table, result, i, c)
        amount = size(table[i, c]) if words == "KV cache" else f"{number(table[i, c])} FLOP"
        more = [f"{len(others) + 1 - MOST_NAMED} more"] if len(others) >= MOST_NAMED else []
        names = listed([result.patterns[one] for one in [i, *others][:MOST_NAMED]] + more)
        return (
            step_kind(part),
            percent(part),
            f"{names}: {result.settings_of(i)}\n{result.kv_lengths[c]:,} tokens: {amount}, {percent(part)} of full "
            "attention's",
        )

    lengths = [f"{length:,}" for length in result.kv_lengths]
    label = f"{words} by layers with full attention, at each length"
    rows = [name for name, _ in groups]
    axis = "layers" if len(groups) == len(ev.budgets(result)) else "patterns"
    return draw_grid(Grid(rows, lengths, cell, label, "tokens", axis), width)


def costs(result: ev.Evaluation) -> Figure | None:
    """KV cache and prefill at each length, as shares of full attention's; None where the file has no pattern `full`."""
    at = result.position("full")
    tables = [
        (words, table)
        for words, table in (("KV cache", result.cache), ("prefill", result.flop))
        if table is not None and table.shape == (len(result.patterns), len(result.kv_lengths))
    ]
    last = result.priced
    if not tables or at is None or last is None:
        return None
    groups = _groups(result, [table for _, table in tables])
    rows: list[Row] = [
        (name, length, *(float(table[i, c]) for _, table in tables))
        for i, name in enumerate(result.patterns)
        for c, length in enumerate(result.kv_lengths)
    ]
    cheapest = min((i for i in range(len(result.patterns)) if i != at), default=at, key=lambda i: tables[0][1][i, last])
    shares = [f"{percent(ev.share(table, result, cheapest, last))} of the {words}" for words, table in tables]
    text = (
        f"At {result.kv_lengths[last]:,} tokens {result.patterns[cheapest]} needs the least, {listed(shares)} of full "
        "attention; at shorter lengths a window saves less."
        if cheapest != at
        else "Only full attention was measured."
    )
    return Figure(
        "costs",
        "What each pattern costs",
        text,
        [(words, partial(_draw, result, groups[:MOST_ROWS], words, table)) for words, table in tables],
        "Shares of full attention's, by length of the sequence: computed from the model's shape, not timed."
        + (f" The first {MOST_ROWS} of {len(groups)} rows are drawn." if len(groups) > MOST_ROWS else ""),
        table=(
            [
                "pattern",
                "tokens",
                *(("KV cache, bytes" if words == "KV cache" else "prefill, FLOP") for words, _ in tables),
            ],
            rows,
        ),
    )
