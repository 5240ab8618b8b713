"""Measures what Transformers itself is off by in bfloat16, on the examples and cases of goldens in float64.

    python3 tests/golden/make_bf16_errors.py [NAME...]     default: every family without a golden NAME_bf16

The result is bf16_errors.json: by golden, the root mean square over its NLLs, in nats. It is the measure of what a GPU
may be off. One other expert that a router chooses outweighs all rounding, and goldens of windows of their own have few
NLLs: there every attention that Transformers has for the model is measured, as one alone is chance. Needs
torch and transformers, on the CPU; the tests that read the result need neither.
"""

import argparse
import itertools
import json

import numpy as np
import torch
import transformers
from golden_checkpoints import CHECKPOINTS, EXPERT_CHECKPOINTS, HYBRID_CHECKPOINTS
from make_goldens import HERE, NativeModels, load_model, patterns_of
from reference import WindowedModel, WindowRule

OUT = HERE / "bf16_errors.json"


def loader(attention):
    def load(directory, **options):
        return WindowedModel(load_model(directory, dtype=torch.bfloat16, attn_implementation=attention, **options))

    return load


def attentions_of(name):
    """Eager attention alone knows what some families add to it: caps, and scores without a value."""
    is_left_to_chance = name in EXPERT_CHECKPOINTS or name.endswith("_native")
    return ["eager", "sdpa"] if is_left_to_chance and not name.startswith("gemma2") else ["eager"]


def scorer(name, attention):
    """A function of tokens, the answer's start, a base and a rule: the scores of the base and its variants."""
    if name.endswith("_native"):
        models = NativeModels(HERE / name.removesuffix("_native"), loader(attention))
        return lambda tokens, start, base, rule: [
            models.score(tokens, start, windowed, rule) for windowed in models.patterns(base)
        ]
    model = loader(attention)(HERE / name)
    return lambda tokens, start, base, rule: model.score(tokens, start, patterns_of(base, len(model.layers)), rule)


def rms_error(name):
    golden = json.loads((HERE / f"{name}.json").read_text())
    errors = []
    for score, case in itertools.product([scorer(name, each) for each in attentions_of(name)], golden["cases"]):
        rule = WindowRule(golden["window_keys"], case["sinks"], case["decode"], case["tail_rows"])
        for example, exact in zip(golden["examples"], case["nll"], strict=True):
            found = score(example["tokens"], example["answer_start"], case["base"], rule)
            errors += [float(scores.nll.double().mean()) - nll for scores, nll in zip(found, exact, strict=True)]
    return float(np.sqrt(np.mean(np.square(errors))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, form in CHECKPOINTS.items() if not form.has_bf16]
    names += [f"{name}_native" for name in HYBRID_CHECKPOINTS]
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *names], default=[])
    errors = json.loads(OUT.read_text())["rms_nats"] if OUT.exists() else {}
    for name in parser.parse_args().names or names:
        if not (HERE / f"{name}.json").exists():
            continue
        errors[name] = float(f"{rms_error(name):.3g}")
        print(f"{name}: {errors[name]} nats", flush=True)
        content = {
            "made_by": "python3 tests/golden/make_bf16_errors.py",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "rms_nats": dict(sorted(errors.items())),
        }
        OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
