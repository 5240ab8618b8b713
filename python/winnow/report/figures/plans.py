"""Figures of plans: windows and types of layers as a picture, predicted loss against memory, allocations, a table."""

from functools import partial

import numpy as np

from winnow.report.drawing.charts import Cell, Grid, Points, draw_grid, draw_points, evenly, step_kind
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.figure import Figure, Row
from winnow.report.figures.kept import Kept
from winnow.report.fronts import front
from winnow.report.reading import plans as reading
from winnow.report.reading.plans import Plans
from winnow.report.reading.settings import FULL, STORED
from winnow.report.wording import byte_unit, count, number, percent, size

MOST_DRAWN = 60  # plans of a picture
MOST_NAMED = 12  # points with a name; the rows of a curve follow each other


def _picture_reading(result: Plans) -> str:
    if len(result.plans) == 1:
        return f"{result.plans[0].name}: {result.plans[0].words}."
    fewest, most = min(plan.n_full for plan in result.plans), max(plan.n_full for plan in result.plans)
    text = f"{count(len(result.plans), 'plan')}, with {fewest} to {most} layers of full attention."
    if result.has_types:
        layers = [sum(name != STORED for name in plan.types) for plan in result.plans]
        few = f"{min(layers)} to " if min(layers) < max(layers) else ""
        text += f" Keys and values are in narrower types in {few}{count(max(layers), 'layer')}."
    return text


def _layers_table(result: Plans) -> tuple[list[str], list[Row]]:
    """A row for each layer of each plan."""
    rows: list[Row] = [
        (
            plan.name,
            int(layer),
            "full" if plan.windows[c] == FULL else plan.windows[c],
            *([plan.types[c]] if result.has_types else []),
        )
        for plan in result.plans
        for c, layer in enumerate(result.layers)
    ]
    return ["plan", "layer", "window", *(["type"] if result.has_types else [])], rows


def windows(result: Plans) -> Figure:
    """Plans by layers: the window of each, and the type of keys and values where a plan narrows one."""
    drawn, layers = result.plans[:MOST_DRAWN], result.layers.tolist()
    names = [plan.name for plan in drawn]
    kept = Kept(names, layers, [plan.windows for plan in drawn], [plan.types for plan in drawn])
    cut = f" The first {MOST_DRAWN} are drawn." if len(result.plans) > MOST_DRAWN else ""
    return Figure(
        "plan-windows",
        f"Which {kept.what} each layer gets",
        _picture_reading(result),
        [("", partial(kept.draw, "plan"))],
        f"A row is a plan, a column a layer. {kept.caption()}{cut}",
        kept.legend(),
        _layers_table(result),
    )


def losses(result: Plans) -> Figure | None:
    """Predicted loss against memory; None where the file lacks either."""
    if not (result.has_bytes and result.has_losses):
        return None
    plans = result.plans
    x = np.array([plan.bytes for plan in plans])
    y, low, high = (np.array([getattr(plan, name) for plan in plans]) for name in ("loss", "low", "high"))
    unit, of_unit = byte_unit(float(x.max()))
    on = front(x, y)
    tips = [
        f"{plan.name}: {plan.words}\n{size(plan.bytes)}, {percent(plan.share)} of full attention's\n"
        f"predicted loss {reading.loss_said(plan)}"
        for plan in plans
    ]

    def draw(width: int) -> Drawing:
        points = Points(
            x / of_unit,
            y,
            f"memory for keys and values, {unit}",
            "predicted loss, nats per token",
            [plan.name for plan in plans],
            tips,
            set(on),
            [i for i in evenly(len(plans), MOST_NAMED) if i in on or len(plans) <= MOST_NAMED],
            "Predicted loss of each plan against its memory",
            x_linear=True,
            low=low,
            high=high,
            has_list=True,
            path=on,
        )
        return draw_points(points, width)

    served = reading.served(result)
    half = next((plan for plan in plans if plan.loss <= plans[0].loss / 2), None)
    text = f"The least memory costs {reading.loss_said(plans[0])} by prediction."
    if half is not None and half is not plans[0]:
        text += f" Half of that is lost with {size(half.bytes)}, {percent(half.share)} of full attention's."
    return Figure(
        "plan-losses",
        "What memory buys",
        text,
        [("", draw)],
        "A point is a plan, its bar the 95\u00a0% bootstrap interval over examples; the line joins those that no "
        "other plan beats in both." + (f" Memory of {served}." if served else ""),
        [("keep", "on the front"), ("spare", "behind it")],
    )


def engines(result: Plans) -> Figure | None:
    """What every engine allocates for every plan; None where the file does not say."""
    names = result.engines
    if not names:
        return None
    drawn = result.plans[:MOST_DRAWN]

    def cell(r: int, c: int) -> Cell:
        plan = drawn[r]
        value = plan.allocated.get(names[c], float("nan"))
        if not np.isfinite(value):
            return "none", "\u2013", f"{plan.name}: {names[c]} does not run it"
        share = value / plan.full_bytes if plan.full_bytes > 0 else float("nan")
        return step_kind(share), size(value), f"{plan.name} on {names[c]}: {size(value)}"

    def draw(width: int) -> Drawing:
        plans, label = [plan.name for plan in drawn], "Memory of each plan on each engine"
        if width > 500:
            return draw_grid(Grid(plans, names, cell, label, axis="engine"), width)
        # Below columns that are narrower than their names some of these would be missing.
        return draw_grid(Grid(names, plans, lambda r, c: cell(c, r), label, axis="plan"), width)

    unable = [name for name in names if not all(np.isfinite(plan.allocated[name]) for plan in result.plans)]
    ideal = [plan.allocated.get("ideal", float("nan")) for plan in result.plans]
    ratios = {
        name: max(plan.allocated[name] / least for plan, least in zip(result.plans, ideal, strict=True) if least > 0)
        for name in names
        if name not in unable and name != "ideal" and np.isfinite(ideal).all()
    }
    text = ""
    if ratios:
        worst = max(ratios, key=lambda name: ratios[name])
        text = f"At most {worst} allocates {number(ratios[worst])} times what the windows see."
    if unable:
        text += f" Not every plan runs on {', '.join(unable)}."
    return Figure(
        "plan-engines",
        "What engines allocate",
        text.strip(),
        [("", draw)],
        "Keys and values of the same sequences, with the blocks, groups and padding of each engine; ideal keeps what "
        "the windows see and nothing more. A dash: the engine does not run the plan.",
    )


def numbers(result: Plans) -> Figure:
    """All of it as a table to paste."""
    names = result.engines
    columns = [
        "plan",
        "full layers",
        "windows",
        "memory, bytes",
        "of full attention",
        "predicted loss",
        "low",
        "high",
    ]
    columns += [f"{name}, bytes" for name in names]
    rows: list[Row] = [
        (
            plan.name,
            plan.n_full,
            plan.words,
            plan.bytes,
            plan.share,
            plan.loss,
            plan.low,
            plan.high,
            *(plan.allocated.get(name, float("nan")) for name in names),
        )
        for plan in result.plans
    ]
    return Figure("plan-table", "Plans", "Losses in nats per token.", [], table=(columns, rows))


def figures(result: Plans) -> list[Figure]:
    return [
        figure for figure in (windows(result), losses(result), engines(result), numbers(result)) if figure is not None
    ]
