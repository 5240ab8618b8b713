"""winnow sweep on one machine: what runs, what does not run again, failures, and results equal direct runs."""

import json
import pathlib
import shutil

import launch
import tiny
from sweep_folder import Folder, direct, states

# ---- what runs -------------------------------------------------------------------------------------------------------


def test_two_models_two_windows_two_data_sets(folder):
    folder.write(seeds=[0, 7], overrides=[{"match": {"model": "b"}, "set": {"ranks_per_node": 2}}])
    plan = json.loads(folder.run("plan", "--json").stdout)
    assert states(plan["cells"]) == ["waiting"] * 8
    assert all(cell["hours"] > 0 for cell in plan["cells"])
    done = folder.submit("--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 cells are done" in done.stdout
    cells = folder.cells()
    assert states(cells) == ["done"] * 8 and [cell["attempts"] for cell in cells] == [1] * 8
    for i, cell in enumerate(cells):
        run = pathlib.Path(cell["run_directory"])
        plain = direct(folder, f"direct{i}", cell["model"], cell["dataset"], cell["window"])
        tiny.assert_same_tables(plain, run / "results.h5")
        if i % 3 == 0:
            other = direct(folder, f"direct{i}", cell["model"], cell["dataset"], cell["window"], "--seed", 7)
            tiny.assert_same_tables(other, run / "seeds" / "7" / "results.h5")
        progress = json.loads((run / "progress.json").read_text())
        assert progress["units_done"] == progress["units_total"]
        assert progress["cells_done"] == progress["cells_total"]
    assert not list((folder.path / "out").rglob("*.part"))


def test_a_finished_cell_is_not_run_again(folder):
    folder.write(models=["a"])
    assert folder.submit().returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (folder.path / "out").rglob("*") if path.is_file()}
    again = folder.submit()
    assert again.returncode == 0 and "4 done, 0 queued or running, 0 to run" in again.stderr
    # Another file with other names, more cells and one more seed: only what is new is run.
    other = folder.write(
        "other.yaml",
        models=["a", "b"],
        name="other",
        seeds=[0, 3],
        exclude=[{"model": "b", "window": 16}, {"model": "b", "dataset": "code"}],
    )
    done = folder.submit(file=other)
    assert done.returncode == 0, done.stderr
    assert len(folder.runs()) == 5 and len(folder.attempts()) == 5
    assert len(list((folder.path / "out" / "runs").glob("*/seeds/3/results.h5"))) == 5
    after = {path: path.stat().st_mtime_ns for path in before}
    assert before == after


def test_an_edited_file_says_what_changed(folder):
    folder.write(models=["a"])
    assert folder.submit().returncode == 0
    folder.write(models=["a"], datasets=["long"], windows=[16, 24], defaults={"threads": 1, "memory": "2G"})
    done = folder.submit()
    assert done.returncode == 0, done.stderr
    assert "night.yaml has changed since submission" in done.stderr
    assert "1 new cells, 3 no longer in it, 1 with other resources" in done.stderr
    assert "new: model=a dataset=long window=24" in done.stderr
    assert len(folder.attempts()) == 5


def test_dry_run_starts_nothing(folder):
    folder.write(models=["a"])
    done = folder.submit("--dry-run")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4 and "calibrate" in done.stdout
    assert not (folder.path / "out").exists()


def test_paths_with_spaces_and_quotes(tmp_path, inputs):
    odd = tmp_path / """it's a "$HOME" `dir` ; 100%"""
    odd.mkdir()
    shutil.copytree(inputs / "models" / "a", odd / "models" / "a")
    shutil.copytree(inputs / "data", odd / "data")
    folder = Folder(odd, odd)
    folder.write(
        models=["a"],
        datasets=["long"],
        defaults={"ranks_per_node": 2, "threads": 1},
        output="out $(touch x)",
        windows=[16],
    )
    done = folder.submit()
    assert done.returncode == 0, done.stderr
    assert states(folder.cells()) == ["done"]
    assert not list(odd.rglob("x"))


def test_control_sets(folder, inputs):
    data = str(inputs / "data" / "{model}-")
    folder.write(
        models=["a"],
        windows=[16],
        datasets=[{"name": "long", "data": f"{data}long.h5", "controls": {"short": f"{data}short.h5"}}],
    )
    assert folder.submit().returncode == 0
    assert "control/short/nll" in tiny.tables(folder.runs()[0] / "results.h5")


# ---- failures --------------------------------------------------------------------------------------------------------


def test_one_corrupt_model_fails_and_the_others_are_done(folder, inputs, tmp_path):
    shutil.copytree(inputs / "models" / "a", tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    folder.write(datasets=["long"], models=["a", "b"])
    text = (folder.path / "night.yaml").read_text().replace(str(inputs / "models" / "a"), str(tmp_path / "broken"))
    (folder.path / "night.yaml").write_text(text)
    done = folder.submit()
    assert done.returncode == 65, done.stderr
    cells = folder.cells()
    assert states(cells) == ["failed", "failed", "done", "done"]
    for cell in cells[:2]:
        assert "model.safetensors" in cell["last_error"] and cell["exit_code"] == 65 and cell["attempts"] == 1
        assert cell["last_error"] in pathlib.Path(cell["log"]).read_text()
        assert cell["last_error"] in done.stdout
    table = folder.run("status").stdout
    assert "2 done, 2 failed" in table and cells[0]["log"] in table
    # Repaired, only these two run.
    shutil.copy(inputs / "models" / "a" / "model.safetensors", weights)
    assert folder.submit().returncode == 0
    assert states(folder.cells()) == ["done"] * 4
    assert [cell["attempts"] for cell in folder.cells()] == [2, 2, 1, 1]


def test_a_model_that_cannot_be_read_is_a_warning_of_the_plan(folder, inputs, tmp_path):
    shutil.copytree(inputs / "models" / "a", tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    folder.write(datasets=["long"])
    text = (folder.path / "night.yaml").read_text().replace(str(inputs / "models" / "a"), str(tmp_path / "broken"))
    (folder.path / "night.yaml").write_text(text)
    plan = folder.run("plan")
    assert plan.returncode == 0 and "without 2 cells that have no price" in plan.stdout
    assert "config.json" in plan.stdout


def test_output_that_cannot_be_written(folder):
    folder.write(models=["a"], output="/proc/nothing")
    done = folder.submit()
    assert done.returncode == 73, done.stderr
    (message,) = [line for line in launch.error_lines(done.stderr) if "cells:" not in line]
    assert "/proc/nothing" in message and "writable" in message


def test_bad_file_before_anything_is_written(folder):
    folder.write(models=["a"], limit=0, unknown=1)
    for verb in ("plan", "submit", "status", "cancel", "collect", "report"):
        done = folder.run(verb)
        assert done.returncode == 64, verb
        lines = launch.error_lines(done.stderr)
        assert len(lines) == 2 and all("night.yaml:" in line for line in lines), done.stderr
    assert not (folder.path / "out").exists()


def test_slurm_that_is_not_there(folder, tmp_path, monkeypatch):
    folder.write(models=["a"])
    monkeypatch.setenv("PATH", str(tmp_path))
    done = folder.run("submit", "--executor", "slurm")
    assert done.returncode == 69 and "--executor local" in done.stderr
    assert not (folder.path / "out" / "runs").exists()
