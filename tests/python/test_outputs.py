"""What winnow may write where, from outside: links, files of others, inputs, names in any bytes, terminals."""

import json
import os
import pathlib
import random
import stat
import subprocess

import h5py
import launch
import pytest
import tiny

MEASURING = {
    "calibrate": [],
    "evaluate": ["--pattern", "first:1", "--generate", 2, "--stop-tokens", "none"],
    "search": ["--method", "greedy-forward", "--keep", 1],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(model, data, finished run directory, its selection): none of them is ever changed."""
    folder = tmp_path_factory.mktemp("outputs")
    tiny.write_checkpoint(folder / "model", layers=2)
    tiny.write_calibration(folder / "data.h5", [24, 28])
    assert winnow(folder, *calibrate(folder, folder / "run")).returncode == 0
    done = winnow(folder, "select", folder / "run", "--keep", 1, "--out", folder / "selection.json")
    assert done.returncode == 0, done.stderr
    return folder


def winnow(cache, *arguments):
    """Names in what it says need not be UTF-8."""
    words, environment = launch.command(arguments), launch.environment(cache / "cache")
    return subprocess.run(words, env=environment, capture_output=True, text=True, errors="replace", timeout=900)


def calibrate(base, out, verb="calibrate", data=None, model=None):
    paths = ["--model", model or base / "model", "--data", data or base / "data.h5", "--out", out]
    return [verb, *paths, "--window", 8, "--device", "cpu", *MEASURING[verb]]


def tree(folder):
    """{path: what it is, with its content or where it leads to}; the cache of hashes is not part of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(mode) else ""
        found[path] = (stat.S_IFMT(mode), what)
    return {path: what for path, what in found.items() if "cache" not in path.parts}


def refused(done, *codes):
    """One line, before anything is measured."""
    assert done.returncode in codes, (done.returncode, done.stderr)
    lines = launch.error_lines(done.stderr)
    assert len(lines) == 1 and "unit(s)" not in done.stderr, done.stderr
    return lines[0]


@pytest.mark.parametrize("verb", MEASURING)
def test_inputs_and_what_is_in_the_way_are_refused_before_the_run(base, tmp_path, verb):
    before = tree(base)
    assert "folder of a checkpoint" in refused(winnow(tmp_path, *calibrate(base, base / "model", verb)), 64)
    assert "folder of a checkpoint" in refused(winnow(tmp_path, *calibrate(base, base / "model" / "run", verb)), 64)
    (tmp_path / "results.h5").symlink_to(base / "data.h5")
    assert "this command needs" in refused(winnow(tmp_path, *calibrate(base, tmp_path, verb)), 64)
    (tmp_path / "results.h5").unlink()
    (tmp_path / "texts").write_text("theirs")
    assert "texts" in refused(winnow(tmp_path, *calibrate(base, tmp_path, verb)), 73)
    (tmp_path / "texts").unlink()
    (tmp_path / "lock").symlink_to(base / "data.h5")
    refused(winnow(tmp_path, *calibrate(base, tmp_path, verb)), 64)
    assert tree(base) == before


def test_responses_are_checked_before_the_run(base, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes").write_text("notes")
    before = tree(tmp_path)
    for name, code in [
        ("/proc/x.jsonl", 73),
        ("/dev/null", 73),
        (tmp_path / "pipe", 73),
        (tmp_path / "notes", 73),
        (base / "data.h5", 64),
        (base / "model" / "x.jsonl", 64),
    ]:
        refused(winnow(tmp_path, *calibrate(base, tmp_path / "run", "evaluate"), "--responses", name), code)
    assert tree(tmp_path) == before


def test_stats_in_place_keeps_permissions_and_follows_no_link(base, tmp_path):
    results = tmp_path / "results.h5"
    results.write_bytes((base / "run" / "results.h5").read_bytes())
    results.chmod(0o600)
    assert winnow(tmp_path, "stats", results, "--in-place", "--seed", 3).returncode == 0
    assert stat.S_IMODE(results.stat().st_mode) == 0o600
    with h5py.File(results) as file:
        assert "--seed 3" in file["provenance/statistics_command"].asstr()[()]
    (tmp_path / "link.h5").symlink_to(results)
    before = results.read_bytes()
    assert "is a link" in refused(winnow(tmp_path, "stats", tmp_path / "link.h5", "--in-place"), 73)
    assert "this command needs" in refused(winnow(tmp_path, "stats", results, "--out", tmp_path / "link.h5"), 64)
    assert results.read_bytes() == before


def test_an_export_has_the_permissions_of_the_umask_and_is_not_put_into_its_model(base, tmp_path):
    export = ["export", base / "selection.json", "--target", "hf", "--out"]
    before = tree(base)
    assert "folder of a checkpoint" in refused(winnow(tmp_path, *export, base / "model" / "hybrid"), 64)
    old = os.umask(0o027)
    try:
        assert winnow(tmp_path, *export, tmp_path / "hybrid").returncode == 0
        vllm = ["export", base / "selection.json", "--target", "vllm", "--out", tmp_path / "vllm"]
        assert winnow(tmp_path, *vllm).returncode == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "hybrid").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "hybrid" / "config.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "vllm" / "serve.sh").stat().st_mode) == 0o750
    assert tree(base) == before
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".winnow-")]


