"""Layers that go through the GPU beside layers that stay there: time of the units, and whether the tables are equal.

    python3 tests/bench/stream_speed.py [--winnow build/winnow] [--shape qwen3-4b] [--model-dir DIR] [--layers-held 4]
        [--tokens 24576] [--examples 4] [--modes exact,tail] [--repeats 2] [--no-resident] [--ranks 1,2] [--device cuda]

A checkpoint of random weights in --model-dir (a folder of its own that goes, without it), and examples of one length;
needs torch. Each repeat measures with --stream off, then with --stream on, whose memory is capped: embedding and head,
--layers-held layers, and a wave of examples. --no-resident leaves the first out, for a model that does not fit: its
time is beside the prediction alone. --ranks: the streamed runs on so many GPUs of the host, which share one copy of
the layers in its memory. Time is that of the units, without start and loading, of the rank that took longest.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import random_model  # noqa: E402
from winnow_process import Winnow  # noqa: E402

ANSWER_TOKENS = 256
WAVE_ROWS = 32768  # as pipeline/run/run_weights.cc reserves memory on a GPU
MODES = {"exact": [], "tail": ["--tail-rows", 256]}


def forecast(winnow, model, data, flags):
    words = ["calibrate", "--model", model, "--data", data, "--out", winnow.directory / "never", *flags]
    return json.loads(winnow.run([*words, "--dry-run", "--json"]))


def capped(shape, options, sweep_bytes):
    """--max-memory that holds so many layers beside a wave of such sweeps."""
    n_together = max(1, math.ceil(WAVE_ROWS / options.tokens))
    shared = shape.size_bytes() - shape.layers * shape.layer_bytes()
    return int(1.01 * (shared + options.layers_held * shape.layer_bytes()) + n_together * sweep_bytes)


def measure(winnow, model, data, shape, options, mode):
    flags = ["--window", min(2048, options.tokens // 8), "--device", options.device, *MODES[mode]]
    on = [*flags, "--stream", "on"]
    # Two buffers, embedding and head are what it has besides.
    streamed = forecast(winnow, model, data, on)
    weights = shape.size_bytes() - (shape.layers - 2) * shape.layer_bytes()
    limit = capped(shape, options, max(streamed["predicted_bytes_per_rank"] - weights, 0))
    on += ["--max-memory", limit]
    streamed = forecast(winnow, model, data, on)
    stream = streamed["stream"]
    print(
        f"{mode}: {options.examples} x {options.tokens} tokens, {limit / 2**30:.2f} GiB a rank; {stream['layers']} of "
        f"{stream['of_layers']} layers from {stream['from']}, up to {stream['units_together']} unit(s) together; "
        f"loading {stream['load_seconds']:.2f} s, computing {stream['compute_seconds']:.2f} s: {stream['limit']} limits"
    )
    off = [*flags, "--stream", "off"]
    runs = [("off", 1, off), *(("on", ranks, on) for ranks in options.ranks)]
    times = {"off": [], "on": []}
    tables = []
    for _ in range(options.repeats):
        for name, ranks, words in runs:
            if name == "off" and options.no_resident:
                continue
            run = winnow.calibrate(model, data, words, ranks if ranks > 1 else None)
            last = json.loads((winnow.directory / "run" / "run.json").read_text())["informative"]["runs"][-1]
            busy = [rank["busy_seconds"] for rank in last["rank"]]
            if ranks == options.ranks[0]:
                times[name].append(max(busy))
            tables.append(run.nll)
            print(
                f"  --stream {name}, {ranks} rank(s): {max(busy):.2f} s in units, {sum(busy):.2f} s in sum, "
                f"{run.provenance['load_seconds']:.2f} s for the "
                f"weights that stay, {run.provenance['wall_seconds']:.2f} s in all, "
                f"{run.provenance['peak_allocated_bytes'] / 2**30:.2f} GiB at the peak; {run.provenance['devices']}",
                flush=True,
            )
    equal = all(np.array_equal(tables[0], table) for table in tables)
    print(f"  predicted {streamed['predicted_seconds']:.2f} s, taken {min(times['on']):.2f} s; tables equal: {equal}")
    if times["off"]:
        ratios = [off / on for off, on in zip(times["off"], times["on"], strict=True)]
        print(f"  streamed at {100 * min(ratios):.1f} to {100 * max(ratios):.1f} % of the resident speed")
    return equal


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=Path("build/winnow"))
    parser.add_argument("--shape", choices=random_model.SHAPES, default="qwen3-4b")
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--layers-held", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=24576)
    parser.add_argument("--examples", type=int, default=4)
    parser.add_argument("--modes", default="exact,tail")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-resident", action="store_true")
    parser.add_argument("--ranks", default="1", help="numbers of ranks, with commas")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.ranks = [int(count) for count in options.ranks.split(",")]
    options.answer = min(ANSWER_TOKENS, options.tokens // 4)
    shape = random_model.SHAPES[options.shape]
    with tempfile.TemporaryDirectory() as folder:
        model, data = random_model.write_inputs(folder, options)
        winnow = Winnow(options.winnow, folder)
        are_equal = [measure(winnow, model, data, shape, options, mode) for mode in options.modes.split(",")]
    if not all(are_equal):
        sys.exit("the tables differ")


if __name__ == "__main__":
    main()
