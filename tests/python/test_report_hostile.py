"""winnow report among other programs and odd files: what it reads, says and writes when something is in its way."""

import errno
import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree

import h5py
import launch
import numpy as np
import pytest
import result_files
import tiny
from report_pages import DONE, page_of, report

import winnow.report as winnow_report
from winnow.common.errors import ExitCode
from winnow.report.reading import opening

USAGE, BAD_DATA, UNAVAILABLE, CANNOT_CREATE, IO_ERROR = 64, 65, 69, 73, 74
MODULE = [sys.executable, "-P", "-m", "winnow.report"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(launch.REPOSITORY / "python")}
LZF, UNKNOWN_FILTER = 32000, 32099


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    file = tmp_path_factory.mktemp("hostile") / "run" / "results.h5"
    file.parent.mkdir()
    result_files.write(file, 8, 4)
    result_files.seal(file)
    return file


def shell(line, *words, **more):
    """The program under a shell, which closes or redirects its streams; `line` has "$@" for it."""
    return subprocess.run(
        ["/bin/bash", "-c", line, "bash", *MODULE, *map(str, words)],
        env=ENVIRONMENT | more,
        capture_output=True,
        text=True,
        timeout=launch.TIMEOUT_SECONDS,
    )


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(result, tmp_path):
    """The file while another program has it open for writing."""
    file = tmp_path / "held.h5"
    result_files.write(file, 8, 4)
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        yield file
        holder.communicate()


def test_a_file_that_is_open_elsewhere_is_read(held, tmp_path):
    assert 'id="deltas"' in page_of(held, tmp_path)
    with winnow_report.open(held) as run:
        assert np.isfinite(run["ranking"].mean_delta_nll).all()


def test_a_file_that_this_process_has_open_is_read_as_well(result, tmp_path):
    with h5py.File(result) as file:
        assert page_of(result, tmp_path)
        with winnow_report.open(result) as run:
            np.testing.assert_array_equal(run["ranking"]["rank"], file["ranking/rank"][:])
    with winnow_report.open(result) as run, h5py.File(result) as file:
        np.testing.assert_array_equal(run["ranking"]["rank"], file["ranking/rank"][:])


def test_a_file_that_must_be_locked_is_in_use_and_not_damaged(held, tmp_path):
    done = shell('exec "$@"', held, "--out", tmp_path / "page.html", HDF5_USE_FILE_LOCKING="TRUE")
    assert done.returncode == IO_ERROR and "in use by another program" in done.stderr and done.stderr.count("\n") == 1
    assert "damaged" not in done.stderr and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "error,code,words",
    [
        (
            PermissionError(errno.EACCES, "denied"),
            IO_ERROR,
            "cannot be read: Permission denied; the file itself may be",
        ),
        (OSError(errno.EIO, "broken wire"), IO_ERROR, "cannot be read: Input/output error"),
        (OSError("file is already open for write (may use <h5clear file>)"), IO_ERROR, "in use by another program"),
        (OSError("truncated file: eof = 3747"), BAD_DATA, "damaged or cut short (truncated file"),
        (KeyError("no such object"), BAD_DATA, "damaged or cut short"),
    ],
    ids=["permission", "wire", "open", "cut", "content"],
)
def test_a_file_that_cannot_be_opened_is_told_from_a_broken_one(result, error, code, words):
    found = opening.explain(result, error)
    assert found.code == code and words in str(found) and str(result) in str(found)
    assert "delete" not in str(found)
    with pytest.raises(MemoryError):
        opening.explain(result, MemoryError())


def test_a_missing_filter_is_named(result, tmp_path):
    """Files with h5py's own filter, under a number that no library has."""
    shutil.copy(result, tmp_path)
    with h5py.File(tmp_path / "results.h5", "a") as file:
        values = file["ranking/rank_low"][:]
        del file["ranking/rank_low"]
        file["ranking"].create_dataset("rank_low", data=values, chunks=True, compression="lzf")
        file["ranking/rank_low"].dims[0].attach_scale(file["ranking/layer"])
    assert page_of(tmp_path / "results.h5", tmp_path)  # h5py brings this one along
    data = (tmp_path / "results.h5").read_bytes()
    at = data.index(b"lzf") - 8  # number, length of the name, flags, number of values: two bytes each
    assert data[at : at + 2] == LZF.to_bytes(2, "little")
    (tmp_path / "results.h5").write_bytes(data[:at] + UNKNOWN_FILTER.to_bytes(2, "little") + data[at + 2 :])
    code, _, err = report(tmp_path / "results.h5", "--out", tmp_path / "other.html")
    assert code == UNAVAILABLE and "ranking/rank_low is compressed with the filter lzf (number 32099)" in err
    assert "damaged" not in err


