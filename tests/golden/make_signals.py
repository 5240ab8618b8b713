"""Makes the golden figures of the signals of layers, with Transformers on the CPU in float64, on the checkpoints and
examples of make_goldens.py.

    python3 tests/golden/make_signals.py NAME...     the committed ones: qwen3 qwen2 llama mistral granite_swa

Writes NAME_signals.json beside this file. Needs torch and transformers; the test that reads it needs neither. KL comes
from the full distributions; removal sets what self_attn returns to 0; attention's shares come from queries and keys as
Transformers gives them to its attention function, by the definitions and not by winnow's way of computing them; the
angular distance is the arccos of the cosine of a layer's input and of that plus what its self_attn returns.
"""

import argparse
import json

import numpy as np
import torch
from make_goldens import CHECKPOINTS, HERE, MAGIC, TESTS, VERSION, load_reference, sha256_of
from reference import WindowRule
from transformers import AttentionInterface

WINDOW_KEYS, SINKS, REMOVED_ROWS = 40, 3, 20
# (sinks, recent, last); with the second the shortest examples have no ratio.
LAZY = [(3, 60, 32), (4, 150, 50)]
PROBE = "winnow_probe"


class Probe:
    """Attention in float64 that keeps each layer's scores, and its score without a value per head where it has one."""

    def __init__(self):
        self.layers = {}  # (heads, rows, keys), (heads, 0 or 1)

    def __call__(self, module, query, key, value, attention_mask, scaling, s_aux=None, **_):
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scores = query @ key.transpose(-1, -2) * scaling
        sinks = scores.new_empty(scores.shape[1], 0) if s_aux is None else s_aux[:, None]
        self.layers[module.layer_idx] = (scores[0].numpy(), sinks.numpy())
        of_rows = sinks[None, :, None].expand(1, -1, scores.shape[2], -1)
        weights = torch.softmax(torch.cat([scores + attention_mask, of_rows], -1), dim=-1)[..., : scores.shape[3]]
        return (weights @ value).transpose(1, 2).contiguous(), weights


class Reference:
    """A golden checkpoint whose layers can be windowed, or have their attention removed."""

    def __init__(self, directory):
        self.probe = Probe()
        AttentionInterface.register(PROBE, self.probe)
        self.windowed = load_reference(directory)
        self.windowed.model.config._attn_implementation = PROBE
        self.removed = None  # (layer, first row)
        self.inputs, self.attention = {}, {}  # by layer, (rows, hidden)
        for index, layer in enumerate(self.windowed.layers):
            layer.register_forward_pre_hook(self._keep_input(index))
            layer.self_attn.register_forward_hook(self._hook(index))

    def _keep_input(self, index):
        def keep(_module, args):
            self.inputs[index] = args[0][0].clone()

        return keep

    def _hook(self, index):
        def remove(_module, _args, output):
            self.attention[index] = output[0][0].clone()
            if self.removed is None or self.removed[0] != index:
                return output
            attention = output[0].clone()
            attention[:, self.removed[1] :] = 0
            return (attention, *output[1:])

        return remove

    @torch.inference_mode()
    def log_p(self, tokens, start, windowed_layer=None, removed=None, n_rows=None):
        """log p of every token (answer tokens, vocabulary); n_rows: of the sequence, all but the last."""
        n_rows = n_rows or len(tokens) - 1
        model = self.windowed
        full = model._additive(torch.ones(n_rows, n_rows, dtype=torch.bool).tril())
        window = model._additive(WindowRule(WINDOW_KEYS, SINKS).visible(n_rows, start))
        model._masks[:] = [window if layer == windowed_layer else full for layer in range(len(model.layers))]
        self.removed = removed
        logits = model.model(torch.tensor([tokens[:n_rows]]), use_cache=False).logits[0]
        return torch.log_softmax(logits[start - 1 : len(tokens) - 1], -1)


def logsumexp(values):
    largest = values.max()
    return largest + np.log(np.exp(values - largest).sum())


def share(head, row, keys):
    """exp(LSE over the keys - LSE over all keys up to the row and the head's score without a value)."""
    scores, sinks = head
    return np.exp(logsumexp(scores[row, keys]) - logsumexp(np.concatenate([scores[row, : row + 1], sinks])))


