"""Calibrations over MPI: the same tables on any number of ranks, errors said once, nobody left waiting."""

import json
import os

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [90, 150, 70]
WINDOW = ["--window", 16, "--sinks", 2]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mpi")
    tiny.write_checkpoint(directory / "model", layers=5)
    tiny.write_checkpoint(directory / "poisoned", layers=5, poison_layer=3)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "one.h5", [150])
    tiny.write_calibration(directory / "short.h5", [40, 50], seed=1, prefix="short")
    tiny.write_calibration(directory / "tooshort.h5", [18, 12], seed=1, prefix="short")
    return directory


def arguments(work, out, model="model", data="long.h5"):
    return run_folder.arguments("calibrate", work, out, *WINDOW, model=model, data=data)


def calibrate(work, out, *more, ranks=None, **inputs):
    return launch.run([*arguments(work, out, **inputs), *more], work / "cache", ranks)


@pytest.fixture(scope="module")
def alone(work):
    """The reference: one process, no mpirun."""
    done = calibrate(work, "alone", "--control", f"short={work / 'short.h5'}", "--per-token")
    assert done.returncode == 0, done.stderr
    return work / "alone" / "results.h5"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_tables_do_not_depend_on_ranks(work, alone, ranks):
    done = calibrate(work, f"ranks{ranks}", "--control", f"short={work / 'short.h5'}", "--per-token", ranks=ranks)
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(alone, work / f"ranks{ranks}" / "results.h5")


def test_the_timeline_has_every_rank(work):
    done = calibrate(work, "timeline", "--profile", ranks=3)
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "timeline" / "results.h5") as file:
        timeline = json.loads(file["provenance/profile"].asstr()[()])["timeline"]
    parts = {part["name"]: np.array(part["seconds"]) for part in timeline["parts"]}
    assert all(seconds.shape == (3,) and (seconds >= 0).all() for seconds in parts.values())
    np.testing.assert_allclose(sum(parts.values()), timeline["total_seconds"], rtol=1e-12)
    assert (parts["mpi"] > 0).all() and (parts["rates"] > 0).all()
    assert parts["statistics"][0] > 0 and not parts["statistics"][1:].any()  # rank 0 computes them


def test_provenance_says_how_tables_were_summed(work):
    for ranks, reduction in ((None, "none"), (2, "mpi")):
        done = calibrate(work, f"summed{ranks}", "--device", "cpu", ranks=ranks)
        assert done.returncode == 0, done.stderr
        with h5py.File(work / f"summed{ranks}" / "results.h5") as file:
            assert file["provenance/reduction"].asstr()[()] == reduction
            assert file["provenance/load_seconds"][()] >= 0
            assert file["provenance/load_bytes"][()] > 0


def test_more_ranks_than_examples(work):
    assert calibrate(work, "one", data="one.h5").returncode == 0
    done = calibrate(work, "one4", data="one.h5", ranks=4)
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(work / "one" / "results.h5", work / "one4" / "results.h5")


