"""winnow against Hugging Face Transformers on a GPU: the same shapes, the same card, the same run.

    python3 tests/bench/compare_transformers_gpu.py [--only exact,tail,...] [--model-dir DIR] [--write]
    python3 tests/bench/compare_transformers_gpu.py --shape qwen3-30b-a3b --layers 24 --only exact,tail [--write]
    python3 tests/bench/compare_transformers_gpu.py --device cpu --shape tiny     # a check of this script, not of speed

Needs torch, transformers, safetensors and h5py. Sections, each with rows of its own:

  exact      drop-one sweep over all layers of the shape with random bfloat16 weights, T = 24576, W = 2048, answer 256
             rows
  lengths    the same at T = 16384 and 32768
  tail       the tail sweep of the same, M = 256 and M = 0, at T = 24576
  long       the tail sweep at T = 131072, with predicted and peak memory
  sinks      4 sinks against none at T = 24576
  attention  the own attention kernel against cuDNN's, full causal, T = 16384 (`winnow bench`)
  demo       the demo model: 64 examples of T = 1024, W = 96, S = 4, 13 patterns
  load       reading the checkpoint onto the GPU

winnow runs by its command line. Seconds an example are those of its shards: start, loading, statistics and the first
example, which also warms up, are left out. Transformers does it the best obvious way: bfloat16, sdpa without a mask,
logits of the answer rows alone, inference mode, after a warm-up, timed by CUDA events; (layers + 1) times one full
forward pass, although a windowed layer's mask makes a pass slower. It is measured before and after winnow. Its weights
stay on the GPU while winnow runs, everything else is given back. Shares of operations come from a separate run with
--profile, where winnow has that flag.

A section that fails prints why and does not keep the others from running. With --write,
results/benchmarks/gpu-SHAPE-DATE.md and .json (or --out) are written anew after every row. Sections that stand there
already, from the same card, driver and versions, and that --only leaves out now, are kept: so the sections can be run
in several calls.
"""

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from gpu_report import Report, Row
from random_model import SHAPES, read_calibration, write_calibration, write_checkpoint
from transformers_gpu import Peer, WindowRule
from winnow_process import Winnow, WinnowFailed

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DEMO_MODEL, DEMO_DATA = TESTS / "demo" / "model", TESTS / "demo" / "long.h5"
DEMO_RULE = WindowRule(96, 4)
# The sizes that a tiny shape replaces.
FULL_SIZE = {
    "window": 2048,
    "answer": 256,
    "exact": 24576,
    "lengths": (16384, 32768),
    "tail_rows": 256,
    "long": 131072,
    "mask": 16384,
    "bench": ["--shape", "qwen3-4b", "--tokens", "16384", "--window", "2048"],
}
TINY_SIZE = {
    "window": 48,
    "answer": 8,
    "exact": 192,
    "lengths": (128, 256),
    "tail_rows": 16,
    "long": 512,
    "mask": 128,
    "bench": ["--shape", "demo", "--tokens", "256", "--window", "64"],
}
SECTIONS = ("exact", "lengths", "tail", "long", "sinks", "attention", "demo", "load")
PEER_REPEATS = 3


