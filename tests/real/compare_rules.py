#!/usr/bin/env python3
"""How well the layers that each rule keeps answer: real models, long prompts, held-out sets, paired intervals.

    compare_rules.py measure --model DIR --data FOLDER --window W --out DIR [--device NAME] [--winnow PROGRAM]
    compare_rules.py table DIR...

`measure` calibrates (every row under the window with all signals and a short control, then by the tail), searches,
selects by every rule at an eighth, a quarter and a half of the layers, and evaluates all of that on held-out prompts.
FOLDER has calibration.h5, control.h5 (the same questions on short prompts) and held-out.h5: make_prompts.py, then
`winnow prepare`. Repeated, it goes on where it stopped. `table` prints what was measured as Markdown.

Differences are paired: the same examples answered under two patterns. Intervals are those of 95 % of 10,000 resamples
of the examples; over models, examples are drawn anew within each model and the models' means are averaged.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUDGETS = {8: "1/8", 4: "1/4", 2: "1/2"}
# By the exact sweep; the paper's is the first, with which all are compared.
RULES = [
    "nll",
    "kl",
    "exact-match",
    "token-accuracy",
    "sensitivity",
    "mass",
    "ratio",
    "nll-minus-generic",
    "light-transfer",
]
SEEDS = 3  # of random layers
BAD_DATA = 65
RESAMPLES = 10_000
SHOWN_LAYERS = 12


def pattern_name(layers) -> str:
    return "list:" + ",".join(str(layer) for layer in sorted(layers))


class Measured:
    """The run directories of one model under `out`, and the commands that make them."""

    def __init__(self, out, options=None):
        self.out = out
        self.options = options
        self.commands = []

    def winnow(self, *words, may_refuse=False):
        """What it printed; None where it may refuse its data and does."""
        command = [self.options.winnow, *(str(word) for word in words)]
        print("$", shlex.join(command), file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if may_refuse and done.returncode == BAD_DATA:
            return None
        if done.returncode:
            sys.exit(f"compare_rules.py: winnow {words[0]} ended with {done.returncode}")
        return done.stdout

    def measure(self):
        o = self.options
        self.out.mkdir(parents=True, exist_ok=True)
        common = ["--model", o.model, "--window", o.window, "--device", o.device]
        common += ["--target", o.target] if o.target else []
        common += ["--limit", o.limit] if o.limit else []
        calibration, control = o.data / "calibration.h5", o.data / "control.h5"
        self.winnow(
            "calibrate",
            *common,
            *("--data", calibration, "--control", f"short={control}", "--signals", "all", "--out", self.out / "exact"),
        )
        if not o.no_tail:
            self.winnow("calibrate", *common, "--data", calibration, "--tail-rows", 256, "--out", self.out / "tail")
        n_layers = len(self.table("exact", "calibration/layer"))
        self.winnow(
            "search",
            *common,
            *(
                "--data",
                calibration,
                "--method",
                "greedy-forward",
                "--keep",
                n_layers // 2,
                "--out",
                self.out / "search",
                *(["--exact"] if o.no_tail else []),
            ),
        )
        choices = {divisor: self.choices(n_layers, divisor) for divisor in BUDGETS if divisor <= n_layers}
        patterns = {name for rules in choices.values() for name in rules.values()}
        self.winnow(
            "evaluate",
            *common,
            *("--data", o.data / "held-out.h5", "--out", self.out / "evaluation", "--pattern", "windowed"),
            *(word for name in sorted(patterns) for word in ("--pattern", name)),
        )
        (self.out / "choices.json").write_text(json.dumps(choices, indent=1))

    def choices(self, n_layers, divisor):
        """{rule: pattern} at one budget."""
        keep = n_layers // divisor
        runs = {rule: ("exact", rule) for rule in RULES}
        runs |= {} if self.options.no_tail else {"nll, by the tail": ("tail", "nll")}
        runs |= {"greedy-forward": ("search", "greedy-forward")}
        runs |= {f"random:{seed}": ("exact", f"random:{seed}") for seed in range(SEEDS)}
        runs |= {f"periodic:{divisor}@{first}": ("exact", f"periodic:{divisor}@{first}") for first in range(divisor)}
        found = {}
        for rule, (run, method) in runs.items():
            words = ["--keep", keep] if not method.startswith("periodic") else []
            text = self.winnow("select", self.out / run, "--method", method, *words, "--json", may_refuse=True)
            layers = [] if text is None else json.loads(text)["layers"]
            if len(layers) == keep:  # a short prompt has no lazy ratio; some periodic patterns have a layer more
                found[rule] = pattern_name(layers)
        return found

    def table(self, run, name):
        with h5py.File(self.out / run / "results.h5") as file:
            values = file[name][...]
        return [value.decode() for value in values] if values.dtype == object else values

    def provenance(self, run, name):
        with h5py.File(self.out / run / "results.h5") as file:
            return file["provenance"].attrs.get(name, "")

    # ---- what was measured -------------------------------------------------------------------------------------------

    @property
    def name(self):
        return self.out.name

    def choices_read(self):
        return {int(key): rules for key, rules in json.loads((self.out / "choices.json").read_text()).items()}

    def row(self, pattern):
        return self.table("evaluation", "evaluation/pattern").index(pattern)

    def scores(self, figure, pattern):
        """(examples) of the held-out set."""
        return self.table("evaluation", f"evaluation/{figure}")[self.row(pattern)].astype(float)


def resampled(differences, seed=0):
    """Mean and 95 % interval; differences: one array a model, (examples)."""
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1) for values in differences
    ]
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return float(np.mean([values.mean() for values in differences])), float(low), float(high)


def interval(values, form="+.3f"):
    mean, low, high = values
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def families_of(choices):
    """The rules of one budget in the table's order: random and periodic ones are shown as a range."""
    alone = [rule for rule in choices if ":" not in rule]
    return alone, {kind: [rule for rule in choices if rule.startswith(kind)] for kind in ("periodic", "random")}


