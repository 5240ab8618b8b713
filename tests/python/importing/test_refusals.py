"""What winnow import cannot say is refused by name, in one line, and nothing is left behind."""

import os
import pathlib
import signal
import struct
import subprocess
import time

import gguf_files
import launch
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from winnow.common.folder import NewFolder
from winnow.importing.main import main
from winnow.importing.rope import LLAMA3_FACTORS


def refused(capsys, source, out, code):
    """The line that it ends with; no output, whole or half, is there."""
    before = sorted(out.parent.iterdir())
    assert main([str(source), "--out", str(out)]) == code
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1, said
    assert sorted(out.parent.iterdir()) == before
    return said.err


def without(name):
    return {key: array for key, array in gguf_files.matrices().items() if key != name}


BAD_METADATA = [
    ({"llama.block_count": None}, "llama.block_count", "is missing"),
    ({"llama.attention.layer_norm_rms_epsilon": None}, "llama.attention.layer_norm_rms_epsilon", "is missing"),
    ({"llama.attention.head_count_kv": [2, 1]}, "llama.attention.head_count_kv", "same for all layers"),
    ({"llama.attention.head_count": 0}, "llama.attention.head_count", "above 0"),
    ({"llama.context_length": "long"}, "llama.context_length", "whole number"),
    ({"llama.attention.value_length": 32}, "llama.attention.value_length", "length of a key"),
    ({"llama.attention.causal": False}, "llama.attention.causal", "true"),
    ({"llama.expert_count": 8}, "llama.expert_count", "experts"),
    ({"llama.attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv", "not known"),
    ({"llama.use_parallel_residual": True}, "llama.use_parallel_residual", "not known"),
    ({"llama.rope.dimension_count": 32}, "llama.rope.dimension_count", "size of a head, 64"),
    ({"llama.rope.scaling.type": "ntk"}, "llama.rope.scaling.type", "none, linear, yarn"),
    ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.factor", "is missing"),
    ({"general.type": "adapter"}, "general.type", "'adapter'"),
    ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model", "is missing"),
    ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model", "'t5'"),
    ({"tokenizer.ggml.pre": "unheard-of"}, "tokenizer.ggml.pre", "'unheard-of'"),
    ({"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre", "is missing"),
    ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges", "is missing"),
    ({"tokenizer.ggml.eos_token_id": 100_000}, "tokenizer.ggml.eos_token_id", "one of 261 tokens"),
    ({"tokenizer.ggml.token_type": [1, 2]}, "tokenizer.ggml.token_type", "2 values for 261 tokens"),
    ({"tokenizer.ggml.tokens": [*gguf_files.TOKENS, "one", "two"], "tokenizer.ggml.token_type": None}, "263 tokens"),
    ({"tokenizer.chat_template": 5}, "tokenizer.chat_template", "text"),
    ({"tokenizer.ggml.merges": ["no such"]}, "no tokenizer can be made", "tokenizer.ggml"),
]


@pytest.mark.parametrize("row", BAD_METADATA, ids=lambda row: " ".join(row[1:])[:60])
def test_metadata(capsys, tmp_path, row):
    changes, *words = row
    gguf_files.write_gguf(tmp_path / "model.gguf", gguf_files.metadata(**changes))
    line = refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)
    assert all(word in line for word in [str(tmp_path / "model.gguf"), *words]), line


def test_an_architecture_that_is_not_known(capsys, tmp_path):
    for name in ("mamba2", "mistral"):  # the second is a row of the table, but no name in a file
        gguf_files.write_gguf(tmp_path / "model.gguf", architecture=name)
        line = refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)
        assert f"general.architecture is '{name}'" in line and "qwen3 can be imported" in line


