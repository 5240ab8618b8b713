"""winnow prepare --format: files of long-context benchmarks."""

import json

import pyarrow.parquet
import pytest
import tokenizers
from prepare_files import (
    INFINITEBENCH,
    LONGBENCH,
    LONGBENCH2,
    LONGMEMEVAL,
    NOLIMA,
    REPOQA,
    RULER,
    read_tasks,
    write_lines,
)

from winnow.common.scoring import METRICS, length_bin
from winnow.prepare.benchmarks.layouts import READERS, BenchmarkLayouts
from winnow.prepare.benchmarks.room import Room, sentences_of
from winnow.prepare.rows.sources import Reader, Row
from winnow.prepare.unusable import Unusable


def words_of(conversation):
    return sum(len(message["content"].split()) for message in conversation.prompt)


def parse(name, payload, file="file", folder="folder", prompts=None, lengths=(100,), **more):
    """Prompts are counted in words."""
    room = Room(lengths, sentences_of("The Elm rises in the north. It is cold there. Few go."), True, 0)
    layouts = BenchmarkLayouts(name, prompts or {}, room, words_of, **more)
    found = layouts.parse(Row(f"{file}.jsonl:7", payload, file, folder=folder))
    assert all(conversation.scoring.metric in METRICS for conversation in found)
    return found


def prompt_of(conversation):
    return conversation.messages[-2]["content"]


def test_ruler_to_a_file(prepare, tmp_path):
    rows = write_lines(tmp_path / "niah_multivalue" / "validation.jsonl", [RULER, RULER | {"index": 1, "outputs": []}])
    with open(rows, "a") as file:
        file.write("{broken\n")
    done = prepare("--format", "ruler", "--input", rows, "--out", tmp_path / "out.h5", limits=[])
    assert f"{rows}:2: field outputs is empty" in done.stdout and f"{rows}:3: not JSON" in done.stdout
    example = read_tasks(tmp_path / "out.h5")["niah_multivalue/4k/0"]
    assert example["references"] == ["11", "22"] and example["metric"] == "contains_all"
    assert (example["task"], example["length_bin"], example["source"]) == ("niah_multivalue", "4k", "niah_multivalue")
    decode = tokenizers.Tokenizer.from_file(str(prepare.model / "tokenizer.json")).decode
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


def test_longbench2_rows():
    row = LONGBENCH2 | {"answer": "E"}
    with pytest.raises(Unusable, match="the answer is not one of"):
        parse("longbench2", row)
    (made,) = parse("longbench2", LONGBENCH2)
    assert (made.answer, made.scoring.metric, made.scoring.length_bin) == ("B", "choice", "medium")
    assert (made.scoring.task, made.example_id) == ("Single-Document QA", "x1")
    assert "Where?\nA. East\nB. North\nC. South\nD. West\n" in prompt_of(made)


@pytest.mark.parametrize(
    "task, row, metric, references, answer",
    [
        ("passkey", {"answer": ["71432"]}, "first_number", ("71432",), "71432"),
        ("kv_retrieval", {"answer": ["a-b"]}, "contains_word", ("a-b",), "a-b"),
        ("longdialogue_qa_eng", {"answer": ["ANNA"]}, "contains_word", ("ANNA",), "ANNA"),
        ("longbook_qa_eng", {"answer": ["the north", "north"]}, "token_f1", ("the north", "north"), "the north"),
        ("longbook_choice_eng", {"answer": ["North"]}, "choice", ("B",), "B"),
        ("code_debug", {"answer": ["North", "B"]}, "choice", ("B",), "B"),
        ("code_run", {"answer": [-7]}, "last_number", ("-7",), "-7"),
        ("math_find", {"answer": [2.5]}, "first_number", ("2.5",), "2.5"),
        ("math_calc", {"answer": [[3, 5, 2]]}, "leading_numbers", ("3", "5", "2"), "[3, 5, 2]"),
        ("longbook_sum_eng", {"answer": ["It is long."], "input": ""}, "rouge_l", ("It is long.",), "It is long."),
    ],
)
def test_infinitebench_rows(task, row, metric, references, answer):
    (made,) = parse("infinitebench", INFINITEBENCH | row, file=task)
    assert (made.scoring.metric, made.scoring.references, made.answer) == (metric, references, answer)
    assert made.example_id == f"{task}/3" and INFINITEBENCH["context"] in prompt_of(made)
    assert ("B. North" in prompt_of(made)) == (metric == "choice")


def test_infinitebench_faults():
    with pytest.raises(Unusable, match="the answer is none of the options"):
        parse("infinitebench", INFINITEBENCH | {"answer": ["Up"]}, file="code_debug")
    with pytest.raises(Unusable, match="a task that InfiniteBench does not have"):
        parse("infinitebench", INFINITEBENCH | {"answer": ["Up"]})


