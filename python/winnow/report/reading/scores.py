"""What patterns wrote, judged: the JSON file of winnow score."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from winnow.common.errors import ExitCode
from winnow.common.text import clean
from winnow.report.arrays import Flags, Floats
from winnow.report.errors import ReportError
from winnow.report.reading import record
from winnow.report.wording import listed, percent

FORMAT, FORMAT_VERSION = "winnow-scores", 1
LARGEST = 2**28  # bytes; scores of 100,000 examples by 20 patterns take 80 MB


@dataclass
class Group:
    """Means over the examples of one task and bin of lengths, of all of them where the name is "all"."""

    name: str
    n: int
    means: tuple[Floats, Floats, Floats]  # value and the ends of its interval, each (pattern)
    minus: tuple[Floats, Floats, Floats]  # paired difference from the baseline, NaN where there is none
    on_front: Flags  # (pattern)


@dataclass(kw_only=True)
class Scores(record.Result):
    """One scores file."""

    patterns: list[str]
    full_layers: Floats  # (pattern); NaN without --evaluation, as cache
    cache: Floats  # (pattern): share of full attention's KV cache
    groups: list[Group] = field(default_factory=list)  # that of all examples first

    @property
    def baseline(self) -> str:
        return str(self.settings.get("baseline") or "")

    @property
    def has_budgets(self) -> bool:
        return bool(np.isfinite(self.cache).all())


def _column(rows: Mapping[str, Mapping[str, object]], patterns: list[str], key: str) -> Floats:
    values = [rows[pattern].get(key) for pattern in patterns]
    return np.array([float(value) if isinstance(value, (int, float)) else np.nan for value in values])


def _groups(rows: list[dict[str, object]], patterns: list[str]) -> list[Group]:
    by_place: dict[tuple[str, str], dict[str, dict[str, object]]] = {}
    for row in rows:
        place = (str(row.get("task") or ""), str(row.get("length_bin") or ""))
        by_place.setdefault(place, {})[str(row["pattern"])] = row
    found = []
    for (task, bin_), own in by_place.items():
        if not set(patterns) <= set(own):
            continue
        mean, low, high = (_column(own, patterns, key) for key in ("mean", "ci_low", "ci_high"))
        minus = tuple(_column(own, patterns, f"minus_baseline{end}") for end in ("", "_ci_low", "_ci_high"))
        n = _column(own, patterns, "examples")
        front = _column(own, patterns, "on_front") > 0
        name = clean(", ".join(part for part in (task, bin_) if part) or "all")
        if np.isfinite(mean).all() and np.isfinite(n).all():
            found.append(Group(name, int(n[0]), (mean, low, high), (minus[0], minus[1], minus[2]), front))
    return found


def read(path: pathlib.Path) -> Scores:
    """ReportError where it is no scores file."""
    if path.stat().st_size > LARGEST:
        raise ReportError(ExitCode.BAD_DATA, f"{path}: larger than {LARGEST >> 20} MiB; score fewer examples at once")
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ReportError(ExitCode.BAD_DATA, f"{path}: no file of winnow score --out; results are HDF5 files")
        if data.get("format_version") != FORMAT_VERSION:
            raise ReportError(
                ExitCode.BAD_DATA, f"{path}: format version {data.get('format_version')}; this program reads version 1"
            )
        by_name = {clean(one["pattern"]): one for one in data["patterns"]}
        patterns = list(by_name)
        rows = [row | {"pattern": clean(row["pattern"])} for row in data["scores"]]
        groups = _groups(rows, patterns)
        full_layers, cache = (_column(by_name, patterns, key) for key in ("full_layers", "kv_cache_share"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(
            ExitCode.BAD_DATA, f"{path}: not readable as scores ({error}); repeat its winnow score command"
        ) from error
    if not patterns or not groups:
        raise ReportError(ExitCode.BAD_DATA, f"{path}: holds no score of any pattern; repeat its winnow score command")
    found = Scores(
        path=str(path),
        layers=np.array([], int),
        n_examples=groups[0].n,
        patterns=patterns,
        full_layers=full_layers,
        cache=cache,
        groups=groups,
    )
    for key in ("created_by", "data_sha256", "responses_sha256"):
        if isinstance(data.get(key), str):
            found.provenance[key] = (clean(data[key]), "text", "")
    found.settings = {
        key: value if isinstance(value, (int, float)) else clean(value)
        for key in ("seed", "resamples", "baseline")
        if (value := data.get(key)) is not None
    }
    return found


def said(result: Scores, group: Group, i: int) -> str:
    """ "62 % (95 % interval 55 % to 70 %)"."""
    mean, low, high = (column[i] for column in group.means)
    ends = f" (95\u00a0% interval {percent(low)} to {percent(high)})" if np.isfinite([low, high]).all() else ""
    return percent(mean) + ends


def lead(result: Scores) -> str:
    """The answer in a sentence: the front, or the best where no budget is known."""
    group = result.groups[0]
    mean = group.means[0]
    if not result.has_budgets:
        best = int(np.argmax(mean))
        return f"{result.patterns[best]} scores most, {said(result, group, best)}."
    on = sorted(np.flatnonzero(group.on_front).tolist(), key=lambda i: result.cache[i])
    words = [
        f"{result.patterns[i]} scores {said(result, group, i)} with {percent(result.cache[i])} of the KV cache"
        for i in on[-6:]
    ]
    return f"No pattern is as good with less: {listed(words)}." if words else "No pattern is on the front."


def lines(result: Scores) -> list[str]:
    """How far to trust it."""
    found = [f"Scores are of {result.n_examples:,} answers that the model wrote itself."]
    if not result.has_budgets:
        found.append("The file has no KV cache of the patterns: winnow score --evaluation RUN_DIR adds it.")
    if not result.baseline:
        found.append("There is no pattern to compare with: winnow score --baseline PATTERN names one.")
    return found + result.remarks()
