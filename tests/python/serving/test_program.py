"""winnow serve-check with an engine that gives what it is told to: verdicts, files, refusals."""

import json
import pathlib
import subprocess
import sys
import time

import h5py
import launch
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

LAYERS, WINDOW = 4, 16
WINDOWS = [WINDOW, None, WINDOW, None]
PATTERNS = ["hybrid", "full", "windowed", "window-minus-1", "window-plus-1"]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A folder as winnow export --target hf writes it, of a checkpoint beside it."""
    folder = tmp_path_factory.mktemp("export")
    tiny.write_checkpoint(folder / "model", layers=LAYERS)
    return write_export(folder / "hybrid", folder / "model")


def write_export(folder, checkpoint, **changes):
    folder.mkdir()
    (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    record = {"format": "winnow-export", "format_version": 1, "target": "hf", "windows": WINDOWS}
    record["model"] = str(checkpoint)
    (folder / "winnow-export.json").write_text(json.dumps(record | changes))
    return folder


@pytest.fixture
def engine(tmp_path):
    """engine(nll, text): a Python for --python that answers so, whatever it is asked to run."""

    def make(nll=None, text=None, code="", exit_code=0):
        answer = {"version": "0", "nll": nll, "text": text, "margins": [1.0] * len(text or [])}
        script = tmp_path / "engine.py"
        script.write_text(
            f"import json, sys\nrequest = json.load(open(sys.argv[-2]))\nanswer = {answer!r}\n"
            "n_scored = len(request['tokens']) - request['first']\n"
            "answer['nll'] = answer['nll'] or [1.0] * n_scored\n"
            "answer['text'] = (answer['text'] or [0] * request['n_new'])[:request['n_new']]\n"
            f"{code}\njson.dump(answer, open(sys.argv[-1], 'w'))\nsys.exit({exit_code})\n"
        )
        program = tmp_path / "python"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        program.chmod(0o755)
        return program

    return make


def check(export, cache, python, *flags):
    words = ["serve-check", export, "--engine", "transformers", "--python", python, "--threads", "1", *flags]
    return launch.run_python(words, cache)


@pytest.fixture(scope="module")
def expected(export, tmp_path_factory):
    """The JSON of a check whose engine gave 1 nat for every token: winnow's own figures are in it."""
    folder = tmp_path_factory.mktemp("expected")
    program = folder / "python"
    script = (
        "import json, sys; r = json.load(open(sys.argv[-2])); "
        "json.dump({'version': '0', 'nll': [1.0] * (len(r['tokens']) - r['first']), 'text': [0] * r['n_new'], "
        "'margins': [1.0] * r['n_new']}, open(sys.argv[-1], 'w'))"
    )
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{script}" "$@"\n')
    program.chmod(0o755)
    result = check(export, folder, program, "--out", folder / "check.json")
    assert result.returncode == 65, result.stderr
    record = json.loads((folder / "check.json").read_text())
    assert record["verdict"] == "something else" and not record["is_hybrid"]
    return record


def test_winnow_measures_every_pattern(expected):
    assert list(expected["candidates"]) == PATTERNS
    assert expected["windows"] == WINDOWS and expected["window_keys"] == WINDOW
    n_scored = expected["scored_before"] + expected["scored_past"]
    rows = expected["token_nll"]
    assert set(rows) == {"engine", *PATTERNS} and all(len(row) == n_scored for row in rows.values())
    for name in PATTERNS[1:]:
        assert rows[name][: expected["scored_before"]] == rows["hybrid"][: expected["scored_before"]]
        assert expected["candidates"][name]["rms_from_hybrid_nats"] > 0.01


@pytest.mark.parametrize("ran", PATTERNS)
def test_an_engine_is_told_by_its_figures(export, expected, engine, tmp_path, ran):
    out = tmp_path / "check.json"
    python = engine(nll=[nll + 1e-5 for nll in expected["token_nll"][ran]])
    result = check(export, tmp_path, python, "--out", out, "--generate", "0")
    assert result.returncode == (0 if ran == "hybrid" else 65), result.stderr
    record = json.loads(out.read_text())
    assert record["format"] == "winnow-serve-check" and record["verdict"] == ran
    assert record["is_hybrid"] == (ran == "hybrid")
    assert record["candidates"][ran]["rms_nats"] == pytest.approx(1e-5, rel=0.01)
    assert len(result.stdout.splitlines()) == 1
    assert ("runs the hybrid" if ran == "hybrid" else f"does not run the hybrid but {ran}") in result.stdout


def test_right_scores_with_another_text_are_no_hybrid(export, expected, engine, tmp_path):
    """As an engine that masks rightly in the prompt, and decodes with another cache."""
    out = tmp_path / "check.json"
    python = engine(nll=expected["token_nll"]["hybrid"], text=[63] * 20)
    result = check(export, tmp_path, python, "--out", out, "--generate", "20")
    assert result.returncode == 65 and "writes another text" in result.stdout
    record = json.loads(out.read_text())
    assert record["verdict"] == "hybrid" and not record["is_hybrid"] and record["text"]["equal"] < 20


