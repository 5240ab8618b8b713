"""Makes the golden checkpoints and the figures that winnow must reproduce, with Transformers on the CPU in float64.

    python3 tests/golden/make_goldens.py [NAME...]     NAME: one of CHECKPOINTS, or demo; the first four and demo also
                                                       with _bf16, hybrids also with _native; default: all

Needs torch and transformers; the tests that read the goldens need neither. Each golden is NAME.json beside this file,
with the SHA-256 of every file of its checkpoint. The same call on the same versions gives the same bytes, in bfloat16
on the same kind of processor.

NAME_bf16.json also has what Transformers itself computes in bfloat16: the measure of what a GPU may be off. Its
examples are others, many, with answers of one length, and their argmaxes need not be clear-cut: the few of NAME.json,
where an answer of one token outweighs all others, would leave the comparison to chance.
"""

import argparse
import hashlib
import itertools
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from golden_checkpoints import (
    ABLATION_KEYS,
    CHECKPOINTS,
    HYBRID_CHECKPOINTS,
    NATIVE_LAYER_TYPES,
    VOCABULARY,
    WINDOW_KEYS,
)
from reference import WindowedModel, WindowRule, drop_one, forget_longer_sequences, score_rows, text_model
from routers import SMALLEST_GAP, Clearness, router_in_float64
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

MAGIC, VERSION = "winnow-golden", 1
HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
# A row whose target and best rival are nearer than this could flip in float32 (nats); such examples are not used.
SMALLEST_MARGIN = 1e-3
SINKS, DECODES, TAIL_ROWS = (0, 3), ("windowed", "full"), (None, 0, 1, 20)
BF16_TAIL_ROWS, BF16_EXAMPLES, BF16_ANSWER = (None, 20), 24, 24
DEMO_WINDOW_KEYS, DEMO_SINKS = 96, 4
# (tokens, answer tokens, whether an answer token is not the model's)
EXAMPLES = [(150, 7, False), (173, 20, True), (200, 1, False), (188, 33, False)]


def load_model(directory_or_config, **options):
    """The model of a folder, or a random one of a configuration, whatever its towers."""
    is_config = not isinstance(directory_or_config, Path)
    config = directory_or_config if is_config else AutoConfig.from_pretrained(directory_or_config)
    auto_class = AutoModelForImageTextToText if hasattr(config, "text_config") else AutoModelForCausalLM
    load = auto_class.from_config if is_config else auto_class.from_pretrained
    model = load(directory_or_config, **options)
    if any(name.endswith(".experts") for name, _ in model.named_modules()):
        model.set_experts_implementation("eager")
    return model


# Of all routers since the last example was begun.
CLEARNESS = Clearness()


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def random_weight(name, shape, rng, tied, plus_one):
    """Large enough that attention is peaked and far keys matter, and that the next token is not a toss-up."""
    normal = rng.standard_normal(shape)
    if name.endswith(("q_norm.weight", "k_norm.weight", "query_layernorm.weight", "key_layernorm.weight")):
        return 1.6 - float(plus_one) + 0.2 * normal
    if name.endswith("norm.weight"):
        return float(not plus_one) + 0.2 * normal
    if name.endswith("moe_statics.e_score_correction_bias"):
        return 0.1 * normal
    if name.endswith("bias"):
        return 0.3 * normal
    if name.endswith("sinks"):
        return 4.0 + 2.0 * normal  # beside the log-sum-exp of many scores: heads with a little and with most of it
    if "embed_tokens" in name:
        return (0.35 if tied else 1.0) * normal
    gain = {
        "q_proj": 1.6,
        "k_proj": 1.6,
        "v_proj": 1.5,
        "qkv_proj": 1.6,
        "lm_head": 2.5,
        "gate": 3.0,
        "router": 3.0,
    }.get(name.split(".")[-2], 1.0)
    return gain / np.sqrt(shape[-1]) * normal


