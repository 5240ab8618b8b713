"""winnow sweep on one machine: what runs, what does not run again, stops and crashes, and results equal direct runs."""

import json
import os
import pathlib
import re
import shutil
import signal

import launch
import pytest
import tiny

LENGTHS = [300, 260, 220, 310, 240, 280]
SLOW_LENGTHS = [700, 640, 560, 720, 500, 610, 530, 660]
MOST_SHARDS = len(SLOW_LENGTHS) - 3  # on disk when a test stops a cell in its middle


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two models and two data sets that take a moment, and a model that takes a second."""
    directory = tmp_path_factory.mktemp("sweep")
    tiny.write_checkpoint(directory / "models" / "a", layers=3, seed=1)
    tiny.write_checkpoint(directory / "models" / "b", layers=2, seed=2)
    tiny.write_checkpoint(
        directory / "models" / "slow", layers=6, hidden=128, heads=8, kv_heads=4, head_dim=16, ffn=384
    )
    (directory / "data").mkdir()
    for model in ("a", "b"):
        tiny.write_calibration(directory / "data" / f"{model}-long.h5", LENGTHS, seed=3)
        tiny.write_calibration(directory / "data" / f"{model}-code.h5", LENGTHS[:4], seed=4, prefix="code")
        tiny.write_calibration(directory / "data" / f"{model}-short.h5", [80, 90], seed=5)
    tiny.write_calibration(directory / "data" / "slow-long.h5", SLOW_LENGTHS)
    tiny.write_calibration(directory / "data" / "slow-many.h5", SLOW_LENGTHS * 3)
    return directory


class Folder:
    """A folder with sweep files and their output."""

    def __init__(self, path, inputs):
        self.path, self.inputs = path, inputs
        path.mkdir(parents=True, exist_ok=True)

    def write(self, file="night.yaml", models=("a", "b"), datasets=("long", "code"), **more):
        sweep = {
            "name": "night",
            "output": "out",
            "models": [{"name": model, "path": str(self.inputs / "models" / model)} for model in models],
            "datasets": [
                data
                if isinstance(data, dict)
                else {"name": data, "data": str(self.inputs / "data" / ("{model}-" + data + ".h5"))}
                for data in datasets
            ],
            "windows": [16, 32],
            "sinks": [2],
            "device": "cpu",
            "defaults": {"threads": 1},
        } | more
        (self.path / file).write_text(json.dumps(sweep, indent=2))  # which is YAML, too
        return self.path / file

    def arguments(self, *words):
        return ["sweep", words[0], self.path / "night.yaml", *words[1:]]

    def run(self, *words, file=None):
        arguments = self.arguments(*words)
        if file is not None:
            arguments[2] = file
        return launch.run(arguments, self.path / "cache")

    def submit(self, *more, file=None):
        return self.run("submit", "--executor", "local", *more, file=file)

    def start(self, *more):
        return launch.start(self.arguments("submit", "--executor", "local", *more), self.path / "cache")

    def status(self):
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def cells(self):
        return self.status()["cells"]

    def runs(self):
        return sorted((self.path / "out" / "runs").iterdir())

    def attempts(self):
        return sorted((self.path / "out" / "runs").glob("*/attempts/*.json"))


@pytest.fixture
def folder(tmp_path, inputs):
    return Folder(tmp_path / "sweep", inputs)


def states(cells):
    return [cell["state"] for cell in cells]


def shards(run):
    return sorted((pathlib.Path(run) / "shards").glob("*.h5"))


def processes(word):
    """Processes of winnow whose command line holds the word."""
    return sorted(pid for pid, (_, words) in launch.winnow_processes().items() if any(word in part for part in words))


def ranks_of(folder):
    """Processes of the cells that run, started with mpirun or without it."""
    return processes(f"--out={folder.path}")


def direct(folder, out, model, data, window, *more):
    done = launch.run(
        [
            "calibrate",
            "--model",
            folder.inputs / "models" / model,
            "--data",
            folder.inputs / "data" / f"{model}-{data}.h5",
            "--out",
            folder.path / out,
            "--window",
            window,
            "--sinks",
            2,
            "--threads",
            1,
            "--device",
            "cpu",
            *more,
        ],
        folder.path / "cache",
    )
    assert done.returncode == 0, done.stderr
    return folder.path / out / "results.h5"


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


# ---- stops and crashes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_direct(tmp_path_factory, inputs):
    """results.h5 of the slow model's direct run with a window, made when it is first asked for."""
    folder = Folder(tmp_path_factory.mktemp("direct"), inputs)
    made = {}

    def result(window, dataset="long"):
        if (window, dataset) not in made:
            made[window, dataset] = direct(folder, f"{dataset}{window}", "slow", dataset, window)
        return made[window, dataset]

    return result


