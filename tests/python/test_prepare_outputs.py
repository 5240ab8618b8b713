"""winnow-prepare from inside: files that it writes, and what it says of workers, templates and tokenizers that fail."""

import collections
import os
import pathlib
import random
import resource
import signal
import stat

import pytest
import tiny
import vocabularies

from winnow.common.errors import ExitCode, Failure
from winnow.common.output import Kind, WholeFile, write_whole
from winnow.common.output import check_output as check_files
from winnow.prepare import options, pool, work
from winnow.prepare.main import MOST_SLOW, Draw
from winnow.prepare.outputs import CALIBRATION, check_output
from winnow.prepare.rendering.template import TOO_SLOW
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens.tokenise import load_tokenizer


def refused(path, *, inputs=(), model="model"):
    with pytest.raises(Failure) as failure:
        check_output(pathlib.Path(path), CALIBRATION, True, inputs, pathlib.Path(model))
    assert failure.value.code == ExitCode.CANNOT_CREATE
    return str(failure.value)


def test_nothing_in_the_folder_of_the_model_is_replaced(tmp_path, monkeypatch):
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "folder").symlink_to(model)
    (tmp_path / "link").symlink_to(model / "config.json")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("model/config.json", "model/new.h5", "model/sub/new.h5", "folder/new.h5", "other/../model/x", "link"):
        for spelled in (model, "folder", "other/../model"):
            words = refused(name, model=spelled)
            assert "in the folder of the model" in words or "is one of the files to be read" in words
    check_output(pathlib.Path("new.h5"), CALIBRATION, False, [], model)
    (tmp_path / "rows.jsonl").write_text("")
    assert "files to be read" in refused("other/../rows.jsonl", inputs=[tmp_path / "rows.jsonl"])
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "is a link to nowhere" in refused("dangling")
    (tmp_path / "notes").write_text("notes")
    assert "is no calibration file" in refused("notes")
    tiny.write_calibration(tmp_path / "old.h5", [20])
    with pytest.raises(Failure, match="exists already"):
        check_output(tmp_path / "old.h5", CALIBRATION, False, [], model)
    check_output(tmp_path / "old.h5", CALIBRATION, True, [], model)
    assert "is no regular file" in refused("/dev/null") and "is a directory" in refused(tmp_path)


def test_files_that_the_command_names_are_inputs():
    line = ["--model", "m", "--input", "r", "--out", "o", "--template", "t.jinja"]
    assert options.parse(line).other_inputs() == [pathlib.Path("t.jinja")]


def test_a_temporary_name_is_nobodys(tmp_path, monkeypatch):
    """Names that are taken, by a link too, are left alone."""
    names = iter(["a", "b", "c"])
    monkeypatch.setattr("winnow.common.output.secrets.token_hex", lambda count: next(names))
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / ".winnow-a.part").symlink_to(tmp_path / "theirs")
    (tmp_path / ".winnow-b.part").write_text("b")
    part = WholeFile(tmp_path / "out")
    part.file.write(b"mine")
    part.keep()
    part.discard()
    assert (tmp_path / "theirs").read_text() == "theirs" and (tmp_path / ".winnow-b.part").read_text() == "b"
    assert (tmp_path / "out").read_text() == "mine" and not (tmp_path / ".winnow-c.part").exists()


def test_permissions_are_kept(tmp_path):
    before = os.umask(0o027)
    try:
        for mode in (None, 0o604, 0o600):
            if mode is not None:
                (tmp_path / "out").chmod(mode)
            part = WholeFile(tmp_path / "out")
            part.keep()
            part.discard()
            assert (tmp_path / "out").stat().st_mode & 0o777 == (0o640 if mode is None else mode)
    finally:
        os.umask(before)


def test_a_file_that_is_not_kept_leaves_the_old_one(tmp_path):
    (tmp_path / "out").write_text("old")
    part = WholeFile(tmp_path / "out")
    part.file.write(b"new")
    part.discard()
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "old"