def write_checkpoint(name, directory):
    form = CHECKPOINTS[name]
    config = AutoConfig.for_model(**form.config)
    model = load_model(config, dtype=torch.float32)
    rng = np.random.default_rng(seed_of(name))
    with torch.no_grad():
        corrections = [(n, t) for n, t in model.named_buffers() if n.endswith("e_score_correction_bias")]
        for tensor_name, tensor in sorted([*model.named_parameters(), *corrections]):
            weight = random_weight(
                tensor_name, tensor.shape, rng, form.config["tie_word_embeddings"], name.startswith("gemma")
            )
            tensor.copy_(torch.from_numpy(weight * form.gains.get(tensor_name.split(".")[-1], 1.0)))
    shutil.rmtree(directory, ignore_errors=True)
    model.to(form.dtype).save_pretrained(directory, max_shard_size=form.shard_size)
    (directory / "generation_config.json").unlink(missing_ok=True)
    for file in directory.iterdir():
        file.chmod(0o644)
    if form.hub_dialect is not None:
        other_names = {"rope_parameters"} | ({"num_local_experts"} if "num_experts" in form.hub_dialect else set())
        fields = {key: value for key, value in form.config.items() if key not in other_names} | form.hub_dialect
        fields |= {"architectures": [type(model).__name__], "hidden_act": "silu", "rms_norm_eps": 1e-6}
        (directory / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def attention_in_float64(module, query, key, value, mask, scaling, softcap=None, s_aux=None, **_):
    """softmax(scaling * q k^T) v with what some families add: caps on the scores, a score without a value per head."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + mask[..., : key.shape[2]]
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = torch.softmax(scores, -1)[..., : key.shape[2]]
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2).contiguous(), weights


def norm_in_float64(norm):
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    plus_one = type(norm).__name__.startswith("Gemma")
    subtracts_mean = type(norm).__name__.endswith("LayerNorm")

    def forward(x):
        if subtracts_mean:
            x = x - x.mean(-1, keepdim=True)
        return (norm.weight + plus_one) * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))

    return forward


def load_reference(directory, **options):
    """The model in float64 throughout: Transformers' norms and eager softmax compute in float32 whatever the dtype."""
    AttentionInterface.register("float64", attention_in_float64)
    model = load_model(directory, dtype=torch.float64, attn_implementation="float64", **options)
    for module in model.modules():
        if type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
            module.forward = norm_in_float64(module)
        if type(module).__name__.lower().endswith("topkrouter"):
            module.forward = router_in_float64(module, CLEARNESS)
    return WindowedModel(model)


def load_bf16(directory):
    """The model as Transformers runs it in bfloat16: weights, activations and logits; softmax of the NLL in float32.

    Checkpoints of other types are rounded to nearest even, as winnow rounds them when it loads them on a GPU. Loaded as
    bfloat16 and not converted afterwards: model.to() would round the frequencies of the rotary embedding too.
    """
    model = load_model(directory, dtype=torch.bfloat16, attn_implementation="sdpa")
    if text_model(model).rotary_emb.inv_freq.dtype != torch.float32:
        raise RuntimeError(f"{directory}: this Transformers rounds the rotary frequencies to bfloat16")
    return WindowedModel(model)


def check_reference(reference, directory, examples):
    """The float64 reference must be the model that Transformers runs by itself."""
    model = load_model(directory, dtype=torch.float32, attn_implementation="eager").eval()
    for tokens, start in examples:
        forget_longer_sequences(model)
        with torch.inference_mode():
            logits = model(torch.tensor([tokens[:-1]])).logits[0, start - 1 :].double()
        nll = -torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[start:])[:, None])[:, 0]
        native = [kind == "sliding_attention" for kind in getattr(model.config, "layer_types", None) or []]
        pattern = native or [False] * len(reference.layers)
        ours = reference.score(tokens, start, [pattern], WindowRule(WINDOW_KEYS))[0].nll
        if not torch.allclose(nll, ours, rtol=1e-3, atol=1e-3):
            raise RuntimeError(f"{directory}: the float64 reference differs from Transformers' own forward pass")


def patterns_of(base, n_layers):
    """The base, then the base with each layer flipped; True where windowed."""
    kept = {"full": range(n_layers), "windowed": []}.get(base)
    if kept is None:
        kept = [int(layer) for layer in base.removeprefix("list:").split(",")]
    first = [layer not in kept for layer in range(n_layers)]
    return [first] + [[w != (layer == flipped) for layer, w in enumerate(first)] for flipped in range(n_layers)]


