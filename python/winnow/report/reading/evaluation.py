"""Whole patterns of full and windowed layers, measured on held-out examples: /evaluation."""

import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from winnow.common.errors import ExitCode
from winnow.common.text import clean
from winnow.report.agreement import paired_interval, resampled_means
from winnow.report.arrays import Flags, Floats, Integers
from winnow.report.errors import ReportError
from winnow.report.reading import record
from winnow.report.reading.settings import BITS, settings_words
from winnow.report.wording import amount, count, form_of, interval, is_small_good, number, percent

METRICS = {
    "exact_match": "exact match",
    "generated_exact_match": "exact match of generated text",
    "nll": "NLL, nats per token",
    "token_accuracy": "token accuracy",
    "kl": "KL to full attention, nats per token",
}
SHORT = {  # where a unit stands elsewhere
    "exact_match": "exact match",
    "generated_exact_match": "generated text",
    "nll": "NLL",
    "token_accuracy": "token accuracy",
    "kl": "KL",
}
PRICED_LENGTH = 131072  # tokens of the sequence whose cost stands for all

Triple = tuple[Floats, Floats, Floats]  # value and the ends of its interval, each (pattern)


@dataclass(kw_only=True)
class Evaluation(record.Result):
    """One evaluation. Metrics are keys of METRICS; NaN where the file has none."""

    patterns: list[str]
    full: Flags  # (pattern, layer)
    full_layers: Integers  # (pattern)
    means: dict[str, Triple] = field(default_factory=dict)  # by metric
    against: dict[str, dict[str, Triple]] = field(
        default_factory=dict
    )  # differences from "full" or "baseline", by metric
    mcnemar: dict[str, Floats] = field(default_factory=dict)  # "full" or "baseline": (pattern)
    examples: dict[str, Floats] = field(default_factory=dict)  # metric: (pattern, example)
    kv_lengths: list[int] = field(default_factory=list)  # tokens
    cache: Floats | None = None  # (pattern, kv_length): bytes
    flop: Floats | None = None  # (pattern, kv_length)
    on_front: dict[str, Flags] = field(default_factory=dict)  # metric: (pattern)
    generated: dict[str, Floats] = field(default_factory=dict)  # figures of free generation: (pattern)
    resampled: dict[str, Floats] = field(default_factory=dict)  # metric: (resample, pattern), filled by `paired`
    losses: dict[str, Triple] = field(default_factory=dict)  # by metric: mean loss against full attention, bounds
    verdicts: list[str] = field(default_factory=list)  # (pattern): within, beyond or open; [] in an older file
    needed: Floats | None = None  # (pattern): examples for the bound to come down to the margin
    margin: float = float("nan")  # of `metric`
    windows: Integers | None = None  # (pattern, layer): keys that a row sees, 0: all; where the file says
    types: list[list[str]] | None = None  # (pattern, layer): of keys and values, where the file says
    median_tokens: float = float("nan")  # of the examples, prompt and answer

    @property
    def priced(self) -> int | None:
        """Column of `cache` and `flop` at PRICED_LENGTH, or what comes nearest; None where the file has no lengths."""
        return int(np.argmin(np.abs(np.array(self.kv_lengths) - PRICED_LENGTH))) if self.kv_lengths else None

    @property
    def baseline(self) -> str:
        return str(self.settings.get("baseline", ""))

    def settings_of(self, i: int) -> str:
        """ "4 full, 8 \u00d7 512 fp8": what the layers of a pattern keep; of an older file which see all."""
        if self.windows is None:
            return f"{int(self.full_layers[i])} of {len(self.layers)} layers full"
        return settings_words(self.windows[i].tolist(), self.types[i] if self.types else None)

    def position(self, name: str) -> int | None:
        return self.patterns.index(name) if name in self.patterns else None

    @property
    def metric(self) -> str:
        """What patterns are compared by first, as the file says; an older file does not, and NLL serves."""
        said = str(self.settings.get("margin_figure", ""))
        return next(name for name in (said, "nll", *METRICS) if name in self.means)


def gain(metric: str, values: ArrayLike) -> Floats:
    """The values so that large is good."""
    return -np.asarray(values) if is_small_good(metric) else np.asarray(values)


def _triple(data: xr.Dataset | None, middle: str, stem: str) -> Triple | None:
    values = record.numbers(data, middle, ("pattern",))
    if values is None:
        return None
    low, high = (record.numbers(data, f"{stem}_ci_{end}", ("pattern",)) for end in ("low", "high"))
    nothing = np.full(len(values), np.nan)
    return values, nothing if low is None else low, nothing if high is None else high