def test_patterns_too_close_together_have_a_code_of_their_own(tmp_path, engine):
    """Without output projections the windows change nothing."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=LAYERS)
    zeros = tiny.write_checkpoint(tmp_path / "zeros", layers=LAYERS)
    tensors = load_file(model / "model.safetensors")
    for name in tensors:
        if "o_proj" in name:
            tensors[name] = np.zeros_like(tensors[name])
    tiny.write_safetensors(zeros / "model.safetensors", tensors)
    export = write_export(tmp_path / "hybrid", zeros)
    out = tmp_path / "check.json"
    assert check(export, tmp_path, engine(), "--out", out).returncode == 65
    python = engine(nll=json.loads(out.read_text())["token_nll"]["hybrid"])
    result = check(export, tmp_path, python, "--out", out)
    assert result.returncode == 76 and "cannot be told" in result.stdout
    assert json.loads(out.read_text())["verdict"] == "cannot tell"


def test_figures_that_are_not_finite_are_null_in_json(export, engine, tmp_path):
    out = tmp_path / "check.json"
    result = check(export, tmp_path, engine(code="answer['nll'][-1] = float('nan')"), "--out", out)
    assert result.returncode == 65 and "not finite" in result.stdout
    record = json.loads(out.read_text())
    assert record["token_nll"]["engine"][-1] is None and record["candidates"]["full"]["rms_nats"] is None


def test_an_engine_that_fails_is_said_with_its_last_words(export, engine, tmp_path):
    python = engine(code="sys.exit('RuntimeError: no such architecture')")
    result = check(export, tmp_path, python)
    assert result.returncode == 65 and result.stdout == ""
    assert launch.error_lines(result.stderr) == result.stderr.splitlines()[-1:]
    assert "Transformers does not run" in result.stderr and "no such architecture" in result.stderr
    # llama.cpp goes on talking while Python ends with an exception.
    code = "print('RuntimeError: no such tensor'); print('0.01 I main loop exited'); sys.exit(1)"
    assert "no such tensor" in check(export, tmp_path, engine(code=code)).stderr
    result = check(export, tmp_path, engine(code="import time; time.sleep(60)"), "--timeout", "1")
    assert result.returncode == 69 and "--timeout" in result.stderr
    result = check(export, tmp_path, engine(code="answer['nll'].pop()"))
    assert result.returncode == 65 and "fewer figures" in result.stderr


def test_a_killed_check_leaves_no_engine(export, engine, tmp_path):
    """Nor what the engine itself has started."""
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess\nchild = subprocess.Popen(['sleep', '3600'])\n"
        f"open({str(pids) + '.part'!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids) + '.part'!r}, {str(pids)!r})\nchild.wait()"
    )
    words = ["serve-check", export, "--engine", "transformers", "--python", engine(code=code)]
    process = subprocess.Popen(launch.command(words), env=launch.environment(tmp_path), start_new_session=True)
    try:
        wait_until(pids.exists)
        engine_pids = [int(pid) for pid in pids.read_text().split()]
        assert all(is_running(pid) for pid in engine_pids)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in engine_pids))


def wait_until(holds):
    while not holds():  # conftest.py ends a test that hangs
        time.sleep(0.05)


def is_running(pid):
    """False for a process that has ended and that nobody has waited for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_engine_that_is_not_there(export, tmp_path):
    """This Python has no torch."""
    result = check(export, tmp_path, sys.executable)
    assert result.returncode == 69 and "torch" in result.stderr and "--python" in result.stderr
    result = check(export, tmp_path, tmp_path / "none")
    assert result.returncode == 69 and "cannot be started" in result.stderr


@pytest.mark.parametrize(
    "changes, code, words",
    [
        ({"format": "other"}, 65, "no record of winnow export"),
        ({"windows": []}, 65, "expected a number of keys"),
        ({"windows": [16, 0, None, None]}, 65, "expected a number of keys"),
        ({"windows": [16, 17, None, None]}, 65, "windows of 16, 17 keys"),
        ({"windows": [16, None]}, 65, "num_hidden_layers is 4"),
        ({"model": "/nowhere"}, 66, "--model DIR"),
    ],
)
def test_exports_that_cannot_be_checked(export, engine, tmp_path, changes, code, words):
    other = write_export(tmp_path / "other", export.parent / "model", **changes)
    result = check(other, tmp_path, engine())
    assert result.returncode == code and words in result.stderr, result.stderr
    assert len(launch.error_lines(result.stderr)) == 1 and result.stdout == ""


@pytest.mark.parametrize(
    "windows, names",
    [
        ([None] * LAYERS, ["hybrid"]),
        ([WINDOW] * LAYERS, ["hybrid", "full", "window-minus-1", "window-plus-1"]),
    ],
)
def test_patterns_of_one_kind_of_layer(export, engine, tmp_path, windows, names):
    other = write_export(tmp_path / "other", export.parent / "model", windows=windows)
    out = tmp_path / "check.json"
    assert check(other, tmp_path, engine(), "--out", out, "--generate", "0").returncode == 65
    record = json.loads(out.read_text())
    assert list(record["candidates"]) == names
    python = engine(nll=record["token_nll"]["hybrid"])
    assert check(other, tmp_path, python, "--out", out, "--generate", "0").returncode == 0


