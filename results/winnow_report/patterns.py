"""Whole patterns of full and windowed layers: what an evaluation measured, and what a search found."""

import numpy as np

from .figures import Figure, Grid, Intervals, Points, draw_grid, draw_intervals, draw_points, step_class
from .markup import clean
from .record import numbers, scalars, texts
from .wording import capital, count, interval, listed, number, percent, signed, the_layers

METRICS = {"exact_match": "exact match", "nll": "NLL, nats per token", "token_accuracy": "token accuracy",
           "kl": "KL to full, nats per token", "generated_exact_match": "exact match of what it writes"}
PRICED_LENGTH = 131072  # tokens of the sequence whose cache stands for the cost


def _form(metric):
    return number if metric in ("nll", "kl") else percent


def _column(data, name, n):
    """(pattern) as numbers; NaN where the file has none."""
    values = numbers(data, name, ("pattern",))
    return values if values is not None and len(values) == n else np.full(n, np.nan)


class Evaluation:
    """/evaluation, as far as the page needs it."""

    def __init__(self, data, settings):
        self.data, self.settings = data, settings
        self.names = texts(data, "pattern") or [f"pattern {i}" for i in range(data.sizes["pattern"])]
        self.n = len(self.names)
        self.full_layers = _column(data, "full_layers", self.n)
        self.found = {}  # metric: (mean, low, high), each (pattern)
        for metric in METRICS:
            ends = [_column(data, f"mean_{metric}", self.n),
                    *(_column(data, f"{metric}_ci_{end}", self.n) for end in ("low", "high"))]
            if np.isfinite(ends[0]).any():
                self.found[metric] = ends
        self.cache_length, self.cache = self._cache()

    def _cache(self):
        """(length in tokens, bytes of each pattern): at PRICED_LENGTH, else at the longest sequence that there is."""
        table, lengths = numbers(self.data, "kv_cache_bytes", ("pattern", "kv_length")), numbers(self.data, "kv_length", ("kv_length",))
        if table is None or lengths is None or not lengths.size:
            return None, None
        at = int(np.argmin(np.abs(lengths - PRICED_LENGTH)))
        return int(lengths[at]), table[:, at]

    def difference(self, metric, other):
        """(mean, low, high) of a metric less that of `other`: "full" or "baseline"; None where it was not compared."""
        ends = [_column(self.data, f"{metric}_minus_{other}{end}", self.n) for end in ("", "_ci_low", "_ci_high")]
        return ends if np.isfinite(ends[0]).any() else None

    def front(self, metric):
        """Positions on the file's own Pareto front of full layers and the metric."""
        return {int(i) for i in np.flatnonzero(_column(self.data, f"on_front_{metric}", self.n) == 1)}

    def describe(self, i):
        """"nll:3 (3 full layers)"."""
        if not np.isfinite(self.full_layers[i]):
            return self.names[i]
        return f"{self.names[i]} ({count(int(self.full_layers[i]), 'full layer')})"


def _is_full(evaluation, i):
    return evaluation.full_layers[i] == evaluation.full_layers.max()


def title(result):
    return "Whole patterns, measured" if result.kind == "evaluation" else "Layers chosen together"


def lead(result):
    """The answer first, in a sentence."""
    if result.kind == "search":
        return search_lead(result.groups)
    return evaluation_lead(Evaluation(result.groups["evaluation"], result.settings))


def figures_of(result):
    if result.kind == "search":
        return search_figures(result.groups)
    return evaluation_figures(Evaluation(result.groups["evaluation"], result.settings))