class Benchmark:
    """The two sides, and what several sections use."""

    def __init__(self, options, directory, report):
        self.options, self.directory, self.report = options, directory, report
        self.shape, self.size = options.shape, TINY_SIZE if options.tiny else FULL_SIZE
        self.winnow = Winnow(options.winnow, directory, options.timeout)
        self.flags = ["--device", options.device, *options.winnow_flags.split()]
        self.model = options.model_dir or directory / "model"
        self._peers, self._runs, self._has = {}, {}, {}
        self.load = None  # (seconds, bytes) of the last run that said so
        self.demo_seconds = None

    def checkpoint(self):
        if "model" not in self._has:
            begin = time.perf_counter()
            write_checkpoint(self.model, self.shape, self.options.device)
            self._has["model"] = True
            self.say(
                f"checkpoint of {self.shape.size_bytes() / 1e9:.2f} GB at {self.model}, "
                f"{time.perf_counter() - begin:.1f} s"
            )
        return self.model

    def say(self, text):
        print(f"  {text}", flush=True)

    def data(self, n_tokens, n_examples):
        path = self.directory / f"random-{n_tokens}-{n_examples}.h5"
        if not path.exists():
            write_calibration(path, n_tokens, self.size["answer"], n_examples, self.shape.vocab)
        return path

    def has_flag(self, verb, flag):
        if (verb, flag) not in self._has:
            self._has[verb, flag] = self.winnow.has_flag(verb, flag)
        return self._has[verb, flag]

    def peer(self, directory):
        """Loaded once; another model takes its place."""
        if directory not in self._peers:
            self._peers.clear()
            begin = time.perf_counter()
            self._peers[directory] = Peer(directory, self.options.device)
            self.say(f"Transformers has loaded {directory.name}, {time.perf_counter() - begin:.1f} s")
        return self._peers[directory]

    def forward(self, n_tokens, repeats=PEER_REPEATS, rule=None):
        """(seconds of Transformers' forward passes, NLL); ([], None) with a line where that fails: winnow's figure is
        worth having without."""
        try:
            tokens, start = read_calibration(self.data(n_tokens, 2))[0]
            seconds, nll = self.peer(self.checkpoint()).time_forward(tokens, start, repeats, rule)
            self.say(f"Transformers, forward of T = {n_tokens}: " + ", ".join(f"{s:.3f} s" for s in seconds))
            return seconds, nll
        except Exception as error:
            self.say(f"Transformers, T = {n_tokens}: {first_line(error)}")
        for peer in self._peers.values():  # outside of the handler, whose traceback holds the tensors
            peer.release()
        return [], None

    def calibrate(self, n_tokens, n_examples, flags=()):
        """A run of the random model; the same one again is not run again."""
        key = (n_tokens, n_examples, *flags)
        if key not in self._runs:
            self._runs[key] = self.measure(
                self.checkpoint(),
                self.data(n_tokens, n_examples),
                ["--window", self.size["window"], *flags],
                f"T = {n_tokens}",
            )
            provenance = self._runs[key].provenance
            if "load_seconds" in provenance:
                self.load = provenance["load_seconds"], provenance.get("load_bytes", self.shape.size_bytes())
        return self._runs[key]

    def measure(self, model, data, flags, what):
        begin = time.perf_counter()
        run = self.winnow.calibrate(model, data, [*flags, *self.flags])
        few = ", ".join(f"{s:.3f} s" for s in run.seconds[:8])
        self.say(f"winnow, {what} {' '.join(map(str, flags))}: {few}; {time.perf_counter() - begin:.1f} s in all")
        return run

    def profile(self, model, data, flags):
        """(share of products and attention, share of idle time, the profile), or Nones where there is none."""
        try:
            if not self.has_flag("calibrate", "--profile"):
                return None, None, None
            run = self.measure(model, data, [*flags, "--profile"], "profile")
            return self.report.shares(run.provenance.get("profile", ""))
        except (WinnowFailed, ValueError, KeyError) as error:
            self.say(f"no profile: {error}")
            return None, None, None


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def steady(run):
    """Median over the examples after the first."""
    return statistics.median(run.seconds[1:] or run.seconds)


def gibibytes(run):
    peak, predicted = (run.provenance[name] / 2**30 for name in ("peak_allocated_bytes", "predicted_bytes"))
    return f"{peak:.2f} GiB at the peak, {predicted:.2f} predicted"


def facts_of(run):
    """What a row keeps of a run; the profile is kept as such, and run.json says nothing more."""
    return {
        "command": run.command,
        "provenance": {k: v for k, v in run.provenance.items() if k not in ("run_json", "profile")},
    }


