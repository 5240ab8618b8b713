"""The command line from outside: exit codes, one line per error, nothing left behind, help that one can act on."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import time

import h5py
import launch
import numpy as np
import pytest
import tiny

USAGE, BAD_DATA, NO_INPUT, INTERNAL, CANNOT_CREATE, CONFIG_MISMATCH = 64, 65, 66, 70, 73, 78
VERBS = ["calibrate", "stats", "inspect", "bench", "selftest"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    tiny.write_checkpoint(directory / "model")
    tiny.write_calibration(directory / "long.h5", [90, 60, 70, 80])
    (directory / "text").write_text("this is a text\n")
    (directory / "empty").mkdir()
    done = launch.run(calibrate_arguments(directory, "run"), directory / "cache")
    assert done.returncode == 0, done.stderr
    return directory


def calibrate_arguments(work, out, **changes):
    flags = {"model": work / "model", "data": work / "long.h5", "out": work / out, "window": 16} | changes
    return [
        "calibrate",
        *[
            word
            for name, value in flags.items()
            if value is not None
            for word in (f"--{name.replace('_', '-')}", value)
        ],
    ]


def winnow(work, *arguments, ranks=None):
    return launch.run(arguments, work / "cache", ranks)


def expect_refused(done, code, *words):
    lines = launch.error_lines(done.stderr)
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, f"one line expected:\n{done.stderr}"
    for word in words:
        assert word in lines[0]
    assert "terminate called" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["no verb", "calibrate", "--help"]),
        (["--verbose"], ["unknown flag --verbose"]),
        (["calibrat"], ["no verb 'calibrat'", "did you mean calibrate?"]),
        (["frobnicate"], ["no verb 'frobnicate'", "winnow-frobnicate"]),
        (["../calibrate"], ["no verb '../calibrate'"]),
        (["stats"], ["stats:", "winnow stats --help"]),
        (["stats", "a.h5", "b.h5", "c.h5"], ["unexpected argument 'c.h5'"]),
        (["stats", "a.h5", "--seed", "-1"], ["stats:", "--seed"]),
        (["calibrate", "--model", "m", "--data", "d", "--out", "o", "--window", 9, "--seed", -1], ["--seed", "-1"]),
        (["stats", "a.h5", "--in-place", "--out", "b.h5"], ["--in-place", "--out"]),
        (["inspect", "--jsn", "x"], ["unknown flag --jsn", "did you mean --json?"]),
        (["bench"], ["--model", "--shape"]),
        (["bench", "--shape", "gpt5"], ["--shape", "qwen3-4b", "gpt5"]),
        (["bench", "--shape", "demo", "--tokens", "10"], ["--tokens", "at least 33", "10"]),
        (["bench", "--shape", "demo", "--window", "0"], ["--window", "at least 1"]),
    ],
)
def test_wrong_command_lines(work, arguments, words):
    expect_refused(winnow(work, *arguments), USAGE, *words)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"window": None}, ["--window"]),
        ({"window": 0}, ["window"]),
        ({"window": "wide"}, ["--window"]),
        ({"sinks": -1}, ["sinks"]),
        ({"layers": "0-9"}, ["layers"]),
        ({"layers": "two"}, ["layers"]),
        ({"decode": "greedy"}, ["decode"]),
        ({"target": "vllm", "sinks": 4}, ["target"]),
        ({"decode": "full", "tail_rows": 0}, ["tail-rows"]),
        ({"base": "list:99"}, ["base"]),
        ({"limit": 0}, ["limit"]),
        ({"wnidow": 16}, ["unknown flag --wnidow", "did you mean --window?"]),
        ({"control": "short.h5"}, ["control"]),
        ({"device": "tpu"}, ["device"]),
        ({"max_memory": "lots"}, ["max-memory"]),
    ],
)
def test_wrong_flags_of_calibrate(work, tmp_path, changes, words):
    done = winnow(work, *calibrate_arguments(work, tmp_path / "run", **changes))
    expect_refused(done, USAGE, *words)
    assert not (tmp_path / "run" / "results.h5").exists()


def damage_config(model, **fields):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-64])


def damage_data(path, **datasets):
    with h5py.File(path, "r+") as file:
        for name, values in datasets.items():
            del file[name]
            file[name] = values


def rename_format(path, name):
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = name


# Of everything that can be wrong with the inputs, one of a kind; the parsers' own tests have the rest.
BAD_INPUTS = {
    "no model": (lambda d: shutil.rmtree(d / "model"), NO_INPUT, ["model"]),
    "no config": (lambda d: (d / "model/config.json").unlink(), NO_INPUT, ["config.json"]),
    "no weights": (lambda d: (d / "model/model.safetensors").unlink(), NO_INPUT, ["safetensors"]),
    "config no JSON": (lambda d: (d / "model/config.json").write_text("{"), BAD_DATA, ["config.json"]),
    "unknown family": (lambda d: damage_config(d / "model", model_type="gpt2"), BAD_DATA, ["model_type", "gpt2"]),
    "zero layers": (lambda d: damage_config(d / "model", num_hidden_layers=0), BAD_DATA, ["num_hidden_layers"]),
    "too many layers": (lambda d: damage_config(d / "model", num_hidden_layers=9), BAD_DATA, ["model.layers.4"]),
    "other width": (lambda d: damage_config(d / "model", intermediate_size=65), BAD_DATA, ["mlp", "65", "64"]),
    "rope": (
        lambda d: damage_config(d / "model", rope_scaling={"rope_type": "mrope", "factor": 4.0}),
        BAD_DATA,
        ["mrope"],
    ),
    "quantised": (
        lambda d: damage_config(d / "model", quantization_config={"quant_method": "fp8"}),
        BAD_DATA,
        ["quantization_config"],
    ),
    "truncated weights": (lambda d: truncate(d / "model/model.safetensors"), BAD_DATA, ["model.safetensors"]),
    "no data": (lambda d: (d / "long.h5").unlink(), NO_INPUT, ["long.h5"]),
    "data is text": (lambda d: (d / "long.h5").write_text("text"), BAD_DATA, ["long.h5"]),
    "data is a folder": (lambda d: ((d / "long.h5").unlink(), (d / "long.h5").mkdir()), NO_INPUT, ["long.h5"]),
    "token out of range": (
        lambda d: damage_data(d / "long.h5", tokens=np.full(150, 64, np.int32)),
        BAD_DATA,
        ["long.h5", "64"],
    ),
    "falling offsets": (lambda d: damage_data(d / "long.h5", offsets=np.array([0, 90, 80])), BAD_DATA, ["offsets"]),
    "leading answer": (lambda d: damage_data(d / "long.h5", answer_start=np.array([0, 5])), BAD_DATA, ["answer_start"]),
    "wrong dtype": (lambda d: damage_data(d / "long.h5", tokens=np.zeros(150)), BAD_DATA, ["tokens", "float64"]),
    "a format of two lines": (lambda d: rename_format(d / "long.h5", "a\nb"), BAD_DATA, ["format", "a?b"]),
    "config is a pipe": (
        lambda d: ((d / "model/config.json").unlink(), os.mkfifo(d / "model/config.json")),
        NO_INPUT,
        ["config.json", "regular file"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(tmp_path, name):
    tiny.write_checkpoint(tmp_path / "model")
    tiny.write_calibration(tmp_path / "long.h5", [90, 60])
    damage, code, words = BAD_INPUTS[name]
    damage(tmp_path)
    expect_refused(winnow(tmp_path, *calibrate_arguments(tmp_path, "run")), code, *words)
    assert not (tmp_path / "run" / "results.h5").exists()


def test_an_output_that_cannot_be_made(work):
    done = winnow(work, *calibrate_arguments(work, work / "text" / "run"))
    expect_refused(done, CANNOT_CREATE, "text")


def test_other_settings_name_the_field_and_both_values(work):
    before = (work / "run" / "results.h5").read_bytes()
    done = winnow(work, *calibrate_arguments(work, "run", window=20))
    expect_refused(done, CONFIG_MISMATCH, "window_keys", "16", "20")
    assert (work / "run" / "results.h5").read_bytes() == before


@pytest.mark.parametrize("arguments, code", [(["calibrate", "--windw", 3], USAGE), (["frobnicate"], USAGE)])
def test_ranks_speak_once(work, arguments, code):
    done = winnow(work, *arguments, ranks=2)
    assert done.returncode == code, done.stderr
    assert len(launch.error_lines(done.stderr)) == 1, done.stderr


@pytest.mark.parametrize("arguments", [["stats", "run"], ["select", "run", "--json"], ["--help"]])
def test_a_full_disk_under_stdout_is_no_success(work, arguments):
    words = [work / word if word == "run" else word for word in arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            launch.command(words),
            env=launch.environment(work / "cache"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=launch.TIMEOUT_SECONDS,
        )
    assert done.returncode == 74 and "standard output" in launch.error_lines(done.stderr)[-1], done.stderr


@pytest.mark.parametrize("path, code", [("absent", NO_INPUT), ("text", BAD_DATA), ("empty", BAD_DATA)])
def test_paths_that_are_not_what_they_should_be(work, path, code):
    expect_refused(winnow(work, "inspect", work / path), code, path)


def test_stats_wants_a_results_file(work):
    assert winnow(work, "stats", work / "run").stdout == winnow(work, "stats", work / "run" / "results.h5").stdout != ""
    expect_refused(winnow(work, "stats", work / "absent.h5"), NO_INPUT, "absent.h5")
    expect_refused(winnow(work, "stats", work / "text"), BAD_DATA, "text")
    expect_refused(winnow(work, "stats", work / "long.h5"), BAD_DATA, "long.h5", "format")
    expect_refused(winnow(work, "stats", work / "run" / "results.h5", "--top-k", 99), USAGE, "99")
    expect_refused(winnow(work, "stats", work / "run" / "results.h5", "--resamples", 10**18), USAGE, "1000000", "found")


def test_stats_computes_anew_without_a_model(work, tmp_path):
    copy = tmp_path / "results.h5"
    shutil.copy(work / "run" / "results.h5", copy)
    printed = winnow(work, "stats", copy, "--json")
    assert printed.returncode == 0, printed.stderr
    json.loads(printed.stdout)
    tiny.assert_same_tables(copy, work / "run" / "results.h5")

    other = winnow(work, "stats", copy, "--top-k", 2, "--seed", 5, "--resamples", 500, "--out", tmp_path / "new.h5")
    assert other.returncode == 0, other.stderr
    old, new = tiny.tables(copy), tiny.tables(tmp_path / "new.h5")
    np.testing.assert_array_equal(old["calibration/nll"], new["calibration/nll"])
    np.testing.assert_array_equal(old["ranking/mean_delta_nll"], new["ranking/mean_delta_nll"])
    assert not np.array_equal(old["ranking/ci_low"], new["ranking/ci_low"])

    same = winnow(work, "stats", copy, "--top-k", 2, "--seed", 5, "--resamples", 500, "--in-place")
    assert same.returncode == 0, same.stderr
    tiny.assert_same_tables(copy, tmp_path / "new.h5")
    assert "winnow stats" in winnow(work, "inspect", copy).stdout.replace("'", "").replace(str(launch.WINNOW), "winnow")


@pytest.mark.parametrize(
    "path, kind",
    [("model", "checkpoint"), ("long.h5", "calibration file"), ("run", "run directory"), ("run/results.h5", "results")],
)
def test_inspect_says_what_it_is(work, path, kind):
    lines = winnow(work, "inspect", work / path)
    assert lines.returncode == 0, lines.stderr
    assert re.match(rf"kind +{kind}\n", lines.stdout)
    facts = json.loads(winnow(work, "inspect", work / path, "--json").stdout)
    assert facts["kind"] == kind
    expected = {
        "model": ("layers", 4),
        "long.h5": ("examples", 4),
        "run": ("has_results", True),
        "run/results.h5": ("layers", 4),
    }[path]
    assert facts[expected[0]] == expected[1]


def test_inspect_counts_tokens(work):
    facts = json.loads(winnow(work, "inspect", work / "long.h5", "--json").stdout)
    assert facts["tokens"] == 300
    assert facts["prompt_tokens"] == {"least": 54, "median": 74, "most": 84}
    assert facts["answer_tokens"] == {"least": 6, "median": 6, "most": 6}


def test_selftest_in_json(work):
    facts = json.loads(winnow(work, "selftest", "--json").stdout)
    assert facts["passed"] is True
    assert all(check["passed"] for check in facts["checks"])
    assert re.fullmatch("[0-9a-f]{16}", facts["signature"])


def test_openblas_knows_the_processor_or_is_told(work, monkeypatch):
    """An OpenBLAS that is older than the processor would multiply as on a Pentium 4; what a user says is done."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()

    def core(out):
        done = launch.run(calibrate_arguments(work, out), work / "cache")
        assert done.returncode == 0, done.stderr
        with h5py.File(work / out / "results.h5") as file:
            return re.search(r"OpenBLAS (\w+)", str(file["provenance/devices"][()])).group(1)

    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if {"avx2", "fma"} <= set(flags):
        assert core("blas-chosen") not in ("Prescott", "Core2", "Nehalem", "Sandybridge")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert core("blas-told") == "Nehalem"


