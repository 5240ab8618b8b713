"""winnow select on real results: light-transfer beside the published rule, searches, refusals."""

import collections
import json
import os
import pathlib
import shutil

import h5py
import launch
import numpy as np
import pytest
import tiny

LAYERS = 6


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    base = tmp_path_factory.mktemp("select")
    model = tiny.write_checkpoint(base / "model", layers=LAYERS)
    data = tiny.write_calibration(base / "data.h5", [40, 44, 50])
    result = launch.run(
        ["calibrate", "--model", model, "--data", data, "--window", 8, "--sinks", 2, "--out", base / "run"], base
    )
    assert result.returncode == 0, result.stderr
    return base / "run"


@pytest.fixture
def results(run_directory, tmp_path):
    """A copy that a test may add variables to."""
    return pathlib.Path(shutil.copy(run_directory / "results.h5", tmp_path / "results.h5"))


def select(results, tmp_path, *flags):
    result = launch.run(["select", results, "--json", *flags], tmp_path)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def swaa_lazy_order(ratios, share):
    """Layers by falling number of votes, as the published script counts them: a Counter over dicts of ratios."""
    counts = collections.Counter()
    for row in ratios:
        by_ratio = sorted(dict(enumerate(row.tolist())).items(), key=lambda item: item[1], reverse=True)
        counts.update(layer for layer, _ in by_ratio[: int(len(by_ratio) * share)])
    return [layer for layer, _ in sorted(counts.items(), key=lambda item: item[1], reverse=True)]


@pytest.mark.parametrize("seed", range(6))
def test_light_transfer_votes_as_published(results, tmp_path, seed):
    random = np.random.default_rng(seed)
    # Coarse ratios: ties within an example and between counts are common.
    compat, clean = random.integers(0, 5, (2, 3, LAYERS)) / 4
    with h5py.File(results, "a") as file:
        file["calibration/lazy_ratio_compat"] = compat
        file["calibration/lazy_ratio"] = clean
    for kind, ratios in (("compat", compat), ("clean", clean)):
        lazy = swaa_lazy_order(ratios, 0.5)
        for keep in range(LAYERS - len(lazy), LAYERS + 1):
            expected = sorted(set(range(LAYERS)) - set(lazy[: LAYERS - keep]))
            chosen = select(results, tmp_path, "--method", "light-transfer", "--keep", keep, "--lazy", kind)
            assert chosen["layers"] == expected, (kind, keep)
            assert chosen["method"] == "light-transfer"


def test_selection_says_where_it_comes_from(run_directory, tmp_path):
    out = tmp_path / "selection.json"
    result = launch.run(["select", run_directory, "--keep", 2, "--out", out], tmp_path)
    assert result.returncode == 0, result.stderr
    selection = json.loads(out.read_text())
    with h5py.File(run_directory / "results.h5") as file:
        rank = file["ranking/rank"][:]
        sha256 = file["provenance/checkpoint_sha256"].asstr()[()]
    assert selection["layers"] == sorted(np.flatnonzero(rank <= 2).tolist())
    assert selection["checkpoint_sha256"] == sha256
    assert (selection["window"], selection["window_keys"], selection["sinks"]) == (8, 8, 2)
    assert selection["n_layers"] == LAYERS and selection["keep"] == 2
    assert selection["provenance"]["n_examples"] == 3
    assert list(tmp_path.iterdir()) == [out]
    assert all(f" {layer}" in result.stdout for layer in selection["layers"])