def evaluation_lead(evaluation):
    """The answer first: the cheapest pattern that the examples cannot tell from full attention."""
    metric = next((name for name in ("exact_match", "token_accuracy", "nll") if evaluation.difference(name, "full")), None)
    if metric is None:
        return "Full attention is not among the patterns, so none is compared with it."
    difference, low, high = evaluation.difference(metric, "full")
    word = METRICS[metric].split(",")[0]
    others = [i for i in range(evaluation.n) if not _is_full(evaluation, i) and np.isfinite(difference[i])]
    if not others:
        return "Full attention alone was measured."
    as_good = [i for i in others if (low[i] <= 0 <= high[i]) or (difference[i] >= 0) == (metric != "nll")]
    form = _form(metric)
    if not as_good:
        best = min(others, key=lambda i: abs(difference[i]))
        return (f"No pattern keeps full attention's {word}; {evaluation.describe(best)} comes closest, {form(abs(difference[best]))} "
                f"away (95 % interval of the difference {form(low[best])} to {form(high[best])}).")
    nll = evaluation.found.get("nll", [np.zeros(evaluation.n)])[0]
    cheapest = min(as_good, key=lambda i: (evaluation.full_layers[i], nll[i]))
    text = (f"{evaluation.describe(cheapest)} is the cheapest pattern whose {word} these examples cannot tell from full attention's "
            f"(difference {form(difference[cheapest])}, 95 % interval {form(low[cheapest])} to {form(high[cheapest])})")
    if evaluation.cache is not None:
        full = next((i for i in range(evaluation.n) if _is_full(evaluation, i)), None)
        if full is not None and evaluation.cache[full] > 0:
            share = evaluation.cache[cheapest] / evaluation.cache[full]
            text += f"; at {evaluation.cache_length:,} tokens its KV cache is {percent(share)} of full attention's"
    return text + "."


def evaluation_figures(evaluation):
    found = [quality(evaluation), *(differences(evaluation, other) for other in ("full", "baseline")), written(evaluation)]
    return [figure for figure in found if figure is not None]


def quality(evaluation):
    """Every metric of every pattern, drawn against what its KV cache takes."""
    if not evaluation.found:
        return None
    columns = ["pattern", "full layers"]
    rows = [[name, int(full) if np.isfinite(full) else None] for name, full in zip(evaluation.names, evaluation.full_layers)]
    for metric, (mean, low, high) in evaluation.found.items():
        columns += [METRICS[metric], f"{metric} low", f"{metric} high"]
        for row, *values in zip(rows, mean, low, high):
            row += map(float, values)
    for name in ("kv_cache_bytes", "prefill_flop"):
        table = numbers(evaluation.data, name, ("pattern", "kv_length"))
        for at, length in enumerate([] if table is None else numbers(evaluation.data, "kv_length", ("kv_length",))):
            columns.append(f"{name} at {int(length)}")
            for row, value in zip(rows, table[:, at]):
                row.append(float(value))
    drawings = []
    if evaluation.cache is not None:
        drawings = [(METRICS[metric], lambda width, metric=metric: _draw_quality(evaluation, metric, width))
                    for metric in evaluation.found if metric != "kl"]
    return Figure("patterns", "What each pattern is worth, and what it costs", _quality_reading(evaluation), drawings,
                  "Filled: on the Pareto front of full layers and the figure. Hovering names the 95 % bootstrap intervals.",
                  table=(columns, rows))


def _quality_reading(evaluation):
    metric = next(iter(evaluation.found))
    mean, low, high = evaluation.found[metric]
    sign = 1 if metric in ("nll", "kl") else -1
    order = sorted((i for i in range(evaluation.n) if np.isfinite(mean[i])), key=lambda i: (sign * mean[i], evaluation.full_layers[i]))
    form = _form(metric)
    word = METRICS[metric].split(",")[0]
    best = [i for i in order if mean[i] == mean[order[0]]]
    has = "has" if len(best) == 1 else "share"
    text = (f"Of {count(evaluation.n, 'pattern')} {listed(evaluation.names[i] for i in best)} {has} the best {word} "
            f"({form(mean[best[0]])})")
    if len(best) == 1 and len(order) > 1:
        a, b = order[:2]
        text += f", then {evaluation.describe(b)} ({form(mean[b])})"
        if np.isfinite([low[a], high[a], low[b], high[b]]).all() and max(low[a], low[b]) <= min(high[a], high[b]):
            text += "; their intervals overlap, so there is not enough evidence that they differ"
    front = evaluation.front(metric)
    if front:
        text += f". On the front of full layers and {word}: " + ", ".join(evaluation.names[i] for i in sorted(
            front, key=lambda i: evaluation.full_layers[i]))
    return text + "."