def _less_full(result: Evaluation, metric: str) -> Floats | None:
    """Means less those of full attention, which has no KL to itself; None where the file does not say."""
    if metric in result.against.get("full", {}):
        return result.against["full"][metric][0]
    if metric not in result.means or metric not in ("kl", "generated_exact_match"):
        return None
    means = result.means[metric][0]
    return means if metric == "kl" else means - means[result.full_layers.argmax()]


def losses_of(result: Evaluation, metric: str) -> Triple | None:
    """Mean loss against full attention and its 95 % interval over the same examples; None where there is none.

    Ends that the file does not have are those of the paired bootstrap of `paired`, else NaN.
    """
    if metric == "kl" and metric in result.means:
        return result.means[metric]
    at = result.position("full")
    if at is None or metric not in result.means:
        return None
    if metric in result.against.get("full", {}):
        given, low, high = result.against["full"][metric]
    else:
        given = result.means[metric][0] - result.means[metric][0][at]
        low, high = np.array([paired(result, metric, i, at) for i in range(len(given))]).T
    if not np.isfinite(given).any():
        return None
    ends = np.sort([-gain(metric, low), -gain(metric, high)], axis=0)
    return -gain(metric, given), ends[0], ends[1]


def _read_losses(result: Evaluation, data: xr.Dataset) -> None:
    for metric in METRICS:
        lower, upper = (record.numbers(data, f"{metric}_loss_{side}", ("pattern",)) for side in ("lower", "upper"))
        given = _less_full(result, metric)
        if lower is None or upper is None or given is None:
            continue
        result.losses[metric] = (-gain(metric, given), lower, upper)
    verdicts = record.texts(data, "verdict") or []
    result.verdicts = verdicts if len(verdicts) == len(result.patterns) else []
    result.needed = record.numbers(data, "examples_needed", ("pattern",))
    margin = record.numbers(data, "margin", ())
    if margin is not None:
        result.margin = float(margin)


def _read_tables(result: Evaluation, data: xr.Dataset) -> None:
    for metric in METRICS:
        found = _triple(data, f"mean_{metric}", metric)
        each = record.numbers(data, metric, ("pattern", "example"))
        if found is not None and np.isfinite(found[0]).any():
            result.means[metric] = found
        if each is not None:
            result.examples[metric] = each
    for other in ("full", "baseline"):
        differences = {
            metric: triple
            for metric in METRICS
            if (triple := _triple(data, f"{metric}_minus_{other}", f"{metric}_minus_{other}")) is not None
        }
        if differences:
            result.against[other] = differences
        p = record.numbers(data, f"mcnemar_p_{other}", ("pattern",))
        if p is not None:
            result.mcnemar[other] = p
    for metric in ("exact_match", "nll", "token_accuracy", "kl"):
        flags = record.numbers(data, f"on_front_{metric}", ("pattern",))
        if flags is not None:
            result.on_front[metric] = flags > 0
    _read_losses(result, data)
    for name in ("prefill_rate", "decode_rate", "texts_together"):
        values = record.numbers(data, name, ("pattern",))
        if values is not None:
            result.generated[name] = values
    for name in ("generated_tokens", "generated_stopped", "generated_cache_bytes"):
        values = record.numbers(data, name, ("pattern", "example"))
        if values is not None and values.shape[1]:
            result.generated[name] = values.max(1) if name.endswith("bytes") else values.mean(1)


def _read_settings(result: Evaluation, data: xr.Dataset) -> None:
    """What the layers of each pattern keep, and how long the examples are."""
    windows = record.numbers(data, "layer_window_keys", ("pattern", "layer"))
    if windows is not None and (np.isfinite(windows) & (windows >= 0)).all():
        result.windows = windows.astype(int)
    types = record.text_table(data, "layer_kv", ("pattern", "layer"))
    if types is not None and all(name in BITS for row in types for name in row):
        result.types = types
    tokens = [record.numbers(data, f"{name}_tokens", ("example",)) for name in ("prompt", "answer")]
    lengths = sum((one for one in tokens if one is not None), np.zeros(data.sizes.get("example", 0)))
    if tokens[0] is not None and np.size(lengths):
        result.median_tokens = float(np.median(lengths))


