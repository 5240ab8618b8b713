"""Checksums from outside: the formulas of results/README.md, the report on damaged and on older files."""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import warnings

import h5py
import launch
import pytest
import tiny
from report_pages import DONE, report

import winnow.report as winnow_report

BAD_DATA = 65
N_FLIPS = 200


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with results, and a selection made from them."""
    work = tmp_path_factory.mktemp("checksums")
    tiny.write_checkpoint(work / "model")
    tiny.write_calibration(work / "data.h5", [40, 48], seed=1)
    words = ["--model", work / "model", "--data", work / "data.h5", "--window", "8", "--out", work / "run"]
    assert launch.run(["calibrate", *words], work / "cache").returncode == 0
    made = launch.run(["select", work / "run", "--keep", "2", "--out", work / "selection.json"], work / "cache")
    assert made.returncode == 0, made.stderr
    return work


@pytest.fixture
def results(run, tmp_path):
    return shutil.copyfile(run / "run" / "results.h5", tmp_path / "results.h5")


def code_blocks(language):
    text = (launch.REPOSITORY / "results" / "README.md").read_text().split("\n## Checksums\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_formulas_of_the_document_hold(run, tmp_path):
    (shell,), (python,) = code_blocks(""), code_blocks("python")
    shell = shell.replace("RUN_DIR", str(run / "run"))
    assert subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout == "whole\n"
    for file in (run / "selection.json", run / "run" / "run.json"):
        exec(python.replace("selection.json", str(file)), {})
    (tmp_path / "s.json").write_text((run / "selection.json").read_text().replace('"keep": 2', '"keep": 3'))
    with pytest.raises(AssertionError):
        exec(python.replace("selection.json", str(tmp_path / "s.json")), {})


def test_the_report_refuses_every_flipped_bit(results):
    whole = results.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        winnow_report.open(results).close()
    draw = random.Random(3)
    for _ in range(N_FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        results.write_bytes(flipped)
        with pytest.raises(winnow_report.ReportError) as refused:
            winnow_report.open(results)
        assert refused.value.code == BAD_DATA and "\n" not in str(refused.value)
    results.write_bytes(whole[:-1])
    with pytest.raises(winnow_report.ReportError, match="cut short or damaged"):
        winnow_report.open(results)


def test_a_file_that_another_program_wrote_to_is_read_with_a_note(results, tmp_path):
    with h5py.File(results, "r+") as file:
        file.attrs["note"] = "mine"
    with pytest.warns(UserWarning, match="has no checksum"):
        winnow_report.open(results).close()
    code, _, err = report(results, "--out", tmp_path / "page.html")
    assert code == DONE and err.count("has no checksum") == 1 == err.count("\n"), err
    assert "no checksum" in (tmp_path / "page.html").read_text()
    shown = launch.run(["stats", results, "--in-place"], tmp_path)
    assert shown.returncode == 0 and shown.stderr.count("has no checksum") == 1, shown.stderr
    content = results.read_bytes()
    assert content[-80:] == b"\nwinnow sha256 " + hashlib.sha256(content[:-80]).hexdigest().encode() + b"\n"
    assert launch.run(["stats", results], tmp_path).stderr == ""


def test_a_file_that_is_open_elsewhere_is_not_called_damaged(results, tmp_path):
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, results]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        shown = launch.run(["stats", results], tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert report(results, "--out", tmp_path / "page.html")[0] == DONE
        holder.stdin.close()


def test_a_selection_of_an_older_winnow_is_read_with_a_note(run, tmp_path):
    fields = json.loads((run / "selection.json").read_text())
    del fields["content_sha256"]
    (tmp_path / "old.json").write_text(json.dumps(fields))
    shown = launch.run(["inspect", tmp_path / "old.json", "--json"], tmp_path)
    assert shown.returncode == 0 and shown.stderr.count("has no checksum") == 1, shown.stderr
    assert json.loads(shown.stdout) == {"kind": "selection"} | fields