def _draw_quality(evaluation, metric, width):
    mean, low, high = evaluation.found[metric]
    form = _form(metric)
    front = evaluation.front("nll" if metric == "nll" else "exact_match")
    tips = [f"{evaluation.describe(i)}\n{METRICS[metric]} {form(mean[i])}"
            + (f" ({form(low[i])} to {form(high[i])})" if np.isfinite([low[i], high[i]]).all() else "")
            + f"\n{evaluation.cache[i]:,.0f} bytes" for i in range(evaluation.n)]
    short = [name if len(name) <= 22 else name[:21] + "\u2026" for name in evaluation.names]
    order = sorted(range(evaluation.n), key=lambda i: i not in front)
    return draw_points(Points(evaluation.cache / 2**20, mean, f"KV cache at {evaluation.cache_length:,} tokens, MiB", METRICS[metric],
                              short, tips, front, order, f"{METRICS[metric]} against the KV cache", y_form=form,
                              y_linear=None if metric == "nll" else True), width)


def differences(evaluation, other):
    """Every pattern less full attention, or less the baseline, with paired intervals; None where it was not compared."""
    found = {metric: ends for metric in ("exact_match", "nll", "token_accuracy") if (ends := evaluation.difference(metric, other))}
    if not found:
        return None
    p = _column(evaluation.data, f"mcnemar_p_{other}", evaluation.n)
    name = "full attention" if other == "full" else clean(evaluation.settings.get("baseline") or "the baseline")
    is_itself = [_is_full(evaluation, i) if other == "full" else evaluation.names[i] == name for i in range(evaluation.n)]
    shown = [i for i in range(evaluation.n) if not is_itself[i]] or list(range(evaluation.n))
    drawings, columns, rows = [], ["pattern"], [[name_] for name_ in evaluation.names]
    for metric, (value, low, high) in found.items():
        form = _form(metric) if metric != "nll" else signed
        tips = [f"{evaluation.names[i]}\n{METRICS[metric]} {form(value[i])}\n95 % interval {form(low[i])} to {form(high[i])}"
                + (f"\nMcNemar p {number(p[i])}" if metric == "exact_match" and np.isfinite(p[i]) else "") for i in shown]
        sure = {at for at, i in enumerate(shown) if low[i] > 0 or high[i] < 0}
        spec = Intervals([evaluation.names[i] for i in shown], value[shown], low[shown], high[shown], tips, sure,
                         f"{METRICS[metric]}, less that of {name}", f"{METRICS[metric]} less that of {name}", form)
        drawings.append((METRICS[metric], lambda width, spec=spec: draw_intervals(spec, width)))
        columns += [f"{METRICS[metric]}, difference", f"{metric} low", f"{metric} high"]
        for row, *values in zip(rows, value, low, high):
            row += map(float, values)
    if np.isfinite(p).any():
        columns.append("McNemar p")
        for row, value in zip(rows, p):
            row.append(float(value))
    return Figure(f"less-{other}", f"Less {name}", _difference_reading(evaluation, found, shown, name), drawings,
                  "Examples are paired; bars are 95 % bootstrap intervals. Filled: the interval does not hold 0.",
                  table=(columns, rows))


def _difference_reading(evaluation, found, shown, name):
    metric = next(iter(found))
    value, low, high = found[metric]
    sign = -1 if metric == "nll" else 1
    word = METRICS[metric].split(",")[0]
    worse = [i for i in shown if (high[i] if sign > 0 else -low[i]) < 0]
    better = [i for i in shown if (low[i] if sign > 0 else -high[i]) > 0]
    open_ = [i for i in shown if i not in worse and i not in better]
    parts = [f"{words} than {name} in {word}: {', '.join(evaluation.names[i] for i in group)}"
             for words, group in (("Better", better), ("Worse", worse)) if group]
    if open_:
        parts.append("Not enough evidence for a difference: " + ", ".join(evaluation.names[i] for i in open_))
    return ". ".join(parts) + "."