def read(tree: xr.DataTree, path: pathlib.Path) -> Evaluation:
    """The evaluation of a results file. ReportError where it holds no pattern with figures."""
    data = record.dataset(tree, "evaluation")
    names = record.texts(data, "pattern")
    full = record.numbers(data, "full_attention", ("pattern", "layer"))
    layers = record.layers_of(data)
    if data is None or not names or full is None or layers is None or full.shape[0] != len(names):
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: its /evaluation has no patterns of layers; move it away and repeat its winnow evaluate command",
        )
    result = Evaluation(
        path=str(path), layers=layers, tree=tree, patterns=names, full=full > 0, full_layers=(full > 0).sum(1)
    )
    record.read_common(result, tree)
    result.settings = record.plain(data.attrs)
    result.status = record.statuses(data)
    _read_tables(result, data)
    if not result.means:
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: its /evaluation has no finite mean of any metric; move it away and repeat its "
            "winnow evaluate command",
        )
    _read_settings(result, data)
    ids = record.texts(data, "example_id")
    result.n_examples = len(ids) if ids else data.sizes.get("example", 0)
    lengths = record.numbers(data, "kv_length", ("kv_length",))
    if lengths is not None and lengths.size:
        result.kv_lengths = [int(length) for length in lengths]
        result.cache = record.numbers(data, "kv_cache_bytes", ("pattern", "kv_length"))
        result.flop = record.numbers(data, "prefill_flop", ("pattern", "kv_length"))
    return result


def paired(result: Evaluation, metric: str, a: int, b: int) -> tuple[float, float]:
    """(low, high) of the difference a - b of the means: 95 % bootstrap interval over the same examples, else NaN."""
    each = result.examples.get(metric)
    if each is None or each.shape[1] < 2 or not np.isfinite(each[[a, b]]).all():
        return float("nan"), float("nan")
    if metric not in result.resampled:
        result.resampled[metric] = resampled_means(each)
    return paired_interval(result.resampled[metric], a, b)


def order(result: Evaluation, positions: Iterable[int]) -> list[int]:
    """Positions, best first: by the metric, then by NLL, then as in the file; undefined ones last."""
    metric = result.metric
    nll = result.means["nll"][0] if "nll" in result.means else np.zeros(len(result.patterns))
    values = gain(metric, result.means[metric][0])
    return sorted(
        positions,
        key=lambda i: (-values[i] if np.isfinite(values[i]) else np.inf, nll[i] if np.isfinite(nll[i]) else np.inf, i),
    )


def budgets(result: Evaluation) -> list[tuple[int, list[int]]]:
    """[(number of full layers, positions best first)], rising."""
    return [
        (int(k), order(result, np.flatnonzero(result.full_layers == k).tolist()))
        for k in sorted(set(result.full_layers.tolist()))
    ]


def said(result: Evaluation, metric: str, i: int) -> str:
    """The metric of a pattern with its interval."""
    mean, low, high = (values[i] for values in result.means[metric])
    form = form_of(metric)
    ends = f" (95\u00a0% interval {form(low)} to {form(high)})" if np.isfinite([low, high]).all() else ""
    return f"{form(mean)}{ends}"


def loss(result: Evaluation, i: int) -> str:
    """What a pattern loses against full attention, in a clause; "" where the file does not say."""
    metric = result.metric
    if result.patterns[i] == "full" or metric not in result.losses or not result.verdicts:
        return ""
    mean, low, high = (float(values[i]) for values in result.losses[metric])
    if not np.isfinite(mean):
        return ""
    if not np.isfinite([low, high]).all():
        return f"it loses {amount(metric, mean)}, without a bound"
    text = f"it loses at most {amount(metric, high)}, {amount(metric, mean)} as measured"
    verdict = result.verdicts[i]
    if verdict == "beyond":
        return f"{text}, and at least {amount(metric, low)}, beyond the margin"
    if verdict == "within":
        return f"{text}, within the margin"
    if result.needed is not None and np.isfinite(result.needed[i]):
        return f"{text}; about {count(int(result.needed[i]), 'example')} would show it to be within the margin"
    return text


def rival(result: Evaluation, ranked: Sequence[int]) -> str:
    """Whether the best of one budget can be told from the others of the same budget."""
    best, metric = ranked[0], result.metric
    same = [i for i in ranked[1:] if (result.full[i] == result.full[best]).all()]
    text = ""
    if same:
        text = f" {_names(result, same)} {'keeps' if len(same) == 1 else 'keep'} the same layers."
    others = [i for i in ranked[1:] if i not in same]
    near = []
    for i in others:
        low, high = paired(result, metric, best, i)
        if not np.isfinite([low, high]).all() or low <= 0 <= high:
            near.append(i)
    if near:
        text += f" There is not enough evidence that it is better than {_names(result, near)}."
    elif others:
        named = "the other" if len(others) == 1 else f"the {len(others)} others"
        text += f" It is better than {named} with as many full layers."
    return text


