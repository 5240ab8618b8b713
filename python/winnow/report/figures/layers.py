"""Figures of one result over its layers: each a title, a sentence, and drawings in two widths."""

from functools import partial

import numpy as np

from winnow.report.arrays import Floats, Integers
from winnow.report.drawing.axes import is_log, layer_axis, needs_log, scale, y_axis
from winnow.report.drawing.charts import Cell, Grid, Points, draw_grid, draw_points, step_kind
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures import sentences
from winnow.report.figures.figure import Draw, Figure, Row, Strip
from winnow.report.reading.record import Run
from winnow.report.wording import interval, percent, signed

KEPT_LEGEND = [
    ("keep", "keeps full attention, settled"),
    ("open", "keeps it, but its place is open"),
    ("rival", "windowed, but could as well be kept"),
    ("spare", "windowed"),
]


def state_of(choice: sentences.Choice, i: int) -> str:
    if i in choice.settled or (not choice.is_known and i in choice.kept):
        return "keep"
    if i in choice.open:
        return "open"
    return "rival" if i in choice.rivals else "spare"


def strip_of(run: Run, choice: sentences.Choice) -> Strip:
    """What keeps full attention, a square a layer."""
    p = run.p_top_k.get(choice.k)
    words = {
        "keep": "keeps full attention",
        "open": "keeps full attention, place open",
        "rival": "windowed, could as well be kept",
        "spare": "windowed",
    }
    states = [state_of(choice, i) for i in range(len(run.layers))]
    tips = [
        f"layer {layer}: {words[states[i]]}\nrank {run.rank[i]}"
        + ("" if p is None else f"\nin the top {choice.k} in {percent(p[i])} of the resamples")
        for i, layer in enumerate(run.layers)
    ]
    return Strip(run.layers.tolist(), states, tips, f"Layers kept at K = {choice.k}")


def _by(run: Run, how: str) -> Integers:
    return np.arange(len(run.layers)) if how == "layer" else run.order()


def _radius(drawing: Drawing, n: int) -> float:
    left, _, right, _ = drawing.box
    return min(5.0, max(1.6, (right - left) / n * 0.3))


def draw_deltas(run: Run, width: int, how: str, is_linear: bool | None) -> Drawing:
    """Mean delta NLL with its interval, a column a layer."""
    means, low, high = (run.figures[name] for name in ("mean_delta_nll", "ci_low", "ci_high"))
    drawing = Drawing(width, 320 if width > 500 else 270, "Delta NLL per layer, with 95 % intervals")
    drawing.place(62, 12, 26, 40)
    ticks = scale(drawing, "y", np.concatenate([means, low, high]), is_linear)
    word = " (logarithmic on both sides of 0)" if is_log(drawing, "y") else ""
    y_axis(drawing, ticks, f"delta NLL, nats per token{word}")
    order = _by(run, how)
    layer_axis(drawing, run.layers[order].tolist(), "layer" if how == "layer" else "layer, by rank")
    kept = set(run.kept(run.top_k).tolist())
    columns = [column for column, i in enumerate(order) if np.isfinite(means[i])]
    tips = []
    for i in order[columns]:
        tip = f"layer {run.layers[i]}, rank {run.rank[i]}\ndelta NLL {signed(means[i])} nats per token"
        if np.isfinite([low[i], high[i]]).all():
            tip += f"\n95 % interval {interval(low[i], high[i])}"
        tips.append(tip)
    _with_intervals(drawing, columns, order[columns], kept, (means, low, high), tips)
    return drawing


def _with_intervals(
    drawing: Drawing,
    columns: list[int],
    order: Integers,
    kept: set[int],
    values: tuple[Floats, Floats, Floats],
    tips: list[str],
) -> None:
    """Dots of the layers `order` in their columns, with the ends of their intervals where both are finite."""
    middle, low, high = values
    ends = [
        ((column, low[i]), (column, high[i]), i in kept)
        for column, i in zip(columns, order.tolist(), strict=True)
        if np.isfinite([low[i], high[i]]).all()
    ]
    drawing.whiskers(ends)
    kinds = ["dot-keep" if i in kept else "dot-spare" for i in order.tolist()]
    drawing.dots(columns, middle[order], kinds, tips, _radius(drawing, len(order)))