def mass_outside(heads, start, n_tokens):
    """(heads): mean over the rows that predict the answer."""
    masses = []
    for head in heads:
        probabilities = []
        for row in range(start - 1, n_tokens - 1):
            outside = [key for key in range(row + 1) if key >= SINKS and row - key >= WINDOW_KEYS]
            probabilities.append(share(head, row, outside) if outside else 0.0)
        masses.append(np.mean(probabilities))
    return np.array(masses)


def angular_distance(before, after):
    """Mean over the rows of arccos(cosine) / pi."""
    cosine = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    return float((cosine.clamp(-1, 1).arccos() / torch.pi).mean())


def lazy_ratios(heads, sinks, recent, last):
    """(clean, compat): LightTransfer's ratio, causal, and as SWAA's script forms it."""
    n_tokens = len(heads[0][0])
    if n_tokens < sinks + recent + 10:
        return None, None
    clean, compat = [], []
    for head in heads:
        for row in range(max(0, n_tokens - last), n_tokens):
            clean.append(share(head, row, [key for key in range(row + 1) if key < sinks or row - key < recent]))
            compat.append(share(head, row, [*range(sinks), *range(n_tokens - recent, n_tokens)]))
    return float(np.mean(clean)), float(np.mean(compat))


def measure(reference, tokens, start):
    """The figures of one example: lists over layers."""
    layers = range(len(reference.windowed.layers))
    answer = torch.tensor(tokens[start:])[:, None]
    base = reference.log_p(tokens, start)
    rows = slice(start - 1, len(tokens) - 1)
    inputs, attention = reference.inputs, reference.attention
    angular = [angular_distance(inputs[i][rows], inputs[i][rows] + attention[i][rows]) for i in layers]

    def nll_without(layer, first_row):
        return float(-reference.log_p(tokens, start, removed=(layer, first_row)).gather(1, answer).mean())

    figures = {
        "nll_base": float(-base.gather(1, answer).mean()),
        "kl": [float((base.exp() * (base - reference.log_p(tokens, start, layer))).sum(-1).mean()) for layer in layers],
        "nll_removed_tail": [nll_without(layer, max(0, start - REMOVED_ROWS)) for layer in layers],
        "nll_removed_all": [nll_without(layer, 0) for layer in layers],
    }
    reference.log_p(tokens, start, n_rows=len(tokens))
    heads = [list(zip(*reference.probe.layers[layer], strict=True)) for layer in layers]
    n_kv = reference.windowed.model.config.num_key_value_heads
    figures["mass_outside"] = [mass_outside(h, start, len(tokens)).reshape(n_kv, -1).mean(1).tolist() for h in heads]
    figures["angular_distance"] = angular
    figures["lazy"] = [[lazy_ratios(h, *setting) for h in heads] for setting in LAZY]
    return figures


def make(name):
    directory = HERE / name
    examples = json.loads((HERE / f"{name}.json").read_text())["examples"]
    reference = Reference(directory)
    golden = {
        "magic": MAGIC,
        "version": VERSION,
        "made_by": f"python3 tests/golden/make_signals.py {name}",
        "checkpoint": str(directory.relative_to(TESTS)),
        "sha256": {
            path.name: sha256_of(path)
            for path in sorted(directory.iterdir())
            if path.suffix in (".json", ".safetensors")
        },
        "window_keys": WINDOW_KEYS,
        "sinks": SINKS,
        "removed_rows": REMOVED_ROWS,
        "lazy": LAZY,
        "examples": examples,
        "figures": [measure(reference, example["tokens"], example["answer_start"]) for example in examples],
    }
    (HERE / f"{name}_signals.json").write_text(json.dumps(golden).replace('{"nll_base"', '\n{"nll_base"') + "\n")
    kl = [figures["kl"] for figures in golden["figures"]]
    compat = [ratio[1] for figures in golden["figures"] for setting in figures["lazy"] for ratio in setting if ratio[1]]
    print(f"{name}: KL {np.min(kl):.3f} to {np.max(kl):.3f}, compat ratio up to {max(compat):.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *CHECKPOINTS], default=[])
    for name in parser.parse_args().names or CHECKPOINTS:
        make(name)


if __name__ == "__main__":
    main()
