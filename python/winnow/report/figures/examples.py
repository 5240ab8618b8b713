"""Figures over examples: the heat map, the course along the answer, stability as examples are added."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from winnow.report.agreement import Stability, stability
from winnow.report.arrays import Floats, Integers
from winnow.report.drawing import matrix
from winnow.report.drawing.svg import Canvas, Linear, value_scale
from winnow.report.figures import sentences
from winnow.report.figures.figure import Figure
from winnow.report.markup import Markup
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


def _draw_course(run: Run, course: Floats, layer: int, width: int) -> Markup:
    canvas = Canvas(width, 260, left=62, top=26)
    left, top, right, bottom = canvas.plot
    good = np.flatnonzero(np.isfinite(course)).tolist()
    x_scale = Linear(0.5, len(course) + 0.5, left, right)
    scale, is_log = value_scale(course, bottom, top)
    canvas.left_axis(scale, f"delta NLL of layer {run.layers[layer]}, nats" + (" (log)" if is_log else ""))
    canvas.bottom_axis(x_scale, "answer token", [t for t in x_scale.ticks() if t >= 1 and t == int(t)])
    canvas.polyline([(x_scale(i + 1), scale(course[i])) for i in good], "path s0")
    for i in good:
        canvas.dot(
            x_scale(i + 1),
            scale(course[i]),
            3 if len(good) < 100 else 1.5,
            "mark f0",
            data_tip=f"answer token {i + 1}\nlayer {run.layers[layer]}: {signed(course[i])} nats\n"
            "mean over the examples that have it",
        )
    return canvas.render(f"Mean delta NLL of layer {run.layers[layer]} per answer token")


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


def _size_axis(canvas: Canvas, sizes: list[int], pad: float) -> Linear:
    left, _, right, bottom = canvas.plot
    scale = Linear(0, max(len(sizes) - 1, 1), left + pad, right - pad)
    for i, size in enumerate(sizes):
        canvas.text(scale(i), bottom + 15, f"{size:,}", "middle", "tick")
    canvas.text((left + right) / 2, bottom + 31, "examples", "middle", "axis")
    return scale


def _draw_ranks(run: Run, found: Stability, width: int) -> Markup:
    """A line a layer: the top K of all examples, layers that were in or out of it with fewer, and the rest faint."""
    n_layers = len(run.layers)
    canvas = Canvas(width, 320 if width > 500 else 290, left=46, right=40, top=26)
    _, top, right, bottom = canvas.plot
    x_scale = _size_axis(canvas, found.sizes, 8)
    shown = min(n_layers, max(2 * found.k, 8))
    y_scale = Linear(0.5, shown + (0.5 if shown == n_layers else 1.6), top, bottom)  # room for ranks beyond
    ticks = sorted({1, *range(max(1, shown // 6), shown + 1, max(1, shown // 6))})
    canvas.left_axis(y_scale, "rank", ticks, form=lambda value: str(int(value)))
    last = found.ranks[-1]
    for i in sorted(range(n_layers), key=lambda i: -last[i]):
        is_kept, was_in = last[i] <= found.k, found.ranks[:, i] <= found.k
        kind = "1" if was_in.any() and not was_in.all() else "0" if is_kept else ""
        points = [(x_scale(s), y_scale(min(found.ranks[s, i], shown + 1.1))) for s in range(len(found.sizes))]
        if min(found.ranks[:, i]) > shown:
            continue
        canvas.polyline(points, f"path s{kind}" + ("" if is_kept else " dashed") if kind else "path-faint")
        for s, (x, y) in enumerate(points):
            if found.ranks[s, i] <= shown:
                canvas.dot(
                    x,
                    y,
                    3.4 if is_kept else 2.6,
                    f"mark f{kind}" if kind else "mark spare",
                    data_tip=f"layer {run.layers[i]}\nrank {found.ranks[s, i]} after {found.sizes[s]} examples",
                )
        if last[i] <= shown and (shown <= 24 or last[i] % math.ceil(shown / 24) == 1):
            canvas.text(right + 6, y_scale(last[i]) + 4, str(run.layers[i]), "start", "strong" if is_kept else "tick")
    canvas.text(right + 6, top - 12, "layer", "start", "axis")
    return canvas.render("Rank of each layer as examples are added")


def _draw_agreement(found: Stability, width: int) -> Markup:
    canvas = Canvas(width, 280, left=46, right=16, top=26)
    _, top, _, bottom = canvas.plot
    x_scale = _size_axis(canvas, found.sizes, 8)
    known = [value for value in [*found.rho, *found.drawn_rho.ravel()] if np.isfinite(value)]
    y_scale = Linear(min([0.0, *known]), 1.04, bottom, top)
    canvas.left_axis(y_scale, "Spearman's rho with the ranking of all")
    band = [(x_scale(i), y_scale(found.drawn_rho[i, 2])) for i in range(len(found.sizes))] + [
        (x_scale(i), y_scale(found.drawn_rho[i, 0])) for i in reversed(range(len(found.sizes)))
    ]
    if np.isfinite(found.drawn_rho).all():
        canvas.polygon(band, "band")
    canvas.polyline([(x_scale(i), y_scale(v)) for i, v in enumerate(found.rho) if np.isfinite(v)], "path s0")
    for i, size in enumerate(found.sizes):
        if np.isfinite(found.rho[i]):
            canvas.dot(
                x_scale(i),
                y_scale(found.rho[i]),
                4,
                "mark f0",
                data_tip=(
                    f"first {size} examples\nrho {number(found.rho[i])}, {int(found.shared[i])} of the top {found.k}\n"
                    f"random draws: {number(found.drawn_rho[i, 0])} to {number(found.drawn_rho[i, 2])}"
                ),
            )
    return canvas.render("Agreement with the ranking of all examples")