def sweep_row(bench, section, work, n_tokens, n_examples, flags=(), with_profile=False):
    """winnow between two series of Transformers' forwards; compared with (layers + 1) forwards."""
    before, peer_nll = bench.forward(n_tokens)
    run = bench.calibrate(n_tokens, n_examples, flags)
    after = bench.forward(n_tokens)[0] if before else []
    forward = statistics.median(before + after) if before else None
    share, idle, profile = None, None, None
    if with_profile:
        share, idle, profile = bench.profile(
            bench.checkpoint(), bench.data(n_tokens, n_examples), ["--window", bench.size["window"], *flags]
        )
    n_passes = bench.shape.layers + 1
    remarks = [gibibytes(run)]
    if forward is not None:
        remarks.append(f"base NLL {run.nll[0, 0]:.4f}, Transformers {peer_nll:.4f}")
    return Row(
        section,
        work,
        winnow_seconds=steady(run),
        transformers_seconds=forward and n_passes * forward,
        transformers_how=forward and f"{n_passes} x {1e3 * forward:.0f} ms",
        share=share,
        idle=idle,
        remarks=remarks,
        raw={
            "winnow_seconds": run.seconds,
            "forward_seconds": before + after,
            "base_nll": run.nll[:, 0].tolist(),
            "transformers_base_nll": peer_nll,
            **facts_of(run),
            "profile": profile,
        },
    )


def masked_forward_row(bench):
    n_tokens = bench.size["mask"]
    plain, _ = bench.forward(n_tokens, repeats=1)
    masked, _ = bench.forward(n_tokens, repeats=1, rule=WindowRule(bench.size["window"])) if plain else ([], None)
    if not masked:
        raise RuntimeError("Transformers' forward failed")
    return Row(
        "exact",
        f"information: Transformers' forward, T = {n_tokens}, one layer windowed by a mask",
        transformers_seconds=masked[0],
        transformers_how=f"{1e3 * plain[0]:.0f} ms without a mask",
        raw={"masked_seconds": masked, "plain_seconds": plain},
    )


def long_row(bench):
    n_tokens, rows = bench.size["long"], bench.size["tail_rows"]
    run = bench.calibrate(n_tokens, 2, ["--tail-rows", rows])
    seconds, nll = bench.forward(n_tokens, repeats=2)
    forward = statistics.median(seconds) if seconds else None
    comparison = "Transformers' forward failed" if forward is None else f"{steady(run) / forward:.2f} forwards"
    return Row(
        "long",
        f"tail sweep, M = {rows}, T = {n_tokens}",
        winnow_seconds=steady(run),
        transformers_seconds=forward,
        transformers_how=forward and "1 forward",
        remarks=[gibibytes(run), comparison],
        raw={
            "winnow_seconds": run.seconds,
            "forward_seconds": seconds,
            "base_nll": run.nll[:, 0].tolist(),
            "transformers_base_nll": nll,
            **facts_of(run),
        },
    )


def sinks_row(bench):
    n_tokens = bench.size["exact"]
    without, with_sinks = bench.calibrate(n_tokens, 2), bench.calibrate(n_tokens, 2, ["--sinks", 4])
    change = steady(with_sinks) / steady(without) - 1
    return Row(
        "sinks",
        f"exact sweep with 4 sinks, T = {n_tokens}",
        winnow_seconds=steady(with_sinks),
        remarks=[f"{steady(without):.3f} s without: {change:+.1%}"],
        raw={"with_seconds": with_sinks.seconds, "without_seconds": without.seconds, **facts_of(with_sinks)},
    )


