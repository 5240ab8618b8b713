"""Small files in the layouts of long-context benchmarks, with contents of our own, and what became of them."""

import itertools
import json

import h5py


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
