"""Makes generation.json: what Transformers' own generate() writes, greedily, in float64 on the CPU; the demo model.

    python3 tests/golden/make_generation.py

Needs torch and transformers; the test that reads it needs neither. Full attention on 200 prompts: all of the demo's
test set, and its texts cut at random places. Windowed layers on some of them: as the configuration's own sliding window
with its cache (no sinks), and with sinks by one forward pass a token over the masks of reference.py.

Where the best two tokens are nearer than SMALLEST_MARGIN nats, float32 may choose the other one: a text ends before
that.
"""

import argparse
import json
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from make_goldens import TESTS, load_reference, sha256_of
from reference import WindowRule
from transformers import AutoConfig, AutoModelForCausalLM

MODEL, DATA = TESTS / "demo" / "model", TESTS / "demo" / "test.h5"
N_PROMPTS, NEW_TOKENS, SMALLEST_MARGIN = 200, 32, 1e-3
N_WINDOWED, WINDOW_KEYS, SINKS = 24, 96, 4
PATTERNS = {"list:1,4,5": [1, 4, 5], "list:1": [1], "windowed": []}  # layers that keep full attention
EVERY_STEPWISE = 8  # of those prompts with sinks: a pass a token is slow


def prompts_of(n_prompts):
    """(example, length) pairs: whole prompts first, then texts cut anywhere."""
    with h5py.File(DATA) as file:
        offsets, tokens, starts = file["offsets"][:], file["tokens"][:].tolist(), file["answer_start"][:]
    texts = [tokens[offsets[e] : offsets[e + 1]] for e in range(len(starts))]
    pairs = [(e, int(start)) for e, start in enumerate(starts)]
    rng = np.random.default_rng(7)
    while len(pairs) < n_prompts:
        example = int(rng.integers(len(texts)))
        pairs.append((example, int(rng.integers(1, starts[example]))))
    return texts, pairs[:n_prompts]


def clear_cut(tokens, logits):
    """The tokens before the first whose runner-up is near."""
    best = torch.log_softmax(logits, -1).topk(2, dim=-1).values
    near = (best[:, 0] - best[:, 1] < SMALLEST_MARGIN).nonzero()
    return tokens[: int(near[0])] if len(near) else tokens


@torch.inference_mode()
def generated(model, prompt):
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return clear_cut(out.sequences[0, len(prompt) :].tolist(), torch.stack(out.logits)[:, 0])


@torch.inference_mode()
def generated_with_sinks(reference, prompt, pattern, rule):
    """Without a cache: the whole text goes through the masks again for every token."""
    tokens, logits = list(prompt), []
    for _ in range(NEW_TOKENS):
        windowed = reference._additive(rule.visible(len(tokens), len(prompt)))
        full = reference._additive(torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril())
        reference._masks[:] = [windowed if is_windowed else full for is_windowed in pattern]
        logits.append(reference.model(torch.tensor([tokens]), logits_to_keep=1, use_cache=False).logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
    return clear_cut(tokens[len(prompt) :], torch.stack(logits))


def load(full_layers=None):
    """In float64; layers beside full_layers get Transformers' own sliding window."""
    config = AutoConfig.from_pretrained(MODEL)
    if full_layers is not None:
        config.use_sliding_window, config.sliding_window = True, WINDOW_KEYS
        config.layer_types = [
            "full_attention" if layer in full_layers else "sliding_attention"
            for layer in range(config.num_hidden_layers)
        ]
    return AutoModelForCausalLM.from_pretrained(
        MODEL, config=config, dtype=torch.float64, attn_implementation="sdpa"
    ).eval()


def case(name, full_layers, window, texts):
    keys, sinks, decode = window
    return {
        "name": name,
        "full_layers": full_layers,
        "window_keys": keys,
        "sinks": sinks,
        "decode": decode,
        "texts": [
            {"example": example, "prompt_tokens": length, "tokens": tokens} for (example, length), tokens in texts
        ],
    }


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    texts, pairs = prompts_of(N_PROMPTS)
    layers = list(range(AutoConfig.from_pretrained(MODEL).num_hidden_layers))
    plain = load()
    cases = [
        case(
            "full",
            layers,
            (4096, 0, "windowed"),
            [(pair, generated(plain, texts[pair[0]][: pair[1]])) for pair in pairs],
        )
    ]
    print(f"full: {sum(len(t['tokens']) for t in cases[0]['texts'])} tokens", flush=True)
    some = pairs[: N_WINDOWED // 2] + pairs[-N_WINDOWED // 2 :]
    reference = load_reference(MODEL)
    for name, full_layers in PATTERNS.items():
        model = load(full_layers)
        cases.append(
            case(
                f"{name}, Transformers' window",
                full_layers,
                (WINDOW_KEYS, 0, "windowed"),
                [(pair, generated(model, texts[pair[0]][: pair[1]])) for pair in some],
            )
        )
        pattern = [layer not in full_layers for layer in layers]
        for decode in ("windowed", "full"):
            rule = WindowRule(WINDOW_KEYS, SINKS, decode)
            written = [
                (pair, generated_with_sinks(reference, texts[pair[0]][: pair[1]], pattern, rule))
                for pair in some[::EVERY_STEPWISE]
            ]
            cases.append(case(f"{name}, sinks, {decode} decode", full_layers, (WINDOW_KEYS, SINKS, decode), written))
        print(name, flush=True)
    golden = {
        "magic": "winnow-generation",
        "version": 1,
        "made_by": "python3 tests/golden/make_generation.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "sha256": {
            str(path.relative_to(TESTS)): sha256_of(path)
            for path in [DATA, *sorted(MODEL.iterdir())]
            if path.suffix in (".h5", ".json", ".safetensors")
        },
        "new_tokens": NEW_TOKENS,
        "cases": cases,
    }
    text = json.dumps(golden).replace('{"name"', '\n{"name"').replace('{"example"', '\n {"example"')
    (Path(__file__).resolve().parent / "generation.json").write_text(text + "\n")
    for one in cases:
        print(one["name"], sum(len(t["tokens"]) for t in one["texts"]), "tokens of", len(one["texts"]) * NEW_TOKENS)


if __name__ == "__main__":
    main()