def attention_row(bench):
    """`winnow bench` on the two attention paths; on a CPU, which has one, both are the same."""
    is_gpu = bench.options.device == "cuda"
    if is_gpu and not bench.has_flag("bench", "--device"):
        raise WinnowFailed("this winnow bench has no --device")
    times = {}
    for path in ("cudnn", "own"):
        chosen = ["--device", "cuda", "--attention", path] if is_gpu else []
        times[path] = bench.report.operations(
            bench.winnow.run(["bench", *bench.size["bench"], "--layers", "1", "--json", *chosen])
        )
        bench.say(
            f"{path}: "
            + ", ".join(f"{name} {1e3 * s:.3f} ms" for name, s in times[path].items() if name.startswith("attention"))
        )
    own, cudnn = (times[path]["attention full"] for path in ("own", "cudnn"))
    return Row(
        "attention",
        "own attention kernel, full causal, one layer",
        winnow_seconds=own,
        remarks=[f"cuDNN {1e3 * cudnn:.3f} ms: own reaches {cudnn / own:.0%} of its speed"],
        raw=times,
    )


def demo_size(bench):
    """(examples that winnow measures, examples that Transformers does)."""
    return (4, 2) if bench.options.tiny else (64, 8)


def demo_work(bench):
    return f"demo model, {demo_size(bench)[0]} examples of T = 1024, all of them"


def demo_row(bench):
    limit, measured = demo_size(bench)
    flags = ["--window", DEMO_RULE.window_keys, "--sinks", DEMO_RULE.sinks, "--limit", limit]
    examples, peer = read_calibration(DEMO_DATA)[:measured], bench.peer(DEMO_MODEL)
    peer.time_drop_one(examples[:1], DEMO_RULE)
    before = peer.time_drop_one(examples, DEMO_RULE)
    peer.release()
    run = bench.measure(DEMO_MODEL, DEMO_DATA, flags, "demo")
    after = peer.time_drop_one(examples, DEMO_RULE)
    bench.demo_seconds, each = run.provenance["busy_seconds"], statistics.median(before + after)
    n_passes = len(peer.layers) + 1
    bench.say(f"Transformers, {n_passes} forwards: {each:.4f} s an example; winnow: {bench.demo_seconds / limit:.4f} s")
    share, idle, profile = bench.profile(DEMO_MODEL, DEMO_DATA, flags)
    return Row(
        "demo",
        demo_work(bench),
        winnow_seconds=bench.demo_seconds,
        transformers_seconds=limit * each,
        transformers_how=f"{n_passes} forwards an example, {2 * measured} timings, scaled",
        share=share,
        idle=idle,
        remarks=[f"whole run {run.provenance['wall_seconds']:.2f} s"],
        raw={
            "busy_seconds": bench.demo_seconds,
            "winnow_seconds": run.seconds,
            "drop_one_seconds": before + after,
            **facts_of(run),
            "profile": profile,
        },
    )


def demo_batch_row(bench):
    limit, measured = demo_size(bench)
    examples, peer = read_calibration(DEMO_DATA)[:measured], bench.peer(DEMO_MODEL)
    peer.time_drop_one_batch(examples[:1], DEMO_RULE)
    seconds = peer.time_drop_one_batch(examples, DEMO_RULE)
    peer.release()
    return Row(
        "demo",
        f"{demo_work(bench)}, Transformers with the patterns as a batch",
        winnow_seconds=bench.demo_seconds,
        transformers_seconds=limit * statistics.median(seconds),
        transformers_how=f"1 forward of batch {len(peer.layers) + 1} an example, scaled",
        raw={"batch_seconds": seconds},
    )


def load_row(bench):
    if bench.load is None:
        bench.calibrate(bench.size["lengths"][0], 2, ["--tail-rows", 0])
    if bench.load is None:
        raise WinnowFailed("this winnow does not say load_seconds in /provenance")
    seconds, size_bytes = bench.load
    return Row(
        "load",
        f"checkpoint of {size_bytes / 1e9:.2f} GB onto the device",
        winnow_seconds=seconds,
        remarks=[f"{size_bytes / 1e9 / max(seconds, 1e-9):.2f} GB/s; files in memory already"],
        raw={"load_seconds": seconds, "load_bytes": size_bytes},
    )