def model_table(measured):
    choices = measured.choices_read()
    examples = measured.table("evaluation", "evaluation/example_id")
    prompts = measured.table("evaluation", "evaluation/prompt_tokens")
    delta = measured.table("exact", "calibration/delta_nll").mean(axis=0)
    layers = measured.table("exact", "calibration/layer")
    order = np.argsort(-delta)[:SHOWN_LAYERS]
    lines = [
        f"## {measured.name}",
        "",
        f"{len(delta)} layers with full attention; held-out: {len(examples)} prompts of {prompts.min()} to "
        f"{prompts.max()} tokens. Delta NLL of single layers (calibration set, nats): "
        + ", ".join(f"{layers[place]}: {delta[place]:.3f}" for place in order)
        + ".",
        "",
        "| kept | rule | token accuracy % | exact match % | NLL | NLL minus that of nll |",
        "|---|---|---|---|---|---|",
    ]

    def cells(pattern):
        accuracy, exact = (100 * measured.scores(name, pattern).mean() for name in ("token_accuracy", "exact_match"))
        return f"{accuracy:.1f} | {exact:.1f} | {measured.scores('nll', pattern).mean():.3f}"

    lines += [f"| all | full | {cells('full')} | |", f"| none | windowed | {cells('windowed')} | |"]
    for divisor, rules in choices.items():
        base = measured.scores("nll", rules["nll"])
        alone, ranges = families_of(rules)
        for rule in alone:
            pattern = rules[rule]
            difference = "" if rule == "nll" else interval(resampled([measured.scores("nll", pattern) - base]))
            lines.append(f"| {BUDGETS[divisor]} | {rule} | {cells(pattern)} | {difference} |")
        for kind, members in ranges.items():
            if not members:
                continue
            best = min(members, key=lambda rule: measured.scores("nll", rules[rule]).mean())
            difference = interval(resampled([measured.scores("nll", rules[best]) - base]))
            lines.append(
                f"| {BUDGETS[divisor]} | best of {len(members)} {kind} | {cells(rules[best])} | {difference} |"
            )
    if not (measured.out / "tail").exists():
        return lines
    first, second = (measured.table(run, "calibration/delta_nll").mean(axis=0) for run in ("exact", "tail"))
    overlaps = []
    for divisor in choices:
        keep = len(delta) // divisor
        both = set(np.argsort(-first)[:keep]) & set(np.argsort(-second)[:keep])
        overlaps.append(f"{len(both)} of {keep}")
    lines += ["", "Layers that the tail sweep and the exact sweep both choose: " + ", ".join(overlaps) + "."]
    return lines


def pooled_table(models):
    """Rule minus nll at equal budget, over the models of which an eighth of the layers is one or more."""
    models = [model for model in models if set(model.choices_read()) == set(BUDGETS)]
    lines = [
        f"## Over the {len(models)} models",
        "",
        "NLL of a rule minus that of nll at the same budget, nats a token of the answer; below 0 the rule is better.",
        "",
        "| rule | " + " | ".join(BUDGETS.values()) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    measured_by_all = set.intersection(*(set(rules) for model in models for rules in model.choices_read().values()))
    rules = [rule for rule in families_of(models[0].choices_read()[4])[0] if rule in measured_by_all - {"nll"}]
    for rule in rules:
        found = []
        for divisor in BUDGETS:
            differences = []
            for model in models:
                choice = model.choices_read()[divisor]
                differences.append(model.scores("nll", choice[rule]) - model.scores("nll", choice["nll"]))
            found.append(interval(resampled(differences)))
        lines.append(f"| {rule} | " + " | ".join(found) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("measure")
    measure.add_argument("--model", type=pathlib.Path, required=True)
    measure.add_argument("--data", type=pathlib.Path, required=True)
    measure.add_argument("--window", type=int, required=True)
    measure.add_argument("--out", type=pathlib.Path, required=True)
    measure.add_argument("--device", default="auto")
    measure.add_argument("--limit", type=int, help="the first examples of each file alone (default: all)")
    measure.add_argument("--target", help="whose rules hold, as in `winnow calibrate` (default: none)")
    measure.add_argument("--no-tail", action="store_true", help="every row under the window, in the search too")
    measure.add_argument("--winnow", default=str(ROOT / "build" / "winnow"))
    table = verbs.add_parser("table")
    table.add_argument("directories", type=pathlib.Path, nargs="+")
    options = parser.parse_args()
    if options.verb == "measure":
        Measured(options.out, options).measure()
        return
    models = [Measured(directory) for directory in options.directories]
    sections = [model_table(model) for model in models]
    if len(models) > 1:
        sections.append(pooled_table(models))
    print("\n\n".join("\n".join(section) for section in sections))


if __name__ == "__main__":
    main()
