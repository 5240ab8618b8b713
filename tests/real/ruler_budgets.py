#!/usr/bin/env python3
"""What hybrids of a real model answer of RULER's kinds of tasks, by length of prompt and by budget.

    ruler_budgets.py prepare --model DIR --data FOLDER [--winnow PROGRAM]
    ruler_budgets.py measure --model DIR --data FOLDER --window W --out DIR [--others CHOICES] [--winnow PROGRAM]
    ruler_budgets.py score --model DIR --data FOLDER --out DIR [--winnow PROGRAM]
    ruler_budgets.py table DIR

`prepare` makes two sets with different seeds, as many prompts of each task and length. `measure` chooses layers on one
of them by every rule at an eighth, a quarter and a half, and lets all of these patterns answer the other in free
generation; --others adds choices.json of compare_rules.py, layers that were chosen on other data. `score` scores the
answers, `table` prints the scores as Markdown. Repeated, each goes on where it stopped.
"""

import argparse
import json
import pathlib

from compare_rules import BUDGETS, ROOT, Measured, pattern_name

TASKS = ["niah_single", "niah_multikey", "niah_multivalue", "vt"]
LENGTHS = [4096, 8192, 16384, 32000]
CALIBRATION, HELD_OUT = "calibration.h5", "held-out.h5"
SETS = {CALIBRATION: (32, 1007), HELD_OUT: (48, 7)}  # examples, seed
RULES = ["nll", "kl", "light-transfer"]
OTHER_RULES = ["nll", "greedy-forward"]
ANSWER_TOKENS = 64


class Ruler(Measured):
    def prepare(self):
        for name, (count, seed) in SETS.items():
            if (self.options.data / name).exists():
                continue
            tasks = [f"ruler:{task}" for task in TASKS]
            self.winnow(
                *("prepare", "--model", self.options.model, "--generate-task", *tasks, "--task-tokens", *LENGTHS),
                *("--count", count, "--seed", seed, "--out", self.options.data / name),
            )

    def measure(self):
        o = self.options
        self.out.mkdir(parents=True, exist_ok=True)
        common = ["--model", o.model, "--window", o.window, "--device", o.device]
        chosen_on = [*common, "--data", o.data / CALIBRATION]
        self.winnow("calibrate", *chosen_on, "--signals", "all", "--out", self.out / "exact")
        n_layers = len(self.table("exact", "calibration/layer"))
        greedy = ["--method", "greedy-forward", "--keep", n_layers // 2]
        self.winnow("search", *chosen_on, *greedy, "--out", self.out / "search")
        patterns = {divisor: self.patterns(n_layers, divisor) for divisor in BUDGETS}
        (self.out / "patterns.json").write_text(json.dumps(patterns, indent=1))
        names = sorted({name for rules in patterns.values() for name in rules.values()})
        responses = self.out / "responses.jsonl"
        self.winnow(
            *("evaluate", *common, "--data", o.data / HELD_OUT, "--generate", ANSWER_TOKENS, "--responses", responses),
            *("--out", self.out / "evaluation", "--pattern", "windowed"),
            *(word for name in names for word in ("--pattern", name)),
        )

    def score(self):
        o = self.options
        self.winnow(
            *("score", self.out / "responses.jsonl", "--data", o.data / HELD_OUT, "--model", o.model),
            *("--evaluation", self.out / "evaluation", "--out", self.out / "scores.json"),
            *("--figure", self.out / "scores.svg"),
        )

    def patterns(self, n_layers, divisor):
        """{rule: pattern} at one budget."""
        keep = n_layers // divisor
        runs = [(rule, "exact", rule) for rule in RULES] + [("greedy-forward", "search", "greedy-forward")]
        found = {}
        for name, run, method in runs:
            text = self.winnow("select", self.out / run, "--method", method, "--keep", keep, "--json")
            found[name] = pattern_name(json.loads(text)["layers"])
        found["periodic"] = f"periodic:{divisor}@0"
        if self.options.others:
            others = json.loads(self.options.others.read_text())[str(divisor)]
            found |= {f"{rule}, chosen on other data": others[rule] for rule in OTHER_RULES}
        return found


def percent(row, name):
    return f"{100 * row[name]:.1f} [{100 * row[name + '_ci_low']:.1f}, {100 * row[name + '_ci_high']:.1f}]"


def score_table(out):
    scores = json.loads((out / "scores.json").read_text())["scores"]
    patterns = json.loads((out / "patterns.json").read_text())
    by_length = {(row["pattern"], row["length_bin"]): row for row in scores if row["task"] is None}
    lengths = list(dict.fromkeys(row["length_bin"] for row in scores if row["task"] is None and row["length_bin"]))
    lines = [
        "| kept | rule | " + " | ".join(lengths) + " | all | all, minus full |",
        "|---" * (len(lengths) + 4) + "|",
    ]

    def line(kept, rule, pattern):
        cells = [f"{100 * by_length[pattern, length]['mean']:.0f}" for length in lengths]
        row = by_length[pattern, None]
        difference = "" if pattern == "full" else percent(row, "minus_baseline")
        return f"| {kept} | {rule} | " + " | ".join(cells) + f" | {100 * row['mean']:.1f} | {difference} |"

    lines += [line("all", "full", "full"), line("none", "windowed", "windowed")]
    for divisor, rules in patterns.items():
        lines += [line(BUDGETS[int(divisor)], rule, pattern) for rule, pattern in rules.items()]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("prepare", "measure", "score"):
        verb = verbs.add_parser(name)
        verb.add_argument("--model", type=pathlib.Path, required=True)
        verb.add_argument("--data", type=pathlib.Path, required=True)
        verb.add_argument("--winnow", default=str(ROOT / "build" / "winnow"))
        if name != "prepare":
            verb.add_argument("--out", type=pathlib.Path, required=True)
        if name == "measure":
            verb.add_argument("--window", type=int, required=True)
            verb.add_argument("--device", default="auto")
            verb.add_argument("--others", type=pathlib.Path)
    verbs.add_parser("table").add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    if options.verb == "table":
        print("\n".join(score_table(options.out)))
    elif options.verb == "prepare":
        Ruler(None, options).prepare()
    else:
        getattr(Ruler(options.out, options), options.verb)()


if __name__ == "__main__":
    main()