def test_paths_that_are_not_utf8(base, tmp_path):
    """Model, data and output; a selection leads back to its model."""
    folder = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x9b"))
    folder.mkdir()
    (folder / "model").symlink_to(base / "model")
    (folder / "data.h5").write_bytes((base / "data.h5").read_bytes())
    for verb in MEASURING:
        done = winnow(base, *calibrate(base, folder / verb, verb, folder / "data.h5", folder / "model"))
        assert done.returncode == 0, done.stderr
        again = winnow(base, *calibrate(base, folder / verb, verb, folder / "data.h5", folder / "model"))
        assert again.returncode == 0 and again.stdout == done.stdout, again.stderr
    run = json.loads((folder / "calibrate" / "run.json").read_text())
    assert run["informative"]["model_encoded"].endswith("/caf%E9%9B/model")
    out = folder / "selection.json"
    assert winnow(base, "select", folder / "calibrate", "--keep", 1, "--out", out).returncode == 0
    assert json.loads(out.read_text())["model_encoded"].endswith("/caf%E9%9B/model")
    for target in ("hf", "vllm", "swaa"):
        done = winnow(base, "export", out, "--target", target, "--out", folder / target)
        assert done.returncode == 0, done.stderr
    assert os.fsencode(folder / "model") in (folder / "vllm" / "serve.sh").read_bytes()
    assert winnow(base, "stats", folder / "calibrate", "--out", folder / "stats.h5").returncode == 0
    for path in ("model", "data.h5", "calibrate", "evaluate/results.h5", "search", "selection.json"):
        done = winnow(base, "inspect", folder / path, "--json")
        assert done.returncode == 0 and json.loads(done.stdout), done.stderr
    done = winnow(base, "report", folder / "calibrate", folder / "search", "--out", folder / "page.html")
    assert done.returncode == 0 and (folder / "page.html").stat().st_size > 1000, done.stderr


def test_names_of_others_reach_no_terminal(base, tmp_path):
    wild = "a\x1b]0;owned\x07\x7f\u009b2J\u202e\nkind results"
    tiny.write_calibration(tmp_path / "data.h5", [24, 28])
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["source"] = [wild, wild]
        file["example_id"][:] = [wild, "b"]
    selection = json.loads((base / "selection.json").read_text())
    selection["provenance"][wild] = wild
    del selection["content_sha256"]  # changed by hand
    (tmp_path / "selection.json").write_text(json.dumps(selection))
    folder = tmp_path / "f\x1b[31m\u009b"
    folder.mkdir()
    commands = [
        (0, ["inspect", tmp_path / "data.h5"]),
        (0, ["inspect", tmp_path / "data.h5", "--json"]),
        (0, ["inspect", tmp_path / "selection.json"]),
        (66, ["inspect", folder / "missing"]),
        (0, calibrate(base, folder / "run", data=tmp_path / "data.h5")),
        (0, calibrate(base, folder / "evaluation", "evaluate", tmp_path / "data.h5")),
        (0, ["stats", folder / "evaluation"]),
        (0, ["select", folder / "run", "--keep", 1, "--json"]),
        (73, ["select", folder / "run", "--keep", 1, "--out", folder]),
        (0, ["export", base / "selection.json", "--target", "swaa", "--out", folder / "swaa"]),
        (66, ["prepare", "--model", folder, "--input", folder / "x", "--out", folder / "o"]),
        (0, ["report", folder / "run", "--out", folder / "page.html"]),
    ]
    for code, words in commands:
        done = winnow(base, *words)
        assert done.returncode == code and done.stdout + done.stderr, (words, done.stderr)
        for text in (done.stdout, done.stderr):
            assert not set(text) & set("\x1b\x07\x7f\u009b\u202e"), (words, text)
            assert not any(line.startswith("kind results") for line in text.splitlines()), (words, text)


