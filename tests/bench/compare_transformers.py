"""winnow against Hugging Face Transformers on the CPU: the same measurement, the same cores, the same run.

    python3 tests/bench/compare_transformers.py [--winnow build/winnow] [--repeats 5] [--write]

Needs torch, transformers and h5py. The measurement is a calibration of the demo model: every layer windowed alone,
T = 1024, W = 96, S = 4. Transformers does it the best obvious way: float32, sdpa, one mask a layer (none where a layer
has full attention, which is sdpa's fast causal path), logits of the answer rows only, inference mode, 13 passes an
example. The two take turns; figures are medians over the repeats. Reading the checkpoint, starting Python and its
imports, masks and the first (warm-up) pass are left out on Transformers' side; starting and loading on winnow's.
"""

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS / "golden"))

from reference import WindowedModel, WindowRule, drop_one  # noqa: E402
from winnow_process import Winnow, WinnowFailed, processor  # noqa: E402

MODEL, DATA = TESTS / "demo" / "model", TESTS / "demo" / "long.h5"
WINDOW_KEYS, SINKS, TAIL_ROWS = 96, 4, 32
# Two float32 implementations, each within 2e-5 (1 + |NLL|) of float64, and Transformers without that promise.
TOLERANCE = 1e-4
# Load average at the start beyond which threads wait for other processes; Transformers suffers the more.
BUSY_LOAD = 0.7


def calibrate(winnow, limit, threads, ranks=None, tail_rows=None):
    """The measurement, over the first `limit` examples."""
    flags = ["--window", WINDOW_KEYS, "--sinks", SINKS, "--limit", limit, "--threads", threads, "--device", "cpu"]
    if tail_rows is not None:
        flags += ["--tail-rows", tail_rows]
    return winnow.calibrate(MODEL, DATA, flags, ranks)


class Peer(WindowedModel):
    """Transformers in float32 with sdpa."""

    def __init__(self):
        super().__init__(AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="sdpa"))
        self.rule = WindowRule(WINDOW_KEYS, SINKS)
        self.examples = []
        with h5py.File(DATA) as file:
            offsets = file["offsets"][:]
            for e, start in enumerate(file["answer_start"][:]):
                tokens = torch.from_numpy(file["tokens"][offsets[e] : offsets[e + 1]].astype(np.int64))
                self.examples.append((tokens, int(start)))
        self._windowed = {}

    def mask(self, example):
        tokens, start = self.examples[example]
        if example not in self._windowed:
            self._windowed[example] = self._additive(self.rule.visible(len(tokens) - 1, start))
        return self._windowed[example]

    @torch.inference_mode()
    def calibrate(self, limit):
        """(seconds, NLL (examples, 1 + layers))."""
        masks = [self.mask(e) for e in range(limit)]
        begin = time.perf_counter()
        table = []
        for (tokens, start), mask in zip(self.examples[:limit], masks, strict=True):
            row = []
            for pattern in drop_one(len(self.layers)):
                self._masks[:] = [mask if is_windowed else None for is_windowed in pattern]
                logits = self.model(tokens[None, :-1], logits_to_keep=len(tokens) - start, use_cache=False).logits[0]
                row.append(torch.nn.functional.cross_entropy(logits, tokens[start:]).item())
            table.append(row)
        return time.perf_counter() - begin, np.array(table)


def spearman(x, y):
    """Rank correlation; ties share their mean rank."""

    def ranks(values):
        _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def compare(winnow, options):
    """Turns of winnow, Transformers and the tail sweep: (lists of seconds an example, figures)."""
    peer = Peer()
    peer.calibrate(1)
    seconds = {"transformers": [], "exact": [], "tail": []}
    for repeat in range(options.repeats):
        exact = calibrate(winnow, options.examples, options.threads)
        seconds["exact"].append(exact.provenance["busy_seconds"] / options.examples)
        peer_seconds, peer_nll = peer.calibrate(options.examples)
        seconds["transformers"].append(peer_seconds / options.examples)
        tail = calibrate(winnow, options.examples, options.threads, tail_rows=TAIL_ROWS)
        seconds["tail"].append(tail.provenance["busy_seconds"] / options.examples)
        print(f"repeat {repeat + 1}: " + ", ".join(f"{name} {s[-1]:.3f} s" for name, s in seconds.items()), flush=True)
    nll = exact.nll
    error = np.abs((nll - nll[:, :1]) - (peer_nll - peer_nll[:, :1])) / (1 + np.abs(peer_nll))
    return seconds, exact.provenance, float(error.max())


