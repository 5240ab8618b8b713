"""Time predicted beside time taken: of calibrations, searches and evaluations, phase by phase.

    python3 tests/bench/predictions.py                                        # ten cases on the CPU
    python3 tests/bench/predictions.py --device cuda --model DIR --data FILE  # on a GPU: exact, tail, search, evaluate
    python3 tests/bench/predictions.py --only tail,search --ranks 2

Each case is run twice: with --dry-run, which predicts, and then in earnest. A phase's time is that of the run's own
clock: the start ends with the plan; units are all units, the first among them; texts are those of `--generate`.
"units" is what the run itself predicted just before; all other phases are the dry run's. "core" is how much of a core
each thread had: where it is far below 100 %, something else had the machine. On a CPU what the dry run said is
therefore scaled by the ratio of the two runs' shares, and a case is repeated, --repetitions times at most, until both
had --quiet of a core. With --processor-time (a CPU, one rank, one thread) all times are the processor's, and a busy
machine does not matter; waits for the disk are in none of them then.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "python")]
import tiny  # noqa: E402
from winnow_process import Winnow  # noqa: E402

DEMO = Path(__file__).resolve().parents[1] / "demo"
ALLOWED = 0.25
LATER = ("first_unit", "measuring", "asking", "last_units", "sums", "profile", "statistics", "results", "teardown")


@dataclass(frozen=True)
class Case:
    name: str
    verb: str
    model: str
    data: str
    flags: tuple = field(default=())


WIDE = {"layers": 6, "hidden": 512, "heads": 8, "kv_heads": 2, "head_dim": 64, "ffn": 1536, "vocab": 4096}
DEEP = {"layers": 24, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 192, "vocab": 512}
LONG = {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "ffn": 384, "vocab": 512}
MODELS = {"wide": WIDE, "deep": DEEP, "long": LONG}
# Lengths of the examples, and of their answers.
DATA = {
    "wide": ([200, 300, 420, 512], 24),
    "deep": ([50 + 5 * i for i in range(24)], 6),
    "long": ([1000, 1500, 2200, 3000], 32),
}
DEMO_WINDOW = ("--window", 96)
CPU_CASES = [
    Case("demo exact", "calibrate", "demo", "demo", (*DEMO_WINDOW, "--limit", 4)),
    Case("demo tail", "calibrate", "demo", "demo", (*DEMO_WINDOW, "--limit", 8, "--tail-rows", 64)),
    Case("demo signals", "calibrate", "demo", "demo", (*DEMO_WINDOW, "--limit", 3, "--signals", "all")),
    Case("wide exact", "calibrate", "wide", "wide", ("--window", 128)),
    Case("wide tail", "calibrate", "wide", "wide", ("--window", 128, "--tail-rows", 32)),
    Case("deep exact, short examples", "calibrate", "deep", "deep", ("--window", 24)),
    Case("long exact", "calibrate", "long", "long", ("--window", 256, "--sinks", 4)),
    Case("long tail", "calibrate", "long", "long", ("--window", 256, "--sinks", 4, "--tail-rows", 64)),
    Case(
        "demo search",
        "search",
        "demo",
        "demo",
        (
            *DEMO_WINDOW,
            "--limit",
            8,
            "--tail-rows",
            32,
            "--method",
            "greedy-forward",
            "--keep",
            2,
            "--verify",
            3,
            "--verify-examples",
            2,
        ),
    ),
    Case(
        "long search",
        "search",
        "long",
        "long",
        ("--window", 256, "--tail-rows", 64, "--method", "greedy-forward", "--keep", 2),
    ),
    Case("demo evaluate", "evaluate", "demo", "demo", (*DEMO_WINDOW, "--limit", 6, "--generate", 12)),
    Case("wide evaluate", "evaluate", "wide", "wide", ("--window", 128, "--generate", 24)),
]
PATTERNS = ("--pattern", "full", "--pattern", "windowed", "--pattern", "list:1,2")


def gpu_cases(window):
    flags = ("--window", window)
    return [
        Case("exact", "calibrate", "given", "given", (*flags, "--limit", 4)),
        Case("exact, all signals", "calibrate", "given", "given", (*flags, "--limit", 4, "--signals", "all")),
        Case("tail", "calibrate", "given", "given", (*flags, "--tail-rows", 256)),
        Case(
            "search",
            "search",
            "given",
            "given",
            (*flags, "--limit", 16, "--tail-rows", 256, "--method", "greedy-forward", "--keep", 3),
        ),
        Case("evaluate", "evaluate", "given", "given", (*flags, "--limit", 16, "--generate", 64)),
    ]


def inputs_of(options, folder):
    """{name: (model, data)}."""
    if options.model:
        return {"given": (options.model, options.data)}
    inputs = {"demo": (DEMO / "model", DEMO / "long.h5")}
    for name, shape in MODELS.items():
        lengths, answer = DATA[name]
        model = tiny.write_checkpoint(folder / name, **shape)
        inputs[name] = (model, tiny.write_calibration(folder / f"{name}.h5", lengths, answer, shape["vocab"]))
    return inputs


class Runner:
    """Runs of winnow, and how much of a core they had."""

    def __init__(self, options, folder):
        self.options = options
        self.winnow = Winnow(options.winnow, folder)
        self.out = folder / "run"

    def run(self, case, model, data, more):
        words = [case.verb, "--model", model, "--data", data, "--out", self.out, "--device", self.options.device]
        words += [
            *(["--threads", 1] if self.options.processor_time else []),
            *case.flags,
            *(PATTERNS if case.verb == "evaluate" else ()),
            *more,
        ]
        begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        printed = json.loads(self.winnow.run([*words, "--json"], self.options.ranks))
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        return printed, cpu / (time.monotonic() - begin) / (self.options.ranks or 1)

    def phases(self, case, model, data):
        """({phase: (predicted, taken)}, the smaller share of a core)."""
        shutil.rmtree(self.out, ignore_errors=True)
        told, first = self.run(case, model, data, ["--dry-run"])
        _, second = self.run(case, model, data, ["--profile"])
        record = json.loads((self.out / "run.json").read_text())["informative"]
        last = record["runs"][-1]
        # What the dry run said, had it had the share of a core that the run had.
        is_scaled = self.options.device == "cpu" and not self.options.processor_time
        scale = first / second if is_scaled else 1.0
        phases = {}
        timeline = last.get("profile", {}).get("timeline")
        if timeline and "start_seconds" in told:
            start = sum(max(part["seconds"]) for part in timeline["parts"] if part["name"] not in LATER)
            phases["start"] = (told["start_seconds"] * scale, start)
        phases["units"] = (last["predicted_seconds"], last["measured_seconds"])
        if case.verb == "search":
            entry = record["searches"]["greedy-forward"]
            phases["whole search"] = (told["predicted_seconds"] * scale, entry["search_seconds"])
        else:
            phases["units, by the dry run"] = (told["predicted_seconds"] * scale, last["measured_seconds"])
        if told.get("predicted_text_seconds"):
            phases["texts"] = (told["predicted_text_seconds"] * scale, self.text_seconds())
        return phases, min(first, second)

    def text_seconds(self):
        """Of one rank."""
        batches = [json.loads(path.read_text().splitlines()[0]) for path in (self.out / "texts").glob("*.jsonl")]
        return sum(b["prefill_seconds"] + b["decode_seconds"] for b in batches) / (self.options.ranks or 1)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=Path("build/winnow"))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", type=Path, help="measure this one in place of the ten cases")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--window", type=int, default=2048, help="with --model")
    parser.add_argument("--ranks", type=int)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="on a CPU, one rank: predicted and taken are seconds of the processor, whatever else has the machine",
    )
    parser.add_argument("--only", default="", help="cases whose names contain one of these, with commas")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quiet", type=float, default=0.9, help="share of a core that both runs need on a CPU")
    options = parser.parse_args()
    if bool(options.model) != bool(options.data):
        parser.error("--model and --data come together")
    if options.processor_time and (options.device != "cpu" or options.ranks):
        parser.error("--processor-time is for one process on a CPU")
    return options


def use_processor_clock(folder):
    """Programs that are started from now on take the processor's time for the time."""
    library = folder / "processor_clock.so"
    source = Path(__file__).resolve().parent / "processor_clock.c"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    os.environ["LD_PRELOAD"] = str(library)


