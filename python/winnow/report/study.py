"""The study of a collected sweep: which rule, at which budget, with how many examples, and whether the tail is enough.

The figures and sentences are those of the file; here they become sections of tables.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from winnow.common.text import clean
from winnow.report.figures.figure import Figure, Row
from winnow.report.reading.record import dataset, numbers, texts

_INTERVAL = ("", "_ci_low", "_ci_high")


def _answer(data: xr.Dataset) -> str:
    return clean(str(data.attrs.get("answer", "")))


def _kept(data: xr.Dataset) -> list[str]:
    """The budgets: 1/8, 1/4, 1/2."""
    shares = numbers(data, "kept_share", ("kept_share",))
    return [] if shares is None else [f"1/{1 / share:.0f}" if share > 0 else "n/a" for share in shares]


def _value(values: np.ndarray | None, *place: int) -> float:
    return float("nan") if values is None else float(values[place])


def _rules(data: xr.Dataset) -> list[Figure]:
    rules, kept = texts(data, "rule") or [], _kept(data)
    ranks = [numbers(data, f"mean_rank{end}", ("kept_share", "rule")) for end in _INTERVAL]
    left = [numbers(data, f"mean_loss_left{end}", ("kept_share", "rule")) for end in _INTERVAL]
    rows: list[Row] = []
    for b, share in enumerate(kept):
        for r in sorted(range(len(rules)), key=lambda r: _value(ranks[0], b, r)):
            if np.isfinite(_value(ranks[0], b, r)):
                rows.append((share, rules[r], *(_value(values, b, r) for values in [*ranks, *left])))
    found = [
        Figure(
            "study-rules",
            "Which rule, at which budget?",
            _answer(data),
            [],
            "Rank 1 loses least on the held-out examples. Loss left: the loss as a share of what windowing every layer "
            "loses. Low and high: 95 % intervals over models.",
            table=(["layers kept", "rule", "mean rank", "low", "high", "loss left", "low", "high"], rows),
        )
    ]
    pairs = _pairs(data, rules, kept)
    if pairs:
        found.append(
            Figure(
                "study-pairs",
                "Rules against each other",
                "Means over models of a rule's rank and NLL less another's; below 0 the first is better. Where an "
                "interval holds 0, these models do not tell the two apart.",
                [],
                "NLL in nats per token. Low and high: 95 % intervals, models paired.",
                table=(["layers kept", "rule", "other rule", "rank", "low", "high", "NLL", "low", "high"], pairs),
            )
        )
    return found


def _pairs(data: xr.Dataset, rules: Sequence[str], kept: Sequence[str]) -> list[Row]:
    dims = ("kept_share", "rule", "other_rule")
    values = [
        numbers(data, f"{name}{end}", dims) for name in ("rank_difference", "nll_difference") for end in _INTERVAL
    ]
    return [
        (kept[b], rules[i], rules[j], *(_value(table, b, i, j) for table in values))
        for b in range(len(kept))
        for i in range(len(rules))
        for j in range(i + 1, len(rules))
        if np.isfinite(_value(values[0], b, i, j))
    ]


def _examples(data: xr.Dataset) -> list[Figure]:
    models, sets, kept = texts(data, "model") or [], texts(data, "dataset") or [], _kept(data)
    sizes = numbers(data, "subset", ("subset",))
    n, window = numbers(data, "n_examples", ("calibration",)), numbers(data, "window", ("calibration",))
    keep = numbers(data, "layers_kept", ("calibration", "kept_share"))
    needed = numbers(data, "examples_needed", ("calibration", "kept_share"))
    overlap = numbers(data, "overlap", ("calibration", "kept_share", "subset"))
    columns = ["model", "dataset", "window", "layers kept", "K", "examples", "needed"]
    subsets = [] if sizes is None else [int(size) for size in sizes]
    rows: list[Row] = []
    for c, (model, name) in enumerate(zip(models, sets, strict=False)):
        for b, share in enumerate(kept):
            if _value(keep, c, b) > 0:
                facts = [_value(window, c), _value(keep, c, b), _value(n, c), _value(needed, c, b)]
                whole = [int(value) if np.isfinite(value) else None for value in facts]
                shares = (_value(overlap, c, b, s) for s in range(len(subsets)))
                rows.append((model, name, whole[0], share, *whole[1:], *shares))
    return [
        Figure(
            "study-examples",
            "How many examples?",
            _answer(data),
            [],
            "Needed: the smallest random subset that chooses at least 90 % of the layers that all examples choose. The "
            "last columns are that share for subsets of so many examples.",
            table=([*columns, *(str(size) for size in subsets)], rows),
        )
    ]


def _tail(data: xr.Dataset) -> list[Figure]:
    models, sets, kept = texts(data, "model") or [], texts(data, "dataset") or [], _kept(data)
    rows_of_tail = numbers(data, "tail_rows", ("pair",))
    rho = [numbers(data, name, ("pair",)) for name in ("spearman_rho", "spearman_ci_low", "spearman_ci_high")]
    overlap = numbers(data, "overlap", ("pair", "kept_share"))
    rows: list[Row] = [
        (
            model,
            name,
            int(_value(rows_of_tail, p)) if rows_of_tail is not None else None,
            *(_value(values, p) for values in rho),
            *(_value(overlap, p, b) for b in range(len(kept))),
        )
        for p, (model, name) in enumerate(zip(models, sets, strict=False))
    ]
    return [
        Figure(
            "study-tail",
            "Is the tail enough?",
            _answer(data),
            [],
            "Spearman's rho over layers between a sweep by the tail and an exact one, with its 95 % interval over "
            "examples; the last columns are the share of the layers that both choose.",
            table=(
                ["model", "dataset", "tail rows", "rho", "low", "high", *(f"both at {share}" for share in kept)],
                rows,
            ),
        )
    ]


def figures(tree: xr.DataTree) -> list[Figure]:
    """The sections of a collected file; none where it holds no study."""
    found: list[Figure] = []
    for name, sections in (("rules", _rules), ("examples", _examples), ("tail", _tail)):
        data = dataset(tree, f"study/{name}")
        if data is not None:
            found += sections(data)
    return found