def tail_agreement(winnow, options):
    """Spearman rho of the tail sweep's mean deltas with the exact ones, over all examples of the set."""
    deltas = []
    for tail_rows in (None, TAIL_ROWS):
        nll = calibrate(winnow, options.rho_examples, options.threads, tail_rows=tail_rows).nll
        deltas.append((nll[:, 1:] - nll[:, :1]).mean(axis=0))
    return spearman(*deltas), float(np.abs(deltas[0] - deltas[1]).max())


def scaling(winnow, options):
    """Seconds of a whole run on 1 and on 2 ranks with one thread each, loading included."""
    walls = {1: [], 2: []}
    for _ in range(options.repeats):
        for ranks, wall in walls.items():
            run = calibrate(winnow, options.scaling_examples, threads=1, ranks=ranks)
            wall.append(run.provenance["wall_seconds"])
    return {ranks: statistics.median(wall) for ranks, wall in walls.items()}


def render(options, seconds, run, error, rho, walls):
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rho_value, tail_error = rho
    mib = {name: run[name] / 2**20 for name in ("predicted_bytes", "peak_allocated_bytes", "peak_resident_bytes")}
    spread = {name: f"{min(values):.3f} to {max(values):.3f}" for name, values in seconds.items()}

    def row(what, name):
        return f"| {what} | {median[name]:.3f} | {spread[name]} | {median['transformers'] / median[name]:.2f}x |"

    return "\n".join(
        [
            "# winnow and Transformers on the CPU",
            "",
            f"`python3 {' '.join(map(shlex.quote, ['tests/bench/compare_transformers.py', *sys.argv[1:]]))}`, "
            f"{datetime.date.today().isoformat()}",
            "",
            f"{processor()}, {os.cpu_count()} cores, load before the run {options.load:.1f}; winnow "
            f"{run['winnow_version']} ({run['git_revision'][:12]}, {run['devices']}); torch {torch.__version__}, "
            f"transformers {transformers.__version__}; Python {platform.python_version()}.",
            "",
            *([] if options.load < BUSY_LOAD else ["**The machine was busy: these figures say little.**", ""]),
            f"Demo model, T = 1024, W = {WINDOW_KEYS}, S = {SINKS}, every one of 12 layers windowed alone; "
            f"{options.threads} threads on both sides, {options.examples} examples, {options.repeats} alternating "
            "repeats. Loading, imports and warm-up are left out on both sides.",
            "",
            "| | seconds an example, median | range | ratio |",
            "| --- | --- | --- | --- |",
            row("Transformers, 13 passes, sdpa, float32", "transformers"),
            row("winnow, exact sweep", "exact"),
            row(f"winnow, tail sweep, M = {TAIL_ROWS}", "tail"),
            "",
            f"Largest difference of the two sides' delta NLL: {error:.1e} (1 + |NLL|), {TOLERANCE:.0e} allowed.",
            f"Tail sweep against the exact one over {options.rho_examples} examples: Spearman rho of the mean deltas "
            f"{rho_value:.3f}, largest difference {tail_error:.4f} nats.",
            "",
            f"One thread a rank, {options.scaling_examples} examples, whole run: {walls[1]:.2f} s on 1 rank, "
            f"{walls[2]:.2f} s on 2 ranks, {walls[1] / walls[2]:.2f}x.",
            "",
            f"Memory of the exact sweep: {mib['predicted_bytes']:.2f} MiB predicted, "
            f"{mib['peak_allocated_bytes']:.2f} MiB at the peak of winnow's allocations "
            f"({run['peak_allocated_bytes'] / run['predicted_bytes'] - 1:+.1%}), "
            f"{mib['peak_resident_bytes']:.1f} MiB at the peak of the process (libraries and the mapped checkpoint "
            "too).",
            "",
            "Seconds an example of each repeat:",
            "",
            *(f"- {name}: " + ", ".join(f"{value:.3f}" for value in values) for name, values in seconds.items()),
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=ROOT / "build" / "winnow")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=4, help="in each turn (default: 4)")
    parser.add_argument("--rho-examples", type=int, default=16, help="for the tail sweep's agreement (default: 16)")
    parser.add_argument("--scaling-examples", type=int, default=16, help="for 1 and 2 ranks (default: 16)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write results/benchmarks/cpu-DATE.md")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as directory:
        winnow = Winnow(options.winnow, directory)
        try:
            seconds, run, error = compare(winnow, options)
            rho = tail_agreement(winnow, options)
            walls = scaling(winnow, options)
        except WinnowFailed as failure:
            sys.exit(f"{failure.command}\n{failure}")
    text = render(options, seconds, run, error, rho, walls)
    print("\n" + text)
    if not error <= TOLERANCE:
        sys.exit(f"the two sides disagree: {error:.1e} (1 + |NLL|)")
    if options.write:
        path = ROOT / "results" / "benchmarks" / f"cpu-{datetime.date.today().isoformat()}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