def measure(reference, tokens, start, bases, rules):
    """Scores by (rule, base): one AnswerScores a pattern."""
    n_layers = len(reference.layers)
    return {
        (rule, base): reference.score(tokens, start, patterns_of(base, n_layers), rule)
        for rule in rules
        for base in bases
    }


def is_clear_cut(scores):
    if CLEARNESS.smallest < SMALLEST_GAP:
        return False
    return min(float(s.margin.min()) for patterns in scores.values() for s in patterns) > SMALLEST_MARGIN


@torch.inference_mode()
def continued(model, prompt, n_answer):
    """The prompt with the full model's own greedy continuation."""
    tokens = list(prompt)
    for _ in range(n_answer):
        tokens.append(int(model(torch.tensor([tokens]), use_cache=False, logits_to_keep=1).logits[0, -1].argmax()))
    return tokens


def random_examples(name, reference, directory, bases, rules):
    """(tokens, answer_start, scores) of each kind in EXAMPLES, with clear-cut argmaxes everywhere."""
    plain = load_model(directory, dtype=torch.float64).eval()
    examples = []
    for index, (n_tokens, n_answer, is_corrupted) in enumerate(EXAMPLES):
        for attempt in itertools.count():
            rng = np.random.default_rng([seed_of(name), index, attempt])
            start = n_tokens - n_answer
            tokens = continued(plain, rng.integers(3, VOCABULARY, start).tolist(), n_answer)
            if is_corrupted:
                tokens[start + n_answer // 2] = (tokens[start + n_answer // 2] + 1) % VOCABULARY
            CLEARNESS.reset()
            scores = measure(reference, tokens, start, bases, rules)
            if is_clear_cut(scores):
                print(f"{name}: example {index} after {attempt + 1} attempt(s)", flush=True)
                examples.append((tokens, start, scores))
                break
    return examples


def mean_nll(model, examples, rule, digits):
    """Mean NLL over the answer: lists over examples of lists over patterns, drop-one from full attention."""
    return [
        [
            float(f"{float(scores.nll.double().mean()):.{digits}g}")
            for scores in model.score(tokens, start, drop_one(len(model.layers)), rule)
        ]
        for tokens, start in examples
    ]


def bf16_cases(directory, examples, rules):
    """NLLs alone, in float64 and in bfloat16; 7 digits are far below the error of the latter."""
    exact, bf16 = load_reference(directory), load_bf16(directory)
    return [
        {
            "sinks": rule.sinks,
            "decode": rule.decode,
            "tail_rows": rule.tail_rows,
            "base": "full",
            "nll": mean_nll(exact, examples, rule, 12),
            "bf16_nll": mean_nll(bf16, examples, rule, 7),
        }
        for rule in rules
    ]


def to_cases(examples, rules, bases):
    """The golden's cases: lists over examples of lists over patterns (the base first)."""
    cases = []
    for rule, base in itertools.product(rules, bases):
        scores = [example[2][rule, base] for example in examples]
        case = {
            "sinks": rule.sinks,
            "decode": rule.decode,
            "tail_rows": rule.tail_rows,
            "base": base,
            "nll": [[float(s.nll.mean()) for s in patterns] for patterns in scores],
            "hits": [[int(s.hit.sum()) for s in patterns] for patterns in scores],
        }
        if rule.tail_rows is None and rule.sinks != 0 and rule.decode == "windowed":
            case["token_nll"] = [[s.nll.tolist() for s in patterns] for patterns in scores[:2]]
        cases.append(case)
    return cases


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_golden(name, directory, window_keys, content):
    """content: the examples and cases, and what else the golden has."""
    golden = {
        "magic": MAGIC,
        "version": VERSION,
        "made_by": f"python3 tests/golden/make_goldens.py {name}",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "checkpoint": str(directory.relative_to(TESTS)),
        "sha256": {
            path.name: sha256_of(path)
            for path in sorted(directory.iterdir())
            if path.suffix in (".json", ".safetensors")
        },
        "window_keys": window_keys,
        **content,
    }
    lines = json.dumps(golden).replace('{"sinks"', '\n{"sinks"')
    (HERE / f"{name}.json").write_text(lines + "\n")
    if not golden["cases"]:
        return
    deltas = np.array([[np.subtract(row[1:], row[0]) for row in case["nll"]] for case in golden["cases"]])
    print(f"{name}: {len(deltas)} cases, |delta| mean {np.abs(deltas).mean():.3f}, max {np.abs(deltas).max():.3f}")
    errors = [np.subtract(case["bf16_nll"], case["nll"]) for case in golden["cases"] if "bf16_nll" in case]
    if errors:
        rms = np.sqrt(np.mean(np.square(errors)))
        print(f"{name}: RMS error of Transformers in bfloat16 {rms:.2e} nats", flush=True)


def with_tokens(examples):
    return [{"tokens": tokens, "answer_start": start} for tokens, start, *_ in examples]


def make_random(name):
    directory = HERE / name
    write_checkpoint(name, directory)
    reference = load_reference(directory)
    rules = [WindowRule(WINDOW_KEYS, *setting) for setting in itertools.product(SINKS, DECODES, TAIL_ROWS)]
    bases = CHECKPOINTS[name].bases
    examples = random_examples(name, reference, directory, bases, rules)
    check_reference(reference, directory, [example[:2] for example in examples])
    write_golden(
        name, directory, WINDOW_KEYS, {"examples": with_tokens(examples), "cases": to_cases(examples, rules, bases)}
    )


def make_random_bf16(name):
    """On the checkpoint that make_random has written."""
    directory = HERE / name
    rules = [WindowRule(WINDOW_KEYS, *setting) for setting in itertools.product(SINKS, DECODES, BF16_TAIL_ROWS)]
    plain = load_model(directory, dtype=torch.float64).eval()
    examples = []
    for index in range(BF16_EXAMPLES):
        rng = np.random.default_rng([seed_of(f"{name}_bf16"), index])
        start = int(rng.integers(100, 160))
        examples.append((continued(plain, rng.integers(3, VOCABULARY, start).tolist(), BF16_ANSWER), start))
    write_golden(
        f"{name}_bf16",
        directory,
        WINDOW_KEYS,
        {"examples": with_tokens(examples), "cases": bf16_cases(directory, examples, rules)},
    )


def native_config(directory, windowed):
    """The checkpoint's configuration with NATIVE_LAYER_TYPES, and these layers of the sliding type besides."""
    config = AutoConfig.from_pretrained(directory)
    config.layer_types = [
        "sliding_attention" if layer in windowed else kind for layer, kind in enumerate(NATIVE_LAYER_TYPES)
    ]
    return config


class NativeModels:
    """A model with windows of its own, with other layers windowed: Transformers turns each by its type."""

    def __init__(self, directory, load=load_reference):
        self.free = [layer for layer, kind in enumerate(NATIVE_LAYER_TYPES) if kind == "full_attention"]
        self.variants = {
            windowed: load(directory, config=native_config(directory, windowed))
            for n in range(len(self.free) + 1)
            for windowed in itertools.combinations(self.free, n)
        }

    def patterns(self, base):
        """The windowed layers of the base, then of the base with each of the free layers flipped."""
        first = () if base == "full" else tuple(self.free)
        return [first] + [tuple(sorted(set(first) ^ {layer})) for layer in self.free]

    @torch.inference_mode()
    def score(self, tokens, start, windowed, rule):
        model = self.variants[windowed]
        native = model._additive(WindowRule(WINDOW_KEYS).visible(len(tokens) - 1, start))
        ablated = model._additive(rule.visible(len(tokens) - 1, start))
        full = model._additive(torch.ones(len(tokens) - 1, len(tokens) - 1, dtype=torch.bool).tril())
        for layer in range(len(NATIVE_LAYER_TYPES)):
            own = full if layer in self.free else native
            model._masks[layer] = ablated if layer in windowed else own
        inputs = torch.tensor([tokens])
        logits = model.model(inputs[:, :-1], logits_to_keep=len(tokens) - start, use_cache=False).logits[0]
        return score_rows(logits, inputs[0, start:])


def native_texts(directory, models, examples, n_new):
    """What Transformers alone writes with its own masks, where each windowed layer has the model's own window."""
    texts = []
    for windowed in models.variants:
        model = load_model(directory, config=native_config(directory, windowed), dtype=torch.float64).eval()
        tokens = [continued(model, tokens[:start], n_new)[start:] for tokens, start, _ in examples]
        texts.append({"windowed": list(windowed), "tokens": tokens})
    return texts


def make_native(name):
    """On the checkpoint that make_random has written."""
    directory = HERE / name
    models = NativeModels(directory)
    follows_type = name != "gemma2"
    settings = [(0, "windowed", None)] if follows_type else itertools.product(SINKS, DECODES, TAIL_ROWS)
    rules, bases = [WindowRule(ABLATION_KEYS, *setting) for setting in settings], ["full", "windowed"]
    plain = load_model(directory, config=native_config(directory, ()), dtype=torch.float64).eval()
    examples = []
    for index, (n_tokens, n_answer, is_corrupted) in enumerate(EXAMPLES):
        for attempt in itertools.count():
            rng = np.random.default_rng([seed_of(f"{name}_native"), index, attempt])
            start = n_tokens - n_answer
            tokens = continued(plain, rng.integers(3, VOCABULARY, start).tolist(), n_answer)
            own = models.score(tokens, start, (), WindowRule(ABLATION_KEYS))
            if not own.hit.all():
                raise RuntimeError(f"{name}: the float64 reference differs from Transformers' own forward pass")
            if is_corrupted:
                tokens[start + n_answer // 2] = (tokens[start + n_answer // 2] + 1) % VOCABULARY
            scores = {
                (rule, base): [models.score(tokens, start, windowed, rule) for windowed in models.patterns(base)]
                for rule in rules
                for base in bases
            }
            if is_clear_cut(scores):
                examples.append((tokens, start, scores))
                break
    content = {
        "native_window": WINDOW_KEYS,
        "layer_types": NATIVE_LAYER_TYPES,
        "examples": with_tokens(examples),
        "texts": native_texts(directory, models, examples, 24),
        "cases": to_cases(examples, rules, bases),
    }
    write_golden(f"{name}_native", directory, ABLATION_KEYS, content)


def demo_examples():
    """(tokens, answer_start) of the demo's calibration set."""
    with h5py.File(TESTS / "demo" / "long.h5") as file:
        offsets, tokens = file["offsets"][:], file["tokens"][:].tolist()
        return [(tokens[offsets[e] : offsets[e + 1]], int(start)) for e, start in enumerate(file["answer_start"][:])]


def make_demo():
    """A few examples of the demo's calibration set, as far as their argmaxes are clear-cut."""
    directory = TESTS / "demo" / "model"
    reference = load_reference(directory)
    plain = WindowRule(DEMO_WINDOW_KEYS, DEMO_SINKS)
    rules = [plain, replace(plain, sinks=0), replace(plain, tail_rows=32), replace(plain, decode="full")]
    examples = []
    for tokens, start in demo_examples():
        CLEARNESS.reset()
        scores = measure(reference, tokens, start, ["full"], rules)
        if is_clear_cut(scores):
            examples.append((tokens, start, scores))
        if len(examples) == 3:
            break
    check_reference(reference, directory, [example[:2] for example in examples])
    write_golden(
        "demo",
        directory,
        DEMO_WINDOW_KEYS,
        {"examples": with_tokens(examples), "cases": to_cases(examples, rules, ["full"])},
    )


def make_demo_bf16():
    """All of the demo's calibration set, as `winnow calibrate` measures it."""
    directory, data = TESTS / "demo" / "model", TESTS / "demo" / "long.h5"
    examples = demo_examples()
    cases = bf16_cases(directory, examples, [WindowRule(DEMO_WINDOW_KEYS, DEMO_SINKS)])
    write_golden(
        "demo_bf16",
        directory,
        DEMO_WINDOW_KEYS,
        {
            "data": {"path": str(data.relative_to(TESTS)), "sha256": sha256_of(data), "n_examples": len(examples)},
            "cases": cases,
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers = {name: partial(make_random, name) for name in CHECKPOINTS}
    makers |= {f"{name}_bf16": partial(make_random_bf16, name) for name, form in CHECKPOINTS.items() if form.has_bf16}
    makers |= {f"{name}_native": partial(make_native, name) for name in HYBRID_CHECKPOINTS}
    makers |= {"demo": make_demo, "demo_bf16": make_demo_bf16}
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *makers], default=[])
    for name in parser.parse_args().names or makers:
        makers[name]()


if __name__ == "__main__":
    main()
