"""Figures of plans: the windows as a picture, predicted loss against memory, what engines allocate, and a table."""

import numpy as np

from winnow.report.drawing.charts import Cell, Grid, Points, draw_grid, draw_points, evenly, step_kind
from winnow.report.drawing.drawing import Drawing
from winnow.report.figures.figure import Draw, Figure, Row
from winnow.report.reading import plans as reading
from winnow.report.reading.plans import FULL, STORED, TYPES, Plan, Plans
from winnow.report.wording import count, listed, number, percent

MOST_DRAWN = 60  # plans of a picture
MOST_NAMED = 12  # points with a name; the rows of a curve follow each other
NARROWEST, WIDEST = 0.1, 0.7  # steps of the colours of windows


def _short(keys: int) -> str:
    """ "2k" for 2,048: what fits into a cell."""
    return f"{keys // 1024}k" if keys >= 1024 and keys % 1024 == 0 else str(keys)


def _shade(keys: int, sizes: list[int]) -> str:
    """Kind of a window: the darker, the wider."""
    if keys == FULL:
        return "keep"
    share = sizes.index(keys) / max(len(sizes) - 1, 1)
    return step_kind(NARROWEST + share * (WIDEST - NARROWEST))


def windows(result: Plans) -> Figure:
    """Plans by layers."""
    drawn = result.plans[:MOST_DRAWN]
    sizes = sorted({keys for plan in result.plans for keys in plan.windows} - {FULL})

    def cell(r: int, c: int) -> Cell:
        keys = drawn[r].windows[c]
        what = "full attention" if keys == FULL else f"window of {keys:,} tokens"
        return _shade(keys, sizes), "" if keys == FULL else _short(keys), f"{drawn[r].name}, layer {c}: {what}"

    def draw(width: int) -> Drawing:
        names = [plan.name for plan in drawn]
        return draw_grid(Grid(names, range(len(result.layers)), cell, "Window of each layer in each plan"), width)

    drawings: list[tuple[str, Draw]] = [("", draw)]
    fewest, most = min(plan.n_full for plan in result.plans), max(plan.n_full for plan in result.plans)
    text = f"{count(len(result.plans), 'plan')}, with {fewest} to {most} layers of full attention."
    if len(result.plans) == 1:
        text = f"{result.plans[0].name}: {result.plans[0].words}."
    cut = f" The first {MOST_DRAWN} are drawn." if len(result.plans) > MOST_DRAWN else ""
    return Figure(
        "plan-windows",
        "Which window each layer gets",
        text,
        drawings,
        "A row is a plan, a column a layer; the paler a cell, the narrower the window"
        + (f", of {listed(f'{keys:,}' for keys in sizes)} tokens." if 0 < len(sizes) <= MOST_NAMED else ".")
        + cut,
        [("keep", "full attention")],
    )


def types(result: Plans) -> Figure | None:
    """Plans by layers, as windows() has them; None where all layers keep what they compute."""
    drawn = result.plans[:MOST_DRAWN]
    used = [kind for kind in TYPES if any(kind in plan.types for plan in result.plans)]
    if not used:
        return None

    def cell(r: int, c: int) -> Cell:
        kind = drawn[r].type_of(c)
        share = (TYPES.index(kind) - 1) / (len(TYPES) - 2)
        shade = "keep" if kind == STORED else step_kind(WIDEST - share * (WIDEST - NARROWEST))
        return shade, "" if kind == STORED else kind, f"{drawn[r].name}, layer {c}: keys and values in {kind}"

    def draw(width: int) -> Drawing:
        names = [plan.name for plan in drawn]
        return draw_grid(Grid(names, range(len(result.layers)), cell, "Type of each layer's keys and values"), width)

    return Figure(
        "plan-types",
        "In which type each layer keeps keys and values",
        f"Layers keep them in {listed(used)}.",
        [("", draw)],
        "A row is a plan, a column a layer; the paler a cell, the narrower its type. bf16 stands for what the model "
        "computes.",
        [("keep", "as computed")],
    )


def _is_front(plan: Plan, others: list[Plan]) -> bool:
    return not any(
        other.bytes <= plan.bytes and other.loss <= plan.loss and (other.bytes, other.loss) != (plan.bytes, plan.loss)
        for other in others
    )


def losses(result: Plans) -> Figure | None:
    """Predicted loss against memory; None where the file lacks either."""
    if not (result.has_bytes and result.has_losses):
        return None
    plans = result.plans
    x = np.array([plan.bytes for plan in plans])
    y, low, high = (np.array([getattr(plan, name) for plan in plans]) for name in ("loss", "low", "high"))
    largest = float(x.max())
    unit, of_unit = next((one for one in (("GiB", 2**30), ("MiB", 2**20)) if largest >= one[1]), ("KiB", 2**10))
    on = [i for i, plan in enumerate(plans) if _is_front(plan, plans)]
    tips = [
        f"{plan.name}: {plan.words}\n{reading.size(plan.bytes)}, {percent(plan.share)} of full attention's\n"
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
        text += f" Half of that is lost with {reading.size(half.bytes)}, {percent(half.share)} of full attention's."
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
        return step_kind(share), reading.size(value), f"{plan.name} on {names[c]}: {reading.size(value)}"

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
    columns = ["plan", "full layers", "windows", "memory, bytes", "of full attention", "predicted loss", "low", "high"]
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
        figure
        for figure in (windows(result), types(result), losses(result), engines(result), numbers(result))
        if figure is not None
    ]