def test_a_file_that_does_not_fit_is_not_kept(tmp_path):
    """The system takes what fits at first, and refuses only the rest."""
    (tmp_path / "out").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Failure, match="out: cannot be written: File too large") as failure:
            write_whole({tmp_path / "first": b"1", tmp_path / "out": b"x" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.code == ExitCode.IO_ERROR
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "old"


class Deadly:
    """Stands for layouts of which one row needs more memory than there is."""

    def parse(self, row):
        if row.place == "rows.jsonl:3":
            os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_the_row_is_named_at_which_a_worker_died():
    worker = work.Worker(Deadly(), None, None, "", "all", 0.5, [], 1, None, False)
    rows = [Row(f"rows.jsonl:{number}", b"{}", "rows") for number in range(1, 6)]
    with (
        pytest.raises(Failure, match="killed at rows.jsonl:3, perhaps for want of memory") as failure,
        pool.Pool(worker, 2) as workers,
    ):
        list(workers.map(rows, list))
    assert failure.value.code == ExitCode.OUT_OF_MEMORY


def test_a_template_that_is_slow_again_and_again_ends_the_program():
    draw = Draw([], None, strict=False)
    slow = work.Outcome("rows.jsonl:7", TOO_SLOW, "over 5 s", is_error=True)
    for _ in range(MOST_SLOW - 1):
        draw.take(slow)
    with pytest.raises(Failure, match="rows.jsonl:7: the template takes too long") as failure:
        draw.take(slow)
    assert failure.value.code == ExitCode.BAD_DATA and draw.left_out[TOO_SLOW] == MOST_SLOW


def test_a_tokenizer_that_must_be_converted(tmp_path, monkeypatch):
    model = vocabularies.write_byte_model(tmp_path / "model", "x")
    (model / "tokenizer.json").unlink()
    with pytest.raises(Failure, match="there is no tokenizer.json, nor another file of a tokenizer") as failure:
        load_tokenizer(model)
    assert failure.value.code == ExitCode.NO_INPUT
    monkeypatch.setattr("winnow.prepare.tokens.tokenise._is_installed", lambda package: False)
    for name, packages in (
        ("tokenizer.model", "sentencepiece and protobuf"),
        ("tekken.json", "mistral-common"),
        ("qwen.tiktoken", "tiktoken"),
    ):
        (model / name).write_bytes(b"")
        with pytest.raises(Failure, match=f"no tokenizer.json, only {name}, .* install {packages}, or make"):
            load_tokenizer(model)
        (model / name).unlink()


def plant(folder, draw):
    """(places that are there, an input, the model) of a random tree of files, links, hard links, pipes and folders."""
    model, other = folder / "model", folder / os.fsdecode(b"d\xe9")
    model.mkdir()
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("theirs")
    places = [model / "config.json", model / "model.safetensors"]
    for _ in range(12):
        name = draw.choice(["a", "page.html", "x.part", ".page.html.part", os.fsdecode(b"x\xff")])
        place, target = draw.choice([folder, model, other]) / name, draw.choice(places)
        if os.path.lexists(place):
            continue
        kind = draw.randrange(6)
        if kind == 0:
            place.symlink_to(draw.choice([target, folder / "nowhere", other]))
        elif kind == 1 and target.is_file():
            os.link(target, place, follow_symlinks=False)
        elif kind == 2:
            os.mkfifo(place)
        else:
            place.write_text(draw.choice(["<!doctype html>ours", "theirs", ""]))
        places.append(place)
    return places, draw.choice(places), model


def tree(folder):
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(mode) else b""
        found[path] = (stat.S_IFMT(mode), what)
    return found


def test_random_trees_keep_all_but_own_files(tmp_path):
    page = Kind("page", lambda file: file.read(9) == b"<!doctype")
    counts = collections.Counter()
    for seed in range(300):
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        places, read, model = plant(folder, draw)
        out = draw.choice([*places, folder / "new", model / "new", model.parent / "model" / ".." / "new"])
        before = tree(folder)
        try:
            check_files(out, page, [read], [model], "--out")
        except Failure as refused:
            assert str(out) in str(refused)
            counts["refused"] += 1
        else:
            assert tree(folder) == before, seed
            write_whole({out: b"<!doctype html>new"})
            there = out.parent.resolve() / out.name
            assert tree(folder).pop(there) == (stat.S_IFREG, b"<!doctype html>new"), seed
            assert before.pop(there, (0, b""))[1] in (b"", b"<!doctype html>ours"), seed
            counts["written"] += 1
            before[there] = (stat.S_IFREG, b"<!doctype html>new")
        assert tree(folder) == before, seed
    assert counts["written"] > 20 and counts["refused"] > 20