def test_a_sweep_writes_neither_into_a_model_nor_over_its_data(base, tmp_path):
    sweep = {
        "name": "night",
        "output": str(tmp_path / "night"),
        "models": [{"name": "tiny", "path": str(base / "model")}],
        "datasets": [{"name": "long", "data": str(base / "data.h5")}],
        "windows": [8],
    }
    before = tree(base)
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    for out, code in ((base / "data.h5", 64), (tmp_path / "sweep.yaml", 64), (base / "selection.json", 73)):
        refused(winnow(tmp_path, "sweep", "collect", tmp_path / "sweep.yaml", "--out", out), code)
    done = winnow(tmp_path, "sweep", "collect", tmp_path / "sweep.yaml")
    assert done.returncode == 0 and (tmp_path / "night" / "night.h5").stat().st_size > 0, done.stderr
    (tmp_path / "bad.yaml").write_text(json.dumps(sweep | {"output": str(base / "model" / "night")}))
    refused(winnow(tmp_path, "sweep", "submit", tmp_path / "bad.yaml", "--executor", "local"), 64)
    assert tree(base) == before


# ---- any links -------------------------------------------------------------------------------------------------------


def plant(folder, base, draw):
    """Files, links, hard links and pipes under names that winnow might want, and what they must still be afterwards."""
    names = ["s.json", "st.h5", "export", "run/lock", "run/run.json", "run/results.h5", "run/shards", "page.html"]
    names += [name + ".part" for name in names]
    targets = [base / "data.h5", base / "model" / "config.json", folder / "theirs", folder / "nowhere", base / "model"]
    (folder / "theirs").write_text("theirs")
    (folder / "run").mkdir()
    for name in draw.sample(names, 5):
        path, target = folder / name, draw.choice(targets)
        kind = draw.randrange(4)
        if kind == 0:
            path.symlink_to(target)
        elif kind == 1 and target.is_file():
            os.link(target, path)
        elif kind == 2:
            os.mkfifo(path)
        else:
            path.write_text("theirs")


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_planted_stays_and_what_is_not_refused_is_right(base, tmp_path, seed):
    draw = random.Random(seed)
    plant(tmp_path, base, draw)
    inputs, planted = tree(base), tree(tmp_path)
    commands = {
        "s.json": ["select", base / "run", "--keep", 1, "--out", tmp_path / "s.json"],
        "st.h5": ["stats", base / "run", "--out", tmp_path / "st.h5"],
        "export": ["export", base / "selection.json", "--target", "json", "--out", tmp_path / "export"],
        "run": calibrate(base, tmp_path / "run"),
    }
    if seed < 2:  # it starts slowly
        commands["page.html"] = ["report", base / "run", "--out", tmp_path / "page.html"]
    for name, words in commands.items():
        done = winnow(base, *words)
        if done.returncode != 0:
            refused(done, 64, 73)
            continue
        out = tmp_path / name
        assert not out.is_symlink() and out not in planted or name == "run"
        if name == "s.json":
            assert json.loads(out.read_text())["layers"] == json.loads((base / "selection.json").read_text())["layers"]
        if name == "run":
            tiny.assert_same_tables(base / "run" / "results.h5", out / "results.h5")
    assert tree(base) == inputs
    after = tree(tmp_path)
    assert {path: after.get(path) for path in planted} == planted
