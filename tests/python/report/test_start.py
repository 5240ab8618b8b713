"""winnow report and the Python that it is started with: no module of others is run, and what is missing is named."""

import os
import pathlib
import subprocess
import sys

import launch
import pytest
import tiny
from report_pages import DONE, ENVIRONMENT, MODULE

UNAVAILABLE = 69
MODULES = [
    "json",
    "numpy",
    "random",
    "statistics",
    "h5py",
    "re",
    "importlib",
    "sitecustomize",
    "winnow",
    "winnow_report",
    "torch",
]


@pytest.fixture
def trap(tmp_path):
    """A folder whose modules say that they were run, and fail."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'was-run')!r}, 'a').write({name!r})\nraise SystemExit(9)\n"
        )
    return folder


@pytest.mark.parametrize("path", [None, "", ":", ".", "TRAP", "/nowhere:TRAP"])
def test_modules_of_the_folder_and_of_the_callers_path_are_not_run(result, trap, path):
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "WINNOW_PYTHON")}
    if path is not None:
        variables["PYTHONPATH"] = path.replace("TRAP", str(trap))
    programs = [
        [launch.WINNOW, "report", result, "--out", trap / "page.html"],
        [launch.WINNOW, "prepare", "--help"],
        [launch.WINNOW.parent / "winnow-check-hf", "--help"],
    ]
    for words in programs:
        for more in ({}, {"WINNOW_PYTHON": sys.executable}):
            done = subprocess.run(words, cwd=trap, env=variables | more, capture_output=True, text=True, timeout=120)
            assert done.returncode == DONE, done.stderr
            assert not trap.with_name("was-run").exists(), trap.with_name("was-run").read_text()


def test_a_python_that_is_too_old_or_none_is_refused_in_a_line(result, tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\necho "Unknown option: -P" >&2\necho usage >&2\nexit 2\n')
    old.chmod(0o755)
    for python in (old, tmp_path / "missing"):
        done = subprocess.run(
            [launch.WINNOW, "report", result, "--out", tmp_path / "page.html"],
            env=os.environ | {"WINNOW_PYTHON": str(python)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == UNAVAILABLE and done.stderr.count("\n") == 1 and str(python) in done.stderr


@pytest.mark.parametrize("package", ["xarray", "matplotlib"])
def test_a_package_that_does_not_load_is_named(result, tmp_path, package):
    (tmp_path / f"{package}.py").write_text("raise ImportError('libhdf5.so.310: cannot open shared object file')\n")
    done = subprocess.run(
        [*MODULE, result, "--out", tmp_path / "page.html"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == UNAVAILABLE and done.stderr.count("\n") == 1
    assert "libhdf5.so.310: cannot open" in done.stderr and "damaged" not in done.stderr


def test_what_draws_is_loaded_only_to_draw(result, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('taken too early')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    for words, code in ((["--help"], DONE), (["--version"], DONE), ([tmp_path / "missing"], 66)):
        done = subprocess.run([*MODULE, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == code and "too early" not in done.stderr, done.stderr


def test_the_callers_settings_of_matplotlib_change_nothing(result, tmp_path):
    pages = []
    for settings in ("", "font.size: 40\nlines.linewidth: 9\nno.such.key: 1\nsvg.fonttype: path\n"):
        (tmp_path / "matplotlibrc").write_text(settings)
        done = subprocess.run(
            [*MODULE, result, "--out", "page.html"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == DONE and done.stderr == "", done.stderr
        pages.append((tmp_path / "page.html").read_text())
    assert pages[0] == pages[1]


def test_export_starts_its_check_without_the_callers_modules(tmp_path):
    """The interpreter that WINNOW_PYTHON names is asked for isolation before the program's name."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=4, seed=8)
    tiny.write_calibration(tmp_path / "long.h5", [40, 50, 30])
    done = launch.run(
        ["calibrate", "--model", model, "--data", tmp_path / "long.h5", "--window", 8, "--out", tmp_path / "run"],
        tmp_path / "cache",
    )
    assert done.returncode == DONE, done.stderr
    done = launch.run(["select", tmp_path / "run", "--keep", 1, "--out", tmp_path / "s.json"], tmp_path / "cache")
    assert done.returncode == DONE, done.stderr
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\nexit 69\n')
    python.chmod(0o755)
    done = subprocess.run(
        [launch.WINNOW, "export", tmp_path / "s.json", "--target", "hf", "--out", tmp_path / "hybrid", "--check"],
        env=launch.environment(tmp_path / "cache") | {"WINNOW_PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == DONE and "not checked" in done.stdout, done.stderr
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["-E", "-P"] and pathlib.Path(words[2]).name == "winnow-check-hf"
