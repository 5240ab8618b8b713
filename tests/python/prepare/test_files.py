"""winnow prepare from outside: what it replaces, and names, streams, pipes and disks that are in its way."""

import gzip
import json
import os
import subprocess

import launch
from prepare_files import LIMITS, read, words, write_rows


def test_outputs_take_nothing_away(prepare, tmp_path):
    """--force replaces calibration files: no devices, no pipes, no inputs."""
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    before = rows.read_bytes()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(rows)
    assert "no regular file" in prepare("--input", rows, "--out", tmp_path / "pipe", "--force", expect=73).stderr
    for name in ("rows.jsonl", "link"):
        assert (
            "one of the files to be read"
            in prepare("--input", rows, "--out", tmp_path / name, "--force", expect=73).stderr
        )
        assert (
            "one of the files to be read"
            in prepare(
                "--input",
                rows,
                "--out",
                tmp_path / "out.h5",
                "--force",
                "--control-short",
                tmp_path / name,
                "--control-tokens",
                "16",
                expect=73,
            ).stderr
        )
    assert rows.read_bytes() == before and (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()
    prepare("--input", rows, "--out", tmp_path / ("n" * 252 + ".h5"))  # the longest name
    assert "File name too long" in prepare("--input", rows, "--out", tmp_path / ("n" * 260), expect=73).stderr
    assert sorted(os.listdir(tmp_path)) == ["link", "n" * 252 + ".h5", "pipe", "rows.jsonl"]


def test_names_that_no_file_can_hold(prepare, tmp_path):
    rows = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    rows.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in [
                {"prompt": words(1, 30), "answer": "a"},
                {"prompt": words(2, 30), "answer": "b", "source": "s\0x\ud800"},
                {"prompt": words(3, 30), "answer": "c", "id": "\0"},
                {"prompt": words(4, 30), "answer": "d", "id": "x\ud800"},
            ]
        )
    )
    prepare("--input", rows, "--out", tmp_path / "out.h5")
    examples = read(tmp_path / "out.h5")[0]
    assert {source for _, source, *_ in examples} == {"caf\ufffd", "s x\ufffd"} and len(
        {name for name, *_ in examples}
    ) == 4
    assert all(name for name, *_ in examples) and "x\ufffd" in {name for name, *_ in examples}
    assert launch.run(["inspect", tmp_path / "out.h5"], tmp_path).returncode == 0


def test_values_that_no_file_can_hold(prepare, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    for arguments, message in [
        (["--seed", str(2**63)], "--seed"),
        (["--system", os.fsdecode(b"\xff")], "not UTF-8"),
        (["--length-bins", "5", "--count", "3"], "more than --count 3"),
        (["--template-arg", "messages=[]"], "messages"),
        (["--length-bins", "100000000", "--count", "all"], "--length-bins 100000000 is more than the 3981 lengths"),
    ]:
        assert message in prepare("--input", rows, "--out", tmp_path / "out.h5", *arguments, expect=64).stderr
    prepare("--input", rows, "--out", tmp_path / "out.h5", "--seed", str(2**63 - 1))
    assert read(tmp_path / "out.h5")[1]["seed"] == 2**63 - 1


def test_standard_streams_that_are_closed_or_full(model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    out = tmp_path / "out.h5"
    command = launch.command(["prepare", "--model", model, *LIMITS, "--input", rows, "--out", out, "--force"])
    for redirection, code, error in (
        (">&-", 74, f"winnow: prepare: {out}: written, but not the summary on standard output: it is closed"),
        (">&- 2>&-", 74, ""),
        ("> /dev/full 2> /dev/full", 74, ""),
        ("| true", 0, ""),
        ("> /dev/full", 74, f"winnow: prepare: {out}: written, but not the summary"),
    ):
        out.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f'"$@" {redirection}', "bash", *command],
            env=launch.environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == code and done.stderr.startswith(error) and bool(done.stderr) == bool(error), (
            done.stderr
        )
        assert len(read(out)[0]) == 3
    assert sorted(os.listdir(tmp_path)) == ["out.h5", "rows.jsonl"]


def test_pipes_and_hidden_files(prepare, tmp_path):
    data = tmp_path / "data"
    (data / ".cache").mkdir(parents=True)
    write_rows(data / "rows.jsonl", 2)
    for hidden in (data / ".rows.jsonl", data / ".cache/rows.jsonl"):
        hidden.write_bytes(b"\0")
    report = json.loads(prepare("--input", data, "--out", tmp_path / "out.h5", "--json").stdout)
    assert (report["rows"], report["kept"]) == (2, 2)
    for name, content in (
        ("plain", (data / "rows.jsonl").read_bytes()),
        ("gzip", gzip.compress((data / "rows.jsonl").read_bytes())),
    ):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        (tmp_path / "content").write_bytes(content)
        with subprocess.Popen(["cp", tmp_path / "content", pipe]) as writer:
            report = json.loads(prepare("--input", pipe, "--out", tmp_path / f"{name}.h5", "--json").stdout)
        assert writer.returncode == 0 and report["kept"] == 2
        pipe.unlink()


def test_disk_that_is_full(prepare, tmp_path):
    """A limit of the file's size stands in for it: the temporary file, then the output."""
    rows = write_rows(tmp_path / "rows.jsonl", 40, lambda i: 400)
    command = launch.command(
        ["prepare", "--model", prepare.model, *LIMITS, "--input", rows, "--out", tmp_path / "out.h5"]
    )
    prepare("--input", rows, "--out", tmp_path / "out.h5")
    size = (tmp_path / "out.h5").stat().st_size  # larger than the temporary file
    (tmp_path / "out.h5").unlink()
    for blocks in (4, size // 2048, size // 1024):
        done = subprocess.run(
            ["bash", "-c", f"trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"", "bash", *command],
            env=launch.environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 74 and len(done.stderr.splitlines()) == 1 and str(tmp_path) in done.stderr, (
            done.stderr
        )
        assert "File too large" in done.stderr and ("out.h5: cannot be written" in done.stderr) == (
            blocks == size // 1024
        )
        assert sorted(os.listdir(tmp_path)) == ["rows.jsonl"]
