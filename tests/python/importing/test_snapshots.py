"""winnow import of a snapshot of the hub's cache, and winnow itself on one."""

import json
import os

import gguf_files
import launch
import numpy as np
import pytest
import tiny

from winnow.importing.main import main

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path):
    """A model's folder as the hub's cache has it: files are links to blobs."""
    tiny.write_checkpoint(tmp_path / "plain", layers=2)
    (tmp_path / "plain" / "tokenizer.json").write_text("{}")
    folder = tmp_path / "hub" / "models--a--b"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    for number, file in enumerate(sorted((tmp_path / "plain").iterdir())):
        file.rename(folder / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return folder


def snapshot_of(model):
    return model / "snapshots" / REVISION


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(capsys, source, out, code):
    assert main([str(source), "--out", str(out)]) == code
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and not out.exists()
    return said.err


@pytest.mark.parametrize("name_of", [lambda model: model, snapshot_of], ids=["model", "snapshot"])
def test_a_snapshot_becomes_a_folder_without_links(model, tmp_path, name_of, capsys):
    snapshot, out = snapshot_of(model), tmp_path / "out"
    (snapshot / "pytorch_model.bin").write_text("the same in another format")
    (snapshot / "onnx").mkdir()
    (snapshot / ".gitattributes").write_text("* filter=lfs")
    assert main([str(name_of(model)), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not any(path.is_symlink() for path in out.iterdir())
    expected = contents(snapshot)
    del expected["pytorch_model.bin"], expected[".gitattributes"]
    assert contents(out) == expected
    # Weights have a second name; what somebody may edit is a copy.
    assert report["weight_files_shared"] == 1
    assert os.path.samefile(out / "model.safetensors", snapshot / "model.safetensors")
    assert not os.path.samefile(out / "config.json", snapshot / "config.json")
    assert launch.run(["inspect", out], tmp_path / "cache").returncode == 0


def test_weights_are_copied_where_they_cannot_have_a_second_name(model, tmp_path, monkeypatch, capsys):
    def other_device(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_device)
    assert main([str(model), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weight_files_shared"] == 0
    assert contents(tmp_path / "out") == contents(snapshot_of(model))


def test_winnow_reads_a_snapshot_as_it_reads_a_folder(model, tmp_path):
    assert main([str(model), "--out", str(tmp_path / "out")]) == 0
    tiny.write_calibration(tmp_path / "data.h5", [24, 28])
    tables = []
    for checkpoint, run in ((snapshot_of(model), tmp_path / "one"), (tmp_path / "out", tmp_path / "two")):
        paths = ["--model", checkpoint, "--data", tmp_path / "data.h5", "--out", run]
        done = launch.run(["calibrate", *paths, "--window", 8, "--device", "cpu"], tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        tables.append(done.stdout.replace(str(run), "RUN"))
    assert tables[0] == tables[1] and "delta NLL" in tables[0]


def test_snapshots_that_are_not_whole(model, tmp_path, capsys):
    snapshot, out = snapshot_of(model), tmp_path / "out"
    weights = (snapshot / "model.safetensors").resolve()
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    assert "no whole safetensors file" in refused(capsys, model, out, 65)
    weights.unlink()
    assert "model.safetensors: its link leads nowhere" in refused(capsys, model, out, 66)
    (snapshot / "model.safetensors").unlink()
    assert "model.safetensors: is not there" in refused(capsys, model, out, 66)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../secret"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names '../secret'" in refused(capsys, model, out, 65)
    (snapshot / "model.safetensors.index.json").write_text("[]")
    assert "no index of weights" in refused(capsys, model, out, 65)
    (snapshot / "config.json").resolve().unlink()
    assert "names no snapshot" in refused(capsys, model, out, 66)
    assert "its link leads nowhere" in refused(capsys, snapshot, out, 66)


def test_a_folder_of_gguf_files_is_told_from_a_checkpoint(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert "there is no config.json" in refused(capsys, tmp_path / "folder", tmp_path / "out", 66)
    gguf_files.write_gguf(tmp_path / "folder" / "model.gguf", tensors={"a": np.zeros(4, "<f4")})
    assert "name one of its GGUF files" in refused(capsys, tmp_path / "folder", tmp_path / "out", 66)


def test_nothing_is_written_into_the_cache(model, tmp_path, capsys):
    before = contents(snapshot_of(model))
    line = refused(capsys, model, snapshot_of(model) / "out", 73)
    assert "folder of the model" in line and contents(snapshot_of(model)) == before
