"""What a joint search costs on tail figures and with every row under the window, and how good what they find is.

    python3 tests/bench/search_cost.py                                 # the demo model; evaluated on its test set
    python3 tests/bench/search_cost.py --shape qwen3-4b --keep 9       # random weights, T = 24576: cost only

Both searches run in the same call, one after the other. Seconds are those of the searches' own rounds: start, loading
of weights and statistics are left out, making the cached keys and values is not. --shape needs torch and safetensors.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import h5py
from winnow_process import Winnow, WinnowFailed

TESTS = Path(__file__).resolve().parents[1]
DEMO = TESTS / "demo"


def flags_of(options, model, data, window):
    flags = ["--model", model, "--data", data, "--window", window, "--sinks", options.sinks, "--device", options.device]
    return flags + (["--limit", options.limit] if options.limit else [])


def search(winnow, options, inputs, out, more):
    """The JSON of a search that has ended."""
    model, data, window = inputs
    return json.loads(
        winnow.run(
            [
                "search",
                *flags_of(options, model, data, window),
                "--out",
                out,
                "--method",
                options.method,
                "--keep",
                options.keep,
                "--beam",
                options.beam,
                "--objective",
                options.objective,
                "--json",
                *more,
            ],
            options.ranks,
        )
    )


def layers_of(found, keep):
    return next(best["layers"] for best in found["best"] if best["keep"] == keep)


def pattern_of(layers):
    return "list:" + ",".join(map(str, layers)) if layers else "windowed"


def evaluate(winnow, options, inputs, out, patterns):
    """{pattern: (exact match, NLL)} with every row under the window."""
    model, data, window = inputs
    words = ["evaluate", *flags_of(options, model, data, window), "--out", out]
    for pattern in ["full", *patterns]:
        words += ["--pattern", pattern]
    winnow.run(words, options.ranks)
    with h5py.File(out / "results.h5") as file:
        table = file["evaluation"]
        names = [name.decode() for name in table["pattern"][:]]
        return dict(zip(names, zip(table["mean_exact_match"][:], table["mean_nll"][:], strict=True), strict=True))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--winnow", default=TESTS.parent / "build" / "winnow")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ranks", type=int, help="under mpirun (default: one rank without it)")
    parser.add_argument("--shape", choices=["qwen3-4b", "tiny"], help="random weights (default: the demo model)")
    parser.add_argument("--model-dir", help="where the random checkpoint is kept")
    parser.add_argument("--tokens", type=int, default=24576)
    parser.add_argument("--answer", type=int, default=256)
    parser.add_argument("--examples", type=int, default=1)
    parser.add_argument("--window", type=int, help="default: 96 for the demo model, else 2048")
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--tail-rows", type=int, help="default: 32 for the demo model, else 256")
    parser.add_argument("--method", default="greedy-forward", choices=["greedy-forward", "greedy-backward"])
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--objective", default="nll")
    parser.add_argument("--limit", type=int, help="examples of every set")
    return parser.parse_args()


def main():
    options = arguments()
    window = options.window or (2048 if options.shape else 96)
    tail_rows = options.tail_rows if options.tail_rows is not None else (256 if options.shape else 32)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        model, data, test = DEMO / "model", DEMO / "long.h5", DEMO / "test.h5"
        if options.shape:
            import random_model  # needs torch

            (model, data), test = random_model.write_inputs(directory, options), None
        winnow = Winnow(options.winnow, directory)
        tail = search(winnow, options, (model, data, window), directory / "tail", ["--tail-rows", tail_rows])
        exact = search(winnow, options, (model, data, window), directory / "exact", ["--exact"])
        found = {name: layers_of(result, options.keep) for name, result in (("tail", tail), ("exact", exact))}
        print(
            f"{options.method}, {options.objective}, K = {options.keep}, beam {options.beam}: "
            f"{tail['n_patterns']} patterns, {tail['n_examples']} example(s)"
        )
        print(f"{'search':8}{'seconds':>10}{'predicted':>11}  full attention in layers")
        for name, result in (("tail", tail), ("exact", exact)):
            predicted = result["predicted_seconds" if name == "tail" else "predicted_seconds_exact"]
            print(f"{name:8}{result['search_seconds']:10.2f}{predicted:11.2f}  {', '.join(map(str, found[name]))}")
        print(f"cost, exact / tail: {exact['search_seconds'] / tail['search_seconds']:.1f}")
        if test is None:
            return
        scores = evaluate(
            winnow, options, (model, test, window), directory / "test", dict.fromkeys(map(pattern_of, found.values()))
        )
        print(f"\n{'on the test set':18}{'exact match':>12}{'NLL':>12}")
        for name, pattern in [("full", "full"), *((name, pattern_of(layers)) for name, layers in found.items())]:
            print(f"{name:18}{100 * scores[pattern][0]:10.1f} %{scores[pattern][1]:12.4g}")


if __name__ == "__main__":
    try:
        main()
    except WinnowFailed as failure:
        sys.exit(f"search_cost: {failure}\n  {failure.command}")
