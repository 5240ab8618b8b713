"""Trains the demo model: a Qwen3 of 12 layers and 2.4 M parameters that recalls facts from its prompt.

    python3 tests/demo/train_demo.py --out DIR [--seed 2]

Needs torch, transformers and, to be quick (about 3 minutes), a GPU. Writes DIR/config.json and DIR/model.safetensors
(bf16) and prints what the windows cost: compare tests/demo/README.md, which also says how the committed model was made.
A training run on other hardware gives another model with the same behaviour, not the same bytes.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))

import language
import make_data
from reference import WindowedModel, WindowRule, drop_one

WANTED_LOSS = 0.02  # nats per answer token at the end


@dataclass
class Phase:
    """Stages that share one optimizer and one learning-rate schedule."""

    learning_rate: float
    warm_up: int  # steps
    stages: list  # of (name, steps, function: generator, tokens per batch -> Batch)


def mixed_recall(rng, batch_tokens):
    """Recall at random lengths, half of them long."""
    length = int(rng.integers(640, 1057) if rng.random() < 0.5 else np.exp(rng.uniform(np.log(128), np.log(640))))
    n_queries = int(rng.integers(1, 4)) if length > 256 else 1
    most_facts = min(12, (length - language.FACT_TOKENS * n_queries) // 36)
    n_facts = int(rng.integers(min(n_queries, most_facts), most_facts + 1))
    return language.recall(rng, min(192, max(1, batch_tokens // length)), length, n_facts, min(n_queries, n_facts))


# Copying is learnt first, then recall by key, then recall over long distances. All prompts of the last stage have one
# length, so the model also learns at which position an answer stands, and answers with confidence nowhere else: the
# second phase takes that away.
RECALL = Phase(
    2e-3,
    200,
    [
        ("copies", 600, lambda rng, n: language.copies(rng, n // 128)),
        ("recall, T = 256", 400, lambda rng, n: language.recall(rng, n // 256, 256, n_facts=3, n_queries=2)),
        ("recall, T = 1024", 1600, lambda rng, n: language.recall(rng, n // 1024, 1024, n_facts=12, n_queries=3)),
    ],
)
MIXED_LENGTHS = Phase(1e-3, 20, [("recall, mixed lengths", 400, mixed_recall)])


def make_model(seed):
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=language.VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1e5},
            tie_word_embeddings=True,
            bos_token_id=language.BOS,
            eos_token_id=None,
            pad_token_id=0,
            attn_implementation="sdpa",
        )
    )


def learning_rate(phase, step):
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    total = sum(steps for _, steps, _ in phase.stages)
    if step < phase.warm_up:
        return phase.learning_rate * (step + 1) / phase.warm_up
    progress = (step - phase.warm_up) / (total - phase.warm_up)
    return phase.learning_rate * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))


def losses(model, tokens, is_answer):
    """Mean NLL over all tokens and over the answer tokens."""
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
        logits = model(tokens[:, :-1], use_cache=False).logits
    nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    weight = is_answer[:, 1:].flatten().float()
    return nll.mean(), (nll * weight).sum() / weight.sum()


def train(model, phase, rng, batch_tokens):
    """Returns the answer loss over the last 100 steps."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    step, began = 0, time.perf_counter()
    for name, steps, make_batch in phase.stages:
        recent = []
        for i, batch in enumerate([make_batch(rng, batch_tokens) for _ in range(steps)]):
            tokens = torch.as_tensor(batch.tokens, dtype=torch.long, device=model.device)
            all_tokens, answer = losses(model, tokens, torch.as_tensor(batch.is_answer, device=model.device))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(phase, step)
            optimizer.zero_grad(set_to_none=True)
            (all_tokens + answer).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = recent[-99:] + [answer.detach()]
            step += 1
            if step % 50 == 0 or i == steps - 1:
                print(
                    f"{time.perf_counter() - began:6.1f} s  {name}, step {i + 1}: answer loss "
                    f"{torch.stack(recent[-20:]).mean():.4f}, all tokens {all_tokens.detach():.4f}",
                    flush=True,
                )
    return float(torch.stack(recent).mean())


def report(directory, device):
    """Prints what windows cost the saved model on the data of make_data.py."""
    rule = WindowRule(make_data.WINDOW_KEYS, make_data.SINKS)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    windowed = WindowedModel(model.to(device))
    long = make_data.long_examples(make_data.LONG_SEED, make_data.EXAMPLES)
    rng = np.random.default_rng(make_data.LONG_SEED)
    sets = {
        "long": long,
        "short": [make_data.cut(example, rng) for example in long],
        "test": make_data.long_examples(make_data.TEST_SEED, make_data.EXAMPLES),
    }
    n_layers = len(windowed.layers)

    def means(examples, patterns):
        """(patterns, 3): mean NLL, exact match, token accuracy."""
        table = [[s.summary() for s in windowed.score(e.tokens, e.answer_start, patterns, rule)] for e in examples]
        return np.array(table, float).mean(axis=0)

    deltas = None
    for name, examples in sets.items():
        table = means(examples, drop_one(n_layers))
        print(f"{name}: baseline NLL {table[0, 0]:.5f}, exact match {table[0, 1]:.3f}")
        for layer in range(n_layers):
            print(
                f"  layer {layer:2d} windowed: dNLL {table[1 + layer, 0] - table[0, 0]:9.5f}, "
                f"exact match {table[1 + layer, 1]:.3f}, token accuracy {table[1 + layer, 2]:.3f}"
            )
        if deltas is None:
            deltas = table[1:, 0] - table[0, 0]
    best = np.argsort(-deltas)
    kept = {f"keep {k} by NLL {sorted(best[:k].tolist())}": set(best[:k].tolist()) for k in (1, 2, 3, 4, 5, 6)}
    kept |= {f"periodic 1/{k} @ {offset}": set(range(offset, n_layers, k)) for k in (2, 4) for offset in range(k)}
    kept |= {"all windowed": set(), "full": set(range(n_layers))}
    table = means(sets["test"], [[layer not in keep for layer in range(n_layers)] for keep in kept.values()])
    for name, row in zip(kept, table, strict=True):
        print(f"test, {name}: NLL {row[0]:.4f}, exact match {row[1]:.3f}, token accuracy {row[2]:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=2, help="of weights and data (default: 2)")
    parser.add_argument("--batch-tokens", type=int, default=32768, help="tokens a step (default: 32768)")
    parser.add_argument("--continue-from", type=Path, help="a model after the first phase: train the second only")
    parser.add_argument("--report-only", action="store_true", help="measure the model that is in --out")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not options.report_only:
        first = options.continue_from
        if first is None:
            model = make_model(options.seed).to(device)
            train(model, RECALL, np.random.default_rng(options.seed), options.batch_tokens)
            first = options.out / "first-phase"
            model.to(torch.bfloat16).save_pretrained(first)
        model = AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32, attn_implementation="sdpa").to(device)
        loss = train(model, MIXED_LENGTHS, np.random.default_rng([options.seed, 2]), options.batch_tokens)
        model.to(torch.bfloat16).save_pretrained(options.out)
        if not loss < WANTED_LOSS:
            sys.exit(f"answer loss {loss:.4f} is not below {WANTED_LOSS}: try another --seed")
    report(options.out, device)


if __name__ == "__main__":
    main()
