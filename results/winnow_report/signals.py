"""Signals side by side: how each ranks the layers, how well they agree, and whether what they choose holds elsewhere."""

from dataclasses import dataclass

import numpy as np

from .agreement import average_ranks, spearman
from .figures import Figure, Grid, Intervals, draw_grid, draw_intervals, step_class
from .record import dataset, numbers, scalars, texts
from .wording import interval, number, percent

WORDS = {"nll": "delta NLL", "exact-match": "drop of exact match", "token-accuracy": "drop of token accuracy",
         "kl": "KL to the base", "sensitivity": "generic sensitivity", "mass": "attention mass outside the window",
         "lazy": "1 \u2212 lazy ratio"}


@dataclass
class Signals:
    """Large means "keep full attention". The first is nll."""

    names: list
    values: np.ndarray  # (signal, layer): mean over examples
    rho: np.ndarray     # (signal, signal), with its interval
    low: np.ndarray
    high: np.ndarray
    data: object        # /signals; None where only what every ranking has is compared

    def words(self, i):
        return WORDS.get(self.names[i], self.names[i])


def read(run):
    """What /signals has; without it NLL and the drops of both matches, as far as the result has them."""
    n_layers = len(run.layers)
    data = dataset(run.tree, "signals") if run.tree is not None else None
    names, values = texts(data, "signal"), numbers(data, "value", ("signal", "layer"))
    if names and names[0] == "nll" and values is not None and values.shape == (len(names), n_layers):
        def pairs(name):
            table = numbers(data, name, ("signal", "signal_other"))
            return table if table is not None and table.shape == (len(names),) * 2 else np.full((len(names),) * 2, np.nan)
        return Signals(names, values, pairs("spearman_rho"), pairs("spearman_ci_low"), pairs("spearman_ci_high"), data)
    found = {"nll": run.figures["mean_delta_nll"], "exact-match": run.figures["exact_match_drop"],
             "token-accuracy": run.figures["token_accuracy_drop"]}
    found = {name: column for name, column in found.items() if np.isfinite(column).any()}
    values = np.array(list(found.values()))
    rho = np.array([[float(spearman(a, b)) for b in values] for a in values])
    return Signals(list(found), values, rho, np.full_like(rho, np.nan), np.full_like(rho, np.nan), None)


def figures(run):
    signals = read(run)
    if len(signals.names) < 2 or signals.names[0] != "nll" or len(run.layers) < 2:
        return []
    return [figure for figure in (side_by_side(run, signals), transfer(signals)) if figure is not None]


def _rho_text(signals, i, j):
    ends = signals.low[i, j], signals.high[i, j]
    return f"rho {number(signals.rho[i, j], 2)}" + (f", {interval(*ends)}" if np.isfinite(ends).all() else "")


def side_by_side(run, signals):
    names, n = signals.names, len(run.layers)
    # 1 for the layer that the signal puts first, 0 for the last: signals of different units become comparable.
    place = (average_ranks(np.where(np.isfinite(signals.values), signals.values, -np.inf)) - 1) / (n - 1)

    def by_layer(r, c):
        value = signals.values[r, c]
        if not np.isfinite(value):
            return "none", "", f"{signals.words(r)}\nlayer {run.layers[c]}: not defined"
        rank = n - place[r, c] * (n - 1)
        return step_class(place[r, c]), f"{rank:.0f}", f"{signals.words(r)}\nlayer {run.layers[c]}: {number(value)}\nrank {rank:g}"

    def by_pair(r, c):
        tip = f"{signals.words(r)} and {signals.words(c)}\n{_rho_text(signals, r, c)}"
        return step_class(signals.rho[r, c]), number(signals.rho[r, c], 2) if r != c else "", tip

    rows = [(int(run.layers[i]), *(float(column[i]) for column in signals.values)) for i in range(n)]
    ends = " Hovering names the 95 % intervals." if np.isfinite(signals.low).any() else ""
    return Figure("signals", "Signals side by side", _agreement(signals),
                  [("by layer", lambda width: draw_grid(Grid(names, run.layers.tolist(), by_layer, "Layers by signal"), width)),
                   ("agreement", lambda width: draw_grid(Grid(names, names, by_pair, "Spearman's rho between signals", "",
                                                              height=40, widest=84), width))],
                  f"Rank of each layer by each signal, 1 for the largest; agreement is Spearman's rho over layers.{ends}",
                  table=(["layer", *names], rows))


