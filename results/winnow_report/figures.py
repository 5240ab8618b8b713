"""Figures of one result over its layers: each a title, a sentence, and drawings in two widths."""

from dataclasses import dataclass, field

import numpy as np

from . import reading
from .palette import N_STEPS
from .svg import WIDE, Canvas, Linear, place_labels, value_scale
from .wording import interval, number, percent, signed


@dataclass
class Figure:
    """`drawings`: (name of the variant, function of the width that returns SVG). `matrix`: data for page.js."""

    id: str
    title: str
    reading: str
    drawings: list
    caption: str = ""
    legend: list = field(default_factory=list)  # (class of the swatch, words)
    table: tuple = ()                           # (column names, rows) for a table below the figure
    matrix: dict | None = None

    def draw(self, width=WIDE, variant=0):
        return self.drawings[variant][1](width)


KEPT_LEGEND = [("keep", "keeps full attention, settled"), ("open", "keeps it, but its place is open"),
               ("rival", "windowed, but could as well be kept"), ("spare", "windowed")]


def state_of(choice, i):
    if i in choice.settled or (not choice.is_known and i in choice.kept):
        return "keep"
    if i in choice.open:
        return "open"
    return "rival" if i in choice.rivals else "spare"


def strip(run, choice, width):
    """One row of squares, a layer each: what keeps full attention."""
    n = len(run.layers)
    cell = (width - 4) / n
    height = max(14.0, min(cell, 26 if width > 500 else 22))  # of many layers bars, not dots
    canvas = Canvas(width, height + 22, left=2, right=2, top=2, bottom=20)
    p = run.p_top_k.get(choice.k)
    words = {"keep": "keeps full attention", "open": "keeps full attention, place open",
             "rival": "windowed, could as well be kept", "spare": "windowed"}
    gap = min(3.0, cell * 0.18)
    for i, layer in enumerate(run.layers):
        state = state_of(choice, i)
        tip = f"layer {layer}: {words[state]}\nrank {run.rank[i]}"
        if p is not None:
            tip += f"\nin the top {choice.k} in {percent(p[i])} of the resamples"
        canvas.rect(2 + i * cell + gap / 2, 2, cell - gap, height - gap / 2, f"mark {state}", rx=min(3.0, cell / 5),
                    data_tip=tip)
    canvas.layer_axis(run.layers, "", y=height + 2)
    return canvas.render(f"Layers kept at K = {choice.k}")


def _by(run, how):
    return np.arange(len(run.layers)) if how == "layer" else run.order()


def draw_deltas(run, width, how, is_linear):
    """Mean delta NLL with its interval, a column a layer."""
    means, low, high = (run.figures[name] for name in ("mean_delta_nll", "ci_low", "ci_high"))
    canvas = Canvas(width, 320 if width > 500 else 270, left=62, top=26)
    left, top, right, bottom = canvas.plot
    scale, is_log = value_scale(np.concatenate([means, low, high]), bottom, top, is_linear)
    canvas.left_axis(scale, "delta NLL, nats per token" + (" (logarithmic on both sides of 0)" if is_log else ""))
    order = _by(run, how)
    x_of = canvas.layer_axis(run.layers[order], "layer" if how == "layer" else "layer, by rank")
    kept = set(run.kept(run.top_k).tolist())
    radius = min(5.0, max(1.6, (right - left) / len(order) * 0.3))
    for column, i in enumerate(order):
        if not np.isfinite(means[i]):
            continue
        x, is_kept = x_of(column), i in kept
        tip = f"layer {run.layers[i]}, rank {run.rank[i]}\ndelta NLL {signed(means[i])} nats per token"
        if np.isfinite([low[i], high[i]]).all():
            canvas.line(x, scale(low[i]), x, scale(high[i]), "whisker" if is_kept else "whisker-spare")
            tip += f"\n95 % interval {interval(low[i], high[i])}"
        canvas.dot(x, scale(means[i]), radius, f"mark {'dot-keep' if is_kept else 'dot-spare'}", data_tip=tip)
    return canvas.render("Delta NLL per layer, with 95 % intervals")


