"""winnow prepare --decode-responses: token ids to text."""

import json
import os
import subprocess

import launch
import pytest
import vocabularies

TEXT = "It's 42 «naïve» 你好"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vocabularies.write_thinking_model(tmp_path_factory.mktemp("model"), layers=1)


def decode(model, tmp_path, lines, *more, expect=0):
    (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines))
    done = launch.run_python(
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
    done = launch.run_python(
        ["prepare", "--decode-responses", tmp_path / "none.jsonl", "--model", model, "--out", tmp_path / "new.jsonl"],
        tmp_path,
    )
    assert done.returncode == 66 and "none.jsonl" in done.stderr


def test_what_no_text_can_hold(tmp_path):
    """Half a surrogate pair stays what it was; an id of the model that is no token adds nothing."""
    byte_model = vocabularies.write_byte_model(tmp_path / "model", "x")
    (byte_model / "config.json").write_text('{"vocab_size": 300}')
    lines = [{"example_id": "\ud800é", "token_ids": [39, 299, 40]}, {"example_id": "é", "token_ids": [299]}]
    found = decode(byte_model, tmp_path, [json.dumps(line) for line in lines])
    assert found == [lines[0] | {"text": found[0]["text"]}, lines[1] | {"text": ""}] and len(found[0]["text"]) == 2
    assert "300" in decode(byte_model, tmp_path, ['{"token_ids": [300]}'], "--force", expect=65)


def test_what_stands_in_for_a_file_is_named(tmp_path):
    byte_model = vocabularies.write_byte_model(tmp_path / "model", "x")
    for name, text, words in [
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 7\n", "a Git LFS pointer"),
        ("config.json", "\n<!DOCTYPE html>", "a web page"),
    ]:
        (byte_model / name).write_text(text)
        message = decode(byte_model, tmp_path, [], expect=65)
        assert words in message and name in message
    (byte_model / "config.json").unlink()
    os.mkfifo(byte_model / "config.json")
    assert "config.json: cannot be read: not a regular file" in decode(byte_model, tmp_path, [], expect=66)


def test_a_summary_that_is_lost(model, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"token_ids": [1]}\n')
    out = tmp_path / "out.jsonl"
    command = ["prepare", "--decode-responses", tmp_path / "in.jsonl", "--model", model, "--out", out]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            launch.command(command),
            env=launch.environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=launch.TIMEOUT_SECONDS,
        )
    assert (
        done.returncode == 74 and len(done.stderr.splitlines()) == 1 and "written, but not the summary" in done.stderr
    )
    assert out.read_text().endswith("\n")