def test_inspect_shows_a_selection(run_directory, tmp_path):
    path = tmp_path / "nll.json"
    select(run_directory, tmp_path, "--keep", 2, "--out", path)
    shown = launch.run(["inspect", path, "--json"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == {"kind": "selection"} | json.loads(path.read_text())
    path.write_text("{}")
    refused = launch.run(["inspect", path], tmp_path)
    assert refused.returncode == 65 and len(launch.error_lines(refused.stderr)) == 1


def test_search_results_are_read(results, tmp_path):
    with h5py.File(results, "a") as file:
        group = file.create_group("selection/greedy-forward")
        group["keep"] = np.array([1, 2], np.int64)
        group["layer"] = np.arange(LAYERS, dtype=np.int64)
        full = np.zeros((2, LAYERS), np.uint8)
        full[0, 3] = full[1, [3, 5]] = 1
        group["full"] = full
    assert select(results, tmp_path, "--method", "greedy-forward", "--keep", 2)["layers"] == [3, 5]
    with h5py.File(results, "a") as file:
        file["selection/greedy-forward/full"][1, 5] = 0
    result = launch.run(["select", results, "--method", "greedy-forward", "--keep", "1"], tmp_path)
    assert result.returncode == 65
    assert "/selection/greedy-forward/full" in result.stderr and result.stderr.count("\n") == 1


def test_a_search_ends_in_a_selection(run_directory, tmp_path):
    model, data, out = (run_directory.parent / name for name in ("model", "data.h5", "search"))
    result = launch.run(
        [
            "search",
            "--model",
            model,
            "--data",
            data,
            "--window",
            8,
            "--sinks",
            2,
            "--keep",
            2,
            "--method",
            "greedy-forward",
            "--tail-rows",
            4,
            "--out",
            out,
        ],
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    chosen = select(out, tmp_path, "--method", "greedy-forward", "--keep", 2)
    with h5py.File(out / "results.h5") as file:
        group = file["selection/greedy-forward"]
        full = group["full"][list(group["keep"][:]).index(2)]
    assert chosen["layers"] == np.flatnonzero(full).tolist()
    assert chosen["tail_rows"] == 4 and "--tail-rows 4" in chosen["provenance"]["warnings"]
    assert chosen["provenance"]["n_examples"] == 3
    assert select(out, tmp_path, "--method", "periodic:2@1")["layers"] == [1, 3, 5]
    result = launch.run(["select", out, "--method", "nll"], tmp_path)
    assert result.returncode == 66 and "greedy-forward" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["--method", "kl"], 66, ["--signals kl"]),
        (["--method", "ratio"], 66, ["--control"]),
        (["--method", "greedy-backward"], 66, ["search", "greedy-backward"]),
        (["--method", "magic"], 64, ["magic", "nll"]),
        (["--keep", "7"], 64, ["--keep", "0 to 6"]),
        (["--keep", "-1"], 64, ["--keep"]),
        (["--method", "periodic:2@5"], 64, ["periodic"]),
        (["--method", "periodic"], 64, ["expected periodic:K@O"]),
        (["--method", "random:x"], 64, ["expected random:SEED"]),
        (["--keep", ""], 64, ["--keep is empty"]),
        (["--keep="], 64, ["--keep is empty"]),
        (["--keep", "99999999999999999999"], 64, ["--keep", "expected a whole number"]),
        (["--method", "random:"], 64, ['"random:"', "random:SEED"]),
        (["--method", "random:1:2"], 64, ['"random:1:2"', "random:SEED"]),
        (["--out", "/nowhere/s.json"], 73, ["/nowhere/s.json"]),
    ],
)
def test_refusals_are_one_line(run_directory, tmp_path, flags, code, words):
    result = launch.run(["select", run_directory, *flags], tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1 and all(word in result.stderr for word in words), result.stderr


def test_a_pipe_is_not_replaced(run_directory, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    result = launch.run(["select", run_directory, "--keep", 2, "--out", tmp_path / "pipe"], tmp_path)
    assert result.returncode == 73 and "no regular file" in launch.error_lines(result.stderr)[0]
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_a_result_is_not_replaced_by_its_selection(results, tmp_path):
    before = results.read_bytes()
    (tmp_path / "link.h5").symlink_to(results)
    for out in (results, tmp_path / "link.h5"):
        done = launch.run(["select", results, "--keep", 2, "--out", out], tmp_path)
        (line,) = launch.error_lines(done.stderr)
        assert done.returncode == 64 and "--out" in line and "another name" in line
    assert results.read_bytes() == before


def test_results_cut_short_are_said_to_be(results, tmp_path):
    os.truncate(results, results.stat().st_size - 10)
    result = launch.run(["select", results], tmp_path)
    (line,) = launch.error_lines(result.stderr)
    assert result.returncode == 65 and line.endswith("repeat the command that wrote it")


def test_foreign_files_are_refused(results, tmp_path):
    with h5py.File(results, "a") as file:
        file["calibration/kl"] = np.zeros((3, LAYERS + 1))
    result = launch.run(["select", results, "--method", "kl"], tmp_path)
    assert result.returncode == 65 and "/calibration/kl" in result.stderr
    with h5py.File(results, "a") as file:
        file.attrs["format_version"] = np.int64(2)
    result = launch.run(["select", results], tmp_path)
    assert result.returncode == 65 and "format_version" in result.stderr and result.stderr.count("\n") == 1