def test_babilong_rows():
    row = {"input": "Anna went to the kitchen.", "question": "Where is Anna? ", "target": "kitchen"}
    (made,) = parse("babilong", row, file="4k", folder="qa1")
    assert (made.scoring.task, made.scoring.length_bin, made.scoring.metric) == ("qa1", "4k", "label")
    assert "kitchen" in made.scoring.options["labels"] and made.example_id == "qa1/4k/7"
    (made,) = parse("babilong", row | {"question": "Was it before the kitchen?"}, file="qa3_128k")
    assert "kitchen" not in made.scoring.options["labels"] and made.scoring.length_bin == "128k"
    (made,) = parse("babilong", row | {"target": "apple,milk"}, file="qa8")
    assert made.scoring.references == ("apple", "milk") and made.answer == "apple, milk"
    (made,) = parse("babilong", row | {"target": "n,w"}, file="qa19")
    assert made.scoring.references == ("n,w",)
    (made,) = parse("babilong", row)
    assert made.scoring.metric == "contains_all" and made.scoring.task == "babilong"


def test_mrcr_rows():
    turns = [{"role": "user", "content": "Write a poem."}, {"role": "assistant", "content": "Elm."}]
    turns.append({"role": "user", "content": "Prepend xYz to the 1st poem."})
    row = {"prompt": json.dumps(turns), "answer": "xYzElm.", "random_string_to_prepend": "xYz", "n_needles": 2}
    (made,) = parse("mrcr", row)
    assert made.prompt == turns and made.answer == "xYzElm." and made.scoring.options == {"prefix": "xYz"}
    assert (made.scoring.task, made.scoring.metric) == ("mrcr_2_needles", "sequence_ratio")
    with pytest.raises(Unusable, match="prompt is not a list of messages"):
        parse("mrcr", row | {"prompt": "text"})


def test_graphwalks_rows():
    row = {"prompt": "a -> b. Neighbours of a?", "answer_nodes": ["b", "c"], "problem_type": "bfs", "prompt_chars": 24}
    (made,) = parse("graphwalks", row)
    assert made.answer == "Final Answer: [b, c]" and made.scoring.references == ("b", "c")
    assert (made.scoring.task, made.scoring.metric) == ("bfs", "set_f1")
    (made,) = parse("graphwalks", row | {"answer_nodes": []})
    assert made.answer == "Final Answer: []" and made.scoring.references == ("",)
    with pytest.raises(Unusable, match="answer_nodes"):
        parse("graphwalks", row | {"answer_nodes": "b"})


def test_helmet_rows():
    row = {"context": '{"k1": "v1"}', "question": "k1", "answer": "v1", "num_kvs": 1, "demos": [["k", "v"]], "k": 1}
    (made,) = parse("helmet", row, file="test_k1")
    assert (made.answer, made.answer_prefix, made.scoring.metric) == (" v1", "Corresponding value:", "contains_any")
    passages = [{"title": "Elm", "text": "It rises.", "has_answer": True}, {"title": "Oak", "text": "It falls."}]
    row = {"ctxs": passages, "question": "What rises?", "answers": ["Elm", "the Elm"], "id": "q9"}
    (made,) = parse("helmet", row, file="nq_k2")
    assert "Document (Elm): It rises.\n\nDocument (Oak): It falls." in prompt_of(made)
    assert made.scoring.references == ("Elm", "the Elm") and made.example_id == "nq_k2/q9"
    row["ctxs"][0]["label"] = 2
    with pytest.raises(Unusable, match="a ranking of passages"):
        parse("helmet", row)
    with pytest.raises(Unusable, match="a part of HELMET that is not read"):
        parse("helmet", {"question": "?"})


def test_longmemeval_rows():
    (made,) = parse("longmemeval", LONGMEMEVAL)
    assert made.example_id == "q1_abs" and made.scoring.metric == "judge" and made.answer == "3"
    assert made.scoring.task == "multi-session" and "Conversation 1, 2023/05/20" in prompt_of(made)
    assert "Today is 2023/06/01." in prompt_of(made) and "user: I saw three." in prompt_of(made)
    with pytest.raises(Unusable, match="no field haystack_sessions"):
        parse("longmemeval", {"question": "?", "answer": "x"})


