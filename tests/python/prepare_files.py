"""Rows that winnow prepare reads, and the calibration files that it writes."""

import itertools
import json
import random

import h5py

LIMITS = ["--min-prompt-tokens", "20", "--max-prompt-tokens", "4000", "--min-answer-tokens", "1"]


def prepare_command(model, rows, out, *more, limits=LIMITS):
    return ["prepare", "--model", model, *limits, "--input", rows, "--out", out, *more]


def words(seed, count):
    generator = random.Random(seed)
    return " ".join(
        generator.choice(["alpha", "beta", "gamma", "delta", "house", "tree", "1234"]) for _ in range(count)
    )


def write_rows(path, count, length=lambda i: 30 + i, start=0):
    with open(path, "w") as file:
        for i in range(start, start + count):
            file.write(
                json.dumps({"id": f"row{i}", "prompt": words(i, length(i)), "answer": f"The answer is {i}."}) + "\n"
            )
    return path


def read(path):
    """[(id, source, prompt ids, answer ids)] and the attributes."""
    with h5py.File(path) as file:
        tokens, offsets, starts = file["tokens"][:], file["offsets"][:], file["answer_start"][:]
        ids, sources = file["example_id"].asstr()[:], file["source"].asstr()[:]
        parts = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
        return (
            [
                (name, source, part[:start], part[start:])
                for name, source, part, start in zip(ids, sources, parts, starts, strict=True)
            ],
            dict(file.attrs),
        )


def ids_of(path):
    return [example[0] for example in read(path)[0]]