def test_broken_values_along_the_answer_are_no_internal_error(tmp_path):
    """They are read late, when the figure is drawn."""
    data = tiny.write_calibration(tmp_path / "long.h5", [20, 30, 25, 40], prefix="e")
    result_files.write(tmp_path / "results.h5", 4, 3, ids=[f"e{i}" for i in range(4)])
    result_files.add_tokens(tmp_path / "results.h5", 6, str(data))
    with h5py.File(tmp_path / "results.h5", "a") as file:
        values = file["calibration/token_nll"][:]
        del file["calibration/token_nll"]
        packed = file["calibration"].create_dataset("token_nll", data=values, compression="gzip")
        for axis, name in enumerate(("example", "layer", "answer_token")):
            packed.dims[axis].attach_scale(file["calibration"][name])
        chunk = packed.id.get_chunk_info(0)
    whole = bytearray((tmp_path / "results.h5").read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "results.h5").write_bytes(whole)
    code, _, err = report(tmp_path / "results.h5", "--out", tmp_path / "page.html")
    assert code == BAD_DATA and "damaged or cut short" in err


def test_text_that_is_not_utf8_is_shown_as_far_as_it_can_be(tmp_path):
    result_files.write(tmp_path / "results.h5", 8, 4)
    result_files.write_evaluation(tmp_path / "evaluation.h5")
    with h5py.File(tmp_path / "results.h5", "a") as file:
        file["calibration/example_id"][2] = b"caf\xe9"
        del file["provenance/model"]
        file["provenance"].create_dataset("model", data=b"/models/mod\xe9le", dtype=h5py.string_dtype())
    with h5py.File(tmp_path / "evaluation.h5", "a") as file:
        file["evaluation/pattern"][1] = b"mod\xe9"
    with winnow_report.open(tmp_path / "results.h5") as run:
        assert run["calibration"].example_id.values[:3].tolist() == ["example-0000", "example-0001", "caf\ufffd"]
        assert str(run["provenance"].model.item()) == "/models/mod\ufffdle"
        assert run["calibration"].delta_nll.dims == ("example", "layer")
    assert "mod\ufffdle" in page_of(tmp_path / "results.h5", tmp_path)
    assert "mod\ufffd" in page_of(tmp_path / "evaluation.h5", tmp_path)


# ---- names that are hostile -----------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "]]><![CDATA[<x/>",
    "\" onload=\"alert(2)' onclick='alert(3)",
    "&lt;&#0;&unknown;<!--",
    "red\x1b[31m bell\x07 c1\x9b2J nel\x85 del\x7f",
    "turned\u202egnp.exe\u2066 line\u2028 paragraph\u2029",
    "not\ufffea\uffffcharacter",
    "tab\tline\nreturn\r",
    "x" * 5000,
    "$body ${style} {0} %s",
]
PLAIN = [f"name-{i}" for i in range(len(HOSTILE))]


def write_named(directory, names):
    """Results of every kind, named so."""
    directory.mkdir()
    result_files.write(directory / "run.h5", len(names), 4, ids=list(names), model=f"/models/{names[0]}")
    result_files.add_signals(directory / "run.h5")
    result_files.write_search(directory / "search.h5")
    result_files.write_evaluation(directory / "evaluation.h5")
    with h5py.File(directory / "run.h5", "a") as file:
        for i, name in enumerate(names):
            file["calibration/source"][i] = name
            file["signals/signal"][i % len(file["signals/signal"])] = name
        file.move("control/short", f"control/{names[2].replace('/', '-')}")
        file.move("deconfounding/short", f"deconfounding/{names[2].replace('/', '-')}")
    with h5py.File(directory / "evaluation.h5", "a") as file:
        for i in range(1, len(file["evaluation/pattern"])):
            file["evaluation/pattern"][i] = names[i]
        file["evaluation"].attrs["baseline"] = names[1]
    with h5py.File(directory / "search.h5", "a") as file:
        patterns = file["selection/greedy-forward/pattern"]
        for i in range(len(patterns)):
            patterns[i] = names[i % len(names)]
        file.move("selection/greedy-forward", f"selection/{names[4].replace('/', '-')}")
    return [directory / f"{name}.h5" for name in ("evaluation", "search", "run")]


def marks_of(svg):
    """What a drawing is made of, names aside: its elements, and which attributes each kind has."""
    root = xml.etree.ElementTree.fromstring(svg)
    return {(element.tag, attribute) for element in root.iter() for attribute in element.attrib}


