"""Makes heads.json: every key head of every layer windowed alone, with Transformers on the CPU in float64.

    python3 tests/golden/make_heads.py

Needs torch and transformers; the test that reads it needs neither. The checkpoints and examples are those of NAME.json
beside this file. A layer's mask has one plane a query head: the window for those that share the key head in question,
full attention for the others. Besides the single heads there is a pattern that mixes heads in every layer.
"""

import json

import numpy as np
import torch
import transformers
from make_goldens import HERE, SMALLEST_MARGIN, load_reference, sha256_of
from reference import WindowRule, forget_longer_sequences, score_rows

NAMES = ["qwen3", "llama", "gemma2", "granite_swa"]  # groups of 2 and 4, capped scores, learned sinks
CASES = [(0, "windowed", None), (3, "windowed", 20), (3, "full", None)]  # sinks, decode, tail rows
UNCLEAR = -1  # in place of hits where float32 might choose another token


def patterns_of(n_layers, n_heads, rng):
    """(layers, key heads) bool, True where windowed: none, each head alone, and a mixture."""
    patterns = [np.zeros((n_layers, n_heads), bool)]
    for layer in range(n_layers):
        for head in range(n_heads):
            pattern = np.zeros((n_layers, n_heads), bool)
            pattern[layer, head] = True
            patterns.append(pattern)
    mixture = rng.random((n_layers, n_heads)) < 0.5
    mixture[0] = [True] + [False] * (n_heads - 1)
    return [*patterns, mixture]


@torch.inference_mode()
def score(reference, tokens, answer_start, pattern, rule):
    """AnswerScores of one pattern of heads."""
    model, n_rows = reference.model, len(tokens) - 1
    groups = model.config.num_attention_heads // pattern.shape[1]
    causal = torch.ones(n_rows, n_rows, dtype=torch.bool).tril()
    windowed = rule.visible(n_rows, answer_start)
    for layer, heads in enumerate(pattern):
        visible = torch.stack([windowed if heads[q // groups] else causal for q in range(groups * len(heads))])
        reference._masks[layer] = torch.zeros(visible.shape, dtype=model.dtype).masked_fill_(
            ~visible, torch.finfo(model.dtype).min
        )[None]
    forget_longer_sequences(model)
    inputs = torch.tensor([tokens])
    logits = model(inputs[:, :n_rows], logits_to_keep=len(tokens) - answer_start, use_cache=False).logits[0]
    return score_rows(logits, inputs[0, answer_start:])


def make(name):
    golden = json.loads((HERE / f"{name}.json").read_text())
    reference = load_reference(HERE / name)
    config = reference.model.config
    rng = np.random.default_rng(len(name))
    patterns = patterns_of(config.num_hidden_layers, config.num_key_value_heads, rng)
    cases = []
    for sinks, decode, tail_rows in CASES:
        rule = WindowRule(golden["window_keys"], sinks, decode, tail_rows)
        nll, hits = [], []
        for example in golden["examples"]:
            scores = [score(reference, example["tokens"], example["answer_start"], p, rule) for p in patterns]
            nll.append([float(s.nll.mean()) for s in scores])
            hits.append([int(s.hit.sum()) if float(s.margin.min()) > SMALLEST_MARGIN else UNCLEAR for s in scores])
        cases.append(
            {"sinks": sinks, "decode": decode, "tail_rows": tail_rows, "base": "full", "nll": nll, "hits": hits}
        )
    return {
        "name": name,
        "golden_sha256": sha256_of(HERE / f"{name}.json"),
        "kv_heads": config.num_key_value_heads,
        "mixture": patterns[-1].astype(int).tolist(),  # 1: windowed
        "cases": cases,
    }


def main():
    file = {
        "magic": "winnow-heads",
        "version": 1,
        "made_by": "python3 tests/golden/make_heads.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "models": [make(name) for name in NAMES],
    }
    (HERE / "heads.json").write_text(json.dumps(file) + "\n")


if __name__ == "__main__":
    main()