def freeze(folder, n_ranks, *more, n_shards=1, most=MOST_SHARDS):
    """(process, its ranks) of a sweep whose ranks stand still: its first cell has n_shards to `most` units on disk, and
    its last one waits."""

    def begin():
        launch.wait_for(lambda: not processes(str(folder.path)))
        shutil.rmtree(folder.path / "out", ignore_errors=True)
        return folder.start(*more)

    runs = folder.path / "out" / "runs"
    return launch.freeze_in_the_middle(
        begin,
        n_ranks,
        lambda: len(list(runs.glob("*-w64-*/shards/*.h5"))) >= n_shards,
        lambda: len(list(runs.glob("*-w64-*/shards/*.h5"))) <= most and not list(runs.glob("*-w16-*/attempts/*")),
        lambda process: ranks_of(folder),
    )


@pytest.mark.parametrize("ranks, jobs", [(1, 1), (2, 1), (1, 2)])
def test_ctrl_c_and_submit_again(folder, slow_direct, ranks, jobs):
    # Many examples: between the signal and the end that mpirun gives its ranks, these go on.
    folder.write(
        models=["slow"], datasets=["many"], windows=[64, 32, 16], defaults={"threads": 1, "ranks_per_node": ranks}
    )
    process, frozen = freeze(folder, ranks * jobs, "--jobs", jobs, n_shards=2)
    process.send_signal(signal.SIGINT)
    # mpirun lets its ranks go on by itself.
    launch.wait_for(lambda: all(launch.signals_pending(pid) or not launch.is_frozen(pid) for pid in frozen))
    launch.thaw(frozen)
    code, text, err = launch.finish(process)
    assert code == 75, err
    assert "submit again" in text
    assert not processes(str(folder.path))
    stopped = folder.cells()
    assert stopped[0]["state"] == "interrupted" and 0 < stopped[0]["progress"] < 1
    assert stopped[2]["state"] == "waiting"
    kept = {path: path.stat().st_mtime_ns for cell in stopped for path in shards(cell["run_directory"])}
    assert len(kept) >= 2
    again = folder.submit()
    assert again.returncode == 0, again.stderr
    assert states(folder.cells()) == ["done"] * 3
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # no finished unit was computed twice
    for cell in folder.cells():
        tiny.assert_same_tables(slow_direct(cell["window"], "many"), pathlib.Path(cell["run_directory"]) / "results.h5")


def test_kill_9_of_a_rank_is_repeated(folder, slow_direct):
    folder.write(models=["slow"], datasets=["long"], windows=[64], defaults={"threads": 1, "ranks_per_node": 2})
    process, ranks = freeze(folder, 2)
    os.kill(ranks[-1], signal.SIGKILL)
    launch.thaw(ranks)
    code, _, err = launch.finish(process)
    assert code == 0, err
    assert "trying again" in err
    (cell,) = folder.cells()
    assert cell["state"] == "done" and cell["attempts"] == 2
    tiny.assert_same_tables(slow_direct(64), pathlib.Path(cell["run_directory"]) / "results.h5")


def test_attempts_are_limited(folder):
    folder.write(
        models=["slow"], datasets=["many"], windows=[64], max_attempts=2, defaults={"threads": 1, "ranks_per_node": 2}
    )
    # Not before a unit is done: an mpirun whose rank dies while it connects may wait for ever.
    process, ranks = freeze(folder, 2, most=3)
    out = folder.path / "out" / "runs"
    for attempt in (1, 2):
        os.kill(ranks[-1], signal.SIGKILL)
        launch.thaw(ranks)
        record = next(out.glob(f"*/attempts/{attempt}.json"))
        launch.wait_for(lambda record=record: '"ended": "' in record.read_text(), process)
        before = len(list(out.glob("*/shards/*.h5")))
        if attempt == 1:
            launch.wait_for(lambda before=before: len(list(out.glob("*/shards/*.h5"))) > before, process)
            ranks = ranks_of(folder)
    code, text, err = launch.finish(process)
    assert code not in (0, 75), err
    (cell,) = folder.cells()
    assert cell["state"] == "failed" and cell["attempts"] == 2
    assert cell["last_error"].startswith("given up after 2 attempts: ")
    assert cell["last_error"] in text
    assert folder.submit().returncode == 0  # a new submission counts anew
    assert states(folder.cells()) == ["done"]


@pytest.mark.parametrize("victim", ["submit", "run-cell"])
def test_kill_9_of_the_executor(folder, victim):
    folder.write(models=["slow"], datasets=["long"], windows=[64, 32], defaults={"threads": 1, "ranks_per_node": 2})
    process = folder.start()
    launch.wait_for(lambda: len(list((folder.path / "out" / "runs").glob("*/shards/*.h5"))) >= 1, process)
    if victim == "submit":
        process.kill()
    else:
        os.kill(processes("run-cell")[0], signal.SIGKILL)
    launch.finish(process)
    launch.wait_for(lambda: not processes(str(folder.path)))  # nobody is left behind
    assert "running" not in states(folder.cells())
    again = folder.submit()
    assert again.returncode == 0, again.stderr
    assert states(folder.cells()) == ["done"] * 2


