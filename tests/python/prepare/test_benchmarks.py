"""winnow prepare --format: files of long-context benchmarks."""

import json

import pytest
from benchmark_files import LONGBENCH, RULER, read_tasks, write_lines

from winnow.common.scoring import METRICS, length_bin
from winnow.prepare.benchmarks.layouts import BenchmarkLayouts
from winnow.prepare.rows.sources import Reader, Row
from winnow.prepare.unusable import Unusable


def parse(name, payload, file="file", folder="folder", **more):
    found = BenchmarkLayouts(name, **more).parse(Row(f"{file}.jsonl:7", payload, file, folder=folder))
    assert all(conversation.scoring.metric in METRICS for conversation in found)
    return found


def prompt_of(conversation):
    return conversation.messages[0]["content"]


def test_ruler_to_a_file(prepare, tmp_path, prepared):
    rows = write_lines(tmp_path / "niah_multivalue" / "validation.jsonl", [RULER, RULER | {"index": 1, "outputs": []}])
    with open(rows, "a") as file:
        file.write("{broken\n")
    done = prepare("--format", "ruler", "--input", rows, "--out", tmp_path / "out.h5", limits=[])
    assert f"{rows}:2: field outputs is empty" in done.stdout and f"{rows}:3: not JSON" in done.stdout
    example = read_tasks(tmp_path / "out.h5")["niah_multivalue/0"]
    assert example["references"] == ["11", "22"] and example["metric"] == "contains_all"
    assert (example["task"], example["length_bin"], example["source"]) == ("niah_multivalue", "4k", "niah_multivalue")
    decode = prepared("thinking").tokeniser.backend.decode
    # The prefix belongs to the prompt, the blank after it to the answer.
    assert example["answer_prefix"] == "The numbers for elm are" and example["gold_answer"] == " 11, 22"
    prompt = decode(example["prompt_ids"], skip_special_tokens=False)
    assert prompt.endswith("</think>\n\nThe numbers for elm are") and RULER["input"] in prompt
    assert decode(example["answer_ids"], skip_special_tokens=False) == " 11, 22<|im_end|>"


def test_ruler_rows():
    (made,) = parse("ruler", RULER | {"length": 0}, folder="qa_1", file="validation")
    assert (made.scoring.metric, made.answer, made.scoring.length_bin) == ("contains_any", " 11", "")
    (made,) = parse("ruler", RULER | {"answer_prefix": " They are: "}, folder="vt", file="test", raw=True)
    assert made.answer == " 11 22" and made.answer_prefix == " They are:" and made.scoring.task == "vt"
    other = {key: RULER[key] for key in ("input", "outputs")} | {"gen_prefix": "Answer:", "task": "cwe"}
    (made,) = parse("ruler", other)
    assert made.answer_prefix == "Answer:" and made.example_id == "cwe/7"
    with pytest.raises(Unusable, match="no field input"):
        parse("ruler", {"outputs": ["1"]})


def test_longbench_rows():
    (made,) = parse("longbench", LONGBENCH)
    assert made.scoring.references == ("in the hills", "the north") and made.answer == "in the hills"
    assert (made.scoring.task, made.scoring.metric, made.example_id) == ("qasper", "token_f1", "qasper/a1")
    assert LONGBENCH["context"] in prompt_of(made) and "Question: Where does the Elm rise?" in prompt_of(made)
    (made,) = parse("longbench", LONGBENCH, raw=True)
    assert made.answer == " in the hills"
    row = LONGBENCH | {"dataset": "trec_e", "all_classes": ["Place", "Date"], "answers": ["Place"]}
    (made,) = parse("longbench", row)
    assert made.scoring.options == {"first_line": True, "classes": ["Place", "Date"]}
    (made,) = parse("longbench", LONGBENCH, prompts={"qasper": "{context}|{input}|{other}"})
    assert prompt_of(made) == LONGBENCH["context"] + "|" + LONGBENCH["input"] + "|{other}"
    with pytest.raises(Unusable, match="a task that LongBench does not have"):
        parse("longbench", LONGBENCH | {"dataset": "other"})


def test_prompts_of_a_file(prepare, tmp_path):
    rows = write_lines(tmp_path / "qasper.jsonl", [LONGBENCH])
    command = ["--format", "longbench", "--input", rows, "--out", tmp_path / "out.h5", "--task-prompts"]
    (tmp_path / "prompts.json").write_text(json.dumps({"qasper": "Read {context} and say: {input}"}))
    done = prepare(*command, tmp_path / "prompts.json", limits=[])
    assert "and say: Where does the Elm rise?" in done.stdout
    (tmp_path / "prompts.json").write_text("[]")
    assert "prompts.json: expected an object" in prepare(*command, tmp_path / "prompts.json", expect=64).stderr
    assert "none.json" in prepare(*command, tmp_path / "none.json", expect=64).stderr


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--format", "ruler", "--every-turn"], "--format says where everything is"),
        (["--format", "ruler", "--field", "prompt=input"], "--format says where everything is"),
        (["--format", "other"], "invalid choice"),
    ],
)
def test_flags(prepare, tmp_path, flags, words):
    rows = write_lines(tmp_path / "a.jsonl", [RULER])
    assert words in prepare(*flags, "--input", rows, "--out", tmp_path / "out.h5", expect=64).stderr


def test_raw_prefix(models, prepare, tmp_path):
    rows = write_lines(tmp_path / "vt" / "validation.jsonl", [RULER])
    done = prepare(
        "--format", "ruler", "--raw", "--input", rows, "--out", tmp_path / "out.h5", model=models["base"], limits=[]
    )
    assert "for elm? The numbers for elm are⟦ 11 22" in done.stdout


def test_names_of_lengths():
    assert [length_bin(n) for n in (1, 1024, 1025, 131072, 2**20, 2**20 + 1)] == ["1k", "1k", "2k", "128k", "1M", "2M"]


@pytest.mark.parametrize("indent", [None, 2])
def test_arrays_are_read_item_by_item(tmp_path, indent):
    path = tmp_path / "data.json"
    path.write_text("\ufeff" + json.dumps([{"a": "é" * 700_000}, {"a": [1, {"b": None}]}, "x"], indent=indent))
    rows = list(Reader([path]).rows())
    assert [row.payload for row in rows[1:]] == [{"a": [1, {"b": None}]}, "x"] and len(rows[0].payload["a"]) == 700_000
    assert [row.place.removeprefix(f"{path}:") for row in rows] == (
        ["2, item 1", "5, item 2", "13, item 3"] if indent else ["1, item 1", "1, item 2", "1, item 3"]
    )


@pytest.mark.parametrize(
    "text, words", [('[{"a": 1},\n{"a"', "line 2: not JSON"), ('[{"a": 1},\n', "line 2: the array does not end")]
)
def test_arrays_that_are_broken(prepare, tmp_path, text, words):
    (tmp_path / "data.json").write_text(text)
    done = prepare("--input", tmp_path / "data.json", "--out", tmp_path / "out.h5", expect=65)
    assert "data.json: " + words in done.stderr