def written(evaluation):
    """Free generation: what each pattern writes by itself, and how fast; None where none was asked for."""
    if "generated_exact_match" not in evaluation.found:
        return None
    mean, low, high = evaluation.found["generated_exact_match"]
    cache = numbers(evaluation.data, "generated_cache_bytes", ("pattern", "example"))
    columns = ["pattern", "exact match", "low", "high", "cache of a text, MiB", "prompt tokens per second", "new tokens per second"]
    rates = [_column(evaluation.data, name, evaluation.n) for name in ("prefill_rate", "decode_rate")]
    memory = np.full(evaluation.n, np.nan) if cache is None else cache.mean(1) / 2**20
    rows = [(evaluation.names[i], float(mean[i]), float(low[i]), float(high[i]), float(memory[i]), float(rates[0][i]),
             float(rates[1][i])) for i in range(evaluation.n)]
    tips = [f"{row[0]}\nwrites the answer in {percent(row[1])}\n{number(row[4])} MiB of cache\n{number(row[6])} new tokens per second"
            for row in rows]
    forced = evaluation.found.get("exact_match", [np.full(evaluation.n, np.nan)])[0]
    gap = np.abs(mean - forced)
    text = f"Writing up to {evaluation.settings.get('max_new_tokens', 'N')} tokens by itself, {evaluation.names[int(np.nanargmax(mean))]}" \
           f" gives the answer most often ({percent(float(np.nanmax(mean)))})"
    if np.isfinite(gap).any():
        text += ("; every pattern writes what its teacher-forced exact match promises" if np.nanmax(gap) < 1e-12 else
                 f"; the largest distance to the teacher-forced exact match is {percent(float(np.nanmax(gap)))}")
    spec = Intervals(evaluation.names, mean, low, high, tips, set(range(evaluation.n)), "exact match of what it writes",
                     "Exact match of free generation", percent)
    return Figure("written", "What each pattern writes by itself", f"{text}.", [("", lambda width: draw_intervals(spec, width))],
                  "Greedy decoding with the key-value cache that the pattern is served with; rates are of one rank.",
                  table=(columns, rows))


# ---- searches


def search_lead(groups):
    """The layers of each greedy search where it ended."""
    parts = []
    for method, data in groups.items():
        keep, full = numbers(data, "keep", ("keep",)), numbers(data, "full", ("keep", "layer"))
        if keep is not None and full is not None and keep.size:
            # Forward grows to K, backward shrinks to it: K is where the search ended.
            at = int(np.argmin(keep) if "backward" in method else np.argmax(keep))
            parts.append(f"{method} keeps {_layers(data, full[at])} at K = {int(keep[at])}")
    return capital("; ".join(parts)) + "." if parts else "No selection: interactions of pairs alone were measured."


def _layers(data, mask):
    layers = numbers(data, "layer", ("layer",))
    kept = (np.arange(len(mask)) if layers is None else layers)[mask.astype(bool)]
    return the_layers(kept) if len(kept) else "no layer"


def search_figures(groups):
    figures = []
    for method, data in groups.items():
        figures += [steps(method, data), gains(method, data)] if method != "pairs" else [pairs(data)]
    return [figure for figure in figures if figure is not None]


def steps(method, data):
    """The layers with full attention of the best pattern of each K."""
    keep, full = numbers(data, "keep", ("keep",)), numbers(data, "full", ("keep", "layer"))
    if keep is None or full is None or not keep.size:
        return None
    layers = numbers(data, "layer", ("layer",))
    layers = (np.arange(full.shape[1]) if layers is None else layers).astype(int)

    def cell(r, c):
        return ("keep" if full[r, c] else "spare"), "", f"K = {int(keep[r])}\nlayer {layers[c]}: {'full' if full[r, c] else 'windowed'}"

    measures = {name: numbers(data, name, ("keep",)) for name in ("mean_nll", "mean_exact_match", "mean_token_accuracy", "mean_kl",
                                                                   "mean_nll_verified", "mean_exact_match_verified")}
    measures = {name: values for name, values in measures.items() if values is not None}
    rows = [(int(keep[r]), " ".join(map(str, layers[full[r].astype(bool)])), *(float(values[r]) for values in measures.values()))
            for r in range(len(keep))]
    facts = scalars(data)
    text = (f"{capital(method)}, by {facts.get('objective', 'NLL')}: {_layers(data, full[-1])} with K = {int(keep[-1])}"
            + (f", {_layers(data, full[0])} with K = {int(keep[0])}" if len(keep) > 1 else "") + ".")
    return Figure(f"{method}-steps", f"{capital(method)}: layers chosen together", text,
                  [("", lambda width: draw_grid(Grid([f"K = {int(k)}" for k in keep], layers.tolist(), cell,
                                                     f"Layers with full attention by {method}"), width))],
                  "", [("keep", "full attention"), ("spare", "windowed")],
                  (["K", "layers kept", *(name.replace("_", " ") for name in measures)], rows))