def test_tables_do_not_depend_on_groups_of_lanes(work, alone):
    control = ["--control", f"short={work / 'short.h5'}", "--per-token"]
    dry = calibrate(work, "groups", *control, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    whole = json.loads(dry.stdout)
    assert not (work / "groups").exists()
    # A little less than the longest example takes whole: it must be cut, and still fit.
    limit = int(whole["predicted_bytes_per_rank"] * 0.97)
    done = calibrate(work, "groups", *control, "--max-memory", limit)
    assert done.returncode == 0, done.stderr
    assert len(list((work / "groups" / "shards").iterdir())) > whole["units"]
    tiny.assert_same_tables(alone, work / "groups" / "results.h5")


def test_what_fits_nowhere_is_refused(work):
    done = calibrate(work, "nowhere", "--max-memory", "1K")
    assert done.returncode == 71, done.stderr
    assert "--max-memory" in launch.error_lines(done.stderr)[0]


def test_predicted_memory_is_what_is_taken(work):
    done = calibrate(work, "memory", "--threads", 1)
    assert done.returncode == 0, done.stderr
    rank = json.loads((work / "memory" / "run.json").read_text())["informative"]["runs"][-1]["rank"][0]
    assert rank["predicted_bytes"] == pytest.approx(rank["peak_allocated_bytes"], rel=0.1)
    assert rank["peak_resident_bytes"] > rank["peak_allocated_bytes"]


def test_tables_agree_with_their_definition(alone):
    tables = tiny.tables(alone)
    for group in ("calibration", "control/short"):
        delta = tables[f"{group}/nll"] - tables[f"{group}/nll_base"][:, None]
        assert np.array_equal(tables[f"{group}/delta_nll"], delta)
        assert np.abs(delta).max() > 1e-3
        tokens = tables[f"{group}/token_nll_base"].astype(np.float64)
        np.testing.assert_allclose(np.nanmean(tokens, axis=1), tables[f"{group}/nll_base"], rtol=1e-6)


def test_add_one_deltas_have_the_other_sign(work):
    assert calibrate(work, "windowed", "--base", "windowed").returncode == 0
    tables = tiny.tables(work / "windowed" / "results.h5")
    delta = tables["calibration/nll_base"][:, None] - tables["calibration/nll"]
    assert np.array_equal(tables["calibration/delta_nll"], delta)


def test_layers_and_limit_choose_cells(work, alone):
    done = calibrate(work, "part", "--layers", "1,3-4", "--limit", 2, ranks=2)
    assert done.returncode == 0, done.stderr
    part, whole = tiny.tables(work / "part" / "results.h5"), tiny.tables(alone)
    assert part["calibration/layer"].tolist() == [1, 3, 4]
    assert np.array_equal(part["calibration/nll"], whole["calibration/nll"][:2][:, [1, 3, 4]])


def test_a_set_up_error_is_said_once(work):
    for ranks in (None, 3):
        done = calibrate(work, "absent", model="absent", ranks=ranks)
        assert done.returncode == 66, done.stderr
        assert len(launch.error_lines(done.stderr)) == 1, done.stderr
        assert "absent" in launch.error_lines(done.stderr)[0]
    assert "rank 0 on " in launch.error_lines(done.stderr)[0]
    assert not (work / "absent" / "results.h5").exists()


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_value_that_is_not_finite_ends_the_job(work, ranks):
    out = f"poisoned{ranks}"
    done = calibrate(work, out, model="poisoned", ranks=ranks)
    assert done.returncode == 65, done.stderr
    lines = launch.error_lines(done.stderr)
    assert len(lines) == 1 and "example" in lines[0] and "not finite" in lines[0], done.stderr
    if ranks is not None:
        assert "rank " in lines[0]
    assert not (work / out / "results.h5").exists()


@pytest.mark.parametrize(
    "more, code, words",
    [
        (["--window", 0], 64, ["--window"]),
        (["--sinks", -1], 64, ["--sinks"]),
        (["--layers", "0-5"], 64, ["layer 5", "0 to 4"]),
        (["--decode", "full", "--tail-rows", 0], 64, ["no row"]),
        (["--target", "hf"], 64, ["--sinks", "hf"]),
        (["--control", "a b=x"], 64, ["--control"]),
        (["--device", "cuda"], 69, ["CUDA"]),
    ],
)
def test_bad_flags(work, more, code, words):
    line = arguments(work, "bad")
    for flag in more[::2]:
        if flag in line:
            del line[line.index(flag) : line.index(flag) + 2]
    done = launch.run([*line, *more], work / "cache")
    assert done.returncode == code, done.stderr
    assert len(launch.error_lines(done.stderr)) == 1, done.stderr
    for word in words:
        assert word in launch.error_lines(done.stderr)[0]
    assert not (work / "bad").exists()


def test_a_control_that_the_window_never_reaches_is_refused(work):
    done = calibrate(work, "nocontrol", "--control", f"short={work / 'tooshort.h5'}")
    assert done.returncode == 65, done.stderr
    assert "control/short" in launch.error_lines(done.stderr)[0]


def test_an_output_that_cannot_be_made_is_refused(work):
    done = calibrate(work, "long.h5/run")
    assert done.returncode == 73, done.stderr


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be shared out")
def test_ranks_share_the_cores(work):
    done = launch.run([*arguments(work, "cores"), "--dry-run", "--json"], work / "cache", 2)
    assert done.returncode == 0, done.stderr
    threads = [rank["threads"] for rank in json.loads(done.stdout)["ranks"]]
    assert len(threads) == 2 and min(threads) >= 1
    if "OMP_NUM_THREADS" not in os.environ:
        assert sum(threads) <= len(os.sched_getaffinity(0))


def test_a_dry_run_writes_nothing(work):
    done = calibrate(work, "dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    for word in ("time", "memory", "disk", "host"):
        assert word in done.stdout
    assert not (work / "dry").exists()
