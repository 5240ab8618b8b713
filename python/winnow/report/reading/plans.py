"""Plans: the window and type of each layer. JSON of winnow plan --json, and selections of plan, select or search."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from winnow.common.errors import ExitCode
from winnow.common.text import clean
from winnow.report.errors import ReportError
from winnow.report.reading import record
from winnow.report.reading.settings import BITS, FULL, STORED, settings_words
from winnow.report.wording import count, interval, listed, number, percent, size

PLANS, SELECTION = "winnow-plans", "winnow-selection"
FORMATS = (PLANS, SELECTION)
VERSIONS = {PLANS: (1,), SELECTION: (1, 2, 3)}
LARGEST = 2**26  # bytes; the curve of a model with 1,000 layers takes 200 KB
_NAN = float("nan")


@dataclass
class Plan:
    """One plan. Bytes and losses are NaN where the file does not say."""

    name: str  # the budget as it was given, or the method of a selection
    windows: list[int]  # (layer): keys that a row sees, FULL: all
    types: list[str]  # (layer): of keys and values, keys of BITS
    bytes: float = _NAN  # keys and values as `engine` allocates them
    full_bytes: float = _NAN  # the same with full attention
    loss: float = _NAN  # predicted, nats per token
    low: float = _NAN
    high: float = _NAN
    allocated: dict[str, float] = field(default_factory=dict)  # by engine, NaN where it does not run the plan

    @property
    def share(self) -> float:
        return self.bytes / self.full_bytes if self.full_bytes > 0 else _NAN

    @property
    def n_full(self) -> int:
        return self.windows.count(FULL)

    @property
    def words(self) -> str:
        """ "4 full, 8 x 512 fp8": windows, and types that are not as computed."""
        return settings_words(self.windows, self.types)


@dataclass(kw_only=True)
class Plans(record.Result):
    """The plans of one file, those with the least memory first where the file says how much they take."""

    plans: list[Plan]
    engine: str = ""  # whose allocation `bytes` are
    length: int = 0  # tokens of a sequence
    concurrency: int = 1  # sequences of that length

    @property
    def has_bytes(self) -> bool:
        return bool(np.isfinite([plan.bytes for plan in self.plans]).all())

    @property
    def has_types(self) -> bool:
        """Whether a layer keeps keys and values in a type narrower than computed."""
        return any(name != STORED for plan in self.plans for name in plan.types)

    @property
    def has_losses(self) -> bool:
        return bool(np.isfinite([plan.loss for plan in self.plans]).all())

    @property
    def engines(self) -> list[str]:
        """Those that run at least one of the plans."""
        names = dict.fromkeys(name for plan in self.plans for name in plan.allocated)
        return [name for name in names if any(np.isfinite(plan.allocated.get(name, _NAN)) for plan in self.plans)]


def _figure(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _NAN


def _windows(values: Sequence[Any]) -> list[int]:
    found = [FULL if keys is None else keys for keys in values]
    if not found or any(not isinstance(keys, int) or keys < 0 for keys in found):
        raise ValueError("layer_windows are no windows of layers")
    return found


def _types(values: Sequence[Any] | None, n_layers: int) -> list[str]:
    found = [STORED] * n_layers if values is None else list(values)
    if len(found) != n_layers or any(name not in BITS for name in found):
        raise ValueError("layer_kv are no types of layers")
    return found


def _whole(value: float, default: int) -> int:
    return int(value) if np.isfinite(value) else default


def _read_plans(data: dict[str, Any], path: pathlib.Path) -> Plans:
    found = []
    for one in data["plans"]:
        allocated = one.get("allocated_bytes") or {}
        windows = _windows(one["layer_windows"])
        found.append(
            Plan(
                clean(one["budget"]),
                windows,
                _types(one.get("layer_kv"), len(windows)),
                _figure(one, "bytes"),
                _figure(one, "full_attention_bytes"),
                _figure(one, "predicted_delta_nll"),
                _figure(one, "ci_low"),
                _figure(one, "ci_high"),
                {clean(name): _figure(allocated, name) for name in allocated},
            )
        )
    if not found or len({len(plan.windows) for plan in found}) != 1:
        raise ValueError("it holds no plans of one model")
    first = data["plans"][0]
    result = _result(path, sorted(found, key=lambda plan: plan.bytes))
    result.engine = clean(first.get("engine", ""))
    result.length = _whole(_figure(first, "max_seq_len"), 0)
    result.concurrency = _whole(_figure(first, "concurrency"), 1)
    if len({(one.get("max_seq_len"), one.get("concurrency")) for one in data["plans"]}) > 1:
        result.notes.append("The budgets are of sequences of different lengths, so their memory does not compare.")
    return result


def _read_selection(data: dict[str, Any], path: pathlib.Path) -> Plans:
    facts = data["provenance"]
    n_layers, full = int(data["n_layers"]), set(data["layers"])
    if "layer_windows" in data:
        windows = _windows(data["layer_windows"])
    else:
        native = set(data.get("native_window_layers", []))
        windows = [
            FULL if layer in full else int(data["native_window"] if layer in native else data["window_keys"])
            for layer in range(n_layers)
        ]
    if len(windows) != n_layers or {layer for layer, keys in enumerate(windows) if keys == FULL} != full:
        raise ValueError("its windows are not those of its layers")
    budget = clean(facts.get("plan_budget", ""))
    plan = Plan(
        f"{clean(data['method'])} {budget}".strip(),
        windows,
        _types(data.get("layer_kv"), n_layers),
        _figure(facts, "plan_bytes"),
        _figure(facts, "plan_full_attention_bytes"),
        _figure(facts, "plan_predicted_delta_nll"),
        _figure(facts, "plan_predicted_delta_nll_ci_low"),
        _figure(facts, "plan_predicted_delta_nll_ci_high"),
    )
    result = _result(path, [plan])
    result.engine = clean(facts.get("plan_engine", ""))
    result.length = _whole(_figure(facts, "plan_max_seq_len"), 0)
    result.concurrency = _whole(_figure(facts, "plan_concurrency"), 1)
    for key in ("model", "model_type", "checkpoint_sha256"):
        if isinstance(data.get(key), str):
            result.provenance[key] = (clean(data[key]), "text", "")
    return result


def _result(path: pathlib.Path, plans: list[Plan]) -> Plans:
    return Plans(path=str(path), layers=np.arange(len(plans[0].windows)), plans=plans)


def _check_checksum(data: dict[str, Any], path: pathlib.Path) -> None:
    """A selection says what it holds (results/README.md, Checksums); one without it has been changed on purpose."""
    said = {key: value for key, value in data.items() if key != "content_sha256"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if data.get("content_sha256") not in (None, hashlib.sha256(text.encode()).hexdigest()):
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: damaged: its content does not match its content_sha256; write it anew, or delete that key after "
            "a change on purpose",
        )


def read(data: dict[str, Any], path: pathlib.Path) -> Plans:
    """data: the object of the file, of one of FORMATS. ReportError where it is damaged or of another version."""
    kind = data["format"]
    if data.get("format_version") not in VERSIONS[kind]:
        raise ReportError(
            ExitCode.BAD_DATA,
            f"{path}: format version {data.get('format_version')}; this program reads {listed(VERSIONS[kind])}",
        )
    _check_checksum(data, path)
    try:
        return _read_plans(data, path) if kind == PLANS else _read_selection(data, path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(
            ExitCode.BAD_DATA, f"{path}: not readable as plans ({error}); repeat the command that wrote it"
        ) from error


def loss_said(plan: Plan) -> str:
    """ "0.12 nats per token (95 % interval 0.1 to 0.14)"."""
    ends = f" (95\u00a0% interval {interval(plan.low, plan.high)})" if np.isfinite([plan.low, plan.high]).all() else ""
    return f"{number(plan.loss)} nats per token{ends}"


def served(result: Plans) -> str:
    """ "2 sequences of 131,072 tokens on vllm"."""
    what = f"{count(result.concurrency, 'sequence')} of {result.length:,} tokens" if result.length else ""
    return " on ".join(part for part in (what, result.engine) if part)


def lead(result: Plans) -> str:
    """The answer in a sentence."""
    first = result.plans[0]
    text = f"{first.name}: {first.words}"
    if np.isfinite(first.share):
        text += f", {size(first.bytes)}, {percent(first.share)} of full attention's memory"
    if np.isfinite(first.loss):
        text += f", with a predicted loss of {loss_said(first)}"
    more = len(result.plans) - 1
    return text + (f"; and {count(more, 'plan')} with more memory." if more else ".")


def lines(result: Plans) -> list[str]:
    """How far to trust it."""
    found = []
    if result.has_losses:
        found.append(
            "Losses are predicted: the sum of what each layer costs alone. Layers together may lose far more, most of "
            "all where memory is least; winnow evaluate --pattern plan.json measures it."
        )
    if served(result):
        found.append(f"Memory is that of {served(result)}.")
    if not result.engines:
        found.append("The file does not say what engines allocate: winnow plan --json does.")
    return found + result.remarks()