def _agreement(signals):
    others = [i for i in range(1, len(signals.names)) if np.isfinite(signals.rho[0, i])]
    if not others:
        return "No other signal has a defined agreement with delta NLL."
    best, worst = (pick(others, key=lambda i: signals.rho[0, i]) for pick in (max, min))
    text = f"{signals.words(best)} ranks the layers most like delta NLL ({_rho_text(signals, 0, best)})"
    text = text[:1].upper() + text[1:]
    if best != worst:
        text += f", {signals.words(worst)} least ({_rho_text(signals, 0, worst)})"
        if signals.high[0, worst] >= signals.low[0, best]:
            text += "; their intervals overlap, so there is not enough evidence that the two differ"
    return f"{text}.{_partial(signals)}"


def _partial(signals):
    """Whether delta NLL and exact match agree beyond what removing the layer's attention explains."""
    facts = scalars(signals.data)
    rho, low, high = (facts.get(f"partial_rho_exact_match{end}", np.nan) for end in ("", "_ci_low", "_ci_high"))
    if not np.isfinite(rho):
        return ""
    text = f" Given generic sensitivity, delta NLL and the drop of exact match have a partial rho of {number(rho, 2)}"
    if not np.isfinite([low, high]).all():
        return f"{text}."
    end = "so there is not enough evidence that they agree beyond it" if low <= 0 <= high else (
        "so they agree beyond it" if low > 0 else "so they contradict each other beyond it")
    return f"{text} ({interval(low, high)}), {end}."


def transfer(signals):
    """What each signal's choice on one half of the examples is worth on the other; None without /signals."""
    columns = {name: numbers(signals.data, name, ("signal",))
               for name in ("transfer", "transfer_low", "transfer_high", "transfer_overlap")}
    value = columns["transfer"]
    if value is None or not np.isfinite(value).any():
        return None
    nan = np.full(len(signals.names), np.nan)
    low, high, overlap = (nan if columns[name] is None else columns[name]
                          for name in ("transfer_low", "transfer_high", "transfer_overlap"))
    k = scalars(signals.data).get("top_k")
    tips = [f"{signals.words(i)}\n{percent(value[i])} of the best delta NLL\n95 % of the splits {percent(low[i])} to {percent(high[i])}\n"
            f"layers chosen again on the other half: {percent(overlap[i])}" for i in range(len(value))]
    order = [i for i in np.argsort(-value, kind="stable") if np.isfinite(value[i])]
    best, worst = order[0], order[-1]
    text = (f"The top {k} that {signals.words(best)} chooses on one half of the examples keep {percent(value[best])} of "
            "what the best choice there keeps of delta NLL")
    if best != worst:
        text += f", those of {signals.words(worst)} {percent(value[worst])}"
        if high[worst] >= low[best]:
            text += "; their intervals overlap, so there is not enough evidence that one chooses better"
    rows = [(name, float(value[i]), float(low[i]), float(high[i]), float(overlap[i])) for i, name in enumerate(signals.names)]
    spec = Intervals(signals.names, value, low, high, tips, {int(best)}, "share of the best delta NLL",
                     "What each signal's choice is worth on unseen examples", percent)
    return Figure("transfer", "Does the choice hold on other examples?", f"{text}.",
                  [("", lambda width: draw_intervals(spec, width))],
                  "100 %: the layers that NLL itself would choose there. Bars are the middle 95 % of random halves.",
                  table=(["signal", "transfer", "low", "high", "overlap"], rows))
