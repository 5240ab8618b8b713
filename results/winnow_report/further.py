"""Figures of what a result may hold besides: other signals per layer, selections, evaluated patterns."""

import numpy as np

from .agreement import average_ranks, spearman
from .figures import Figure, Grid, Points, draw_grid, draw_points, step_class
from .markup import clean
from .record import dataset, numbers, texts
from .wording import capital, interval, number, percent, ranges


def signals(run):
    """The rankings by every signal side by side, and how well they agree; None where there is delta NLL only."""
    if len(run.signals) < 2 or len(run.layers) < 2:
        return None
    found = run.signals
    n = len(run.layers)
    # 1 for the layer that the signal puts first, 0 for the last: signals of different units become comparable.
    place = np.array([(average_ranks(np.where(np.isfinite(s.values), s.values, -np.inf)) - 1) / (n - 1) for s in found])
    rho = np.array([[float(spearman(a.values, b.values)) for b in found] for a in found])
    names = [signal.name for signal in found]

    def by_layer(r, c):
        signal = found[r]
        if not np.isfinite(signal.values[c]):
            return "none", "", f"{signal.long_name}\nlayer {run.layers[c]}: not defined"
        rank = n - place[r, c] * (n - 1)
        return (step_class(place[r, c]), f"{rank:.0f}",
                f"{signal.long_name}\nlayer {run.layers[c]}: {number(signal.values[c])} {signal.units}\nrank {rank:g}")

    def by_pair(r, c):
        tip = f"{found[r].long_name} and {found[c].long_name}\nrho {number(rho[r, c])}"
        given = _given_rho(run, names[r], names[c])
        return step_class(rho[r, c]), number(rho[r, c], 2) if r != c else "", tip + given

    with_nll = [(rho[0, i], found[i]) for i in range(1, len(found)) if np.isfinite(rho[0, i])]
    text = "No other signal is defined on these layers."
    if with_nll:
        best, worst = max(with_nll, key=lambda x: x[0]), min(with_nll, key=lambda x: x[0])
        text = f"Of {len(with_nll)} other signals, {best[1].name} ranks the layers most like delta NLL (rho {number(best[0], 2)})"
        text += f", {worst[1].name} least (rho {number(worst[0], 2)})." if len(with_nll) > 1 else "."
    rows = [(int(run.layers[i]), *(float(s.values[i]) for s in found)) for i in range(n)]
    return Figure("signals", "Signals side by side", text,
                  [("by layer", lambda width: draw_grid(Grid(names, run.layers.tolist(), by_layer, "Layers by signal"), width)),
                   ("agreement", lambda width: draw_grid(Grid(names, names, by_pair, "Spearman's rho between signals", "",
                                                              height=40, widest=84), width))],
                  "Rank of each layer by each signal, 1 for the largest value; agreement is Spearman's rho over layers.",
                  table=(["layer", *names], rows))


def _given_rho(run, a, b):
    """The interval of a pair's rho, where /signals has it."""
    data = dataset(run.tree, "signals") if run.tree is not None else None
    if data is None:
        return ""
    ends = []
    for end in ("low", "high"):
        name = next((name for name in data.variables if "rho" in str(name) and str(name).endswith(end)), None)
        if name is None or data[name].ndim != 2:
            return ""
        labels = [texts(data, dim) or [] for dim in data[name].dims]
        if a not in labels[0] or b not in labels[1]:
            return ""
        ends.append(float(data[name].values[labels[0].index(a), labels[1].index(b)]))
    return f"\n95 % interval {interval(*ends)}" if np.isfinite(ends).all() else ""


def selections(run):
    """Layers that each method of /selection keeps; None where there is no such group."""
    try:
        methods = list(run.tree["selection"].children) if run.tree is not None else []
    except KeyError:
        return None
    kept = []
    for method in methods:
        data = dataset(run.tree, f"selection/{method}")
        for name in data.variables:
            table = _kept_of(data, name)
            if table is not None:
                kept += [(clean(method) + words, mask) for words, mask in table]
                break
    kept = [(name, mask) for name, mask in kept if len(mask) == len(run.layers)]
    if not kept:
        return None

    def cell(r, c):
        name, mask = kept[r]
        return ("keep" if mask[c] else "spare"), "", f"{name}\nlayer {run.layers[c]}: {'kept' if mask[c] else 'windowed'}"

    always = np.logical_and.reduce([mask for _, mask in kept])
    text = f"{len(kept)} selections; " + (f"all of them keep {ranges(run.layers[always])}." if always.any() else
                                           "no layer is kept by all of them.")
    rows = [(name, " ".join(str(layer) for layer in run.layers[mask])) for name, mask in kept]
    return Figure("selections", "What other methods would keep", text,
                  [("", lambda width: draw_grid(Grid([name for name, _ in kept], run.layers.tolist(), cell,
                                                     "Layers kept by each method"), width))],
                  table=(["selection", "layers kept"], rows))


def _kept_of(data, name):
    """[(" K = 9", mask over layers)] of a variable that says which layers are kept; else None."""
    variable = data[name]
    if "layer" not in variable.dims or name == "layer" or variable.dtype.kind not in "iub" or \
            not any(word in str(name) for word in ("keep", "kept", "full")):
        return None
    if variable.dims == ("layer",):
        return [("", variable.values.astype(bool))]
    if variable.ndim == 2:
        other = next(dim for dim in variable.dims if dim != "layer")
        table = variable.transpose(other, "layer").values.astype(bool)
        return [(f" K = {int(row.sum())}", row) for row in table]
    return None