def test_nolima_places_its_needles():
    made = parse("nolima", NOLIMA, lengths=(60, 120))
    assert [one.example_id for one in made] == [
        f"0401_T1_{kind}/{most}" for kind in ("onehop", "twohop") for most in (60, 120)
    ]
    for one, most in zip(made, (60, 120, 60, 120), strict=True):
        (name,) = one.scoring.references
        assert name in ("Yuki", "Stuart") and one.answer == name and one.scoring.options == {"case": True}
        assert f"Actually, {name} lives next to the Semper Opera." in prompt_of(one)
        assert "There is an opera elsewhere, too." in prompt_of(one) and one.messages[0]["content"] == "Be brief."
        assert 0.9 * most < words_of(one) <= most
    assert "been to Dresden?" in prompt_of(made[0]) and "been to Saxony?" in prompt_of(made[2])
    assert parse("nolima", NOLIMA, lengths=(60, 120)) == made
    without = {key: value for key, value in NOLIMA.items() if key != "character_set"}
    with pytest.raises(Unusable, match="no field gold_answers"):
        parse("nolima", without)
    with pytest.raises(Unusable, match="the task needs more than 20 tokens"):
        parse("nolima", NOLIMA, lengths=(20,))


def test_nolima_needs_a_text(prepare, tmp_path):
    (tmp_path / "needle_set.json").write_text(json.dumps([NOLIMA]))
    command = ["--format", "nolima", "--input", tmp_path / "needle_set.json", "--out", tmp_path / "out.h5"]
    assert "--format nolima needs --haystack" in prepare(*command, expect=64).stderr
    assert "none.txt: cannot be read" in prepare(*command, "--haystack", tmp_path / "none.txt", expect=66).stderr
    (tmp_path / "book.txt").write_text("The Elm rises in the north. It is cold there.\n\nFew go.")
    prepare(*command, "--haystack", tmp_path / "book.txt", "--task-tokens", "300", "--count", "all", limits=[])
    made = read_tasks(tmp_path / "out.h5")
    assert len(made) == 2 and all(270 < len(one["prompt_ids"]) <= 300 for one in made.values())


def test_repoqa_finds_its_functions():
    (made,) = parse("repoqa", REPOQA, lengths=(90,))
    assert made.scoring.references == ("def é_rise():\n    return 'north'",) and made.scoring.metric == "best_function"
    assert made.scoring.options == {"others": []} and made.example_id == "elm/river/é_rise/90"
    assert made.scoring.references[0] in prompt_of(made) and "It says where it rises." in prompt_of(made)
    assert made.answer == f"```\n{made.scoring.references[0]}\n```" and 70 < words_of(made) <= 90
    (whole,) = parse("repoqa", REPOQA, lengths=(100000,))  # no more than there is
    assert prompt_of(whole).count("number") == 200
    spoilt = json.loads(json.dumps(REPOQA))
    spoilt["python"][0]["needles"][0]["path"] = "c.py"
    with pytest.raises(Unusable, match="a needle that is not in its file"):
        parse("repoqa", spoilt)


TURNS = [
    {"role": "user", "content": "Write a poem."},
    {"role": "assistant", "content": "Elm."},
    {"role": "user", "content": "Which?"},
]
MRCR = {"prompt": json.dumps(TURNS), "answer": "xElm.", "random_string_to_prepend": "x", "n_needles": 2, "n_chars": 9}
GRAPHWALKS = {"prompt": "a -> b", "answer_nodes": ["b"], "problem_type": "parents", "prompt_chars": 6}


@pytest.mark.parametrize(
    "name, file, rows, broken, ids",
    [
        (
            "mrcr",
            "2needle.parquet",
            [MRCR, MRCR | {"prompt": "x"}],
            "2needle.parquet, row 2: prompt",
            ["mrcr_2_needles/1"],
        ),
        ("graphwalks", "walks.parquet", [GRAPHWALKS], None, ["parents/1"]),
        (
            "longbench2",
            "data.json",
            [LONGBENCH2 | {"answer": ""}, LONGBENCH2],
            "data.json:1, item 1: field answer",
            ["x1"],
        ),
        ("longmemeval", "longmemeval_s_cleaned.json", [LONGMEMEVAL, {}], "json:1, item 2: no field", ["q1_abs"]),
        (
            "infinitebench",
            "passkey.jsonl",
            [INFINITEBENCH | {"answer": ["71"]}, 7],
            "jsonl:2: not an object",
            ["passkey/3"],
        ),
        ("repoqa", "repoqa.json", REPOQA, None, ["elm/river/é_rise/900"]),
    ],
)
def test_files_as_they_are_published(prepare, tmp_path, name, file, rows, broken, ids):
    path = tmp_path / file
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_lines(path, rows)
    done = prepare("--format", name, "--input", path, "--out", tmp_path / "out.h5", "--task-tokens", "900", limits=[])
    assert broken is None or broken in done.stdout
    made = read_tasks(tmp_path / "out.h5")
    assert list(made) == ids and all(len(one["answer_ids"]) > 0 for one in made.values())
    assert {one["length_bin"] for one in made.values()} == {"medium" if name == "longbench2" else "1k"}


def test_every_format_has_its_rows():
    tested = {name.split("_")[1] for name in globals() if name.startswith("test_")}
    assert set(READERS) <= tested


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