def test_bench_finds_sweep_and_passes_equal(work):
    done = winnow(
        work,
        "bench",
        "--model",
        work / "model",
        "--tokens",
        130,
        "--answer-tokens",
        8,
        "--window",
        16,
        "--sinks",
        2,
        "--repetitions",
        1,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["sweep"]["equal"] is True
    assert facts["sweep"]["passes"] == 5
    names = [operation["name"] for operation in facts["operations"]]
    assert {"linear q", "attention full", "attention window", "rope", "swiglu", "token_nll"} <= set(names)
    assert all(operation["seconds"] > 0 for operation in facts["operations"])


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_something_to_act_on(work, verb):
    done = winnow(work, verb, "--help")
    assert done.returncode == 0
    assert winnow(work, "help", verb).stdout == done.stdout
    flags, example = re.split(r"\nExamples?:\n", done.stdout)
    assert f"winnow {verb}" in example
    assert re.search("token|bytes|seconds", flags)
    # Every flag states its default, is required, or is one that has none.
    entries = re.split(r"\n  (?=-)", flags)[1:]
    assert len(entries) >= 3
    for entry in entries:
        without_default = ("--help", "--config", "--model", "--shape")
        assert (
            re.match(rf"(-h,)?({'|'.join(without_default)})", entry)
            or "default" in entry
            or "REQUIRED" in entry
            or re.match(r"--\S+ \S+=\S", entry)
            or re.match(r"--\S+ \S+ ?\[\S+\]", entry)
        ), entry


def test_help_lists_every_verb(work):
    text = winnow(work, "--help").stdout
    for verb in [*VERBS, "sweep"]:
        assert re.search(rf"^  {verb} ", text, flags=re.M)
    assert winnow(work, "--version").stdout.startswith("winnow 0.")


def program_on_path(directory, name):
    path = directory / name
    path.write_text('#!/bin/sh\necho "program: $0 $*"\nexit 7\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_other_verbs_are_programs(work, tmp_path):
    path = program_on_path(tmp_path, "winnow-greet")
    environment = launch.environment(work / "cache")
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [launch.WINNOW, "greet", "--loud", "two words"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 7
    assert done.stdout == f"program: {path} --loud two words\n"


def test_config_file(work, tmp_path):
    config = tmp_path / "flags.yaml"
    config.write_text(f"model: {work / 'model'}\ndata: {work / 'long.h5'}\nwindow: 999\nlayers: [0, 2]\njson: true\n")
    done = winnow(work, "calibrate", "--config", config, "--out", tmp_path / "run", "--window", 16)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        assert list(file["calibration/layer"][()]) == [0, 2]
        assert file["provenance/window"][()] == 16

    config.write_text("model: here\nwindwo: 3\n")
    expect_refused(
        winnow(work, "calibrate", "--config", config), USAGE, f"{config}:2:1:", "did you mean window or windows?"
    )
    config.write_text("config: other.yaml\n")
    refused = winnow(work, "calibrate", "--config", config)
    expect_refused(refused, USAGE, "no flag 'config'")
    assert "did you mean" not in refused.stderr
    expect_refused(winnow(work, "calibrate", "--config", tmp_path / "absent"), NO_INPUT, "absent")


def documented_provenance():
    text = (launch.REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \|", text.split("### `/provenance`")[1].split("\n## ")[0], flags=re.M
    )
    return {name: (kind, units) for name, kind, units in rows}


def test_profile_is_printed_and_kept(work, tmp_path):
    begin = time.monotonic()
    done = winnow(work, *calibrate_arguments(work, tmp_path / "run"), "--profile")
    wall_seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    assert re.search(r"^attention full +\d+ .* TFLOP/s", done.stderr, flags=re.M)
    with h5py.File(tmp_path / "run" / "results.h5") as file, h5py.File(work / "run" / "results.h5") as plain:
        provenance = file["provenance"]
        for name, (kind, units) in documented_provenance().items():
            assert (h5py.check_string_dtype(provenance[name].dtype) is not None) == (kind == "string"), name
            assert provenance[name].attrs["units"] in (units, units.encode()), name
        profile = json.loads(provenance["profile"].asstr()[()])
        assert plain["provenance/profile"].asstr()[()] == ""
        np.testing.assert_array_equal(file["calibration/nll"], plain["calibration/nll"])
    names = {operation["name"] for operation in profile["operations"]}
    assert {"attention full", "attention window", "rms_norm", "rope", "store_kv", "swiglu", "token_nll"} <= names
    busy = sum(operation["seconds"] for operation in profile["operations"])
    assert 0 < busy <= profile["total_seconds"]
    assert np.isclose(busy + profile["idle_seconds"], profile["total_seconds"])
    assert profile["ceiling_flop_per_second"] > 0 and profile["ceiling_bytes_per_second"] > 0
    # Each instant lies in one part: they add up to what the clock of the process said, which had begun with it.
    timeline = profile["timeline"]
    seconds = {part["name"]: part["seconds"][0] for part in timeline["parts"]}
    assert np.isclose(sum(seconds.values()), timeline["total_seconds"][0], rtol=1e-12)
    assert min(seconds.values()) >= 0.0
    spent = {"process", "inputs", "device", "hash", "weights", "rates", "first_unit", "measuring", "statistics"}
    assert all(seconds[name] > 0.0 for name in spent)
    kernel_clock = 0.02  # of the process's start
    assert 0.0 < timeline["total_seconds"][0] <= wall_seconds + kernel_clock
    told = re.search(r"^total, s +([0-9.]+) +([0-9.]+) +0$", done.stderr, flags=re.M)
    assert timeline["total_seconds"][0] <= float(told[1]) + 0.001 and float(told[1]) <= wall_seconds + kernel_clock


def test_no_start_waits_for_what_only_a_gpu_needs():
    """cuBLASLt is half a gigabyte, which the loader would relocate at every start."""
    linked = subprocess.run(["ldd", launch.WINNOW], capture_output=True, text=True, check=True).stdout
    assert "libmpi" in linked and "cublas" not in linked and "cudnn" not in linked