METRICS = {"nll": "NLL, nats per token", "exact_match": "exact match", "token_accuracy": "token accuracy"}


def _pattern_mean(data, name):
    """(mean, low, high) of a metric per pattern: the file's, or the mean over its examples."""
    mean = None
    for candidate in (f"mean_{name}", f"{name}_mean"):
        mean = numbers(data, candidate, ("pattern",)) if mean is None else mean
    table = numbers(data, name, ("pattern", "example"))
    if mean is None and table is not None:
        mean = table.mean(1)
    mean = numbers(data, name, ("pattern",)) if mean is None else mean
    if mean is None:
        return None
    ends = []
    for end in ("low", "high"):
        names = [f"{name}_ci_{end}", f"mean_{name}_ci_{end}"] + ([f"ci_{end}"] if name == "nll" else [])
        values = [numbers(data, candidate, ("pattern",)) for candidate in names]
        ends.append(next((value for value in values if value is not None), np.full(len(mean), np.nan)))
    return mean, *ends


def _cache_bytes(data):
    """(words, bytes per pattern): KV-cache bytes, at the largest length where there are several."""
    for name in data.data_vars:
        variable = data[name]
        if "kv" not in str(name).lower() or "pattern" not in variable.dims or variable.dtype.kind not in "iuf":
            continue
        if variable.ndim == 1:
            return "KV-cache bytes", np.asarray(variable.values, float)
        if variable.ndim == 2:
            other = next(dim for dim in variable.dims if dim != "pattern")
            table = np.asarray(variable.transpose("pattern", other).values, float)
            words = f" at {other} {data[other].values[-1]}" if other in data.variables else ""
            return f"KV-cache bytes{words}", table[:, -1]
    return None


def pareto(cost, gain):
    """Positions that no other point beats in cost (small is good) without losing in gain (large is good)."""
    return [i for i in range(len(cost)) if np.isfinite([cost[i], gain[i]]).all() and not any(
        cost[j] <= cost[i] and gain[j] >= gain[i] and (cost[j] < cost[i] or gain[j] > gain[i]) for j in range(len(cost)))]


def evaluation(run):
    """Whole patterns, measured: a table, and quality against KV-cache bytes; None where there is no /evaluation."""
    data = dataset(run.tree, "evaluation") if run.tree is not None else None
    if data is None or "pattern" not in data.sizes:
        return None
    names = texts(data, "pattern") or [f"pattern {i}" for i in range(data.sizes["pattern"])]
    found = {name: value for name in METRICS if (value := _pattern_mean(data, name)) is not None}
    if not found:
        return None
    cache = _cache_bytes(data)
    columns, rows = ["pattern"], [[name] for name in names]
    for name, (mean, low, high) in found.items():
        has_ends = np.isfinite(low).any()
        columns += [METRICS[name], *([f"{name} low", f"{name} high"] if has_ends else [])]
        for i, row in enumerate(rows):
            row += [float(mean[i])] + ([float(low[i]), float(high[i])] if has_ends else [])
    if cache:
        columns.append(cache[0])
        for row, value in zip(rows, cache[1]):
            row.append(float(value))
    metric = "exact_match" if "exact_match" in found else next(iter(found))
    drawings = []
    if cache:
        drawings = [(METRICS[name], lambda width, name=name: _draw_pareto(names, name, found[name], cache, width))
                    for name in ([metric] + [other for other in found if other != metric])]
    return Figure("evaluation", "Whole patterns, measured", _evaluation_reading(names, metric, found[metric], cache),
                  drawings, "Filled: on the Pareto front, no other pattern is better for the same bytes or less.",
                  table=(columns, rows))


def _gain(name, mean):
    return -mean if name == "nll" else mean


def _evaluation_reading(names, metric, figures, cache):
    mean, low, high = figures
    form = number if metric == "nll" else percent
    if not np.isfinite(mean).any():
        return "No pattern has a defined figure."
    order = sorted((i for i in range(len(names)) if np.isfinite(mean[i])), key=lambda i: -_gain(metric, mean)[i])
    text = f"{names[order[0]]} is best in {METRICS[metric]} ({form(mean[order[0]])})"
    if len(order) > 1:
        a, b = order[:2]
        text += f", then {names[b]} ({form(mean[b])})"
        if np.isfinite([low[a], high[a], low[b], high[b]]).all() and max(low[a], low[b]) <= min(high[a], high[b]):
            text += "; their intervals overlap, so there is not enough evidence that they differ"
    text += "."
    if cache:
        front = pareto(cache[1], _gain(metric, mean))
        text += f" {capital(str(len(front)))} of {len(names)} patterns are on the Pareto front."
    return text


def _draw_pareto(names, metric, figures, cache, width):
    mean, low, high = figures
    form = number if metric == "nll" else percent
    front = pareto(cache[1], _gain(metric, mean))
    tips = [f"{name}\n{METRICS[metric]} {form(mean[i])}"
            + (f" ({form(low[i])} to {form(high[i])})" if np.isfinite([low[i], high[i]]).all() else "")
            + f"\n{cache[1][i]:,.0f} bytes" for i, name in enumerate(names)]
    short = [name if len(name) <= 22 else name[:21] + "\u2026" for name in names]
    return draw_points(Points(cache[1] / 2**20, mean, cache[0].replace("bytes", "MiB"), METRICS[metric], short, tips,
                              set(front), front, f"{METRICS[metric]} against KV-cache bytes", y_form=form, y_linear=True), width)
