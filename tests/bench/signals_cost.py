"""What the signals of layers cost beside the NLL: the sweep with and without them, and Transformers, in the same run.

    python3 tests/bench/signals_cost.py [--winnow build/winnow] [--repeats 5] [--write]
    python3 tests/bench/signals_cost.py --shape qwen3-4b [--repeats 2]     # a GPU; random weights, T = 24576

Needs torch, transformers and h5py. The measurement is that of compare_transformers.py, on the demo model. All take
turns in each repeat, so that a change of the machine's load meets all of them; ratios are medians of the ratios within
a repeat. Transformers measures NLL, KL and sensitivity: 25 passes an example; mass and lazy ratio, which need its slow
attention, are left out on its side. With --shape the sweep with NLL alone is the only peer.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from compare_transformers import BUSY_LOAD, DATA, MODEL, ROOT, SINKS, TOLERANCE, WINDOW_KEYS, Peer
from random_model import SHAPES, write_inputs
from reference import drop_one
from winnow_process import Winnow, WinnowFailed, processor

TARGET = 1.3  # times the sweep with the NLL alone
TAIL = 32  # rows before the answer that lose the attention
RUNS = {
    "NLL alone": "none",
    "kl": "kl",
    "sensitivity, tail": "sensitivity",
    "mass": "mass",
    "lazy": "lazy",
    "all": "all",
    "all, sensitivity full": "all",
}


class SignalPeer(Peer):
    """Transformers with the NLL, KL and sensitivity of every layer."""

    def __init__(self):
        super().__init__()
        self.removed = None
        for index, layer in enumerate(self.layers):
            layer.self_attn.register_forward_hook(self._removal(index))

    def _removal(self, index):
        def remove(_module, _args, output):
            if self.removed is None or self.removed[0] != index:
                return output
            output[0][:, self.removed[1] :] = 0
            return output

        return remove

    @torch.inference_mode()
    def measure(self, limit):
        """(seconds, KL (examples, layers), NLL without attention (examples, layers))."""
        masks = [self.mask(e) for e in range(limit)]
        begin = time.perf_counter()
        kl, removed = [], []
        for (tokens, start), mask in zip(self.examples, masks, strict=True):
            n_answer = len(tokens) - start

            def log_p(pattern, without=None, tokens=tokens, mask=mask, n_answer=n_answer):
                self._masks[:] = [mask if is_windowed else None for is_windowed in pattern]
                self.removed = without
                logits = self.model(tokens[None, :-1], logits_to_keep=n_answer, use_cache=False).logits[0]
                return torch.log_softmax(logits, -1)

            patterns = drop_one(len(self.layers))
            base = log_p(patterns[0])
            kl.append([(base.exp() * (base - log_p(pattern))).sum(-1).mean().item() for pattern in patterns[1:]])
            removed.append(
                [
                    -log_p(patterns[0], (layer, start - TAIL)).gather(1, tokens[start:, None]).mean().item()
                    for layer in range(len(self.layers))
                ]
            )
        return time.perf_counter() - begin, np.array(kl), np.array(removed)


def measure_shape(winnow, options):
    """(seconds an example of every run, provenance) on random weights; all repeats share nothing but the files."""
    model, data = write_inputs(winnow.directory, options)
    seconds = {name: [] for name in RUNS}
    for repeat in range(options.repeats):
        for name, signals in RUNS.items():
            flags = [
                "--window",
                2048,
                "--signals",
                signals,
                *(["--sensitivity", "full"] if name.endswith("full") else []),
            ]
            run = winnow.calibrate(model, data, flags)
            # The first example pays for what is planned once a length.
            seconds[name].append(statistics.median(run.seconds[1:] or run.seconds))
        print(f"repeat {repeat + 1}: " + ", ".join(f"{name} {s[-1]:.3f} s" for name, s in seconds.items()), flush=True)
    return seconds, run.provenance


def measure(winnow, options):
    peer = SignalPeer()
    peer.measure(1)
    seconds = {name: [] for name in [*RUNS, "Transformers"]}
    largest = 0.0
    for repeat in range(options.repeats):
        for name, signals in RUNS.items():
            flags = [
                "--window",
                WINDOW_KEYS,
                "--sinks",
                SINKS,
                "--limit",
                options.examples,
                "--threads",
                options.threads,
                "--device",
                "cpu",
                "--signals",
                signals,
            ]
            flags += ["--sensitivity", "full"] if name.endswith("full") else []
            run = winnow.calibrate(MODEL, DATA, flags)
            seconds[name].append(run.provenance["busy_seconds"] / options.examples)
            if name == "all":
                found = read_signals(winnow.directory / "run" / "results.h5")
        peer_seconds, *expected = peer.measure(options.examples)
        seconds["Transformers"].append(peer_seconds / options.examples)
        largest = max(largest, *(np.abs((a - b) / (1 + np.abs(b))).max() for a, b in zip(found, expected, strict=True)))
        print(f"repeat {repeat + 1}: " + ", ".join(f"{name} {s[-1]:.3f} s" for name, s in seconds.items()), flush=True)
    return seconds, float(largest), run.provenance


def read_signals(path):
    with h5py.File(path) as file:
        return file["calibration/kl"][:], file["calibration/nll_removed"][:]


def ratio(seconds, name, to="NLL alone"):
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def render(options, seconds, largest, provenance):
    rows = [
        f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} to {max(values):.3f} | "
        f"{ratio(seconds, name):.2f} | {ratio(seconds, 'Transformers', name):.1f}x |"
        for name, values in seconds.items()
    ]
    return "\n".join(
        [
            "# Cost of the signals of layers",
            "",
            f"`python3 {' '.join(['tests/bench/signals_cost.py', *sys.argv[1:]])}`, "
            f"{datetime.date.today().isoformat()}",
            "",
            f"{processor()}, {os.cpu_count()} cores, load before the run {options.load:.1f}; winnow "
            f"{provenance['winnow_version']} ({provenance['git_revision'][:12]}, {provenance['devices']}); torch "
            f"{torch.__version__}, transformers {transformers.__version__}; Python {platform.python_version()}.",
            "",
            *(
                []
                if options.load < BUSY_LOAD
                else ["**The machine was busy: seconds say little, ratios of a repeat more.**", ""]
            ),
            f"Demo model, T = 1024, W = {WINDOW_KEYS}, S = {SINKS}, every one of 12 layers; {options.threads} threads, "
            f"{options.examples} examples, {options.repeats} alternating repeats. Sensitivity on the answer and {TAIL} "
            "rows before it, or on all rows. Transformers: NLL, KL and sensitivity in 25 passes.",
            "",
            "| signals | seconds an example, median | range | to NLL alone | Transformers to it |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Largest difference of the two sides' KL and NLL without attention: {largest:.1e} (1 + |value|), "
            f"{TOLERANCE:.0e} allowed. All signals: {ratio(seconds, 'all'):.2f} times the sweep with the NLL alone, "
            f"target: at most {TARGET}.",
            "",
        ]
    )


def render_shape(options, seconds, provenance):
    rows = [
        f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} to {max(values):.3f} | "
        f"{ratio(seconds, name):.3f} |"
        for name, values in seconds.items()
    ]
    return "\n".join(
        [
            f"## {provenance['devices']}",
            "",
            f"`python3 {' '.join(['tests/bench/signals_cost.py', *sys.argv[1:]])}`, "
            f"{datetime.date.today().isoformat()}; winnow {provenance['winnow_version']}",
            "",
            f"Shape {options.shape}, random weights, T = {options.tokens}, {options.answer} answer tokens, W = 2048, "
            f"every layer, attention {provenance['attention_path']}; {options.repeats} alternating repeats.",
            "",
            "| signals | seconds an example, median | range | to NLL alone |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"All signals: {ratio(seconds, 'all'):.3f} times the sweep with the NLL alone, target: at most {TARGET}.",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=ROOT / "build" / "winnow")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=4, help="in each turn (default: 4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, help="random weights of that shape (default: the demo model)")
    parser.add_argument("--model-dir", help="where the random checkpoint is kept")
    parser.add_argument("--tokens", type=int, default=24576, help="of an example of random tokens")
    parser.add_argument("--answer", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="write results/benchmarks/signals-DATE.md")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as directory:
        try:
            if options.shape:
                seconds, provenance = measure_shape(Winnow(options.winnow, directory), options)
                print("\n" + render_shape(options, seconds, provenance))
                return
            seconds, largest, provenance = measure(Winnow(options.winnow, directory), options)
        except WinnowFailed as failure:
            sys.exit(f"{failure.command}\n{failure}")
    text = render(options, seconds, largest, provenance)
    print("\n" + text)
    if options.write:
        path = ROOT / "results" / "benchmarks" / f"signals-{datetime.date.today().isoformat()}.md"
        path.write_text(text)
        print(f"written to {path.relative_to(ROOT)}")
    if not largest <= TOLERANCE:
        sys.exit(f"the two sides disagree: {largest:.1e} (1 + |value|)")


if __name__ == "__main__":
    main()