def deltas(run):
    drawings = [("by layer", lambda width: draw_deltas(run, width, "layer", None)),
                ("by rank", lambda width: draw_deltas(run, width, "rank", None))]
    _, is_log = value_scale(run.figures["mean_delta_nll"], 1, 0)
    if is_log:
        drawings.append(("linear scale", lambda width: draw_deltas(run, width, "layer", True)))
    return Figure("deltas", "What each layer costs", reading.effect(run), drawings,
                  "Mean rise of NLL when that layer alone is windowed; bars are 95 % bootstrap intervals over examples.",
                  [("keep", f"top {run.top_k}"), ("spare", "the others")])


def step_class(share):
    """Class of a share or correlation from 0 to 1; below 0 as 0."""
    return "none" if not np.isfinite(share) else f"q{int(round(min(max(share, 0.0), 1.0) * (N_STEPS - 1)))}"


@dataclass
class Grid:
    """Cells with a value each: rows x columns. `cell(r, c)` gives (class, text in the cell, tip)."""

    rows: list
    columns: list
    cell: object
    label: str
    axis: str = "layer"
    row_axis: str = ""
    height: float = 26.0
    widest: float = 1000.0  # of a column


def _name_column(names, width):
    """(width of a column of names at the left, characters that fit)."""
    limit = 34 if width > 500 else 12
    return min(max((len(str(name)) for name in names), default=1), limit) * 6.4 + 16, limit


def _shortened(name, limit):
    return name if len(name) <= limit else name[:limit - 1] + "\u2026"


def draw_grid(grid, width):
    left, limit = _name_column(grid.rows, width)
    n_rows, n_columns = len(grid.rows), max(len(grid.columns), 1)
    top = 22 if grid.row_axis else 6
    step = min((width - left - 6) / n_columns, grid.widest)
    height = min(grid.height, max(14.0, step)) if n_columns == n_rows else grid.height
    canvas = Canvas(width, top + n_rows * height + (38 if grid.axis else 22), left=left,
                    right=width - left - step * n_columns, top=top, bottom=38 if grid.axis else 22)
    if grid.row_axis:
        canvas.text(2, 14, grid.row_axis, "start", "axis")
    for r, row in enumerate(grid.rows):
        y = top + r * height
        canvas.text(left - 8, y + height / 2 + 4, _shortened(str(row), limit), "end", "tick")
        for c in range(len(grid.columns)):
            class_, words, tip = grid.cell(r, c)
            canvas.rect(left + c * step + 0.5, y + 0.5, max(step - 1, 0.6 * step), height - 1.5, f"mark {class_}",
                        rx=min(2.0, step / 6), data_tip=tip)
            if words and len(words) * 6.4 < step - 3 and height >= 13:
                canvas.text(left + (c + 0.5) * step, y + height / 2 + 4, words, "middle", f"on-{class_} under")
    canvas.layer_axis(grid.columns, grid.axis, y=top + n_rows * height)
    return canvas.render(grid.label)


@dataclass
class Intervals:
    """A row for each name: a figure with its interval."""

    names: list
    values: np.ndarray
    low: np.ndarray    # NaN: no interval
    high: np.ndarray
    tips: list
    filled: set        # positions that are drawn filled
    axis: str
    label: str
    form: object = number


def draw_intervals(rows, width):
    left, limit = _name_column(rows.names, width)
    canvas = Canvas(width, 24 * len(rows.names) + 56, left=left, right=16, top=8, bottom=44)
    x_left, _, x_right, _ = canvas.plot
    scale, is_log = value_scale(np.concatenate([rows.values, rows.low, rows.high]), x_left + 8, x_right - 8)
    canvas.bottom_axis(scale, rows.axis + (" (log)" if is_log else ""), scale.ticks(5 if width > 500 else 3), rows.form)
    for i, name in enumerate(rows.names):
        y = 20 + 24 * i
        canvas.text(left - 8, y + 4, _shortened(str(name), limit), "end", "tick")
        if not np.isfinite(rows.values[i]):
            continue
        is_filled = i in rows.filled
        if np.isfinite([rows.low[i], rows.high[i]]).all():
            canvas.line(scale(rows.low[i]), y, scale(rows.high[i]), y, "whisker" if is_filled else "whisker-spare")
        canvas.dot(scale(rows.values[i]), y, 5, f"mark {'dot-keep' if is_filled else 'dot-spare'}", data_tip=rows.tips[i])
    return canvas.render(rows.label)