def rows_of(bench, section):
    """Functions that measure one row each, so that a row that fails costs only itself."""
    size = bench.size

    def sweep(n_tokens, n_examples=2, tail_rows=None, with_profile=False):
        flags = [] if tail_rows is None else ["--tail-rows", tail_rows]
        kind = "exact sweep" if tail_rows is None else f"tail sweep, M = {tail_rows}"
        return partial(sweep_row, bench, section, f"{kind}, T = {n_tokens}", n_tokens, n_examples, flags, with_profile)

    return {
        "exact": [sweep(size["exact"], with_profile=True), partial(masked_forward_row, bench)],
        "lengths": [sweep(n_tokens) for n_tokens in size["lengths"]],
        # Several examples, so that the median is of more than one.
        "tail": [sweep(size["exact"], 6, size["tail_rows"], with_profile=True), sweep(size["exact"], 6, 0)],
        "long": [partial(long_row, bench)],
        "sinks": [partial(sinks_row, bench)],
        "attention": [partial(attention_row, bench)],
        "demo": [partial(demo_row, bench), partial(demo_batch_row, bench)],
        "load": [partial(load_row, bench)],
    }[section]


def run_section(bench, section):
    print(f"{section}:", flush=True)
    for measure_row in rows_of(bench, section):
        try:
            row = measure_row()
        except Exception as error:  # whatever it is: the other rows are worth as much
            if isinstance(error, WinnowFailed):
                bench.say(error.command)
            else:
                traceback.print_exc()
            row = Row(section, f"{section}: failed", remarks=[first_line(error)])
        bench.report.add(row)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between (default: all)")
    parser.add_argument("--winnow", type=Path, default=ROOT / "build" / "winnow")
    parser.add_argument("--winnow-flags", default="", help="more flags for every calibrate, such as '--attention own'")
    parser.add_argument(
        "--model-dir",
        type=Path,
        help="where the random checkpoint is, or is to be written and "
        "kept (default: a temporary directory, in /dev/shm if it has room)",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--shape", choices=SHAPES, default="qwen3-4b", help="the tiny ones check this script and measure nothing"
    )
    parser.add_argument("--layers", type=int, help="so many layers of the shape, where not all fit (default: all)")
    parser.add_argument("--timeout", type=float, default=240, help="seconds that one winnow run may take")
    parser.add_argument(
        "--budget",
        type=float,
        default=float("inf"),
        help="sections that would begin after so many seconds are left out (default: none)",
    )
    parser.add_argument("--write", action="store_true", help="write results/benchmarks/gpu-SHAPE-DATE.md and .json")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="with --write: another place")
    options = parser.parse_args()
    options.tiny, options.shape_name = options.shape.startswith("tiny"), options.shape
    options.shape = SHAPES[options.shape]
    if options.layers is not None:
        options.shape = replace(options.shape, layers=options.layers)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"--only: expected some of {','.join(SECTIONS)}, found '{','.join(sorted(unknown))}'")
    if options.write and options.tiny:
        parser.error("a tiny shape measures nothing that is worth writing")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device answers; --device cpu --shape tiny checks the script without one")
    return options


def main():
    options = parse()
    begin = time.perf_counter()
    report = Report(options, ROOT, Winnow(options.winnow, "."))
    shm = Path("/dev/shm")
    has_room = shm.is_dir() and Report.free_bytes(shm) > 1.25 * options.shape.size_bytes()
    with tempfile.TemporaryDirectory(prefix="winnow-bench-", dir=shm if has_room else None) as directory:
        bench = Benchmark(options, Path(directory), report)
        for name in options.only:
            if time.perf_counter() - begin > options.budget:
                report.add(Row(name, f"{name}: not begun", remarks=[f"the budget of {options.budget:.0f} s is spent"]))
                continue
            run_section(bench, name)
    print(f"\n{report.render()}\n{time.perf_counter() - begin:.0f} s in all")
    if options.write:
        print(f"written to {report.path} and .json")
    return 1 if report.has_failed() else 0


if __name__ == "__main__":
    sys.exit(main())
