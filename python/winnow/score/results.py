"""The scores of all patterns: per example, task and bin of lengths, with intervals and paired differences."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy

from winnow.common.errors import ExitCode, Failure
from winnow.score.answers import Example, Texts
from winnow.score.metrics import score
from winnow.score.statistics import Mean, Scores, front, means

SEED, RESAMPLES = 0, 10_000
Verdicts = Mapping[tuple[str, str], bool]  # of (pattern, example_id)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a pattern costs. kv_cache_share: its keys and values by those of full attention."""

    full_layers: int
    kv_cache_share: float


@dataclasses.dataclass(frozen=True)
class Group:
    """Means of the patterns over the examples of one task and bin; None: of all."""

    task: str | None
    length_bin: str | None
    means: list[Mean]
    minus_baseline: list[Mean] | None
    on_front: list[bool] | None


@dataclasses.dataclass(frozen=True)
class Results:
    """scores: (patterns, examples); NaN where a judge has not spoken. Examples without are in no group."""

    patterns: list[str]
    examples: list[Example]
    scores: Scores
    groups: list[Group]
    baseline: str | None
    budgets: Mapping[str, Budget]
    seed: int


def table(texts: Texts, examples: Sequence[Example], verdicts: Verdicts) -> Scores:
    """(patterns, examples)."""
    scores = numpy.full((len(texts), len(examples)), numpy.nan)
    for row, (pattern, own) in enumerate(texts.items()):
        for column, example in enumerate(examples):
            if example.scoring.metric == "judge":
                verdict = verdicts.get((pattern, example.name))
                scores[row, column] = numpy.nan if verdict is None else float(verdict)
            else:
                scores[row, column] = _score(own[example.name], example)
    return scores


def _score(text: str, example: Example) -> float:
    try:
        return score(text, example.scoring)
    except ValueError as error:  # a reference that is not what its metric compares, as of a number
        raise Failure(
            ExitCode.BAD_DATA,
            f"example {example.name}: metric {example.scoring.metric} does not fit its references: {error}",
        ) from error


def bin_order(name: str) -> tuple[int, int, str]:
    """Lengths by size, then other names as LongBench v2 has them."""
    found = re.fullmatch(r"(\d+)([kM]?)", name)
    if found:
        return 0, int(found[1]) * {"": 1, "k": 1024, "M": 2**20}[found[2]], name
    return 1, ["short", "medium", "long"].index(name) if name in ("short", "medium", "long") else 3, name


def collect(
    texts: Texts,
    examples: Sequence[Example],
    verdicts: Verdicts,
    budgets: Mapping[str, Budget],
    baseline: str | None,
    seed: int,
) -> Results:
    """Judges all texts. budgets: of all patterns, or empty."""
    patterns = list(texts)
    scores = table(texts, examples, verdicts)
    judged = set(numpy.flatnonzero(numpy.isfinite(scores).all(axis=0)).tolist())
    tasks = sorted({example.scoring.task for example in examples})
    bins = sorted({example.length_bin for example in examples}, key=bin_order)
    places: list[tuple[str | None, str | None]] = [(None, None)]
    places += [(task, None) for task in tasks if len(tasks) > 1]
    places += [(None, name) for name in bins if len(bins) > 1]
    places += [(task, name) for task in tasks for name in bins if len(tasks) > 1 and len(bins) > 1]
    groups = []
    for task, bin_name in places:
        columns = [
            column
            for column, example in enumerate(examples)
            if column in judged and task in (None, example.scoring.task) and bin_name in (None, example.length_bin)
        ]
        if columns:
            groups.append(_group(task, bin_name, patterns, scores[:, columns], budgets, baseline, seed))
    return Results(patterns, list(examples), scores, groups, baseline, budgets, seed)


def _group(
    task: str | None,
    bin_name: str | None,
    patterns: Sequence[str],
    scores: Scores,
    budgets: Mapping[str, Budget],
    baseline: str | None,
    seed: int,
) -> Group:
    found = means(scores, seed, RESAMPLES)
    differences = means(scores - scores[patterns.index(baseline)], seed, RESAMPLES) if baseline else None
    best = None
    if budgets:
        best = front([budgets[pattern].kv_cache_share for pattern in patterns], [one.mean for one in found])
    return Group(task, bin_name, found, differences, best)


def as_json(results: Results) -> dict[str, object]:
    """The file that winnow score writes; results/README.md has its keys."""
    return {
        "format": "winnow-scores",
        "format_version": 1,
        "seed": results.seed,
        "resamples": RESAMPLES,
        "baseline": results.baseline,
        "patterns": [
            {"pattern": pattern} | (dataclasses.asdict(results.budgets[pattern]) if results.budgets else {})
            for pattern in results.patterns
        ],
        "scores": [_row(group, place, results) for group in results.groups for place in range(len(results.patterns))],
        "examples": [
            {
                "example_id": example.name,
                "task": example.scoring.task,
                "length_bin": example.length_bin,
                "metric": example.scoring.metric,
                "scores": {
                    pattern: None if numpy.isnan(value) else float(value)
                    for pattern, value in zip(results.patterns, results.scores[:, column], strict=True)
                },
            }
            for column, example in enumerate(results.examples)
        ],
    }


def _row(group: Group, place: int, results: Results) -> dict[str, object]:
    own = group.means[place]
    row: dict[str, object] = {
        "pattern": results.patterns[place],
        "task": group.task,
        "length_bin": group.length_bin,
        "examples": own.n,
        "mean": own.mean,
        "ci_low": own.low,
        "ci_high": own.high,
    }
    if group.minus_baseline:
        difference = group.minus_baseline[place]
        row |= {
            "minus_baseline": difference.mean,
            "minus_baseline_ci_low": difference.low,
            "minus_baseline_ci_high": difference.high,
        }
    if group.on_front:
        row["on_front"] = group.on_front[place]
    return row


def as_text(results: Results) -> str:
    """The table for a terminal: scores in percent, with their intervals."""
    lines: list[str] = []
    width = max(7, *map(len, results.patterns))
    for group in results.groups:
        if group.task and group.length_bin:
            continue  # in the file
        name = group.task or (f"prompts of {group.length_bin}" if group.length_bin else "All tasks")
        head = f"{'pattern':<{width}}" + (" full  KV cache" if results.budgets else "")
        head += "   score            95 %"
        head += f"   less {results.baseline}            95 %" if results.baseline else ""
        lines += ["", f"{name}, {group.means[0].n} examples", head]
        lines += [_line(group, place, results, width) for place in range(len(results.patterns))]
    return "\n".join(lines[1:])


def _line(group: Group, place: int, results: Results, width: int) -> str:
    pattern, own = results.patterns[place], group.means[place]
    line = f"{pattern:<{width}}"
    if results.budgets:
        budget = results.budgets[pattern]
        line += f" {budget.full_layers:>4}  {100 * budget.kv_cache_share:6.1f} %"
    line += f"  {100 * own.mean:6.1f}  [{100 * own.low:5.1f}, {100 * own.high:5.1f}]"
    if group.minus_baseline and results.baseline:
        difference = group.minus_baseline[place]
        line += f"  {100 * difference.mean:{len(results.baseline) + 5}.1f}"
        line += f"  [{100 * difference.low:6.1f}, {100 * difference.high:6.1f}]"
    return line + ("  front" if group.on_front and group.on_front[place] else "")
