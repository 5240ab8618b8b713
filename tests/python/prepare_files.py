"""Rows that winnow prepare reads, those of benchmarks with contents of our own, and the files that it writes."""

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


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read_tasks(path):
    """[{name: value}] of the examples of a calibration file of format_version 2."""
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 2
        names = (
            "task",
            "metric",
            "metric_options",
            "length_bin",
            "answer_prefix",
            "gold_answer",
            "example_id",
            "source",
        )
        columns = {name: file[name].asstr()[:] for name in names}
        references = file["references"].asstr()[:]
        offsets = file["reference_offsets"][:]
        examples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        tokens, bounds = file["tokens"][:], file["offsets"][:]
        starts = file["answer_start"][:]
    spans = zip(itertools.pairwise(offsets), itertools.pairwise(bounds), starts, strict=True)
    for example, ((first, last), (begin, end), start) in zip(examples, spans, strict=True):
        example["references"] = list(references[first:last])
        example["prompt_ids"] = tokens[begin : begin + start]
        example["answer_ids"] = tokens[begin + start : end]
    return {example["example_id"]: example for example in examples}


RULER = {
    "index": 0,
    "input": "Some numbers are hidden.\nOne of the numbers for elm is: 11.\nWhat are the numbers for elm?",
    "outputs": ["11", "22"],
    "length": 3900,
    "length_w_model_temp": 3900,
    "answer_prefix": " The numbers for elm are",
    "token_position_answer": 12,
}
LONGBENCH = {
    "input": "Where does the Elm rise?",
    "context": "The Elm rises in the hills {of} the north.",
    "answers": ["in the hills", "the north"],
    "length": 9,
    "dataset": "qasper",
    "language": "en",
    "all_classes": None,
    "_id": "a1",
}
LONGBENCH2 = {
    "_id": "x1",
    "domain": "Single-Document QA",
    "sub_domain": "Rivers",
    "difficulty": "easy",
    "length": "medium",
    "question": "Where?",
    "choice_A": "East",
    "choice_B": "North",
    "choice_C": "South",
    "choice_D": "West",
    "answer": "B",
    "context": "The Elm rises in the north.",
}
INFINITEBENCH = {
    "id": 3,
    "context": "The Elm rises in the north.",
    "input": "Where?",
    "answer": [],
    "options": ["East", "North", "South", "West"],
}
LONGMEMEVAL = {
    "question_id": "q1_abs",
    "question_type": "multi-session",
    "question": "How many elms did I see?",
    "answer": 3,
    "question_date": "2023/06/01",
    "haystack_dates": ["2023/05/20"],
    "haystack_session_ids": ["s1"],
    "haystack_sessions": [
        [{"role": "user", "content": "I saw three.", "has_answer": True}, {"role": "assistant", "content": "Nice."}]
    ],
    "answer_session_ids": ["s1"],
}
NOLIMA = {
    "id": "0401",
    "reasoning_type": "world_knowledge",
    "system_prompt": "Be brief.",
    "task_template": "A snippet:\n{haystack}\nQuestion: {question}",
    "needle": "Actually, {CHAR} lives next to the {1}.",
    "questions": {"onehop": "Which character has been to {2}?", "twohop": "Which character has been to {3}?"},
    "tests": {"T1": {"input_args": ["Semper Opera", "Dresden", "Saxony"]}},
    "character_set": ["Yuki", "Stuart"],
    "distractors": {
        "onehop": "There is an opera elsewhere, too.",
        "twohop": "There is an opera elsewhere, too.",
    },
}
_BEFORE = "# ä: a comment\n" + "number = 1\n" * 100
_CODE = "def é_rise():\n    return 'north'"
REPOQA = {
    "python": [
        {
            "repo": "elm/river",
            "content": {"a.py": _BEFORE + _CODE + "\n", "b.py": "number = 2\n" * 100},
            "needles": [
                {
                    "name": "é_rise",
                    "path": "a.py",
                    "start_byte": len(_BEFORE.encode()),
                    "end_byte": len((_BEFORE + _CODE).encode()),
                    "description": "It says where it rises.",
                }
            ],
            "dependency": {},
        }
    ]
}
