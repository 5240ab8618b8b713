"""Sentences in plain language, each computed from the numbers of a result."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass

import numpy as np

from winnow.report.agreement import Stability, jaccard, spearman, top
from winnow.report.arrays import Floats, Integers
from winnow.report.reading.record import Examples, Run
from winnow.report.wording import correlation, count, interval, listed, number, percent, the_layers

SURE = 0.95  # P(top K) from which a layer's place counts as settled
RIVAL = 0.05  # P(top K) from which a layer that is left out could as well be in
N_NAMED = 6  # layers named in a sentence; more are counted


@dataclass
class Choice:
    """The layers that keep full attention at one budget, and how sure that is. Positions, not layer indices."""

    k: int
    kept: list[int]
    settled: list[int]
    open: list[int]  # kept, but not settled
    rivals: list[int]  # left out, but not surely
    is_known: bool  # there is a P(top K)


def choose(run: Run, k: int) -> Choice:
    kept = run.kept(k).tolist()
    p = run.p_top_k.get(k)
    if p is None or not np.isfinite(p).all() or run.n_examples == 1:
        return Choice(k, kept, [], kept, [], False)
    settled = [i for i in kept if p[i] >= SURE]
    rivals = sorted((i for i in range(len(run.layers)) if i not in kept and p[i] >= RIVAL), key=lambda i: -p[i])
    return Choice(k, kept, settled, [i for i in kept if p[i] < SURE], rivals, True)


def _names(run: Run, positions: Iterable[int]) -> str:
    return the_layers(run.layers[list(positions)])


def _with_p(run: Run, positions: Iterable[int], p: Floats) -> str:
    def share(value: float) -> str:  # what is not settled must not read as if it were
        return f"{100 * value:.1f}\u00a0%" if SURE - 0.005 <= value < SURE else percent(value)

    return listed(f"layer {run.layers[i]} ({share(p[i])})" for i in positions)


def certainty(run: Run, choice: Choice) -> str:
    """How sure the set of one budget is."""
    if not choice.is_known:
        if run.n_examples == 1:
            return "One example: nothing can be said about how sure this is."
        return "The file has no P(top K) for this budget, so how sure this is cannot be said."
    if choice.k == len(run.layers):
        return "Every measured layer keeps full attention."
    if not choice.open and not choice.rivals:
        return (
            f"Settled: {'each' if choice.k > 1 else 'it'} is among the top {choice.k} in at least {percent(SURE)} of "
            "the resamples."
        )
    p = run.p_top_k[choice.k]
    parts = []
    if choice.settled:
        named = f" ({_names(run, choice.settled)})" if len(choice.settled) <= 2 * N_NAMED else ""
        parts.append(f"{len(choice.settled)} of {choice.k} settled{named}.")
    else:
        parts.append("No layer's place is settled.")
    if choice.open:
        few = choice.open[:N_NAMED]
        parts.append(f"Open: {_with_p(run, few, p)}" + _and_more(choice.open, few) + ".")
    if choice.rivals:
        few = choice.rivals[:N_NAMED]
        parts.append(f"Could as well be in: {_with_p(run, few, p)}" + _and_more(choice.rivals, few) + ".")
    return " ".join(parts)


def _and_more(all_of_them: Sized, few: Sized) -> str:
    return f" and {len(all_of_them) - len(few)} more" if len(all_of_them) > len(few) else ""


def border(run: Run, k: int) -> str:
    """Whether the last layer kept and the first left out can be told apart."""
    order = run.order()
    if k >= len(order):
        return ""
    last, first = order[k - 1], order[k]
    low, high = run.figures["ci_low"], run.figures["ci_high"]
    if not np.isfinite([low[last], high[first]]).all():
        return "There are no intervals, so neighbours in the ranking cannot be told apart."
    a, b = run.layers[last], run.layers[first]
    p = run.p_top_k.get(k)
    if low[last] <= high[first] and p is not None and p[last] >= SURE and p[first] < RIVAL:
        return (
            f"At K = {k} the intervals of layer {a} and layer {b} overlap, but resample by resample the order is "
            f"clear: layer {a} is in the top {k} in {percent(p[last])}."
        )
    if low[last] <= high[first]:
        return (
            f"At K = {k} there is not enough evidence to put layer {a} before layer {b}: their intervals overlap "
            f"({interval(low[last], high[last])}, and {interval(low[first], high[first])})."
        )
    return f"At K = {k} the border is clear: the intervals of layer {a} and layer {b} do not overlap."


def effect(run: Run) -> str:
    """Of delta NLL per layer."""
    means, low = run.figures["mean_delta_nll"], run.figures["ci_low"]
    first = run.order()[0]
    parts = [f"Windowing layer {run.layers[first]} costs most, {number(means[first])} nats per token"]
    total = np.clip(means, 0, None).sum()
    if total > 0 and len(means) > 1 and means[first] > 0:
        parts[0] += f", {percent(max(means[first], 0) / total)} of what all layers cost together"
    parts[0] += "."
    if np.isfinite(low).all():
        n = int((low > 0).sum())
        parts.append(
            f"{n} of {count(len(means), 'layer')} {'has' if n == 1 else 'have'} an interval above 0"
            + ("; of the others there is not enough evidence for any cost." if n < len(means) else ".")
        )
    if len(means) > run.top_k:
        parts.append(border(run, run.top_k))
    return " ".join(parts)


def certainty_of_ranks(run: Run) -> str:
    known = [choose(run, k) for k in run.budgets if k in run.p_top_k]
    known = [choice for choice in known if choice.is_known]
    if not known:
        return "There is no P(top K): " + (
            "one example has no resamples." if run.n_examples == 1 else "the file does not have it."
        )
    words = [f"{len(choice.settled)} of {choice.k}" for choice in known]
    clearest = "all budgets are settled" if all(not choice.open for choice in known) else None
    text = f"Settled places at K = {listed(choice.k for choice in known)}: {listed(words)}"
    return text + (f"; {clearest}." if clearest else ".")


def examples(run: Run, table: Examples) -> str:
    """Of the table per example: is the first layer first everywhere, and does length matter?"""
    n, n_layers = table.delta.shape
    if n == 1:
        return "One example: nothing can be said about how far examples agree."
    first = run.order()[0]
    is_largest = table.delta.argmax(1) == first
    text = (
        f"Layer {run.layers[first]} costs most in {int(is_largest.sum()):,} of {n:,} examples, and costs something "
        f"(delta above 0) in {int((table.delta[:, first] > 0).sum()):,}."
    )
    if n_layers > 1 and n >= 8:
        each = spearman(table.delta, table.delta.mean(0))
        each = each[np.isfinite(each)]
        if each.size:
            middle = number(float(np.median(each)), 2)
            text += f" A single example ranks the layers like all together with a median rho of {middle}."
    lengths = table.prompt_tokens
    if n >= 8 and np.isfinite(lengths).all() and len(set(lengths.tolist())) > 1:
        rho = float(spearman(lengths, table.delta[:, run.kept(run.top_k)].sum(1)))
        if np.isfinite(rho):
            bound = 1.96 / np.sqrt(n - 1)  # of rho under independence, normal approximation
            text += (
                f" Longer prompts cost {'more' if rho > 0 else 'less'} in the top {run.top_k} (rho "
                f"{number(rho, 2)} with length)."
                if abs(rho) > bound
                else f" There is not enough evidence that the cost in the top {run.top_k} goes with prompt length (rho "
                f"{number(rho, 2)})."
            )
    return text


def control(run: Run, name: str) -> str:
    """Of the de-confounding against one control set."""
    figures = run.controls[name].figures
    rho = figures.get("spearman_rho", float("nan"))
    if not np.isfinite(rho):
        why = run.status.get(f"{name}.spearman_rho", "the file does not have it")
        return f"rho with {name} is not defined: {why}."
    low, high = figures.get("spearman_ci_low", np.nan), figures.get("spearman_ci_high", np.nan)
    text = f"The ranking on the control {name} agrees with the long one with rho {number(rho, 2)}"
    if np.isfinite([low, high]).all():
        text += f" (95\u00a0% interval {interval(low, high)})"
    if np.isfinite([low, high]).all() and high < 0.5:
        text += ": the ranking is about long context, not about layers that matter everywhere."
    elif np.isfinite([low, high]).all() and low > 0.5:
        text += ": much of the ranking is about layers that matter for short prompts, too."
    else:
        text += ": not enough evidence either way, the interval holds both weak and strong agreement."
    ratio = figures.get("magnitude_ratio", float("nan"))
    if np.isfinite(ratio):
        text += f" Windowing costs {number(ratio)} times as much on long prompts."
    return text


def exact_match(run: Run) -> str:
    """Of NLL against exact match."""
    rho = run.reliability.get("rho_exact_match", float("nan"))
    drop = run.figures["exact_match_drop"]
    if not np.isfinite(drop).all():
        return "The file has no exact match."
    if not drop.any():
        return "Windowing a single layer changes no example's exact match, so it cannot be compared with NLL."
    by_nll = set(run.kept(run.top_k).tolist())
    # Ties of exact match are common; the larger delta decides, as in the ranking by exact match.
    by_match = set(np.lexsort((-run.figures["mean_delta_nll"], -drop))[: run.top_k].tolist())
    text = f"Ranking by exact match keeps {len(by_nll & by_match)} of the same {run.top_k} layers"
    if np.isfinite(rho):
        low, high = (run.reliability.get(f"rho_exact_match_ci_{end}", np.nan) for end in ("low", "high"))
        text += f" (rho {number(rho, 2)}" + (f", {interval(low, high)}" if np.isfinite([low, high]).all() else "") + ")"
    lost = [i for i in by_match - by_nll if drop[i] > 0]
    if lost:
        text += f"; {_names(run, lost)} would be kept by exact match but not by NLL"
    return text + "."


def stability(run: Run, found: Stability) -> str:
    """Of the ranking as examples are added."""
    k, sizes = found.k, found.sizes
    text = (
        f"In the order of the file, the first {count(sizes[0], 'example')} already give{'s' if sizes[0] == 1 else ''} "
        f"{int(found.shared[0])} of the top {k} of all {sizes[-1]:,}"
    )
    since = len(sizes) - 1
    while since > 0 and found.shared[since - 1] == k:
        since -= 1
    if since < len(sizes) - 1:
        text += f"; from {sizes[since]:,} on the top {k} no longer changes."
    else:
        text += f"; the top {k} still changes between {sizes[-2]:,} and {sizes[-1]:,}: more examples would help."
    middle = found.drawn_rho[-2, 1]
    if np.isfinite(middle):
        text += (
            f" Any {sizes[-2]:,} of them rank the layers like all with rho {correlation(middle)} (median of random "
            "draws)."
        )
    return text


def split_half(run: Run) -> str:
    value = run.reliability.get("split_half", float("nan"))
    if not np.isfinite(value):
        return f"Split-half reliability is not defined: {run.status.get('split_half', 'the file does not have it')}."
    low, high = (run.reliability.get(f"split_half_ci_{end}", np.nan) for end in ("low", "high"))
    grade = "high" if value >= 0.9 else "fair" if value >= 0.7 else "low: a second set of examples may rank differently"
    ends = f" ({interval(low, high)} over splits)" if np.isfinite([low, high]).all() else ""
    return f"Split-half reliability of the whole ranking: {number(value)}{ends}, {grade}."


def cache_share(run: Run, k: int) -> tuple[float, float] | None:
    """KV-cache bytes with k full layers as a share of all full, at the median prompt; None where it does not apply."""
    window, sinks = run.number("window_keys"), run.number("sinks")
    if run.examples is None or not np.isfinite(window) or run.fact("decode") != "windowed":
        return None
    n_layers = run.fact("model_layers", len(run.layers))
    length = float(np.median(run.examples.prompt_tokens))
    if not np.isfinite(length) or length <= 0 or n_layers != len(run.layers) or run.fact("base", "full") != "full":
        return None
    held = min(length, window + (sinks if np.isfinite(sinks) else 0))
    return (k * length + (n_layers - k) * held) / (n_layers * length), length


FEW = 16  # examples below which bootstrap intervals are known to come out too narrow


def too_few(run: Run) -> str:
    n = run.n_examples
    if not 0 < n < FEW:
        return ""
    return f"Only {count(n, 'example')}: " + (
        "there are no intervals." if n == 1 else "bootstrap intervals come out too narrow with so few."
    )


def base_quality(run: Run) -> str:
    """Whether the base model does the task at all."""
    if run.examples is None:
        return ""
    base = run.examples.base
    if not np.isfinite(base["nll_base"]):
        return ""
    text = f"Base: NLL {number(base['nll_base'])} nats per token"
    if np.isfinite(base["exact_match_base"]):
        text += f", exact match {percent(base['exact_match_base'])}"
    if np.isfinite(base["token_accuracy_base"]):
        text += f", token accuracy {percent(base['token_accuracy_base'])}"
    return text + "."


def tokens(positions: Integers, means: Floats, layer: int) -> str:
    """Of the cost by position in the answer; means: (position) of the layer that costs most."""
    known = np.isfinite(means)
    if known.sum() < 2:
        return "The answers have one token: there is no course along the answer."
    where = int(positions[known][np.argmax(means[known])])
    first = means[known][0]
    rest = float(means[known][1:].mean())
    text = f"Windowing layer {layer} costs most at answer token {where + 1}"
    if rest > 0 and first > 2 * rest:
        return (
            text + ", and the first token costs more than twice the mean of the others: finding the answer is the loss."
        )
    if first > 0 and rest > 2 * first:
        return text + "; tokens after the first cost more than twice as much as the first."
    return text + "; the first token and the rest cost about alike."


def pair(a: Run, b: Run) -> tuple[float, float]:
    """Agreement of two runs over the same layers: (rho, jaccard of the top K), NaN where it is not defined.

    Of two cells of one collected sweep it is the file's, where that has both.
    """
    if a.layers.tolist() != b.layers.tolist():
        return float("nan"), float("nan")
    if a.path == b.path and np.isfinite(a.agreement.get(b.cell_name, np.nan)).all():
        return a.agreement[b.cell_name]
    first, second = a.figures["mean_delta_nll"], b.figures["mean_delta_nll"]
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        return float("nan"), float("nan")
    k = a.top_k if a.top_k == b.top_k else max(1, len(a.layers) // 4)
    return float(spearman(first, second)), jaccard(top(first, k), top(second, k))
