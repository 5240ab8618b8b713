"""One rank beside several of one host: where the time goes, what it comes to, and whether the tables are equal.

    python3 tests/bench/many_gpus.py --ranks 1,2,4 [--model DIR --data FILE] [--window 2048] [-- --tail-rows 256]
    python3 tests/bench/many_gpus.py --ranks 1,2 --device cpu          # ranks of processes, a small random model
    python3 tests/bench/many_gpus.py --ranks 1,2,4 --shape qwen3-4b --tokens 24576 --examples 12 --model-dir DIR

Without --model a checkpoint of random weights is made (--shape needs torch; a small one does not). What follows --
goes to `winnow calibrate` as it is. One run that warms the page cache comes first. For each number of ranks: the
units' own time, summed over the ranks; the start, from the process to its first unit, of the slowest rank; waiting
for units and for the last units of others, mean of the ranks; the end, from the last unit on; the whole command, as
this script sees it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "python")]
import tiny  # noqa: E402
from winnow_process import Winnow  # noqa: E402

# Parts of the timeline (pipeline/runtime/timeline.h) by what they are for a run on many ranks.
WORK = ("first_unit", "measuring")
WAITING = ("asking", "last_units")
END = ("sums", "statistics", "results", "teardown")


def parts_of(timeline):
    """{part: seconds of every rank}."""
    return {part["name"]: np.array(part["seconds"]) for part in timeline["parts"]}


def summary(timeline, busy_seconds, total_seconds):
    """Seconds of a run: work in sum, start, waiting, end, total."""
    parts = parts_of(timeline)
    later = (*WORK, *WAITING, *END, "profile")
    start = sum(seconds for name, seconds in parts.items() if name not in later)
    return {
        "work": sum(busy_seconds),
        "start": float(np.max(start)),
        "waiting": float(np.mean(sum(parts[name] for name in WAITING))),
        "end": float(sum(parts[name][0] for name in END)),
        "total": total_seconds,
    }


def inputs_of(arguments, folder):
    """(model, data)."""
    if arguments.model:
        return arguments.model, arguments.data
    data = Path(folder) / "data.h5"
    if arguments.shape:
        import random_model

        shape = random_model.SHAPES[arguments.shape]
        model = arguments.model_dir or Path(folder) / "model"
        random_model.write_checkpoint(model, shape, "cpu" if arguments.device == "cpu" else "cuda")
        return model, random_model.write_calibration(
            data, arguments.tokens, arguments.answer, arguments.examples, shape.vocab
        )
    model = tiny.write_checkpoint(
        Path(folder) / "model", layers=8, hidden=128, heads=4, kv_heads=2, head_dim=32, ffn=384, vocab=256
    )
    lengths = np.linspace(arguments.tokens // 2, arguments.tokens, arguments.examples).astype(int)
    return model, tiny.write_calibration(data, lengths.tolist(), answer=arguments.answer, vocab=256)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=Path("build/winnow"))
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, with commas; the first is compared with")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--shape", help="random weights of a shape of random_model.py")
    parser.add_argument("--model-dir", type=Path, help="keeps them there")
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument(
        "--window", type=int, help="default: 2048; of made-up data an eighth of --tokens if that is less"
    )
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("more", nargs="*", help="flags of winnow calibrate, after --")
    arguments = parser.parse_args()
    if bool(arguments.model) != bool(arguments.data):
        parser.error("--model and --data come together")
    arguments.window = arguments.window or (2048 if arguments.model else min(2048, arguments.tokens // 8))
    return arguments


def main():
    arguments = parse()
    counts = [int(count) for count in arguments.ranks.split(",")]
    flags = ["--window", arguments.window, "--device", arguments.device, *arguments.more]
    if arguments.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a rank is a core
    rows, tables = [], {}
    with tempfile.TemporaryDirectory() as folder:
        model, data = inputs_of(arguments, folder)
        winnow = Winnow(arguments.winnow, folder)
        winnow.calibrate(model, data, [*flags, "--limit", 1])
        for count in counts:
            for _ in range(arguments.repetitions):
                begin = time.monotonic()
                run = winnow.calibrate(model, data, [*flags, "--profile"], count)
                seconds = time.monotonic() - begin
                last = json.loads((Path(folder) / "run" / "run.json").read_text())["informative"]["runs"][-1]
                busy = [rank["busy_seconds"] for rank in last["rank"]]
                rows.append((count, summary(last["profile"]["timeline"], busy, seconds)))
                first = tables.setdefault(counts[0], run.nll)
                if not np.array_equal(first, run.nll):
                    sys.exit(f"the tables of {counts[0]} and {count} ranks differ")
        facts = run.provenance
    base = min(row["total"] for count, row in rows if count == counts[0])
    print(f"{facts['devices']}; {facts['reduction']}; {len(run.nll)} examples; {' '.join(map(str, flags))}")
    print("ranks  work in sum    start  waiting      end    total  as fast")
    for count, row in rows:
        print(
            f"{count:5d} {row['work']:12.2f} {row['start']:8.2f} {row['waiting']:8.2f} {row['end']:8.2f} "
            f"{row['total']:8.2f} {base / row['total']:7.2f}x"
        )
    print(f"tables equal bit for bit on {', '.join(map(str, counts))} ranks")


if __name__ == "__main__":
    main()