def marks_of_page(text):
    """The same of a page."""
    marks = set()

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            marks.update((tag, name) for name, _ in attributes)

        def handle_comment(self, data):
            marks.add(("comment", data))

    Reader().feed(text)
    return marks


def is_harmful(character):
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "\u202a\u202b\u202d\u202e\u2066"


def test_hostile_names_stay_text_in_every_figure_and_page(tmp_path, capfd):
    found = {}
    for word, names in (("plain", PLAIN), ("hostile", HOSTILE)):
        sources = {source.stem: [source] for source in write_named(tmp_path / word, names)}
        result_files.write(tmp_path / word / "other.h5", 8, 4, seed=1, model=f"/models/{names[6]}")
        sources["together"] = [*(source for one in sources.values() for source in one), tmp_path / word / "other.h5"]
        for kind, files in sources.items():
            drawn = tmp_path / f"{word}-{kind}"
            code, out, err = report(*files, "--out", tmp_path / f"{word}.html", "--figures", drawn)
            assert code == DONE, err
            assert not any(is_harmful(c) for c in out.replace("\n", "")) and err.count("\n") <= 1
            text = (tmp_path / f"{word}.html").read_text()
            assert not any(is_harmful(c) for c in re.sub(r"[\n\t]", "", text))
            found[word, "page of " + kind] = marks_of_page(text)
            files = sorted(drawn.iterdir())
            assert files and all(os.path.commonpath([file, drawn]) == str(drawn) for file in files)
            found[word, kind] = [marks_of(file.read_bytes()) for file in files]
            assert not any(is_harmful(c) for file in files for c in re.sub(r"[\n\t]", "", file.read_text()))
    for kind in ("evaluation", "search", "run", "together"):
        assert found["hostile", f"page of {kind}"] == found["plain", f"page of {kind}"]
        assert set.union(*found["hostile", kind]) == set.union(*found["plain", kind])
        assert len(found["hostile", kind]) == len(found["plain", kind])
    assert capfd.readouterr() == ("", "")


def test_messages_are_one_line_whatever_is_in_a_path(tmp_path):
    name = "no\x1b[2J\u202e\nsuch\x9bfile\udcff"
    code, _, err = report(tmp_path / name, "--out", tmp_path / "page.html")
    assert code == ExitCode.NO_INPUT and err.count("\n") == 1 and not any(is_harmful(c) for c in err.rstrip("\n"))
    result_files.write(tmp_path / "results.h5", 8, 4)
    done = shell('exec "$@"', tmp_path / "results.h5", "--out", tmp_path / "p\udcff\x1b.html", PYTHONIOENCODING="ascii")
    assert done.returncode == DONE and "1 result" in done.stdout and "\x1b" not in done.stdout, done.stderr


# ---- streams that are lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "streams", ["1>/dev/full", "1>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-", "1>/dev/full 2>/dev/full", "1>/dev/full 2>&-"]
)
def test_a_lost_stdout_is_an_error_of_its_own_and_files_are_whole(result, tmp_path, streams):
    done = shell(f'exec "$@" {streams}', result, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.returncode == IO_ERROR, done.stderr
    if "2>" not in streams:
        assert done.stderr.startswith("winnow: standard output ") and done.stderr.count("\n") == 1
    text = (tmp_path / "page.html").read_text()
    assert text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>")
    for file in (tmp_path / "figures").iterdir():
        assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")
    assert not list(tmp_path.rglob("*.part"))


def test_lost_streams_of_other_calls(result, tmp_path):
    done = shell('exec "$@" 1>/dev/full', "--help")
    assert done.returncode == IO_ERROR and done.stderr.count("\n") == 1
    done = shell('exec "$@" 2>/dev/full', tmp_path / "missing")
    assert done.returncode == ExitCode.NO_INPUT and done.stdout == ""
    done = shell('exec "$@" 2>/dev/full', result, "--out", tmp_path / "page.html")
    assert done.returncode == DONE and "1 result" in done.stdout
    # A reader that has seen enough is no error.
    done = shell('set -o pipefail; "$@" | true', result, "--out", tmp_path / "page.html")
    assert done.returncode == DONE and done.stderr == ""


# ---- what may be written over ---------------------------------------------------------------------------------------


def _link(result, place):
    place.symlink_to(result)


def _chain(result, place):
    place.with_name("middle").symlink_to(result)
    place.symlink_to("middle")


def _hard_link(result, place):
    os.link(result, place)


@pytest.mark.parametrize(
    "make,words",
    [
        (_link, "is one of the files to be read"),
        (_chain, "is one of the files to be read"),
        (_hard_link, "is one of the files to be read"),
        (lambda result, place: place.mkdir(), "is a directory"),
        (lambda result, place: os.mkfifo(place), "is a device or pipe"),
        (lambda result, place: place.symlink_to("/dev/null"), "is a device or pipe"),
        (lambda result, place: place.write_text('{"model_type": "llama"}'), "is no HTML file"),
        (lambda result, place: tiny.write_calibration(place, [20]), "is no HTML file"),
    ],
    ids=["link", "chain", "hard link", "directory", "pipe", "device", "config", "data"],
)
def test_out_replaces_nothing_but_a_page(tmp_path, make, words):
    result = tmp_path / "results.h5"
    result_files.write(result, 8, 4)
    before = result.read_bytes()
    place = tmp_path / "out" / "place"
    place.parent.mkdir()
    make(result, place)
    was = os.lstat(place)
    code, _, err = report(result, "--out", place)
    assert code == USAGE and words in err
    assert os.lstat(place).st_ino == was.st_ino and result.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))


