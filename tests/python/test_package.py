"""What is installed: the files, the manual pages made from the help texts, the demo. packaging/try_deb.sh tries the
package itself in a clean Debian."""

import gzip
import os
import re
import shutil
import subprocess

import launch
import pytest

BUILD = launch.WINNOW.parent
MANUAL = launch.REPOSITORY / "packaging/manual.py"
PYTHON_PROGRAMS = {f"winnow-{verb}" for verb in ("import", "prepare", "report", "score", "serve-check")}


def make_manual(directory, program=launch.WINNOW, arguments=(), **environment):
    return subprocess.run(
        [MANUAL, *arguments, program, directory], env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def manual_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("manual")
    done = make_manual(directory, arguments=["--all"], SOURCE_DATE_EPOCH="86400")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def manual(manual_directory):
    """The manual pages by name, in roff."""
    pages = manual_directory.iterdir()
    return {path.name.removesuffix(".1.gz"): gzip.decompress(path.read_bytes()).decode() for path in pages}


def plain(page):
    """The text of a page: roff without its requests and escapes."""
    page = re.sub(r"^\.(?:TH|SH|SS|B|BR|PP|TP|RS|RE|EX|EE)\b ?", "", page, flags=re.MULTILINE)
    for code, character in {r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\e": "\\"}.items():
        page = page.replace(code, character)
    return page.replace("\\&", "").replace("\\%", "")


def help_of(name):
    words = name.split("-")[1:]
    words = {
        "winnow-check-hf": ["check-hf"],
        "winnow-serve-check": ["serve-check"],
        "winnow-sweep-run-cell": ["sweep", "run-cell"],
    }.get(name, words)
    done = subprocess.run([launch.WINNOW, *words, "--help"], capture_output=True, text=True, env=wide_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def wide_environment():
    return os.environ | {"COLUMNS": "10000"}  # argparse breaks no word


def test_every_verb_has_a_page(manual):
    lists = [("winnow", help_of("winnow")), ("winnow-sweep", help_of("winnow-sweep"))]
    expected = {"winnow", "winnow-check-hf"}
    for name, text in lists:
        for block in re.findall(r"^(?:Subcommands|Programs of their own):\n((?:  .*\n)+)", text, re.MULTILINE):
            expected |= {f"{name}-{verb}" for verb in re.findall(r"^  (\S+)", block, re.MULTILINE)}
    assert {"winnow-calibrate", "winnow-demo", "winnow-sweep-plan", *PYTHON_PROGRAMS} <= expected
    assert set(manual) == expected


def test_pages_say_all_that_the_help_says(manual):
    for name, page in manual.items():
        text = help_of(name)
        flags = {flag for entry in re.findall(r"^  (--?\w.*)", text, re.MULTILINE) for flag in entry.split("  ")[:1]}
        items = set(re.findall(r"^\.TP\n\.B (.*)", page, re.MULTILINE))
        assert {re.sub("^(-.),(?=-)", r"\1, ", flag) for flag in flags} <= {plain(item) for item in items}, name
        # Apart from headings and the punctuation that goes with them, every word.
        headings = re.findall(r"^(\S.*:)$", text, re.MULTILINE)
        words = set(re.sub("^Exit codes:", "", text, flags=re.MULTILINE).replace("-h,--", "-h, --").split())
        missing = words - set(plain(page).split()) - {"Usage:", "usage:"} - {w for h in headings for w in h.split()}
        assert missing == set(), name


def test_pages_have_the_sections_of_manual_pages(manual):
    page = manual["winnow-calibrate"]
    assert '.TH WINNOW\\-CALIBRATE 1 1970\\-01\\-02 "winnow 0.' in page
    sections = re.findall(r"^\.SH (.*)", page, re.MULTILINE)
    assert sections == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "NOTES", "EXAMPLES", "SEE ALSO"]
    assert re.search(r"^winnow\\-calibrate \\- measures", page, re.MULTILINE)
    assert "EXIT STATUS" in manual["winnow"] and "prepare" in manual["winnow"]
    # An example can be copied: its lines are kept.
    assert "output: night\nmodels:\n  \\- {name: qwen3\\-4b" in manual["winnow-sweep"]


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man")
def test_man_shows_pages_without_a_warning(manual_directory):
    for page in manual_directory.iterdir():
        shown = subprocess.run(
            ["man", "--warnings=all", "-l", page], env=os.environ | {"MANWIDTH": "200"}, capture_output=True, text=True
        )
        assert shown.returncode == 0 and shown.stderr == "" and "SEE ALSO" in shown.stdout, page


def test_the_same_date_gives_the_same_bytes(manual_directory, tmp_path):
    assert make_manual(tmp_path, SOURCE_DATE_EPOCH="86400").returncode == 0
    first, second = ({p.name: p.read_bytes() for p in path.iterdir()} for path in (manual_directory, tmp_path))
    assert first == second and len(first) > 10


def test_a_page_that_cannot_be_made_is_said(tmp_path):
    done = make_manual(tmp_path / "some", WINNOW_PYTHON="/bin/false")
    assert done.returncode == 0 and not PYTHON_PROGRAMS & {p.name.removesuffix(".1.gz") for p in tmp_path.glob("*/*")}
    assert len(done.stderr.splitlines()) == len(PYTHON_PROGRAMS)
    assert all(f"left out: {name}(1)" in done.stderr for name in PYTHON_PROGRAMS)
    refused = make_manual(tmp_path / "none", arguments=["--all"], WINNOW_PYTHON="/bin/false")
    assert refused.returncode == 69 and not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def installed(tmp_path_factory, manual_directory):
    """The root of an installation under /usr, with manual pages as `make install` has made them before."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(manual_directory, BUILD / "manual", dirs_exist_ok=True)
    subprocess.run(
        ["cmake", "--install", BUILD, "--prefix", "/usr"],
        env=os.environ | {"DESTDIR": str(root)},
        check=True,
        capture_output=True,
    )
    return root


def test_installed_files(installed):
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    programs = {f"usr/bin/{name}" for name in ["winnow", "winnow-demo", "winnow-check-hf", *PYTHON_PROGRAMS]}
    demo = {f"usr/share/winnow/demo/{name}" for name in ("model/config.json", "model/model.safetensors", "long.h5")}
    pages = {f"usr/share/man/man1/{name}.1.gz" for name in ("winnow", "winnow-calibrate", "winnow-prepare")}
    assert programs | demo | pages | {"usr/share/winnow/requirements.txt"} <= found
    for folder in ("importing", "prepare", "report", "serving"):
        assert any(name.endswith(f"share/winnow/python/winnow/{folder}/__main__.py") for name in found)
    if (launch.REPOSITORY / "LICENSE").exists():
        assert "usr/share/doc/winnow/copyright" in found
    assert not [name for name in found if "__pycache__" in name or not name.startswith("usr/")]
    assert all(os.access(installed / name, os.X_OK) for name in programs)


def test_installed_scripts_name_no_folder_of_the_sources(installed):
    scripts = [path for path in (installed / "usr/bin").iterdir() if path.name != "winnow"]
    assert [path.name for path in scripts if str(launch.REPOSITORY) in path.read_text()] == []


def run_demo(installed, directory, *arguments):
    """`winnow demo` of the installation with an mpirun that says what it would run, a word a line."""
    (directory / "bin").mkdir(exist_ok=True)
    mpirun = directory / "bin/mpirun"
    mpirun.write_text('#!/bin/sh\nprintf "would run %s\\n" "$@"\n')
    mpirun.chmod(0o755)
    return subprocess.run(
        [installed / "usr/bin/winnow", "demo", *arguments],
        cwd=directory,
        env=os.environ | {"PATH": f"{directory}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("arguments, out", [([], "demo-run"), (["some run"], "some run")])
def test_installed_demo_runs_what_was_installed(installed, tmp_path, arguments, out):
    done = run_demo(installed, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    words = re.findall("^would run (.*)$", done.stdout, re.MULTILINE)
    flags = dict(zip(words[words.index("--model") :: 2], words[words.index("--model") + 1 :: 2], strict=True))
    demo = installed / "usr/share/winnow/demo"
    assert words[words.index("calibrate") - 1] == str(installed / "usr/bin/winnow")
    assert (flags["--model"], flags["--data"]) == (str(demo / "model"), str(demo / "long.h5"))
    assert flags["--control"] == f"short={demo}/short.h5" and flags["--out"] == out
    assert all((demo / name).exists() for name in ("model/config.json", "long.h5", "short.h5"))
    assert f"The result is {out}/results.h5" in done.stdout


@pytest.mark.parametrize("arguments", [["--fast"], ["a", "b"], [""]])
def test_demo_refuses_what_is_no_directory(installed, tmp_path, arguments):
    refused = run_demo(installed, tmp_path, *arguments)
    assert refused.returncode == 64 and len(refused.stderr.splitlines()) == 1 and refused.stdout == ""
    assert "expected one directory" in refused.stderr
