"""What an older winnow left behind still works: tests/compatibility/VERSION, which write.py there made."""

import hashlib
import json
import pathlib
import re
import shutil
import sys

import h5py
import launch
import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent.parent / "compatibility"
MODEL = HERE.parent / "golden" / "qwen3"
VERSIONS = sorted(path.parent for path in HERE.glob("*/made_by.json"))
WINDOW = ["--window", 24, "--sinks", 2, "--threads", 1, "--device", "cpu"]
SIGNALS = ["--control", "short=short.h5", "--signals", "kl,sensitivity,mass,lazy", "--lazy-recent", 16]

sys.path.insert(0, str(HERE))

from write import PRINTED  # noqa: E402  (beside the fixtures)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def old(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "old")
    shutil.copytree(MODEL, tmp_path / "old" / "model")
    return tmp_path / "old"


def winnow(old, *words):
    return launch.run([*words], old / "cache", cwd=old)


def tables(path):
    """{name: array} of the measured numbers and statistics."""
    found = {}
    with h5py.File(path) as file:

        def keep(name, item):
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and not name.startswith("provenance"):
                found[name] = item[()]

        file.visititems(keep)
    return found


def assert_same_tables(new, expected):
    """Another type of processor rounds in another way: float32 passes, means of some tokens."""
    assert expected.keys() <= new.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(new[name], values, rtol=2e-4, atol=2e-5, err_msg=name)


def test_there_are_fixtures():
    assert VERSIONS


NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b")


def assert_same_text(new, expected):
    """The words are the same; numbers are printed in full, and another compiler fuses other additions."""
    assert NUMBER.sub("#", new) == NUMBER.sub("#", expected)
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (new, expected)]
    np.testing.assert_allclose(*numbers, rtol=1e-12)


def test_texts_differ_by_a_word_or_a_number():
    assert_same_text("p 0.10000000000000001, 3 of 4", "p 0.1, 3 of 4")
    for other in ("q 0.1, 3 of 4", "p 0.1001, 3 of 4", "p 0.1, 3 of 5", "p 0.1, 3"):
        with pytest.raises(AssertionError):
            assert_same_text(other, "p 0.1, 3 of 4")


@pytest.mark.parametrize("name", PRINTED)
def test_files_are_read_and_shown_as_before(old, name):
    done = winnow(old, *PRINTED[name])
    assert done.returncode == 0, done.stderr
    assert_same_text(done.stdout, (old / "outputs" / f"{name}.txt").read_text())


def test_an_interrupted_run_goes_on(old):
    expected = tables(old / "calibrate" / "results.h5")
    kept = len(list((old / "interrupted" / "shards").iterdir()))
    done = winnow(old, "calibrate", "--model", "model", "--data", "long.h5", *WINDOW, *SIGNALS, "--out", "interrupted")
    assert done.returncode == 0, done.stderr
    run = json.loads((old / "interrupted" / "run.json").read_text())["informative"]["runs"][-1]
    assert run["units_done"] == 9 - kept  # nothing is measured twice
    with h5py.File(old / "interrupted" / "results.h5") as file:
        measured = {name: file[name][()] for name in ("calibration/nll", "calibration/kl", "control/short/nll")}
    assert_same_tables(measured, {name: expected[name] for name in measured})


def test_written_answers_are_kept(old):
    expected = tables(old / "evaluate" / "results.h5")
    texts = {path.name: path.read_bytes() for path in (old / "evaluate" / "texts").iterdir()}
    (old / "evaluate" / "results.h5").unlink()
    patterns = ["--pattern", "selection.json", "--pattern", "windowed", "--pattern", "periodic:2@0"]
    done = winnow(
        old,
        *["evaluate", "--model", "model", "--data", "long.h5", *WINDOW, *patterns, "--generate", 4],
        *["--out", "evaluate"],
    )
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (old / "evaluate" / "texts").iterdir()} == texts
    new = tables(old / "evaluate" / "results.h5")
    names = [name for name in expected if name.endswith(("/nll", "/exact_match"))]
    assert names
    assert_same_tables(new, {name: expected[name] for name in names})


def test_a_selection_is_exported(old):
    done = winnow(old, "export", "selection.json", "--target", "json", "--model", "model", "--out", "exported")
    assert done.returncode == 0, done.stderr
    exported = json.loads((old / "exported" / "winnow-export.json").read_text())
    assert exported["layers"] == json.loads((old / "selection.json").read_text())["layers"] == [1, 2]
    assert exported["windows"] == [24, None, None, 24]


def test_run_directories_of_a_sweep_keep_their_names(tmp_path):
    """A finished cell is found by its name: the hash over the settings that make a measurement another one."""
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    data = tmp_path / "long.h5"
    shutil.copy(VERSIONS[0] / "long.h5", data)
    (tmp_path / "sweep.yaml").write_text(
        f"name: old\noutput: {tmp_path / 'out'}\nmodels: [{{name: tiny, path: {model}}}]\n"
        f"datasets: [{{name: long, data: {data}}}]\nwindows: [24, 32]\nsinks: [2]\n"
    )
    done = launch.run(["sweep", "plan", tmp_path / "sweep.yaml", "--json"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    names = [pathlib.Path(cell["run_directory"]).name for cell in json.loads(done.stdout)["cells"]]

    def name_of(window):
        identity = {
            "model": str(model),
            "data": str(data),
            "controls": {},
            "window_keys": window,
            "sinks": 2,
            "decode": "windowed",
            "tail_rows": None,
            "base": "full",
            "residual": "checkpoint",
            "device": "auto",
            "attention": "auto",
            "limit": None,
            "layers": "all",
            "per_token": False,
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return f"model-long-w{window}-s2-windowed-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    assert names == [name_of(24), name_of(32)]
