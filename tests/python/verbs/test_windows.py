"""calibrate --windows: every layer under every window in one run, as runs with one window each give it."""

import json

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [90, 150, 70, 30]
WINDOWS = [8, 16, 100]
BY_WINDOW = ["nll", "delta_nll", "exact_match", "token_accuracy"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("windows")
    tiny.write_checkpoint(directory / "model", layers=5)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "short.h5", [40, 50], seed=1, prefix="short")
    return directory


def calibrate(work, out, *more, ranks=None):
    more = ["--control", f"short={work / 'short.h5'}", "--sinks", 2, *more]
    return launch.run(run_folder.arguments("calibrate", work, out, *more), work / "cache", ranks)


def measured(work, out, *more, ranks=None):
    done = calibrate(work, out, *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return work / out / "results.h5"


def listed(windows):
    return ",".join(str(window) for window in windows)


@pytest.fixture(scope="module")
def together(work):
    return measured(work, "together", "--windows", listed(WINDOWS))


@pytest.mark.parametrize("rows", [[], ["--tail-rows", 20], ["--tail-rows", 4, "--decode", "full"]])
def test_each_layer_under_each_window_is_its_own_run(work, rows):
    name = "-".join(["rows", *map(str, rows)])
    with h5py.File(measured(work, f"{name}-all", "--windows", listed(WINDOWS), *rows)) as file:
        for w, window in enumerate(WINDOWS[:2]):
            with h5py.File(measured(work, f"{name}-{window}", "--window", window, *rows)) as single:
                for group in ("calibration", "control/short"):
                    assert list(file[group]["window"]) == WINDOWS
                    for name_of in BY_WINDOW:
                        found = file[group][f"{name_of}_by_window"][:, :, w]
                        assert found.tobytes() == single[group][name_of][()].tobytes(), (group, name_of, window)
        delta = file["calibration/delta_nll_by_window"][()]
        assert (delta[0] != 0).any(axis=0).tolist() == [True, True, False]  # 90 tokens, fewer than 100 and the sinks
        assert (delta[1, :, 2] != 0).any()


def test_the_ranking_is_of_one_window(work, together):
    """Of the smallest, or of the one that --window names."""
    named = measured(work, "named", "--windows", listed(WINDOWS[::-1]), "--window", 16)
    for path, window in ((together, 8), (named, 16)):
        single = measured(work, f"single-{window}", "--window", window)
        with h5py.File(path) as file:
            assert file["provenance/window"][()] == window
            assert file["provenance/windows"].asstr()[()] == "8,16,100"
        found = tiny.tables(path)
        for name, values in tiny.tables(single).items():
            same = np.array_equal(values, found[name]) if np.asarray(values).dtype == object else None
            assert same or np.asarray(values).tobytes() == np.asarray(found[name]).tobytes(), name
        assert (
            found["calibration/nll_by_window"].tobytes() == tiny.tables(together)["calibration/nll_by_window"].tobytes()
        )


def test_one_window_in_the_list_is_window(work):
    measured(work, "list", "--windows", 16)
    measured(work, "plain", "--window", 16)
    tiny.assert_same_tables(work / "list/results.h5", work / "plain/results.h5")
    identity = [json.loads((work / run / "run.json").read_text())["identity"] for run in ("list", "plain")]
    assert identity[0] == identity[1]
    assert [path.name for path in run_folder.shards(work / "list")] == [
        path.name for path in run_folder.shards(work / "plain")
    ]


def test_ranks_give_the_same(work, together):
    measured(work, "ranks", "--windows", listed(WINDOWS), ranks=2)
    tiny.assert_same_tables(together, work / "ranks/results.h5")


def test_missing_units_are_measured_again(work, together):
    measured(work, "resumed", "--windows", listed(WINDOWS))
    lost = run_folder.shards(work / "resumed")[1]
    lost.unlink()
    (work / "resumed/results.h5").unlink()
    measured(work, "resumed", "--windows", listed(WINDOWS))
    assert run_folder.last_run(work / "resumed")["units_done"] == 1
    assert lost.exists()
    tiny.assert_same_tables(together, work / "resumed/results.h5")


def test_table_and_json_show_every_window(work, together):
    table = calibrate(work, "together", "--windows", listed(WINDOWS)).stdout
    assert "Mean delta NLL of each layer under each window" in table
    shown = json.loads(calibrate(work, "together", "--windows", listed(WINDOWS), "--json").stdout)["by_window"]
    assert shown["window"] == WINDOWS
    with h5py.File(together) as file:
        mean = file["calibration/delta_nll_by_window"][()].mean(axis=0)
    np.testing.assert_allclose([layer["mean_delta_nll"] for layer in shown["layers"]], mean, rtol=1e-12)


def test_statistics_keep_the_windows(work, together):
    out = work / "again.h5"
    done = launch.run(["stats", together, "--out", out], work / "cache")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(together, out)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--windows", "8,,16"], 64, ["--windows", '""', "8"]),
        (["--windows", "8,8"], 64, ["8 is given twice"]),
        (["--windows", "0,8"], 64, ["at least 1"]),
        (["--windows", "8,16", "--window", 9], 64, ["--window 9", "8,16"]),
        (["--windows", "8,16", "--base", "windowed"], 64, ["--base", "one window"]),
        (["--windows", "8,16", "--signals", "kl"], 64, ["--signals", "one window"]),
        ([], 64, ["--window", "--windows"]),
    ],
)
def test_what_is_refused(work, flags, code, words):
    done = calibrate(work, "refused", *flags)
    assert done.returncode == code
    (line,) = launch.error_lines(done.stderr)
    assert all(word in line for word in words), line
    assert not (work / "refused").exists()


def test_another_list_is_another_run(work, together):
    done = calibrate(work, "together", "--windows", "8,16")
    assert done.returncode == 78
    assert "other_window_keys is [16,100]" in done.stderr
