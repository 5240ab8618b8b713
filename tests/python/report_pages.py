"""Runs winnow report, and reads the tables of its pages."""

import contextlib
import html.parser
import io
import os
import re
import shutil
import sys

import h5py
import launch
import numpy as np

from winnow.report import command_line

DONE = 0
# The program in a process of its own.
MODULE = [sys.executable, "-P", "-m", "winnow.report"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(launch.REPOSITORY / "python")}


def report(*arguments):
    """(exit code, stdout, stderr); never a stack trace, at most one line of error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line.main([str(argument) for argument in arguments])
    assert "Traceback" not in err.getvalue()
    if code != DONE:
        assert err.getvalue().startswith("winnow: ") and err.getvalue().count("\n") == 1, err.getvalue()
    return code, out.getvalue(), err.getvalue()


def page_of(source, tmp_path):
    code, _, err = report(source, "--out", tmp_path / "page.html")
    assert code == DONE, err
    return (tmp_path / "page.html").read_text()


def codes_of_damage(source, n_seeds, n_bytes, tmp_path):
    """Exit codes of reports on copies of a file with n_bytes bytes changed at random, of n_seeds seeds."""
    whole, codes = source.read_bytes(), set()
    for seed in range(n_seeds):
        random = np.random.default_rng(seed)
        data = bytearray(whole)
        for place in random.integers(600, len(data), n_bytes):
            data[place] = random.integers(256)
        (tmp_path / "bad.h5").write_bytes(data)
        codes.add(report(tmp_path / "bad.h5", "--out", tmp_path / "page.html")[0])
    return codes


class Page(html.parser.HTMLParser):
    """Tables of a page, by the id of their figure: rows of (text, exact value)."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._figure, self._cell = {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("figure", "section", "details") and attributes.get("id"):
            self._figure = attributes["id"]
        if tag == "tr":
            self.tables.setdefault(self._figure, []).append([])
        if tag in ("td", "th"):
            self._cell = ["", attributes.get("data-v")]
            self.tables[self._figure][-1].append(self._cell)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[0] += data


def damage(source, target, change):
    shutil.copy(source, target)
    with h5py.File(target, "a") as file:
        change(file)
    return target


def rows_of(page, figure):
    """[{column: (text, exact value)}] of a figure's table."""
    columns, *rows = page.tables[figure]
    return [dict(zip((cell[0] for cell in columns), row, strict=True)) for row in rows]


def number(cell):
    return float(cell[1]) if cell[1] else float("nan")


def words_of(text, figure):
    """The sentence under a figure's title."""
    return re.search(rf'id="{figure}".*?<p class="reading">(.*?)</p>', text, re.DOTALL).group(1)