@pytest.mark.parametrize(
    "tensors, words",
    [
        (without("blk.1.ffn_up.weight"), "tensor blk.1.ffn_up.weight is missing"),
        (without("token_embd.weight"), "tensor token_embd.weight is missing"),
        (
            gguf_files.matrices() | {"blk.0.attn_q.weight": np.zeros((128, 256), "<f4")},
            "blk.0.attn_q.weight: expected the shape (256, 256) by the metadata, found (128, 256)",
        ),
        (gguf_files.matrices() | {"blk.0.attn_sinks.weight": np.zeros(4, "<f4")}, "blk.0.attn_sinks.weight: llama has"),
        (gguf_files.matrices() | {"blk.2.attn_norm.weight": np.zeros(256, "<f4")}, "blk.2.attn_norm.weight: llama has"),
        (gguf_files.matrices() | {"blk.0.attn_q.bias": np.zeros(256, "<f4")}, "blk.0.attn_k.bias is missing"),
        (gguf_files.matrices() | {"output_norm.weight": np.full(256, np.nan, "<f4")}, "output_norm.weight holds"),
        (gguf_files.matrices() | {LLAMA3_FACTORS: np.arange(1, 33, dtype="<f4")}, "no rope scaling of type llama3"),
        (gguf_files.matrices() | {LLAMA3_FACTORS: np.ones(3, "<f4")}, "expected 32 numbers"),
        (
            gguf_files.matrices() | {"output_norm.weight": (np.zeros(256, np.int8), Type.I8)},
            "output_norm.weight is of type I8, which cannot be dequantised",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors(capsys, tmp_path, tensors, words):
    gguf_files.write_gguf(tmp_path / "model.gguf", tensors=tensors)
    assert words in refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)


def test_a_vocabulary_without_a_model(capsys, tmp_path):
    gguf_files.write_gguf(tmp_path / "model.gguf", tensors={})
    assert "has a vocabulary only" in refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)


def test_a_quantisation_type_that_is_not_known(capsys, tmp_path):
    gguf_files.write_gguf(tmp_path / "model.gguf")
    data = bytearray((tmp_path / "model.gguf").read_bytes())
    at = data.index(b"output_norm.weight") + len("output_norm.weight")
    assert struct.unpack_from("<IQI", data, at) == (1, 256, 0)
    struct.pack_into("<I", data, at + 12, 199)
    (tmp_path / "model.gguf").write_bytes(data)
    assert "quantisation type 199" in refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)


def test_files_cut_short_anywhere(capsys, tmp_path):
    gguf_files.write_gguf(tmp_path / "whole.gguf")
    data = (tmp_path / "whole.gguf").read_bytes()
    places = [0, 3, 4, 6, 12, 24, 30, 200, 3000, 9000, len(data) // 2, len(data) - 1]
    for place in places:
        (tmp_path / "model.gguf").write_bytes(data[:place])
        line = refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 65)
        assert str(tmp_path / "model.gguf") in line


def test_damage_in_the_header_is_no_crash(capsys, tmp_path):
    """Sizes of 2^63 too: nothing is looped over, or allocated, that is not in the file."""
    gguf_files.write_gguf(tmp_path / "whole.gguf")
    data = (tmp_path / "whole.gguf").read_bytes()
    random = np.random.default_rng(0)
    n_refused = 0
    for place in random.integers(4, 12_000, 60):
        damaged = bytearray(data)
        damaged[place : place + 8] = b"\xff" * 8
        (tmp_path / "model.gguf").write_bytes(damaged)
        code = main([str(tmp_path / "model.gguf"), "--out", str(tmp_path / f"out{place}")])
        assert code in (0, 65), place  # bytes of a token may be anything
        n_refused += code == 65
        assert len(capsys.readouterr().err.splitlines()) == (code != 0)
    assert n_refused > 10


