"""What winnow itself computes for every pattern that an engine might have run: token NLLs and a greedy text."""

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import h5py
import numpy as np

from winnow.common.errors import ExitCode, Failure
from winnow.serving.exported import Export
from winnow.serving.probe import Probe, write_calibration
from winnow.serving.tied import run_tied
from winnow.serving.verdict import Ran


class Winnow:
    """Runs the executable on the checkpoint that was measured, in float32 on the CPU, in a scratch folder."""

    def __init__(self, export: Export, scratch: pathlib.Path, threads: int | None) -> None:
        self._export, self._scratch, self._threads = export, scratch, threads
        self._program = find_winnow()

    def token_nlls(self, probe: Probe) -> dict[Ran, np.ndarray]:
        """{pattern: (n_scored) nats}, without those that are the hybrid by another name."""
        data = self._scratch / "probe.h5"
        if len(self._export.selected) > 1:
            return self._nlls_of_plans(data, probe)
        write_calibration(data, probe.tokens, probe.first)
        return {ran: self._nll(data, ran.value, pattern, keys) for ran, pattern, keys in candidates(self._export)}

    def text(self, probe: Probe, n_tokens: int) -> list[int]:
        """What the hybrid writes after the sequence, greedily."""
        data, texts = self._scratch / "prompt.h5", self._scratch / "texts.jsonl"
        write_calibration(data, [*probe.tokens, probe.tokens[0]], len(probe.tokens))
        given = name = hybrid_pattern(self._export)
        if len(self._export.selected) > 1:
            given, name = self._plan(Ran.HYBRID, list(self._export.windows))
        self._run(
            "evaluate", data, "text", self._export.window_keys or 1, "--pattern", given,
            "--generate", str(n_tokens), "--stop-tokens", "none", "--responses", str(texts),
        )  # fmt: skip
        rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
        return next(row["token_ids"] for row in rows if row["pattern"] == name)

    def _nlls_of_plans(self, data: pathlib.Path, probe: Probe) -> dict[Ran, np.ndarray]:
        """Windows of several sizes are evaluate's alone, which has a mean of each answer: of one token each."""
        write_calibration(data, probe.tokens, probe.first, one_by_one=True)
        plans = {ran: self._plan(ran, windows) for ran, windows in plan_candidates(self._export)}
        patterns = [word for given, _ in plans.values() for word in ("--pattern", given)]
        out = self._run("evaluate", data, "plans", self._export.selected[0], *patterns)
        with h5py.File(out / "results.h5") as file:
            rows = dict(zip(file["evaluation/pattern"].asstr()[:], file["evaluation/nll"][:], strict=True))
        return {ran: np.asarray(rows[name], np.float64) for ran, (_, name) in plans.items()}

    def _plan(self, ran: Ran, windows: list[int | None]) -> tuple[str, str]:
        """(file, name of the pattern) of a selection with these windows."""
        own = [layer for layer, keys in enumerate(self._export.own_windows) if keys is not None]
        full = [layer for layer, keys in enumerate(windows) if keys is None]
        keys = self._export.selected[0]
        plan = {"format": "winnow-selection", "format_version": 2, "method": ran.value, "n_layers": len(windows)}
        plan |= {"keep": len(full), "layers": full, "layer_windows": windows, "window": keys, "window_keys": keys}
        plan |= {"sinks": 0, "decode": "windowed", "tail_rows": -1, "target": "hf", "provenance": {}}
        if own:
            plan |= {"native_window": windows[own[0]], "native_window_layers": own}
        plan |= {"model": str(self._export.source), "model_type": self._export.source_config.get("model_type", "")}
        plan["checkpoint_sha256"] = self._export.checkpoint_sha256
        file = self._scratch / f"{ran.value}.json"
        file.write_text(json.dumps(plan), encoding="utf-8")
        return str(file), f"{ran.value}:{len(full)}"

    def _nll(self, data: pathlib.Path, name: str, pattern: str, keys: int) -> np.ndarray:
        # A layer has to be measured besides the base; the last one costs least of those without a window of their own.
        windows = self._export.windows
        free = [layer for layer, own in enumerate(windows) if own in (None, self._export.window_keys)]
        last = str(max(free, default=len(windows) - 1))
        out = self._run("calibrate", data, name, keys, "--base", pattern, "--layers", last, "--per-token")
        with h5py.File(out / "results.h5") as file:
            return np.asarray(file["calibration/token_nll_base"][0], np.float64)

    def _run(self, verb: str, data: pathlib.Path, name: str, keys: int, *more: str) -> pathlib.Path:
        """Returns the run directory."""
        out = self._scratch / name
        words = [self._program, verb, "--model", str(self._export.source), "--data", str(data), "--out", str(out)]
        # The rules of all engines here: W keys with the row itself, in decoding too, and positions by type of layer.
        words += ["--window", str(keys), "--target", "hf", "--device", "cpu", *more]
        if self._threads:
            words += ["--threads", str(self._threads)]
        log = self._scratch / f"{name}.log"
        with open(log, "wb") as file:
            code = run_tied(words, cwd=self._scratch, stdout=subprocess.DEVNULL, stderr=file)
        if code != 0:
            said = log.read_text(encoding="utf-8", errors="replace")
            last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
            raise Failure(
                ExitCode(code) if code in set(ExitCode) else ExitCode.INTERNAL,
                f"winnow {verb} does not measure {self._export.source}: {last.removeprefix('winnow: ')}",
            )
        return out


def hybrid_pattern(export: Export) -> str:
    full = export.full_layers
    if len(full) == len(export.windows):
        return "full"
    return "list:" + ",".join(map(str, full)) if full else "windowed"


def candidates(export: Export) -> Iterator[tuple[Ran, str, int]]:
    """(name, winnow's pattern, keys of its windows), the hybrid first."""
    pattern, keys = hybrid_pattern(export), export.window_keys
    yield Ran.HYBRID, pattern, keys or 1
    if keys is None:  # no window but those that the model has by itself
        return
    yield Ran.FULL, "full", keys
    if pattern != "windowed":
        yield Ran.WINDOWED, "windowed", keys
    if keys > 1:
        yield Ran.ONE_LESS, pattern, keys - 1
    yield Ran.ONE_MORE, pattern, keys + 1


def plan_candidates(export: Export) -> Iterator[tuple[Ran, list[int | None]]]:
    """(name, keys of each layer) where windows are of several sizes, the hybrid first."""
    yield Ran.HYBRID, list(export.windows)
    yield Ran.FULL, export.own_windows
    if export.full_layers:
        yield Ran.WINDOWED, [keys or export.selected[0] for keys in export.windows]
    for ran, step in ((Ran.ONE_LESS, -1), (Ran.ONE_MORE, 1)):
        if export.selected[0] + step > 0:
            yield ran, [keys + step if keys and keys in export.selected else keys for keys in export.windows]


def find_winnow() -> str:
    """The executable beside this program's launcher, else on PATH."""
    beside = os.environ.get("WINNOW_BIN")
    found = shutil.which("winnow", path=beside) if beside else None
    found = found or shutil.which("winnow")
    if found is None:
        raise Failure(ExitCode.UNAVAILABLE, "there is no program winnow on PATH to measure the checkpoint with")
    return found