def _names(result: Evaluation, positions: Iterable[int], most: int = 4) -> str:
    names = [result.patterns[i] for i in positions]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def front(result: Evaluation, metric: str) -> list[int]:
    """Positions on the front of a metric, by rising number of full layers; [] where the file does not say."""
    flags = result.on_front.get(metric)
    return [] if flags is None else sorted(np.flatnonzero(flags).tolist(), key=lambda i: (result.full_layers[i], i))


def share(table: Floats | None, result: Evaluation, i: int, column: int) -> float:
    """Of a cost: the pattern's as a share of full attention's; NaN where there is no pattern `full`."""
    at = result.position("full")
    return (
        float("nan")
        if table is None or at is None or not table[at, column] > 0
        else float(table[i, column] / table[at, column])
    )


def lead(result: Evaluation) -> str:
    """The answer: the file's own sentence; of an older file the best pattern, without a word on what it loses."""
    answer = str(result.settings.get("answer", ""))
    if answer:
        return clean(answer)
    metric, n = result.metric, len(result.layers)
    candidates = [ranked[0] for k, ranked in budgets(result) if k < n]
    if not candidates:
        return (
            f"All {count(len(result.patterns), 'pattern')} keep full attention everywhere: there is nothing to compare."
        )
    i = order(result, candidates)[0]
    return (
        f"The best pattern with fewer than {n} full layers is {result.patterns[i]} ({int(result.full_layers[i])} of "
        f"{n}): {METRICS[metric].partition(',')[0]} {said(result, metric, i)}."
    )


def lines(result: Evaluation) -> list[str]:
    """How far to trust it."""
    n = result.n_examples
    found = [
        str(result.settings["leading_sentence"])
        if "leading_sentence" in result.settings
        else "This file bounds no loss and does not say which figure tells patterns apart: it is of an older winnow. "
        "winnow stats FILE --in-place adds both."
    ]
    if 0 < n < 16:
        found.append(
            f"Only {count(n, 'example')}: "
            + ("there are no intervals." if n == 1 else "bootstrap intervals come out too narrow with so few.")
        )
    at = result.position("full")
    if at is None:
        found.append("The pattern full is not among them, so losses against full attention cannot be seen here.")
    elif "nll" in result.means:
        text = f"Full attention: NLL {number(float(result.means['nll'][0][at]))} nats per token"
        if "exact_match" in result.means:
            text += f", exact match {said(result, 'exact_match', at)}"
        found.append(text + ".")
    if result.settings.get("tail_rows", -1) not in (-1, None):
        found.append(
            f"Only {result.settings['tail_rows']} rows before the answer obey the window here, not the whole prompt."
        )
    match = result.means.get("exact_match")
    if (
        match is not None
        and n > 1
        and any(low == high == mean in (0, 1) for mean, low, high in zip(*match, strict=True))
    ):
        found.append(
            f"An interval from 100\u00a0% to 100\u00a0%, or from 0 to 0, says only that all {n:,} examples agree: "
            f"about 3 / {n:,} = {percent(3 / n)} may still be otherwise."
            if n > 3
            else f"All {n} examples agree in some patterns, which says little of others."
        )
    # Of bounds both ends are undefined together, and a loss beyond the margin needs no number of examples.
    found += [
        f"{name}: {why}."
        for name, why in result.status.items()
        if name != "examples_needed" and not name.endswith("_loss_lower")
    ]
    return [clean(line) for line in found + result.remarks()]


def caption_of_cost(result: Evaluation, i: int) -> str:
    """KV cache and prefill of a pattern against full attention's."""
    at = result.priced
    if at is None:
        return ""
    cache, flop = share(result.cache, result, i, at), share(result.flop, result, i, at)
    if not np.isfinite(cache):
        return ""
    text = f"At {result.kv_lengths[at]:,} tokens {percent(cache)} of full attention's KV cache"
    return text + (f" and {percent(flop)} of its prefill FLOP." if np.isfinite(flop) else ".")


def difference_words(metric: str, values: tuple[float, float, float]) -> str:
    form = form_of(metric)
    value, low, high = values
    text = ("+" if value > 0 else "") + form(value)
    return text + (
        f"\n95\u00a0% interval {interval(low, high) if is_small_good(metric) else f'{form(low)} to {form(high)}'}"
        if np.isfinite([low, high]).all()
        else ""
    )
