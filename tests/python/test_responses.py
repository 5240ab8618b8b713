"""winnow prepare --decode-responses: token ids to text."""

import json

import launch
import pytest
import vocabularies

TEXT = "It's 42 «naïve» 你好"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vocabularies.write_thinking_model(tmp_path_factory.mktemp("model"), layers=1)


def decode(model, tmp_path, lines, *more, expect=0):
    (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines))
    done = launch.run(
        [
            "prepare",
            "--decode-responses",
            tmp_path / "in.jsonl",
            "--model",
            model,
            "--out",
            tmp_path / "out.jsonl",
            *more,
        ],
        tmp_path,
    )
    assert done.returncode == expect, done.stderr
    if expect:
        (line,) = done.stderr.splitlines()
        assert line.startswith("winnow: prepare: ") and not list(tmp_path.glob(".*.part"))
        return line
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_texts(model, tmp_path):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    stop = tokenizer.token_to_id("<|im_end|>")
    lines = [
        {"example_id": "é", "pattern": "full", "prompt_tokens": 3, "token_ids": [*ids, stop], "stopped": True},
        {"example_id": "b", "pattern": "full", "prompt_tokens": 3, "token_ids": [], "stopped": False},
    ]
    found = decode(model, tmp_path, [json.dumps(line) for line in lines])
    assert found == [lines[0] | {"text": TEXT}, lines[1] | {"text": ""}]
    assert "exists already" in decode(model, tmp_path, [], expect=73)
    assert decode(model, tmp_path, [], "--force") == []


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", ["in.jsonl:2", "not JSON"]),
        ("[1]", ["in.jsonl:2", "token_ids"]),
        ('{"token_ids": [1, 10000000]}', ["in.jsonl:2", "10000000", "--model"]),
        ('{"token_ids": [true]}', ["in.jsonl:2", "true"]),
        ('{"token_ids": [-1]}', ["in.jsonl:2", "-1"]),
    ],
)
def test_what_is_no_response_is_refused(model, tmp_path, line, words):
    message = decode(model, tmp_path, ['{"token_ids": [1]}', line], expect=65)
    assert all(word in message for word in words)
    assert not (tmp_path / "out.jsonl").exists()


def test_flags(model, tmp_path):
    assert "--input" in decode(model, tmp_path, [], "--input", "x.jsonl", expect=64)
    done = launch.run(
        ["prepare", "--decode-responses", tmp_path / "none.jsonl", "--model", model, "--out", tmp_path / "new.jsonl"],
        tmp_path,
    )
    assert done.returncode == 66 and "none.jsonl" in done.stderr