def main():
    options = parse()
    if options.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    cases = gpu_cases(options.window) if options.model else CPU_CASES
    wanted = options.only.split(",")
    errors = []
    print("case                         phase                   predicted     taken   ratio   core")
    with tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(options, Path(folder))
        if options.processor_time:
            use_processor_clock(Path(folder))
        runner = Runner(options, Path(folder))
        for case in cases:
            if not any(word in case.name for word in wanted):
                continue
            best, share = None, -1.0
            for _ in range(options.repetitions):
                phases, core = runner.phases(case, *inputs[case.model])
                if core > share:
                    best, share = phases, core
                if options.device == "cuda" or options.processor_time or share >= options.quiet:
                    break
            for phase, (predicted, taken) in best.items():
                errors.append(predicted / taken - 1.0)
                mark = "" if abs(errors[-1]) <= ALLOWED else "  *"
                print(
                    f"{case.name:28} {phase:22} {predicted:8.3f} s {taken:8.3f} s {predicted / taken:7.2f} "
                    f"{100 * share:5.0f}%{mark}",
                    flush=True,
                )
    inside = sum(abs(error) <= ALLOWED for error in errors)
    print(
        f"{inside} of {len(errors)} phases within {100 * ALLOWED:.0f} %; "
        f"median error {100 * statistics.median(errors):+.1f} %"
    )


if __name__ == "__main__":
    main()
