"""Results that are damaged or hostile: a line and exit code 65, or the values that lie in the file; never a crash."""

import os
import random
import shutil
import zlib

import h5py
import numpy as np
import pytest
import result_files

import winnow.report as winnow_report
from winnow.common.errors import ExitCode
from winnow.report.reading import opening, probe

LENGTH = 4  # layers


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    file = tmp_path_factory.mktemp("damage") / "results.h5"
    result_files.write(file, 8, LENGTH)
    return file


def _replaced(file, **properties):
    del file["ranking/rank"]
    return file["ranking"].create_dataset("rank", dtype="<i8", **({"shape": (LENGTH,)} | properties))


def _external(file):
    _replaced(file, external=[("/dev/zero", 0, 8 * LENGTH)])


def _virtual(file):
    layout = h5py.VirtualLayout((LENGTH,), "<i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (LENGTH,))
    del file["ranking/rank"]
    file["ranking"].create_virtual_dataset("rank", layout)


def _soft(file):
    file["ranking/again"] = h5py.SoftLink("/ranking/rank")


def _linked(file):
    file["more"] = h5py.ExternalLink("other.h5", "/")


def _cyclic(file):
    file["ranking/calibration/again"] = file["ranking"]


def _short(file):
    chunk = _replaced(file, chunks=(LENGTH,), compression="gzip").id
    chunk.write_direct_chunk((0,), zlib.compress(b"12345678"))


def _short_shuffled(file):
    _replaced(file, chunks=(LENGTH,), shuffle=True).id.write_direct_chunk((0,), b"12345678")


def _huge(file):
    _replaced(file, shape=(1 << 40,))


@pytest.mark.parametrize(
    "change, words",
    [
        (_external, ("/ranking/rank", "in another file", "h5repack")),
        (_virtual, ("/ranking/rank", "a virtual dataset", "h5repack")),
        (_soft, ("/ranking/again", "a soft link", "h5copy")),
        (_linked, ("/more", "a link to another file", "h5copy")),
        (_cyclic, ("/ranking", "inside of itself")),
        (_short, ("/ranking/rank", "8 of 32 bytes")),
        (_short_shuffled, ("/ranking/rank", "8 of 32 bytes")),
        (_huge, ("/ranking/rank", "claims the shape [1099511627776]")),
    ],
)
def test_what_is_not_in_the_file_is_refused_by_name(result, tmp_path, change, words):
    file = tmp_path / "results.h5"
    shutil.copy(result, file)
    with h5py.File(file, "a") as changed:
        change(changed)
    with pytest.raises(winnow_report.ReportError) as refused:
        winnow_report.open(tmp_path)
    assert refused.value.code == ExitCode.BAD_DATA
    for word in (str(file), *words):
        assert word in str(refused.value)
    assert "\n" not in str(refused.value) and "delete" not in str(refused.value)


def test_whole_files_of_all_packings_are_read(result, tmp_path):
    values = np.arange(1000, dtype="<i8").reshape(10, 100)
    for packing in (
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"shuffle": True, "fletcher32": True},
        {"scaleoffset": 0},
    ):
        shutil.copy(result, tmp_path / "results.h5")
        with h5py.File(tmp_path / "results.h5", "a") as file:
            file.create_dataset("more/x", data=values, chunks=(3, 30), **packing)
        with winnow_report.open(tmp_path) as tree:
            np.testing.assert_array_equal(tree["more/x"].values, values)


def test_a_pipe_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(winnow_report.ReportError) as refused:
        winnow_report.open(tmp_path / "pipe.h5")
    assert refused.value.code == ExitCode.NO_INPUT and "pipe" in str(refused.value)


def test_a_file_is_looked_at_again_when_it_has_changed(result, tmp_path):
    file = tmp_path / "results.h5"
    shutil.copy(result, file)
    probe.check(file)
    with h5py.File(file, "a") as changed:
        _soft(changed)
    with pytest.raises(winnow_report.ReportError):
        probe.check(file)
    probe.check(result)


def _damage(data, chance):
    data = bytearray(data)
    where = min(len(data), 4096) if chance.random() < 0.5 else len(data)
    at = chance.randrange(where)
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(where)] ^= 1 << chance.randrange(8)
        case 1:
            number = chance.choice([0, 1, 2**31, 2**40, 2**64 - 1, chance.randrange(len(data))])
            data[at & ~7 : (at & ~7) + 8] = number.to_bytes(8, "little")
        case 2:
            data[at : at + (8 << chance.randrange(6))] = bytes(len(data[at : at + (8 << chance.randrange(6))]))
        case 3:
            del data[at:]
    return bytes(data)


def test_damage_is_a_line_or_other_values(result, tmp_path):
    """Also in the file's own process: a crash there would end this test."""
    data = result.read_bytes()
    refused = 0
    for trial in range(int(os.environ.get("WINNOW_DAMAGED_FILES", "20"))):
        file = tmp_path / f"{trial}.h5"
        file.write_bytes(_damage(data, random.Random(trial)))
        try:
            with winnow_report.open(file) as tree:
                for node in tree.subtree:
                    for variable in node.to_dataset(inherit=False).variables.values():
                        opening.values(variable)
        except winnow_report.ReportError as error:
            refused += 1
            code = ExitCode
            assert error.code in (code.BAD_DATA, code.NO_INPUT, code.UNAVAILABLE, code.OUT_OF_MEMORY), str(error)
            assert "\n" not in str(error)
        file.unlink()
    assert refused > 3