def test_a_layer_may_keep_a_window_of_its_own(engine, tmp_path):
    """The last one, which is else measured besides the base since it costs least."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=LAYERS)
    config = json.loads((model / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 12}
    config["layer_types"] = ["full_attention"] * 3 + ["sliding_attention"]
    (model / "config.json").write_text(json.dumps(config))
    windows = [WINDOW, None, WINDOW, 12]
    out = tmp_path / "check.json"
    folder = write_export(tmp_path / "hybrid", model, windows=windows)
    result = check(folder, tmp_path, engine(), "--out", out, "--generate", "0")
    assert result.returncode == 65, result.stderr
    record = json.loads(out.read_text())
    assert record["windows"] == windows and record["window_keys"] == WINDOW
    python = engine(nll=record["token_nll"]["hybrid"])
    assert check(folder, tmp_path, python, "--generate", "0").returncode == 0


@pytest.mark.parametrize("own", [None, 12])
def test_windows_of_several_sizes_are_a_plan_s(own, engine, tmp_path):
    """All of them are off by a key, but for a window of the model's own."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=LAYERS)
    if own:
        config = json.loads((model / "config.json").read_text()) | {"use_sliding_window": True, "sliding_window": own}
        config["layer_types"] = ["full_attention"] * 3 + ["sliding_attention"]
        (model / "config.json").write_text(json.dumps(config))
    windows = [WINDOW, None, WINDOW + 8, own]
    tiny.write_calibration(tmp_path / "data.h5", [48])
    words = ["calibrate", "--model", model, "--data", tmp_path / "data.h5", "--window", WINDOW, "--target", "hf"]
    words += ["--layers", 0, "--device", "cpu", "--threads", 1, "--out", tmp_path / "run"]
    assert launch.run(words, tmp_path).returncode == 0
    with h5py.File(tmp_path / "run/results.h5") as file:
        sha256 = file["provenance/checkpoint_sha256"].asstr()[()]
    folder = write_export(tmp_path / "hybrid", model, windows=windows, checkpoint_sha256=sha256)
    out = tmp_path / "check.json"
    result = check(folder, tmp_path, engine(), "--out", out, "--generate", "0")
    assert result.returncode == 65, result.stderr
    record = json.loads(out.read_text())
    assert record["windows"] == windows and record["window_keys"] == WINDOW and list(record["candidates"]) == PATTERNS
    assert all(each["rms_from_hybrid_nats"] > 0.01 for ran, each in record["candidates"].items() if ran != "hybrid")
    for ran, code in (("hybrid", 0), ("window-minus-1", 65)):
        python = engine(nll=record["token_nll"][ran])
        assert check(folder, tmp_path, python, "--out", out, "--generate", "0").returncode == code
        assert json.loads(out.read_text())["verdict"] == ran
    # The same layers with one window are another model.
    single = write_export(tmp_path / "single", model, windows=[WINDOW, None, WINDOW, own])
    result = check(single, tmp_path, engine(nll=record["token_nll"]["hybrid"]), "--out", out, "--generate", "0")
    assert result.returncode == 65 and json.loads(out.read_text())["verdict"] != "hybrid"


def test_flags(export, engine, tmp_path):
    assert check(tmp_path, tmp_path, engine()).returncode == 66
    (export.parent / "weights.gguf").write_text("")
    result = check(export, tmp_path, engine(), "--gguf", export.parent / "weights.gguf")
    assert result.returncode == 64 and "llamacpp" in result.stderr
    assert check(export, tmp_path, engine(), "--tokens", "17").returncode == 64
    assert check(export, tmp_path, engine(), "--generate", "-1").returncode == 64
    # Nothing of the user's is replaced.
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    result = check(export, tmp_path, engine(), "--out", taken)
    assert result.returncode == 73 and taken.read_text() == "mine"
    assert check(export, tmp_path, engine(), "--out", export / "check.json").returncode == 73


def test_the_engine_is_the_export_s_unless_another_is_named(export, engine, tmp_path):
    other = write_export(tmp_path / "other", export.parent / "model", engine="mlx", route="native")
    words = ["serve-check", "--python", engine(), "--threads", "1", "--generate", "0", "--out", tmp_path / "check.json"]
    assert launch.run_python([*words, other], tmp_path).returncode == 65
    record = json.loads((tmp_path / "check.json").read_text())
    assert (record["engine"], record["route"]) == ("mlx", "native")
    for folder, what in (
        (export, "names none"),
        (write_export(tmp_path / "t", export.parent / "model", engine="trtllm"), "trtllm"),
    ):
        result = launch.run_python([*words, folder], tmp_path)
        assert result.returncode == 64 and what in result.stderr and "transformers, llamacpp" in result.stderr


def test_an_export_for_another_engine_is_refused(export, engine, tmp_path):
    other = write_export(tmp_path / "other", export.parent / "model", target="trtllm")
    (other / "config.json").unlink()
    result = check(other, tmp_path, engine())
    assert result.returncode == 65 and "--target trtllm" in result.stderr
