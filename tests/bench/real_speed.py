"""winnow against Transformers on real data: prompts of many lengths, on one GPU, in the same run.

    python3 tests/bench/real_speed.py --model DIR --data FILE --window W [--winnow build/winnow] [--peer-examples 6]
        [--signals] [--no-search]

Prints seconds an example of the exact sweep over all layers and of the tail sweep (256 rows), and seconds of a step of
a greedy search, which measures a pattern for each layer on all examples. Transformers: bfloat16, sdpa without a mask,
logits of the answer rows alone, (layers + 1) times one forward pass, of examples evenly spread over the lengths; timed
by CUDA events after a warm-up, before winnow runs. winnow: the clock of its own units, so without start and loading, of
the same examples, and the wall clock of the whole command. --signals adds the exact sweep with all signals.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from random_model import read_calibration
from transformers_gpu import Peer
from winnow_process import Winnow

TAIL_ROWS = 256
FIRST_STEPS, LAST_STEPS = 1, 6  # of two searches, whose difference is what steps take


def spread(examples, n):
    """Places of n examples, evenly over the lengths."""
    by_length = sorted(range(len(examples)), key=lambda e: len(examples[e][0]))
    n = min(n, len(by_length))
    return [by_length[int((i + 0.5) * len(by_length) / n)] for i in range(n)]


def peer_seconds(model, examples, chosen):
    peer = Peer(model, "cuda")
    seconds = []
    for e in chosen:
        tokens, start = examples[e]
        times, _ = peer.time_forward(tokens, start, 3)
        seconds.append((len(peer.layers) + 1) * statistics.median(times))
    del peer
    torch.cuda.empty_cache()
    return seconds


def search_seconds(winnow, options, keep):
    out = winnow.directory / f"search-{keep}"
    shutil.rmtree(out, ignore_errors=True)
    winnow.run(
        ["search", "--model", options.model, "--data", options.data, "--window", options.window, "--out", out]
        + ["--method", "greedy-forward", "--keep", keep]
    )
    return json.loads((out / "run.json").read_text())["informative"]["searches"]["greedy-forward"]["search_seconds"]


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--model", required=True)
    flags.add_argument("--data", required=True)
    flags.add_argument("--window", type=int, required=True)
    flags.add_argument("--winnow", default="build/winnow")
    flags.add_argument("--peer-examples", type=int, default=6)
    flags.add_argument("--signals", action="store_true")
    flags.add_argument("--no-search", action="store_true")
    options = flags.parse_args()
    examples = read_calibration(options.data)
    chosen = spread(examples, options.peer_examples)
    lengths = [len(tokens) for tokens, _ in examples]
    print(f"{torch.cuda.get_device_name()}; {len(examples)} examples of {min(lengths)} to {max(lengths)} tokens")
    peer = statistics.mean(peer_seconds(options.model, examples, chosen))
    print(f"Transformers, {len(chosen)} examples: {peer:.3f} s an example")
    rows = [("exact", []), ("tail", ["--tail-rows", TAIL_ROWS])]
    if options.signals:
        rows.append(("exact, all signals", ["--signals", "all"]))
    with tempfile.TemporaryDirectory() as directory:
        winnow = Winnow(options.winnow, directory)
        for name, words in rows:
            begin = time.perf_counter()
            run = winnow.calibrate(options.model, options.data, ["--window", options.window, *words])
            whole = time.perf_counter() - begin
            same = statistics.mean(run.seconds[e] for e in chosen)
            print(
                f"{name}: {same:.3f} s an example, {peer / same:.1f} x; all {len(examples)}: {sum(run.seconds):.1f} s, "
                f"whole command {whole:.1f} s"
            )
        if not options.no_search:
            first, last = (search_seconds(winnow, options, keep) for keep in (FIRST_STEPS, LAST_STEPS))
            step = (last - first) / (LAST_STEPS - FIRST_STEPS)
            print(f"search: {step:.2f} s a step; keys, values and the first round {first - step:.2f} s")


if __name__ == "__main__":
    main()