def _draw_certainty(run, width, how):
    order = _by(run, how)
    budgets = [k for k in run.budgets if k in run.p_top_k]

    def cell(r, c):
        i, k = order[c], budgets[r]
        p = run.p_top_k[k][i]
        words = f"{100 * p:.0f}" if np.isfinite(p) and p >= 0.005 else ""
        return step_class(p), words, f"layer {run.layers[i]}\nP(top {k}) = {percent(p)}\nrank {run.rank[i]}"

    return draw_grid(Grid([f"K = {k}" for k in budgets], run.layers[order].tolist(), cell,
                          "Probability of being among the top K, per layer and budget",
                          "layer" if how == "layer" else "layer, by rank", height=30), width)


def draw_ranks(run, width):
    """Rank with its interval: where intervals overlap, the order is open."""
    canvas = Canvas(width, 300 if width > 500 else 260, left=46, top=26)
    left, top, right, bottom = canvas.plot
    n = len(run.layers)
    scale = Linear(0.5, n + 0.5, top, bottom)
    canvas.left_axis(scale, "rank, 1 is kept first", ticks=_rank_ticks(n), form=lambda value: str(int(value)))
    order = run.order()
    x_of = canvas.layer_axis(run.layers[order], "layer, by rank")
    if run.top_k < n:
        canvas.line(left, scale(run.top_k + 0.5), right, scale(run.top_k + 0.5), "guide")
        canvas.text(right, scale(run.top_k + 0.5) - 4, f"top {run.top_k}", "end", "tick")
    low, high = run.figures["rank_low"], run.figures["rank_high"]
    kept = set(run.kept(run.top_k).tolist())
    radius = min(5.0, max(1.6, (right - left) / n * 0.3))
    for column, i in enumerate(order):
        tip = f"layer {run.layers[i]}, rank {run.rank[i]}"
        if np.isfinite([low[i], high[i]]).all():
            canvas.line(x_of(column), scale(low[i]), x_of(column), scale(high[i]),
                        "whisker" if i in kept else "whisker-spare")
            tip += f"\n95 % interval {low[i]:.0f} to {high[i]:.0f}"
        canvas.dot(x_of(column), scale(run.rank[i]), radius, f"mark {'dot-keep' if i in kept else 'dot-spare'}",
                   data_tip=tip)
    return canvas.render("Rank per layer, with 95 % intervals")


def _rank_ticks(n):
    step = max(1, int(np.ceil(n / 8)))
    return sorted({1, *range(step, n + 1, step)})


def certainty(run):
    drawings = []
    if any(np.isfinite(p).any() for p in run.p_top_k.values()):
        drawings = [("by layer", lambda width: _draw_certainty(run, width, "layer")),
                    ("by rank", lambda width: _draw_certainty(run, width, "rank"))]
    drawings.append(("rank intervals", lambda width: draw_ranks(run, width)))
    return Figure("certainty", "How sure each place is", reading.certainty_of_ranks(run), drawings,
                  "Share of bootstrap resamples in which the layer is among the top K, in per cent.")


MOST_NAMED = 40  # points that get a name


@dataclass
class Points:
    """A scatter: positions of layers by two figures."""

    x: np.ndarray
    y: np.ndarray
    x_label: str
    y_label: str
    names: list        # of the points
    tips: list
    filled: set        # positions that are drawn filled
    labelled: list     # positions that get their name, the most important first
    label: str
    y_form: object = number
    y_linear: bool | None = None   # None: as the values need


def draw_points(points, width):
    canvas = Canvas(width, 380 if width > 500 else 320, left=62, top=26, bottom=42)
    left, top, right, bottom = canvas.plot
    x_scale, x_log = value_scale(points.x, left + 8, right - 8)
    y_scale, y_log = value_scale(points.y, bottom - 8, top + 8, points.y_linear)
    canvas.bottom_axis(x_scale, points.x_label + (" (log)" if x_log else ""), x_scale.ticks(5 if width > 500 else 4))
    canvas.left_axis(y_scale, points.y_label + (" (log)" if y_log else ""), form=points.y_form)
    places = [(x_scale(x), y_scale(y)) for x, y in zip(points.x, points.y)]
    good = [i for i in range(len(places)) if np.isfinite(points.x[i]) and np.isfinite(points.y[i])]
    for i in sorted(good, key=lambda i: i in points.filled):
        canvas.dot(*places[i], 5, f"mark {'dot-keep' if i in points.filled else 'dot-spare'}", data_tip=points.tips[i])
    named = [i for i in points.labelled if i in good][:MOST_NAMED]
    others = [places[i] for i in good if i not in named]
    for i, spot in zip(named, place_labels([places[i] for i in named] + others, [points.names[i] for i in named])):
        if spot:
            canvas.text(spot[0], spot[1], points.names[i], spot[2], "strong under" if i in points.filled else "under")
    return canvas.render(points.label)


