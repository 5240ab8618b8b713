"""Figures over examples: the heat map, the course along the answer, stability as examples are added."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from winnow.report.agreement import Stability, stability
from winnow.report.arrays import Floats, Integers
from winnow.report.drawing import matrix
from winnow.report.drawing.axes import is_log, scale, x_axis, y_axis
from winnow.report.drawing.charts import evenly
from winnow.report.drawing.drawing import LINE, Drawing
from winnow.report.figures import sentences
from winnow.report.figures.figure import Figure
from winnow.report.reading import answer_text
from winnow.report.reading.opening import values
from winnow.report.reading.record import Examples, Run, dataset
from winnow.report.wording import count, number, signed

MOST_CELLS = 400_000  # of a heat map: 2.1 MB in the page
MOST_EXAMPLES = 4000  # of a heat map
MOST_TOKEN_CELLS = 150_000  # of the token view
MOST_TOKEN_LAYERS = 24


def _shorten(text: str, limit: int = 10) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def _orders(table: Examples, rows: Integers) -> list[matrix.Order]:
    """Orders of the chosen rows: by cost, by length, by source, of the file."""
    total = table.delta[rows].mean(1)
    found = [matrix.order("by cost", "mean cost", np.argsort(-total, kind="stable"), [signed(v) for v in total])]
    lengths = table.prompt_tokens[rows]
    if np.isfinite(lengths).all() and len(set(lengths.tolist())) > 1:
        found.append(
            matrix.order(
                "by length", "prompt tokens", np.argsort(lengths, kind="stable"), [f"{v:,.0f}" for v in lengths]
            )
        )
    if table.sources and len(set(table.sources)) > 1:
        sources = [table.sources[i] for i in rows]
        by_source = sorted(range(len(rows)), key=lambda i: (sources[i], -total[i]))
        found.append(matrix.order("by source", "source", by_source, [_shorten(source or "none") for source in sources]))
    found.append(matrix.order("as in the file", "example", np.arange(len(rows)), [str(table.rows[i]) for i in rows]))
    return found


def heat_map(run: Run, table: Examples, most_cells: int = MOST_CELLS) -> Figure:
    """Delta NLL of every example and layer."""
    n, n_layers = table.delta.shape
    most = min(MOST_EXAMPLES, max(1, most_cells // n_layers))
    rows = np.arange(n) if n <= most else np.linspace(0, n - 1, most).round().astype(int)
    delta = table.delta[rows]
    threshold, largest = matrix.scale_of(delta)
    notes = []
    for i in rows:
        words = [
            f"prompt {table.prompt_tokens[i]:,.0f} tokens" if np.isfinite(table.prompt_tokens[i]) else "",
            f"answer {table.answer_tokens[i]:,.0f}" if np.isfinite(table.answer_tokens[i]) else "",
            table.sources[i] if table.sources else "",
        ]
        notes.append(", ".join(word for word in words if word))
    spec: matrix.Spec = {
        "id": f"heat-{run.key}",
        "cols": run.layers.tolist(),
        "col_word": "layer",
        "axis": "layer",
        "row_axis": "mean cost",
        "threshold": threshold,
        "largest": largest,
        "unit": "nats per token",
        "what": "delta NLL",
        "orders": _orders(table, rows),
        "label": "Delta NLL per example and layer",
        "height": int(min(520, max(60, 9 * len(rows)))),
        "values": delta,
        "repeat": matrix.repeat_of(delta, 520),
        "sheets": [{"name": "", "rows": [table.ids[i] for i in rows], "notes": notes, "data": matrix.encode(delta)}],
    }
    caption = (
        "A row is an example, a column a layer: blue, windowing the layer costs; orange, it helps. The colour scale "
        "is logarithmic on both sides of 0."
    )
    if len(rows) < n:
        caption += f" {len(rows):,} of {n:,} examples are shown, evenly spaced through the file."
    return Figure(
        "examples",
        "Example by example",
        sentences.examples(run, table),
        [("", lambda width: matrix.draw(spec, width))],
        caption,
        matrix=spec,
    )


@dataclass
class TokenDeltas:
    """NLL of every answer token with one layer switched less that of the base, in nats; read as it is asked for."""

    each: xr.DataArray  # (example, layer, answer_token)
    base: xr.DataArray  # (example, answer_token)
    sign: Floats  # (layer): -1 where the base has the layer windowed

    def of_layer(self, layer: int) -> Floats:
        """(example, answer_token)."""
        return self.sign[layer] * (values(self.each.isel(layer=layer)).astype(float) - values(self.base))

    def of_example(self, row: int) -> Floats:
        """(layer, answer_token)."""
        each, base = self.each.isel(example=row), self.base.isel(example=row)
        return self.sign[:, None] * (values(each).astype(float) - values(base))


def _token_deltas(run: Run) -> TokenDeltas | None:
    """Where --per-token was kept; else None."""
    data = dataset(run.tree, "calibration") if run.tree is not None else None
    if (
        run.examples is None
        or data is None
        or "token_nll" not in data.variables
        or "token_nll_base" not in data.variables
    ):
        return None
    each, base = data["token_nll"], data["token_nll_base"]
    if set(each.dims) != {"example", "layer", "answer_token"} or set(base.dims) != {"example", "answer_token"}:
        return None
    sign = np.ones(len(run.layers))
    if "layer_windowed_in_base" in data.variables and data["layer_windowed_in_base"].sizes == {
        "layer": len(run.layers)
    }:
        sign[values(data["layer_windowed_in_base"]).astype(bool)] = -1
    each, base = each.transpose("example", "layer", "answer_token"), base.transpose("example", "answer_token")
    return TokenDeltas(each, base, sign)


def _token_sheets(
    deltas: TokenDeltas, run: Run, table: Examples, layers: Integers, examples: Integers, most_cells: int
) -> tuple[list[matrix.Sheet], list[Floats]]:
    """(sheets, their values) of the first examples that together have at most so many cells; one in any case."""
    sheets: list[matrix.Sheet] = []
    chosen: list[Floats] = []
    cells = 0
    for i in examples:
        each = deltas.of_example(table.rows[i])[layers]
        length = int(np.isfinite(each).any(0).sum())
        if length == 0 or (sheets and cells + each[:, :length].size > most_cells):
            continue
        cells += each[:, :length].size
        chosen.append(each[:, :length])
        sheets.append(
            {
                "name": table.ids[i],
                "rows": [f"layer {layer}" for layer in run.layers[layers]],
                "notes": [f"example {table.ids[i]}"] * len(layers),
                "n_cols": length,
                "data": matrix.encode(each[:, :length]),
            }
        )
    return sheets, chosen


def tokens(run: Run, most_cells: int = MOST_TOKEN_CELLS) -> Figure | None:
    """Where in the answer the cost falls; None where token NLL was not kept."""
    deltas = _token_deltas(run)
    if deltas is None or run.examples is None:
        return None
    table, first = run.examples, run.order()[0]
    layers = run.order()[:MOST_TOKEN_LAYERS]
    by_position = deltas.of_layer(first)[table.rows]
    known = np.isfinite(by_position)
    with np.errstate(invalid="ignore"):
        course = np.where(known, by_position, 0).sum(0) / known.sum(0)
    spread = np.argsort(-table.delta[:, layers[: run.top_k]].mean(1), kind="stable")
    sheets, chosen = _token_sheets(deltas, run, table, layers, spread, most_cells)
    if not sheets:
        return None
    lengths = {sheet["name"]: each.shape[1] for sheet, each in zip(sheets, chosen, strict=True)}
    texts = answer_text.texts(run, lengths)
    for sheet in sheets:
        if sheet["name"] in texts:
            sheet["texts"] = texts[sheet["name"]]
    without_words = "" if texts else " Tokens are named where the file that was measured and its tokenizer are at hand."
    longest = max(each.shape[1] for each in chosen)
    padded = np.full((len(layers), longest), np.nan)
    padded[:, : chosen[0].shape[1]] = chosen[0]
    threshold, largest = matrix.scale_of(np.concatenate([each.ravel() for each in chosen]))
    names = [f"layer {layer}" for layer in run.layers[layers]]
    spec: matrix.Spec = {
        "id": f"tokens-{run.key}",
        "cols": list(range(1, longest + 1)),
        "col_word": "answer token",
        "axis": "answer token",
        "row_axis": "layers by rank",
        "threshold": threshold,
        "largest": largest,
        "unit": "nats",
        "what": "delta NLL",
        "label": "Delta NLL per answer token and layer",
        "orders": [matrix.order("", "layers by rank", np.arange(len(layers)), names)],
        "height": int(min(420, max(40, 18 * len(layers)))),
        "values": padded,
        "repeat": 1,
        "sheets": sheets,
    }
    some = (
        ""
        if len(sheets) == len(table.ids)
        else f" {count(len(sheets), 'example')} of {len(table.ids):,}, those with the largest cost first."
    )
    return Figure(
        "tokens",
        "Along the answer",
        sentences.tokens(np.arange(len(course)), course, run.layers[first]),
        [
            ("one example", lambda width: matrix.draw(spec, width)),
            ("mean over examples", lambda width: _draw_course(run, course, first, width)),
        ],
        "Cost of each answer token when one layer is windowed, layers by rank." + some + without_words,
        matrix=spec,
    )


def _draw_course(run: Run, course: Floats, layer: int, width: int) -> Drawing:
    drawing = Drawing(width, 260, f"Mean delta NLL of layer {run.layers[layer]} per answer token")
    drawing.place(62, 12, 26, 40)
    good = np.flatnonzero(np.isfinite(course))
    drawing.axes.set_xlim(0.5, len(course) + 0.5)
    ticks = scale(drawing, "y", course)
    word = " (log)" if is_log(drawing, "y") else ""
    y_axis(drawing, ticks, f"delta NLL of layer {run.layers[layer]}, nats{word}")
    x_axis(drawing, [1 + i for i in evenly(len(course), 6)], "answer token")
    drawing.line(good + 1, course[good], "keep", 1.6)
    tips = [
        f"answer token {i + 1}\nlayer {run.layers[layer]}: {signed(course[i])} nats\n"
        "mean over the examples that have it"
        for i in good
    ]
    drawing.dots(good + 1, course[good], ["dot-keep"] * len(good), tips, 3 if len(good) < 100 else 1.5)
    return drawing


def growth(run: Run) -> Figure | None:
    """The ranking after 8, 16, 32, ... examples; None for one example or one layer."""
    found = None if run.examples is None else stability(run.examples.delta, run.top_k)
    if found is None:
        return None
    rows = [
        (
            size,
            float(found.rho[i]),
            int(found.shared[i]),
            *(float(q) for q in found.drawn_rho[i]),
            float(found.drawn_shared[i]),
        )
        for i, size in enumerate(found.sizes)
    ]
    columns = [
        "examples",
        "rho with all",
        f"of the top {found.k}",
        "rho, 5 % of draws",
        "rho, median of draws",
        "rho, 95 % of draws",
        f"of the top {found.k}, median of draws",
    ]
    return Figure(
        "stability",
        "Are there enough examples?",
        sentences.stability(run, found),
        [
            ("ranks", lambda width: _draw_ranks(run, found, width)),
            ("agreement", lambda width: _draw_agreement(found, width)),
        ],
        "Rankings of the first examples beside that of all. Draws are 200 random orders of the same examples, so "
        "agreement with all of them must end at 1.",
        [
            ("keep", f"top {found.k} at every size"),
            ("change", f"enters or leaves the top {found.k}"),
            ("spare", "the others"),
        ],
        table=(columns, rows),
    )


def _size_axis(drawing: Drawing, sizes: list[int]) -> None:
    """The numbers of examples, evenly spaced."""
    names = {float(i): f"{size:,}" for i, size in enumerate(sizes)}
    x_axis(drawing, list(names), "examples", lambda place: names[place], has_lines=False)


def _draw_ranks(run: Run, found: Stability, width: int) -> Drawing:
    """A line a layer: the top K of all examples, layers that were in or out of it with fewer, and the rest faint."""
    n_layers, n_sizes = len(run.layers), len(found.sizes)
    drawing = Drawing(width, 330 if width > 500 else 310, "Rank of each layer as examples are added")
    drawing.place(46, 44, 26, 40)
    shown = min(n_layers, max(2 * found.k, 8))
    drawing.axes.set_xlim(-0.02 * n_sizes, max(n_sizes - 1, 1) * 1.02)
    drawing.axes.set_ylim(shown + (0.5 if shown == n_layers else 1.6), 0.5)  # room for ranks beyond
    ticks = sorted({1, *range(max(1, shown // 6), shown + 1, max(1, shown // 6))})
    y_axis(drawing, ticks, "rank", lambda value: str(int(value)), 44)
    _size_axis(drawing, found.sizes)
    last = found.ranks[-1]
    right, top = drawing.box[2], drawing.box[1]
    ends = drawing.spots(np.full(n_layers, n_sizes - 1.0), last)
    for i in sorted(range(n_layers), key=lambda i: -last[i]):
        is_kept, was_in = last[i] <= found.k, found.ranks[:, i] <= found.k
        if min(found.ranks[:, i]) > shown:
            continue
        changes = bool(was_in.any() and not was_in.all())
        colour = "rival" if changes else "keep" if is_kept else "spare"
        course = np.minimum(found.ranks[:, i], shown + 1.1)
        drawing.line(
            range(n_sizes), course, colour, 1.6 if colour != "spare" else 1.2, "--" if changes and not is_kept else "-"
        )
        at = [s for s in range(n_sizes) if found.ranks[s, i] <= shown]
        tips = [f"layer {run.layers[i]}\nrank {found.ranks[s, i]} after {found.sizes[s]} examples" for s in at]
        drawing.dots(at, found.ranks[at, i], [colour] * len(at), tips, 3.4 if is_kept else 2.6)
        every = max(1, math.ceil(shown * LINE / (drawing.box[3] - top)))
        if last[i] <= shown and (last[i] - 1) % every == 0:
            drawing.text(right + 8, ends[i][1], run.layers[i], "left", "ink" if is_kept else "muted", bool(is_kept))
    drawing.text(drawing.width - 4, 9, "layer", "right")
    return drawing


def _draw_agreement(found: Stability, width: int) -> Drawing:
    drawing = Drawing(width, 280, "Agreement with the ranking of all examples")
    drawing.place(46, 20, 26, 40)
    n_sizes = len(found.sizes)
    known = [value for value in [*found.rho, *found.drawn_rho.ravel()] if np.isfinite(value)]
    drawing.axes.set_xlim(-0.02 * n_sizes, max(n_sizes - 1, 1) * 1.02)
    ticks = scale(drawing, "y", [*known, 1.0], True)
    y_axis(drawing, ticks, "Spearman's rho with the ranking of all", right=20)
    _size_axis(drawing, found.sizes)
    places = np.arange(n_sizes)
    if np.isfinite(found.drawn_rho).all():
        drawing.band(places, found.drawn_rho[:, 0], found.drawn_rho[:, 2])
    good = np.flatnonzero(np.isfinite(found.rho))
    drawing.line(good, found.rho[good], "keep", 1.6)
    tips = [
        f"first {found.sizes[i]} examples\nrho {number(found.rho[i])}, {int(found.shared[i])} of the top {found.k}\n"
        f"random draws: {number(found.drawn_rho[i, 0])} to {number(found.drawn_rho[i, 2])}"
        for i in good
    ]
    drawing.dots(good, found.rho[good], ["dot-keep"] * len(good), tips, 4)
    return drawing