def deltas(run: Run) -> Figure:
    drawings: list[tuple[str, Draw]] = [
        ("by layer", lambda width: draw_deltas(run, width, "layer", None)),
        ("by rank", lambda width: draw_deltas(run, width, "rank", None)),
    ]
    if needs_log(run.figures["mean_delta_nll"]):
        drawings.append(("linear scale", lambda width: draw_deltas(run, width, "layer", True)))
    return Figure(
        "deltas",
        "What each layer costs",
        sentences.effect(run),
        drawings,
        "Mean rise of NLL when that layer alone is windowed; bars are 95 % bootstrap intervals over examples.",
        [("keep", f"top {run.top_k}"), ("spare", "the others")],
    )


def _draw_certainty(run: Run, width: int, how: str) -> Drawing:
    order = _by(run, how)
    budgets = [k for k in run.budgets if k in run.p_top_k]

    def cell(r: int, c: int) -> Cell:
        i, k = order[c], budgets[r]
        p = run.p_top_k[k][i]
        words = f"{100 * p:.0f}" if np.isfinite(p) and p >= 0.005 else ""
        return step_kind(p), words, f"layer {run.layers[i]}\nP(top {k}) = {percent(p)}\nrank {run.rank[i]}"

    return draw_grid(
        Grid(
            [f"K = {k}" for k in budgets],
            run.layers[order].tolist(),
            cell,
            "Probability of being among the top K, per layer and budget",
            "layer" if how == "layer" else "layer, by rank",
            height=30,
        ),
        width,
    )


def draw_ranks(run: Run, width: int) -> Drawing:
    """Rank with its interval: where intervals overlap, the order is open."""
    drawing = Drawing(width, 300 if width > 500 else 260, "Rank per layer, with 95 % intervals")
    drawing.place(46, 12, 26, 40)
    n = len(run.layers)
    drawing.axes.set_ylim(n + 0.5, 0.5)
    y_axis(drawing, _rank_ticks(n), "rank, 1 is kept first", form=lambda value: str(int(value)))
    order = run.order()
    layer_axis(drawing, run.layers[order].tolist(), "layer, by rank")
    if run.top_k < n:
        border = run.top_k + 0.5
        drawing.line([-0.5, n - 0.5], [border, border], "faint", 1, "--")
        right, y = drawing.spots([n - 0.5], [border])[0]
        drawing.text(right, y - 9, f"top {run.top_k}", "right")
    low, high = run.figures["rank_low"], run.figures["rank_high"]
    tips = []
    for i in order:
        tip = f"layer {run.layers[i]}, rank {run.rank[i]}"
        if np.isfinite([low[i], high[i]]).all():
            tip += f"\n95 % interval {low[i]:.0f} to {high[i]:.0f}"
        tips.append(tip)
    kept = set(run.kept(run.top_k).tolist())
    _with_intervals(drawing, list(range(n)), order, kept, (run.rank.astype(float), low, high), tips)
    return drawing


def _rank_ticks(n: int) -> list[int]:
    step = max(1, int(np.ceil(n / 8)))
    return sorted({1, *range(step, n + 1, step)})


def certainty(run: Run) -> Figure:
    drawings: list[tuple[str, Draw]] = []
    if any(np.isfinite(p).any() for p in run.p_top_k.values()):
        drawings = [
            ("by layer", lambda width: _draw_certainty(run, width, "layer")),
            ("by rank", lambda width: _draw_certainty(run, width, "rank")),
        ]
    drawings.append(("rank intervals", lambda width: draw_ranks(run, width)))
    return Figure(
        "certainty",
        "How sure each place is",
        sentences.certainty_of_ranks(run),
        drawings,
        "Share of bootstrap resamples in which the layer is among the top K, in per cent.",
    )


PAPER = {"spearman_rho": "0.306", "overlap": "3 of 9", "jaccard": "0.2", "magnitude_ratio": "85.6"}


def _few(run: Run) -> list[int]:
    """All layers by rank, where there are few enough to name each."""
    return run.order().tolist() if len(run.layers) <= 40 else []


