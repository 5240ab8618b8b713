"""Writes the demo model's calibration files: long.h5, short.h5 (control of the same examples) and test.h5.

    python3 tests/demo/make_data.py [--out tests/demo]

Needs numpy and h5py. The same call gives the same tokens.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import h5py
import language
import numpy as np

WINDOW_KEYS, SINKS = 96, 4  # what the demo measures with
EXAMPLES = 64
LONG_TOKENS, N_FACTS = 1024, 12
SHORT_TOKENS = 160  # at least; up to a fact longer
LONG_SEED, TEST_SEED = 1, 2
SMALLEST_DISTANCE = 160  # from a queried fact to its answer in long prompts: beyond the window
FIRST_QUERIED = 128  # no queried fact begins earlier: it would lie in the head that a control keeps


@dataclass
class Example:
    tokens: np.ndarray
    answer_start: int  # index of the first scored token
    fact_start: int  # index of the queried fact's KEY
    all_facts: np.ndarray  # index of every fact's KEY


def long_examples(seed, count):
    """Prompts with 12 facts and one query at the end, for a fact that lies outside the window of every answer row."""
    rng = np.random.default_rng(seed)
    batch = language.recall(rng, 4 * count, LONG_TOKENS, N_FACTS, n_queries=1)
    examples = []
    for e in range(len(batch.tokens)):
        fact = batch.fact_start[e, batch.queried_fact[e, 0]]
        start = batch.answer_start[e, 0]
        if fact >= FIRST_QUERIED and start - fact >= SMALLEST_DISTANCE and language.has_distinct_keys(batch, e):
            examples.append(Example(batch.tokens[e], int(start), int(fact), batch.fact_start[e]))
    return examples[:count]


def whole(example, end):
    """The first place from `end` on that splits no fact."""
    inside = example.all_facts[(example.all_facts < end) & (end < example.all_facts + language.FACT_TOKENS)]
    return int(inside[0]) + language.FACT_TOKENS if len(inside) else end


def cut(example, rng):
    """The same question with the middle of the prompt removed: head, queried fact with the text after it, query.

    The fact comes to lie inside the window of every answer row, so a layer's delta here is what it costs to disturb
    that layer, not what it costs to hide the fact.
    """
    query_start = example.answer_start - language.PROMPT_PART
    fact_end = example.fact_start + language.FACT_TOKENS
    longest_gap = WINDOW_KEYS - language.FACT_TOKENS - 8
    gaps = [
        gap
        for gap in range(min(longest_gap, query_start - fact_end) + 1)
        if whole(example, fact_end + gap) == fact_end + gap
    ]
    stretch = example.tokens[example.fact_start : fact_end + int(rng.choice(gaps))]
    tail = example.tokens[query_start:]
    head = example.tokens[: whole(example, SHORT_TOKENS - len(stretch) - len(tail))]
    answer_start = len(head) + len(stretch) + language.PROMPT_PART
    return Example(np.concatenate([head, stretch, tail]), answer_start, len(head), np.array([len(head)]))


def write(path, examples, ids, seed):
    """A calibration file of format version 1 (results/README.md)."""
    with h5py.File(path, "w") as file:
        file.attrs.update(
            format="winnow-calibration", format_version=1, seed=seed, created_by="tests/demo/make_data.py"
        )
        file.create_dataset(
            "tokens",
            data=np.concatenate([e.tokens for e in examples]).astype(np.int32),
            compression="gzip",
            shuffle=True,
        )
        file["offsets"] = np.cumsum([0] + [len(e.tokens) for e in examples], dtype=np.int64)
        file["answer_start"] = np.array([e.answer_start for e in examples], np.int64)
        file.create_dataset("example_id", data=ids, dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("source", data=["demo"] * len(examples), dtype=h5py.string_dtype("utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    long = long_examples(LONG_SEED, EXAMPLES)
    ids = [f"recall-{e:03d}" for e in range(EXAMPLES)]
    write(out / "long.h5", long, ids, LONG_SEED)
    rng = np.random.default_rng(LONG_SEED)
    write(out / "short.h5", [cut(example, rng) for example in long], ids, LONG_SEED)
    write(
        out / "test.h5", long_examples(TEST_SEED, EXAMPLES), [f"held-out-{e:03d}" for e in range(EXAMPLES)], TEST_SEED
    )


if __name__ == "__main__":
    main()