def test_two_submits_at_once_run_no_cell_twice(folder):
    folder.write(models=["slow"], datasets=["long"], windows=[64, 48, 32, 16])
    both = [folder.start(), folder.start()]
    looks = []
    while any(process.poll() is None for process in both):
        looks.append(states(folder.cells()))
    for process in both:
        code, _, err = launch.finish(process)
        assert code in (0, 75), err
    assert states(folder.cells()) == ["done"] * 4
    assert len(folder.attempts()) == 4
    assert any("running" in look for look in looks)
    assert len(list((folder.path / "out" / "runs").glob("*/shards/*.h5"))) == 4 * len(SLOW_LENGTHS)


def test_status_watch_ends_with_the_sweep(folder):
    folder.write(models=["slow"], datasets=["long"], windows=[64])
    process = folder.start()
    watched = folder.run("status", "--watch")
    code, _, err = launch.finish(process)
    assert code == 0 and watched.returncode == 0, err
    assert "1 cells: 1 done" in watched.stdout.strip().splitlines()[-1]


# ---- help and schema -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["plan", "status", "submit", "cancel", "collect", "report", "run-cell", "schema"])
def test_help_is_something_to_act_on(folder, verb):
    assert re.search(rf"^  {verb} ", launch.run(["sweep", "--help"], folder.path / "cache").stdout, flags=re.M)
    done = launch.run(["sweep", verb, "--help"], folder.path / "cache")
    assert done.returncode == 0
    flags, example = done.stdout.split("\nExample:\n")
    assert "winnow sweep" in example
    for entry in re.split(r"\n  (?=-)", flags)[1:]:
        assert entry.startswith("-h") or "default" in entry or "REQUIRED" in entry, entry


def test_the_example_of_the_help_is_a_sweep(folder, inputs):
    text = launch.run(["sweep", "--help"], folder.path / "cache").stdout
    example = re.search(r"  name: .*?\n\n", text, flags=re.S).group(0)
    example = re.sub("^  ", "", example, flags=re.M).replace("/models/Qwen3-4B", f"{inputs}/models/a")
    for name in ("long", "short"):
        path = folder.path / "data" / "qwen3-4b" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inputs / "data" / f"a-{name}.h5", path)
    (folder.path / "night.yaml").write_text(example)
    done = folder.run("plan", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 4


def fits(value, schema):
    """The part of JSON Schema that the sweep's schema uses; an unknown keyword is a failure."""
    known = {
        "$schema",
        "title",
        "description",
        "type",
        "enum",
        "pattern",
        "minimum",
        "minLength",
        "maxLength",
        "minItems",
        "uniqueItems",
        "items",
        "anyOf",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
    }
    assert schema.keys() <= known, schema.keys() - known
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    allowed = schema.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if allowed and not any(
        isinstance(value, types[name]) and (name == "boolean") == isinstance(value, bool) for name in allowed
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, one) for one in schema["anyOf"]):
        return False
    if isinstance(value, str):
        is_short = len(value) <= schema.get("maxLength", len(value))
        return (
            is_short and len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
        )
    if isinstance(value, int):
        return value >= schema.get("minimum", value)
    if isinstance(value, list):
        is_unique = len({json.dumps(item) for item in value}) == len(value) or not schema.get("uniqueItems", False)
        return (
            len(value) >= schema.get("minItems", 0)
            and is_unique
            and all(fits(item, schema.get("items", {})) for item in value)
        )
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return schema.get("required", []) == [key for key in schema.get("required", []) if key in value] and all(
        fits(key, schema.get("propertyNames", {}))
        and (fits(item, properties[key]) if key in properties else others is not False and fits(item, others))
        for key, item in value.items()
    )


def test_the_schema_and_the_parser_agree(folder):
    done = launch.run(["sweep", "schema"], folder.path / "cache")
    schema = json.loads(done.stdout)
    good = json.loads(
        folder.write(
            targets=["hf"],
            seeds=[1],
            tail_rows=3,
            base="list:1,2",
            layers="0-1",
            exclude=[{"model": "a", "window": 16}],
            max_parallel=2,
            overrides=[{"match": {"window": [32]}, "set": {"time": "01:00:00"}}],
            sinks=[0],
        ).read_text()
    )
    done = folder.run("plan")
    assert done.returncode == 0, done.stderr
    assert fits(good, schema)
    for key, value in [
        ("name", "a b"),
        ("name", "-x"),
        ("name", "a" * 200),
        ("layers", "0," * 20000 + "0"),
        ("output", "o" * 5000),
        ("windows", []),
        ("windows", [0]),
        ("windows", 5),
        ("windows", [8, 8]),
        ("sinks", ["2"]),
        ("targets", ["x"]),
        ("base", "half"),
        ("layers", "1-"),
        ("limit", 0),
        ("per_token", "yes"),
        ("exclude", [{"nodel": "a"}]),
        ("defaults", {"time": "soon"}),
        ("unknown", 1),
        ("models", [{}]),
        ("overrides", [{"match": {"model": "a"}}]),
        ("device", "tpu"),
        ("max_attempts", -1),
    ]:
        bad = good | {key: value}
        (folder.path / "night.yaml").write_text(json.dumps(bad))
        assert folder.run("plan").returncode == 64, (key, value)
        assert not fits(bad, schema), (key, value)