def _control_rows(figures: dict[str, float]) -> list[Row]:
    k = figures.get("top_k")
    rows = [
        ("Spearman's rho over layers", figures.get("spearman_rho"), PAPER["spearman_rho"]),
        ("its 95 % interval, lower end", figures.get("spearman_ci_low"), ""),
        ("its 95 % interval, upper end", figures.get("spearman_ci_high"), ""),
        ("permutation p", figures.get("spearman_p"), ""),
        (f"layers shared by both top {k}", figures.get("overlap"), PAPER["overlap"]),
        (f"Jaccard of both top {k}", figures.get("jaccard"), PAPER["jaccard"]),
        ("mean |delta|, long / control", figures.get("magnitude_ratio"), PAPER["magnitude_ratio"]),
        ("examples in both sets", figures.get("n_paired"), ""),
    ]
    return [row for row in rows if row[1] is not None]


def controls(run: Run) -> list[Figure]:
    """Long against each control; the paper's figures stand beside for orientation."""
    figures = []
    for index, (name, control) in enumerate(run.controls.items()):
        drawings: list[tuple[str, Draw]] = []
        if control.means is not None:
            drawings = [("", partial(_draw_control, run, name, control.means))]
        figures.append(
            Figure(
                f"control-{index}",
                f"Long prompts against the control {name}",
                sentences.control(run, name),
                drawings,
                f"Mean delta NLL of each layer on {name} and on the calibration set. Filled: top "
                f"{run.top_k} on long prompts. The paper's figures are of Qwen3-4B-Thinking, 36 layers."
                if drawings
                else "The paper's figures are of Qwen3-4B-Thinking, 36 layers.",
                table=(["figure", "here", "in the paper"], _control_rows(control.figures)),
            )
        )
    return figures


def _draw_control(run: Run, name: str, means: Floats, width: int) -> Drawing:
    long = run.figures["mean_delta_nll"]
    kept = run.kept(run.top_k).tolist()
    on_control = np.argsort(-means, kind="stable")[: run.top_k].tolist()
    tips = [
        f"layer {layer}\nlong {signed(a)}, {name} {signed(b)} nats per token"
        for layer, a, b in zip(run.layers, long, means, strict=True)
    ]
    return draw_points(
        Points(
            means,
            long,
            f"delta NLL on {name}",
            "delta NLL on long prompts",
            [str(layer) for layer in run.layers],
            tips,
            set(kept),
            list(dict.fromkeys(kept + on_control + _few(run))),
            f"Delta NLL, long prompts against {name}",
        ),
        width,
    )


def exact_match(run: Run) -> Figure | None:
    """NLL against exact match; None where the file has no exact match."""
    drop = run.figures["exact_match_drop"]
    if not np.isfinite(drop).any():
        return None
    means, kept = run.figures["mean_delta_nll"], run.kept(run.top_k).tolist()
    tips = [
        f"layer {layer}\ndelta NLL {signed(a)} nats per token\nexact-match drop {percent(b)}"
        for layer, a, b in zip(run.layers, means, drop, strict=True)
    ]
    by_match = [i for i in np.argsort(-drop, kind="stable")[: run.top_k].tolist() if drop[i] > 0]
    points = Points(
        means,
        drop,
        "delta NLL, nats per token",
        "drop of exact match",
        [str(layer) for layer in run.layers],
        tips,
        set(kept),
        list(dict.fromkeys(kept + by_match + _few(run))),
        "Delta NLL against the drop of exact match",
        y_form=percent,
        y_linear=True,
    )
    names = {
        "split_half": "split-half reliability (Spearman-Brown)",
        "rho_exact_match": "rho with exact-match drop",
        "rho_token_accuracy": "rho with token-accuracy drop",
    }
    rows = [
        (
            words,
            run.reliability.get(name),
            run.reliability.get(name + "_ci_low"),
            run.reliability.get(name + "_ci_high"),
        )
        for name, words in names.items()
        if name in run.reliability
    ]
    return Figure(
        "exact-match",
        "NLL against exact match",
        sentences.exact_match(run),
        [("", lambda width: draw_points(points, width))],
        f"Exact match: greedy decoding reproduces the whole answer. Filled: top {run.top_k} by NLL.",
        table=(["reliability", "value", "low", "high"], rows),
    )