PAPER = {"spearman_rho": "0.306", "overlap": "3 of 9", "jaccard": "0.2", "magnitude_ratio": "85.6"}


def _few(run):
    """All layers by rank, where there are few enough to name each."""
    return run.order().tolist() if len(run.layers) <= 40 else []


def _control_rows(figures):
    k = figures.get("top_k")
    rows = [("Spearman's rho over layers", figures.get("spearman_rho"), PAPER["spearman_rho"]),
            ("its 95 % interval, lower end", figures.get("spearman_ci_low"), ""),
            ("its 95 % interval, upper end", figures.get("spearman_ci_high"), ""),
            ("permutation p", figures.get("spearman_p"), ""),
            (f"layers shared by both top {k}", figures.get("overlap"), PAPER["overlap"]),
            (f"Jaccard of both top {k}", figures.get("jaccard"), PAPER["jaccard"]),
            ("mean |delta|, long / control", figures.get("magnitude_ratio"), PAPER["magnitude_ratio"]),
            ("examples in both sets", figures.get("n_paired"), "")]
    return [row for row in rows if row[1] is not None]


def controls(run):
    """Long against each control; the paper's figures stand beside for orientation."""
    figures = []
    for index, (name, control) in enumerate(run.controls.items()):
        drawings = []
        if control["means"] is not None:
            drawings = [("", lambda width, name=name, means=control["means"]: _draw_control(run, width, name, means))]
        figures.append(Figure(f"control-{index}", f"Long prompts against the control {name}", reading.control(run, name), drawings,
                              f"Mean delta NLL of each layer on {name} and on the calibration set. Filled: top "
                              f"{run.top_k} on long prompts. The paper's figures are of Qwen3-4B-Thinking, 36 layers."
                              if drawings else "The paper's figures are of Qwen3-4B-Thinking, 36 layers.",
                              table=(["figure", "here", "in the paper"], _control_rows(control))))
    return figures


def _draw_control(run, width, name, means):
    long = run.figures["mean_delta_nll"]
    kept = run.kept(run.top_k).tolist()
    on_control = np.argsort(-means, kind="stable")[:run.top_k].tolist()
    tips = [f"layer {layer}\nlong {signed(a)}, {name} {signed(b)} nats per token"
            for layer, a, b in zip(run.layers, long, means)]
    return draw_points(Points(means, long, f"delta NLL on {name}", "delta NLL on long prompts",
                              [str(layer) for layer in run.layers], tips, set(kept),
                              list(dict.fromkeys(kept + on_control + _few(run))), f"Delta NLL, long prompts against {name}"), width)


def exact_match(run):
    """NLL against exact match; None where the file has no exact match."""
    drop = run.figures["exact_match_drop"]
    if not np.isfinite(drop).any():
        return None
    means, kept = run.figures["mean_delta_nll"], run.kept(run.top_k).tolist()
    tips = [f"layer {layer}\ndelta NLL {signed(a)} nats per token\nexact-match drop {percent(b)}"
            for layer, a, b in zip(run.layers, means, drop)]
    by_match = [i for i in np.argsort(-drop, kind="stable")[:run.top_k].tolist() if drop[i] > 0]
    points = Points(means, drop, "delta NLL, nats per token", "drop of exact match", [str(layer) for layer in run.layers],
                    tips, set(kept), list(dict.fromkeys(kept + by_match + _few(run))), "Delta NLL against the drop of exact match",
                    y_form=percent, y_linear=True)
    names = {"split_half": "split-half reliability (Spearman-Brown)", "rho_exact_match": "rho with exact-match drop",
             "rho_token_accuracy": "rho with token-accuracy drop"}
    rows = [(words, run.reliability.get(name), run.reliability.get(name + "_ci_low"),
             run.reliability.get(name + "_ci_high")) for name, words in names.items() if name in run.reliability]
    return Figure("exact-match", "NLL against exact match", reading.exact_match(run),
                  [("", lambda width: draw_points(points, width))],
                  "Exact match: greedy decoding reproduces the whole answer. Filled: top "
                  f"{run.top_k} by NLL.", table=(["reliability", "value", "low", "high"], rows))


