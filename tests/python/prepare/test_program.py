"""winnow prepare from outside: files in, calibration files, summaries and exit codes out."""

import gzip
import json
import os
import re
import subprocess

import h5py
import launch
import numpy as np
import run_folder
import vocabularies
from prepare_files import ids_of, prepare_command, read, words, write_rows


def test_every_kind_of_file_and_row(prepare, model, tmp_path):
    import pyarrow
    import pyarrow.parquet
    import tokenizers

    data = tmp_path / "data"
    data.mkdir()
    chat = {"messages": [{"role": "user", "content": words(1, 50)}, {"role": "assistant", "content": "Paris"}]}
    (data / "longalign.jsonl").write_text("\ufeff" + json.dumps(chat) + "\n\n")
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(
            [{"prompt": words(2, 60), "answer": "Rome"}, {"prompt": words(3, 60), "answer": "Oslo"}]
        ),
        data / "fusang.parquet",
    )
    history = {
        "haystack_sessions": [[{"role": "user", "content": words(4, 60)}]],
        "question": "Where?",
        "answer": "Bonn",
    }
    with gzip.open(data / "history.jsonl.gz", "wt") as file:
        file.write(json.dumps(history) + "\n")
    share = {"conversations": [{"from": "human", "value": words(5, 40)}, {"from": "gpt", "value": "Bern"}]}
    with pyarrow.CompressedOutputStream(str(data / "share.jsonl.zst"), "zstd") as file:
        file.write((json.dumps(share) + "\n").encode())
    out = tmp_path / "out.h5"
    report = json.loads(prepare("--input", data, "--out", out, "--json", "--count", "all").stdout)
    assert (report["rows"], report["kept"], report["left_out"]) == (5, 5, {})
    backend = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    examples, attributes = read(out)
    answers = {source: backend.decode(list(answer), skip_special_tokens=False) for _, source, _, answer in examples}
    assert answers | {"fusang": ""} == {
        "longalign": "Paris<|im_end|>",
        "fusang": "",
        "history": "Bonn<|im_end|>",
        "share": "Bern<|im_end|>",
    }
    assert all(
        backend.decode(list(prompt), skip_special_tokens=False).endswith("<think>\n\n</think>\n\n")
        for _, _, prompt, _ in examples
    )
    filters = json.loads(attributes["filters"])
    assert filters["think"] == "empty" and filters["end_of_turn"] is True
    assert filters["think_effect"] == {"empty think block, by the template": 5}
    import hashlib

    assert attributes["tokenizer_sha256"] == hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest()
    assert attributes["created_by"].startswith("winnow-prepare ") and attributes["seed"] == 0
    inspected = launch.run(["inspect", out], tmp_path)
    assert inspected.returncode == 0 and re.search(r"examples +5\n", inspected.stdout)


def test_same_input_and_seed_give_the_same_bytes(prepare, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 700)
    control = ["--control-short", tmp_path / "c1.h5", "--control-tokens", "60", "--min-prompt-tokens", "100"]
    prepare("--input", rows, "--out", tmp_path / "a.h5", "--count", "20", "--processes", "1", *control)
    control[1] = tmp_path / "c2.h5"
    prepare("--input", rows, "--out", tmp_path / "b.h5", "--count", "20", "--processes", "3", *control)
    prepare("--input", rows, "--out", tmp_path / "other.h5", "--count", "20", "--seed", "1")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "c1.h5").read_bytes() == (tmp_path / "c2.h5").read_bytes()
    assert len(ids_of(tmp_path / "a.h5")) == 20 and set(ids_of(tmp_path / "a.h5")) != set(ids_of(tmp_path / "other.h5"))
    # The control holds the same examples: paired by id, shorter, with the same answers.
    long, short = read(tmp_path / "a.h5")[0], read(tmp_path / "c1.h5")[0]
    assert [example[0] for example in long] == [example[0] for example in short]
    for (_, _, long_prompt, long_answer), (_, _, prompt, answer) in zip(long, short, strict=True):
        assert np.array_equal(answer, long_answer) and 40 <= len(prompt) <= 60 < 100 <= len(long_prompt)
        assert np.array_equal(prompt[:10], long_prompt[:10]) and np.array_equal(prompt[-12:], long_prompt[-12:])


