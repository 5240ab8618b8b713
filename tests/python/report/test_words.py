"""The text of answer tokens in a report: only where it is that of what was measured."""

import h5py
import pytest
import result_files
import tiny
from report_pages import page_of


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model, data: (model / "tokenizer.json").write_text("{"),
        lambda model, data: (model / "tokenizer.json").unlink(),
        lambda model, data: data.write_bytes(b"no HDF5"),
        lambda model, data: data.unlink(),
        lambda model, data: _shift(data),
        lambda model, data: _change(data),
        lambda model, data: _claim(data),
        lambda model, data: None,
    ],
    ids=["broken", "no tokenizer", "no data", "missing", "other data", "other words", "other tokenizer", "whole"],
)
def test_the_text_of_tokens_is_left_out_where_it_is_not_sure(tmp_path, spoil, request):
    (tmp_path / "model").mkdir()
    tiny.write_tokenizer(tmp_path / "model", [f"word-{i}" for i in range(64)])
    data = tiny.write_calibration(tmp_path / "long.h5", [20, 30, 25, 40], prefix="e")
    result_files.write(tmp_path / "results.h5", 4, 3, ids=[f"e{i}" for i in range(4)], model=str(tmp_path / "model"))
    if request.node.callspec.id == "other tokenizer":
        spoil(tmp_path / "model", data)  # the measured file says so itself
        result_files.add_tokens(tmp_path / "results.h5", 6, str(data))
    else:
        result_files.add_tokens(tmp_path / "results.h5", 6, str(data))
        spoil(tmp_path / "model", data)
    text = page_of(tmp_path / "results.h5", tmp_path)
    assert 'id="tokens"' in text
    is_whole = request.node.callspec.id == "whole"
    assert ('"texts":["word-' in text) == is_whole and ("the file that was measured" in text) == (not is_whole)


def test_without_a_recorded_hash_no_word_is_shown(tmp_path):
    (tmp_path / "model").mkdir()
    tiny.write_tokenizer(tmp_path / "model", [f"word-{i}" for i in range(64)])
    data = tiny.write_calibration(tmp_path / "long.h5", [20, 30, 25, 40], prefix="e")
    result_files.write(tmp_path / "results.h5", 4, 3, ids=[f"e{i}" for i in range(4)], model=str(tmp_path / "model"))
    result_files.add_tokens(tmp_path / "results.h5", 6, str(data))
    with h5py.File(tmp_path / "results.h5", "a") as file:
        del file["provenance/data_sha256"]
    assert "word-" not in page_of(tmp_path / "results.h5", tmp_path)


def _shift(data):
    with h5py.File(data, "a") as file:
        file["answer_start"][...] -= 1


def _change(data):
    with h5py.File(data, "a") as file:
        file["tokens"][...] = 63 - file["tokens"][:]


def _claim(data):
    with h5py.File(data, "a") as file:
        file.attrs["tokenizer_sha256"] = "0" * 64