def test_what_is_no_gguf(capsys, tmp_path):
    source, out = tmp_path / "model.gguf", tmp_path / "out"
    assert "no such file" in refused(capsys, source, out, 66)
    source.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in refused(capsys, source, out, 65)
    source.write_bytes(b"GGUF\0\0\0\3" + bytes(64))
    assert "big-endian" in refused(capsys, source, out, 65)
    source.write_bytes(b"GGUF" + struct.pack("<I", 1) + bytes(64))
    assert "version 1" in refused(capsys, source, out, 65)
    source.unlink()
    os.mkfifo(source)
    assert "not a regular file" in refused(capsys, source, out, 66)


def test_parts_that_are_missing_or_have_other_names(capsys, tmp_path):
    fields = gguf_files.metadata() | {"split.no": 0, "split.count": 3, "split.tensors.count": 20}
    gguf_files.write_gguf(tmp_path / "model-00001-of-00003.gguf", fields)
    line = refused(capsys, tmp_path / "model-00001-of-00003.gguf", tmp_path / "out", 66)
    assert "2 of 3 parts missing: model-00002-of-00003.gguf" in line
    (tmp_path / "model-00001-of-00003.gguf").rename(tmp_path / "first.gguf")
    assert "one of 3 parts" in refused(capsys, tmp_path / "first.gguf", tmp_path / "out", 65)


def test_outputs_that_must_not_be_written(capsys, tmp_path):
    source = tmp_path / "model.gguf"
    gguf_files.write_gguf(source)
    full = tmp_path / "full"
    full.mkdir()
    (full / "theirs").write_text("text")
    assert "is not empty" in refused(capsys, source, full, 73)
    assert (full / "theirs").read_text() == "text"
    (tmp_path / "file").write_text("text")
    assert "is no folder" in refused(capsys, source, tmp_path / "file", 73)
    assert "files to be read" in refused(capsys, source, source, 73)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    assert "is no folder" in refused(capsys, source, tmp_path / "link", 73)
    assert main([str(source), "--out", str(tmp_path / "no" / "out")]) == 73
    assert "make it first" in capsys.readouterr().err
    assert main([str(source), "--out", str(tmp_path / "empty")]) == 0
    capsys.readouterr()
    assert "folder of a checkpoint" in refused(capsys, source, tmp_path / "empty" / "inside", 73)


def test_flags(capsys):
    for arguments in ([], ["x.gguf"], ["x.gguf", "--out"], ["x.gguf", "--out", "y", "--fast"]):
        assert main(arguments) == 64
        said = capsys.readouterr()
        assert len(said.err.splitlines()) == 1 and "--help" in said.err


def test_a_full_disk_leaves_nothing(capsys, tmp_path, monkeypatch):
    gguf_files.write_gguf(tmp_path / "model.gguf")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(capsys, tmp_path / "model.gguf", tmp_path / "out", 74)


def test_an_interrupt_leaves_nothing(tmp_path):
    tensors = gguf_files.matrices()
    tensors["token_embd.weight"] = np.zeros((400_000, 256), "<f4")  # enough to be caught in the middle
    gguf_files.write_gguf(tmp_path / "model.gguf", tensors=tensors)
    words = [str(launch.WINNOW), "import", str(tmp_path / "model.gguf"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".winnow-*/model.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)  # it cannot end before it is told to
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate()
    assert (process.returncode, out) == (75, "") and err.count("\n") == 1 and "interrupted" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_folders_of_killed_writers_are_removed_and_those_of_living_ones_are_not(tmp_path):
    leftover = tmp_path / ".winnow-0123456789abcdef.part"
    leftover.mkdir()
    (leftover / "model.safetensors").write_text("half")
    os.utime(leftover, (1, 1))
    theirs = tmp_path / ".winnow-mine.part"
    theirs.mkdir()
    with NewFolder(tmp_path / "one") as living:
        os.utime(living.path, (1, 1))
        with NewFolder(tmp_path / "two") as second:
            (second.path / "file").write_text("text")
            assert living.path.is_dir() and theirs.is_dir() and not leftover.exists()
            second.keep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".winnow-mine.part", "two"]
    assert pathlib.Path(tmp_path / "two" / "file").read_text() == "text"
