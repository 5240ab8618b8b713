"""The signals of layers end to end: the same on any number of ranks and in groups, NLLs that do not notice them, zeros
where a window hides nothing, and what the command line refuses."""

import json

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [90, 150, 70]
ALL = ["--signals", "all", "--lazy-recent", 60, "--lazy-last", 8]
TABLES = [
    "kl",
    "nll_removed",
    "delta_nll_removed",
    "attention_mass_outside",
    "attention_mass_outside_kv_head",
    "lazy_ratio",
    "lazy_ratio_compat",
    "angular_distance",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("signals")
    tiny.write_checkpoint(directory / "model", layers=5)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "short.h5", [40, 50], seed=1, prefix="short")
    return directory


def calibrate(work, out, *more, ranks=None, window=16):
    more = ["--control", f"short={work / 'short.h5'}", "--window", window, "--sinks", 2, *more]
    return launch.run(run_folder.arguments("calibrate", work, out, *more), work / "cache", ranks)


@pytest.fixture(scope="module")
def alone(work):
    done = calibrate(work, "alone", *ALL)
    assert done.returncode == 0, done.stderr
    return work / "alone" / "results.h5"


def read(path, group="calibration"):
    with h5py.File(path) as file:
        return {name: file[group][name][()] for name in TABLES}


def test_every_signal_is_there(alone):
    with h5py.File(alone) as file:
        assert file["provenance/signals"].asstr()[()] == "kl,sensitivity:32,mass,lazy:4:60:8,angular"
        calibration = {name: file["calibration"][name][()] for name in [*TABLES, "nll_base"]}
        assert list(file["signals/signal"].asstr()) == [
            "nll",
            "exact-match",
            "token-accuracy",
            "kl",
            "sensitivity",
            "mass",
            "lazy",
            "angular",
        ]
        for name, mean in (
            ("kl", "mean_kl"),
            ("delta_nll_removed", "mean_delta_nll_removed"),
            ("attention_mass_outside", "mean_attention_mass_outside"),
            ("lazy_ratio", "mean_lazy_ratio"),
            ("angular_distance", "mean_angular_distance"),
        ):
            np.testing.assert_allclose(np.nanmean(calibration[name], axis=0), file["ranking"][mean][()], rtol=1e-12)
    assert (calibration["kl"] > 0).all()
    assert ((calibration["attention_mass_outside"] > 0) & (calibration["attention_mass_outside"] < 1)).all()
    assert ((calibration["angular_distance"] > 0) & (calibration["angular_distance"] < 0.75)).all()
    np.testing.assert_allclose(
        calibration["attention_mass_outside_kv_head"].mean(axis=2), calibration["attention_mass_outside"], rtol=1e-12
    )
    np.testing.assert_array_equal(
        calibration["nll_removed"] - calibration["nll_base"][:, None], calibration["delta_nll_removed"]
    )
    # 70 tokens are fewer than 4 + 60 + 10.
    for name in ("lazy_ratio", "lazy_ratio_compat"):
        assert np.isnan(calibration[name][2]).all() and (calibration[name][:2] > 0).all()
        assert np.isnan(read(alone, "control/short")[name]).all()


@pytest.mark.parametrize("ranks", [2, 4])
def test_signals_do_not_depend_on_ranks(work, alone, ranks):
    done = calibrate(work, f"ranks{ranks}", *ALL, ranks=ranks)
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(alone, work / f"ranks{ranks}" / "results.h5")


def test_signals_do_not_depend_on_groups_of_lanes(work, alone):
    dry = calibrate(work, "groups", *ALL, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    whole = json.loads(dry.stdout)
    done = calibrate(work, "groups", *ALL, "--max-memory", int(whole["predicted_bytes_per_rank"] * 0.9))
    assert done.returncode == 0, done.stderr
    assert len(list((work / "groups" / "shards").iterdir())) > whole["units"]
    tiny.assert_same_tables(alone, work / "groups" / "results.h5")


def test_what_is_there_is_not_measured_again(work, alone):
    shards = sorted((work / "alone" / "shards").iterdir())
    shards[0].unlink()
    (work / "alone" / "results.h5").rename(work / "before.h5")
    done = calibrate(work, "alone", *ALL)
    assert done.returncode == 0, done.stderr
    assert "1 unit(s)" in done.stderr
    tiny.assert_same_tables(work / "before.h5", alone)


def test_nll_does_not_notice(work, alone):
    done = calibrate(work, "plain")
    assert done.returncode == 0, done.stderr
    with h5py.File(alone) as with_signals, h5py.File(work / "plain" / "results.h5") as plain:
        for name in ("nll_base", "nll", "exact_match", "token_accuracy"):
            np.testing.assert_array_equal(with_signals["calibration"][name][()], plain["calibration"][name][()])
        assert not set(TABLES) & set(plain["calibration"])
        assert "signals" not in plain and "mean_kl" not in plain["ranking"]
        assert plain["provenance/signals"].asstr()[()] == "none"
    assert "signals" not in json.loads((work / "plain" / "run.json").read_text())["identity"]


def test_zero_where_the_window_hides_nothing(work):
    more = ["--window", 150, "--signals", "kl,mass"]
    done = launch.run(run_folder.arguments("calibrate", work, "wide", *more), work / "cache")
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "wide" / "results.h5") as file:
        for name in ("kl", "attention_mass_outside", "attention_mass_outside_kv_head", "delta_nll"):
            assert not file["calibration"][name][()].any(), name
        assert "kl is equal in all layers" in file["signals/spearman_rho"].attrs["status"]


def test_other_signals_are_another_measurement(work, alone):
    done = calibrate(work, "alone", "--signals", "kl")
    assert done.returncode == 78
    line = launch.error_lines(done.stderr)[0]
    assert "signals is kl,sensitivity:32,mass,lazy:4:60:8" in line and "but kl" in line


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--signals", "gradient"], ["--signals", "gradient", "mass"]),
        (["--sensitivity", "full"], ["--sensitivity", "--signals sensitivity"]),
        (["--lazy-recent", 5], ["--lazy-recent", "--signals lazy"]),
        (["--signals", "lazy", "--lazy-last", 0], ["--lazy-last", "0"]),
    ],
)
def test_refusals(work, flags, words):
    done = calibrate(work, "refused", *flags)
    assert done.returncode == 64
    lines = launch.error_lines(done.stderr)
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines
    assert not (work / "refused").exists()
