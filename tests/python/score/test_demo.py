"""From a benchmark's file to scores, with a model that can do its task: the demo model, its tokens made letters."""

import itertools
import json
import shutil

import h5py
import launch
import pytest
from prepare_files import read_tasks, write_lines

DEMO = launch.REPOSITORY / "tests/demo"
FIRST_LETTER = 0x4E00  # of 256 that are printable and no white space
N_EXAMPLES = 6
FLAGS = ["--window", "96", "--sinks", "4", "--generate", "24"]


def letters(ids):
    return "".join(chr(FIRST_LETTER + int(token)) for token in ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tokenizers import Tokenizer, decoders, models

    folder = tmp_path_factory.mktemp("demo") / "model"
    shutil.copytree(DEMO / "model", folder)
    tokenizer = Tokenizer(models.BPE(vocab={letters([token]): token for token in range(256)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def examples():
    """[(prompt, answer)] in tokens."""
    with h5py.File(DEMO / "test.h5") as file:
        tokens, starts = file["tokens"][:], file["answer_start"][:]
        parts = [tokens[begin:end] for begin, end in itertools.pairwise(file["offsets"][:])]
    return [(part[:start], part[start:]) for part, start in zip(parts, starts, strict=True)][:N_EXAMPLES]


def test_a_task_that_the_window_spoils(model, examples, tmp_path):
    def run(*words):
        done = (launch.run_python if words[0] in ("prepare", "score") else launch.run)(words, tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    rows = [
        {"index": number, "input": letters(prompt), "outputs": [letters(answer[:12]), letters(answer[12:24])]}
        for number, (prompt, answer) in enumerate(examples)
    ]
    data = write_lines(tmp_path / "vt" / "validation.jsonl", rows[: N_EXAMPLES // 2])
    other = write_lines(tmp_path / "vt_other" / "validation.jsonl", rows[N_EXAMPLES // 2 :])
    calibration, responses, scores = (tmp_path / name for name in ("data.h5", "texts.jsonl", "scores.json"))
    run("prepare", "--model", model, "--format", "ruler", "--input", data, other, "--out", calibration)
    made = read_tasks(calibration)
    for example in made.values():
        prompt, answer = examples[int(example["example_id"].split("/")[-1])]
        assert example["prompt_ids"].tolist() == prompt.tolist()
        # The blank between the parts is in no token of this vocabulary.
        assert example["answer_ids"].tolist() == answer[:24].tolist()
    patterns = ["--pattern", "full", "--pattern", "windowed", "--pattern", "list:1,4,5"]
    run(
        "evaluate",
        "--model",
        model,
        "--data",
        calibration,
        *FLAGS,
        *patterns,
        "--responses",
        responses,
        "--out",
        tmp_path / "run",
    )
    score = ["score", responses, "--data", calibration, "--model", model, "--evaluation", tmp_path / "run"]
    done = run(*score, "--out", scores, "--figure", tmp_path / "scores.svg")
    found = json.loads(scores.read_text())
    mean = {(row["pattern"], row["task"]): row for row in found["scores"]}
    for task in (None, "vt", "vt_other"):
        assert mean["full", task]["mean"] == 1 and mean["windowed", task]["mean"] == 0
        assert mean["list:1,4,5", task]["mean"] >= 0.5 and mean["list:1,4,5", task]["on_front"]
    assert mean["windowed", None]["minus_baseline_ci_high"] == -1
    budgets = {one["pattern"]: (one["full_layers"], one["kv_cache_share"]) for one in found["patterns"]}
    assert budgets["full"] == (12, 1) and budgets["list:1,4,5"][0] == 3 and 0.25 < budgets["list:1,4,5"][1] < 0.26
    assert "All tasks, 6 examples" in done.stdout and "front" in done.stdout
    figure = (tmp_path / "scores.svg").read_text()
    assert figure.startswith("<svg") and all(f">{name}<" in figure for name in ("full", "windowed", "list:1,4,5"))