def test_out_is_not_the_file_in_the_run_directory_however_it_is_spelled(result):
    before = result.read_bytes()
    for out in (result, result.parent / ".." / result.parent.name / "results.h5"):
        code, _, err = report(result.parent, "--out", out)
        assert code == USAGE and "is one of the files to be read" in err
    assert result.read_bytes() == before and os.listdir(result.parent) == ["results.h5"]


def test_figures_replace_drawings_only(result, tmp_path):
    (tmp_path / "deltas-by-layer.svg").symlink_to(result)
    before = result.read_bytes()
    code, _, err = report(result, "--out", tmp_path / "page.html", "--figures", tmp_path)
    assert code == USAGE and "deltas-by-layer.svg: is one of the files to be read" in err
    assert result.read_bytes() == before
    (tmp_path / "deltas-by-layer.svg").unlink()
    (tmp_path / "deltas-by-layer.svg").write_text("my notes")
    code, _, err = report(result, "--out", tmp_path / "page.html", "--figures", tmp_path)
    assert code == USAGE and (tmp_path / "deltas-by-layer.svg").read_text() == "my notes"
    (tmp_path / "deltas-by-layer.svg").unlink()
    for _ in range(2):
        assert report(result, "--out", tmp_path / "page.html", "--figures", tmp_path)[0] == DONE


def test_a_replaced_page_keeps_its_permissions_and_a_new_one_has_those_of_the_umask(result, tmp_path):
    page = tmp_path / "page.html"
    old = os.umask(0o027)
    try:
        assert report(result, "--out", page)[0] == DONE
        assert page.stat().st_mode & 0o777 == 0o640
        page.chmod(0o604)
        page.write_text(page.read_text().replace("winnow", "an older page"))
        assert report(result, "--out", page)[0] == DONE
    finally:
        os.umask(old)
    assert page.stat().st_mode & 0o777 == 0o604 and "an older page" not in page.read_text()


def test_a_link_that_waits_for_the_page_is_not_followed(result, tmp_path):
    """Ones with likely temporary names are left alone, one in its place is refused."""
    (tmp_path / "other.html").write_text("<!DOCTYPE html>somebody's page")
    for name in ("link.html", "page.html.part", ".page.html.part"):
        (tmp_path / name).symlink_to("other.html")
    assert report(result, "--out", tmp_path / "page.html")[0] == DONE
    code, _, err = report(result, "--out", tmp_path / "link.html")
    assert code == USAGE and "is a link to other.html" in err
    assert (tmp_path / "other.html").read_text() == "<!DOCTYPE html>somebody's page"
    assert (tmp_path / "link.html").is_symlink() and (tmp_path / "page.html.part").is_symlink()


def test_a_full_disk_leaves_the_older_page(result, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    assert report(result, "--out", page)[0] == DONE
    before = page.read_bytes()

    def fails(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    code, _, err = report(result, "--out", page)
    assert code == IO_ERROR and "No space left on device" in err
    assert page.read_bytes() == before and os.listdir(tmp_path) == ["page.html"]


# ---- starting Python ------------------------------------------------------------------------------------------------

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


def test_a_package_that_does_not_load_is_named(result, tmp_path):
    (tmp_path / "xarray.py").write_text("raise ImportError('libhdf5.so.310: cannot open shared object file')\n")
    done = subprocess.run(
        [*MODULE, result, "--out", tmp_path / "page.html"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == UNAVAILABLE and done.stderr.count("\n") == 1
    assert "libhdf5.so.310: cannot open" in done.stderr and "damaged" not in done.stderr


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