def test_broken_rows_are_counted_and_strict_stops(prepare, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 6)
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:30]
    lines[4] = '{"prompt": "only a prompt"}'
    lines.append(lines[0])  # identical prompt
    lines.append(json.dumps({"prompt": "short", "answer": "x"}))
    path.write_text("\n".join(lines))
    out = tmp_path / "out.h5"
    done = prepare("--input", path, "--out", out, "--json")
    report = json.loads(done.stdout)
    assert report["left_out"] == {
        "not JSON": 1,
        "no field for the answer": 1,
        "duplicate prompt": 1,
        "prompt under 20 tokens": 1,
    }
    assert (report["rows"], report["kept"], report["asked"]) == (8, 4, 64)
    assert [place for place, *_ in report["first_errors"]] == [f"{path}:3", f"{path}:5"]
    out.unlink()
    assert f"{path}:3: not JSON" in prepare("--input", path, "--out", out, "--strict", expect=65).stderr
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl"]


def test_splits_never_overlap(prepare, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 60)
    again = write_rows(tmp_path / "again.jsonl", 20)
    found = {}
    for split in ("calibration", "held-out"):
        out = tmp_path / f"{split}.h5"
        prepare("--input", rows, again, "--out", out, "--count", "all", "--split", split, "--seed", str(len(found)))
        found[split] = {bytes(prompt) for _, _, prompt, _ in read(out)[0]}
    assert not found["calibration"] & found["held-out"]
    assert len(found["calibration"]) + len(found["held-out"]) == 60 and min(map(len, found.values())) > 15


def test_quotas_bins_and_control_from_data(prepare, tmp_path):
    write_rows(tmp_path / "a.jsonl", 90, lambda i: 100 + i)
    write_rows(tmp_path / "b.jsonl", 60, lambda i: 140 + i % 60, start=100)
    write_rows(tmp_path / "short.jsonl", 30, lambda i: 25 + i % 10, start=300)
    out, control = tmp_path / "out.h5", tmp_path / "control.h5"
    inputs = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "short.jsonl")]
    done = prepare(
        "--input",
        *inputs,
        "--out",
        out,
        "--count",
        "20",
        "--length-bins",
        "2",
        "--quota",
        "b=6",
        "--control-short",
        control,
        "--control-from",
        "data",
        "--control-tokens",
        "80",
        limits=["--min-prompt-tokens", "160", "--max-prompt-tokens", "330", "--min-answer-tokens", "1"],
    )
    examples = read(out)[0]
    lengths = [len(prompt) for _, _, prompt, _ in examples]
    middle = 160 + (331 - 160) / 2
    assert sum(length < middle for length in lengths) == 10 == sum(length >= middle for length in lengths)
    assert sum(source == "b" for _, source, *_ in examples) <= 6
    shorts = read(control)[0]
    assert shorts and all(source == "short" and 40 <= len(prompt) <= 80 for _, source, prompt, _ in shorts)
    assert "Control:" in done.stdout and "⟦" in done.stdout and "↵" in done.stdout


def test_base_models_and_bad_models(prepare, model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    base = vocabularies.write_model(tmp_path / "base", model / "tokenizer.json", None, {"eos_token": "<|im_end|>"})
    out = tmp_path / "out.h5"
    refused = prepare("--input", rows, "--out", out, model=base, expect=64).stderr
    assert "no chat template" in refused and "--template FILE" in refused and "--raw" in refused
    prepare("--input", rows, "--out", out, "--raw", "--separator", "\n", model=base)
    word = tmp_path / "word.jsonl"
    word.write_text('{"prompt": "The capital of Fran", "answer": "ce is Paris"}')
    refused = prepare(
        "--input", word, "--out", tmp_path / "x.h5", "--raw", "--min-prompt-tokens", "1", model=base, expect=65
    )
    assert "no token begins where the answer begins" in refused.stderr and "--separator" in refused.stderr
    assert len(read(out)[0]) == 3
    prepare("--input", rows, "--out", out, "--force", "--template", vocabularies.TEMPLATES / "chatml.jinja", model=base)
    assert "template_sha256" in read(out)[1]
    for template, code, message in ([{"name": "rag", "template": "x"}], 64, "named rag"), (5, 65, "not text"):
        (base / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template})
        )
        assert message in prepare("--input", rows, "--out", tmp_path / "x.h5", model=base, expect=code).stderr
    (base / "config.json").write_text("[]")
    refused = prepare("--input", rows, "--out", tmp_path / "x.h5", model=base, expect=65).stderr
    assert "config.json: not a JSON object" in refused
    (base / "config.json").unlink()
    (base / "tokenizer.json").write_text("{}")
    assert "tokenizer" in prepare("--input", rows, "--out", tmp_path / "x.h5", "--raw", model=base, expect=65).stderr
    assert (
        "no such directory"
        in prepare("--input", rows, "--out", tmp_path / "x.h5", model=tmp_path / "no", expect=66).stderr
    )