def gains(method, data):
    """What each K is worth, and whether figures with every row under the window agree."""
    keep = numbers(data, "keep", ("keep",))
    drawings = []
    for metric, words, form in (("exact_match", "exact match", percent), ("nll", "NLL, nats per token", number)):
        searched, verified = (numbers(data, f"mean_{metric}{end}", ("keep",)) for end in ("", "_verified"))
        if keep is not None and searched is not None:
            drawings.append((words, lambda width, args=(keep, searched, verified, words, form): _draw_gains(*args, width)))
    if not drawings:
        return None
    facts = scalars(data)
    n = facts.get("n_verified")
    text = "The figures of the search were not verified; winnow search --verify N does it."
    if n:
        ends = facts.get("rho_nll_ci_low", np.nan), facts.get("rho_nll_ci_high", np.nan)
        text = (f"Over {count(int(n), 'pattern')} on {count(int(facts.get('n_verified_examples', 0)), 'example')} the figures of the "
                f"search order patterns as those with every row under the window do with a rho of {number(facts.get('rho_nll'), 2)}"
                + (f" ({interval(*ends)})" if np.isfinite(ends).all() else ""))
        wins = facts.get("wins_kept", np.nan)
        text += f"; {percent(wins)} of its choices among the verified are confirmed." if np.isfinite(wins) else "."
    return Figure(f"{method}-gains", f"{capital(method)}: what each K is worth", text, drawings,
                  "Filled: measured with every row under the window; else as the search measured it." if n else "")


def _draw_gains(keep, searched, verified, words, form, width):
    has = np.zeros(len(keep), bool) if verified is None else np.isfinite(verified)
    x = np.concatenate([keep, keep[has]])
    y = np.concatenate([searched, verified[has] if has.any() else np.empty(0)])
    tips = [f"K = {int(k)}\n{words} {form(value)}, as searched" for k, value in zip(keep, searched)]
    tips += [f"K = {int(k)}\n{words} {form(value)}, verified" for k, value in zip(keep[has], y[len(keep):])]
    return draw_points(Points(x, y, "K, layers with full attention", words, [f"{int(k)}" for k in x], tips,
                              set(range(len(keep), len(x))), list(range(len(keep))), f"{words} by K", y_form=form,
                              y_linear=True if form is percent else None), width)


def pairs(data):
    """How two windowed layers act together."""
    layers, table = numbers(data, "candidate", ("candidate",)), numbers(data, "interaction_nll", ("candidate", "other_candidate"))
    if layers is None or table is None or table.shape != (len(layers),) * 2 or len(layers) < 2:
        return None
    ends = [numbers(data, f"interaction_nll_ci_{end}", ("candidate", "other_candidate")) for end in ("low", "high")]
    low, high = (np.full_like(table, np.nan) if end is None else end for end in ends)
    layers = layers.astype(int)
    largest = np.nanmax(np.abs(table)) or 1.0

    def cell(r, c):
        tip = f"layers {layers[r]} and {layers[c]}\ninteraction {signed(table[r, c])} nats per token"
        if r == c:
            return "none", "", f"layer {layers[r]}"
        if np.isfinite([low[r, c], high[r, c]]).all():
            tip += f"\n95 % interval {interval(low[r, c], high[r, c])}"
        return step_class(abs(table[r, c]) / largest), signed(table[r, c]), tip

    rows = [(int(layers[i]), int(layers[j]), float(table[i, j]), float(low[i, j]), float(high[i, j]))
            for i in range(len(layers)) for j in range(i + 1, len(layers))]
    strongest = max(rows, key=lambda row: abs(row[2]) if np.isfinite(row[2]) else -1)
    n_sure = sum(row[3] > 0 or row[4] < 0 for row in rows)
    way = "more" if strongest[2] > 0 else "less"
    text = (f"Layers {strongest[0]} and {strongest[1]} interact most: windowed together they cost {number(abs(strongest[2]))} nats per "
            f"token {way} than the sum of each alone. {n_sure} of {count(len(rows), 'pair')} {'has' if n_sure == 1 else 'have'} an "
            "interval without 0" + ("." if n_sure == len(rows) else "; for the others there is not enough evidence."))
    names = [str(layer) for layer in layers]
    return Figure("pairs", "Pairs of windowed layers", text,
                  [("", lambda width: draw_grid(Grid(names, names, cell, "Interaction of pairs of layers", "layer", "layer", 36, 84), width))],
                  "Delta NLL of both windowed less the sum of each alone; darker is larger, above 0 they hurt more together.",
                  table=(["layer", "other layer", "interaction NLL", "low", "high"], rows))