def test_bad_command_lines_and_files(prepare, model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    out = tmp_path / "out.h5"
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(rows.read_bytes() * 50)[:-200])
    (tmp_path / "array.json").write_text('[{"prompt": "a"}]')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "indented.json").write_text('\n\n[\n{"prompt": "a"}\n]')
    (tmp_path / "cut.json").write_text('{"prompt": "a"')
    for arguments, code, message in [
        (["--input", rows], 64, "--out is missing"),
        (["--input", rows, "--out", out, "--nonsense"], 64, "--nonsense"),
        (["--input", rows, "--out", out, "--count", "0"], 64, "--count"),
        (["--input", rows, "--out", out, "--field", "promt=a"], 64, "promt"),
        (["--input", tmp_path / "no", "--out", out], 66, "no such file"),
        (["--input", rows, "--out", tmp_path / "no/out.h5"], 73, "no directory"),
        (["--input", rows, "--out", rows], 73, "one of the files to be read"),
        (["--input", cut, "--out", out], 65, "cut.jsonl.gz"),
        (["--input", tmp_path / "array.json", "--out", out], 65, "array.json:1, item 1"),
        (["--input", tmp_path / "indented.json", "--out", out], 65, "indented.json:4, item 1"),
        (["--input", tmp_path / "cut.json", "--out", out], 65, "cut.json:1: not JSON: Expecting ',' delimiter"),
        (["--input", tmp_path / "empty.jsonl", "--out", out], 65, "no example is left"),
        (["--input", rows, "--out", out, "--min-answer-tokens", "500"], 65, "answer under 500 tokens"),
    ]:
        assert message in prepare(*arguments, expect=code).stderr
        assert not out.exists()


def test_calibrates(prepare, model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 12, lambda i: 100 + 3 * i)
    long, short = tmp_path / "long.h5", tmp_path / "short.h5"
    prepare(
        "--input",
        rows,
        "--out",
        long,
        "--count",
        "4",
        "--min-prompt-tokens",
        "120",
        "--control-short",
        short,
        "--control-tokens",
        "60",
    )
    more = ["--control", f"short={short}", "--window", "32", "--device", "cpu"]
    done = launch.run(run_folder.arguments("calibrate", tmp_path, "run", *more, model=model, data=long), tmp_path)
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "run/results.h5") as results:
        assert list(results["calibration/example_id"].asstr()[:]) == ids_of(long) == ids_of(short)
        assert results["calibration/delta_nll"].shape == (4, 3) and np.all(
            np.isfinite(results["calibration/delta_nll"][:])
        )
        lengths = [len(prompt) for _, _, prompt, _ in read(long)[0]]
        assert list(results["calibration/prompt_tokens"][:]) == lengths


def test_versions_agree_or_it_is_said(tmp_path):
    version = launch.run(["--version"], tmp_path).stdout.split()[1]
    done = launch.run(["prepare", "--version"], tmp_path)
    assert done.stdout == f"winnow-prepare {version}\n" and done.stderr == ""
    program = launch.WINNOW.parent / "winnow-prepare"
    other = subprocess.run(
        [program, "--version"], env=os.environ | {"WINNOW_VERSION": "9.9.9"}, capture_output=True, text=True
    )
    assert "winnow is 9.9.9: install both from the same sources" in other.stderr


def test_config_file(prepare, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 30)
    config = tmp_path / "flags.yaml"
    config.write_text(f"input: [{rows}]\ncount: 5\njson: true\nseed: 3\n")
    report = json.loads(prepare("--config", config, "--out", tmp_path / "a.h5", "--count", "7").stdout)
    assert report["kept"] == 7 and read(tmp_path / "a.h5")[1]["seed"] == 3
    config.write_text("cuont: 5\n")
    assert "--cuont" in prepare("--config", config, "--input", rows, "--out", tmp_path / "b.h5", expect=64).stderr


def test_installed_program(model, tmp_path):
    """After `make install`: with the packages it works without the source tree, without them it says how to get
    them."""
    prefix, build = tmp_path / "prefix", launch.WINNOW.parent
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True, capture_output=True)
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    command = [prefix / "bin/winnow", *prepare_command(model, rows, tmp_path / "out.h5")]
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "python3").write_text("#!/bin/sh\nexit 1\n")
    (empty / "python3").chmod(0o755)
    environment = os.environ | {"PATH": f"{empty}:{os.environ['PATH']}"}
    if subprocess.run(["/usr/bin/python3", "-c", "import transformers, h5py"], capture_output=True).returncode != 0:
        refused = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert refused.returncode == 69 and len(refused.stderr.splitlines()) == 1
        assert "pip' install -r" in refused.stderr and "WINNOW_PYTHON" in refused.stderr
    python = str(launch.REPOSITORY / ".venv/bin/python")
    done = subprocess.run(command, env=environment | {"WINNOW_PYTHON": python}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out.h5")[0]) == 3
