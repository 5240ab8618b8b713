"""The documents of the top level name what exists, and the version is the same wherever it is repeated."""

import re
import subprocess

import launch
import pytest

import winnow.prepare as winnow_prepare
import winnow.report as winnow_report

DOCUMENTS = sorted(launch.REPOSITORY.glob("*.md"))
SOURCES = (".h", ".cc", ".cuh", ".cu", ".py", ".cmake", ".sh", ".txt")
VERSION = (launch.REPOSITORY / "VERSION").read_text().strip()


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(path):
    return re.findall(r"^#+ (.+)$", without_code(path.read_text()), re.MULTILINE)


def anchors(path):
    """What headings are called in links: lower case, blanks as dashes, no other punctuation."""
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings(path)}


def sections_named_by_comments():
    """(file, section) of every comment that points into ARCHITECTURE.md, however its lines are wrapped."""
    found = []
    for folder in ("jobs", "kernels", "model", "pipeline", "python", "results", "slurm", "tests"):
        for path in sorted((launch.REPOSITORY / folder).rglob("*")):
            if path.suffix in SOURCES and path.name != "test_documents.py":
                text = re.sub(r"\s*\n\s*(//|#)?\s*", " ", path.read_text())
                found += [(path, section) for section in re.findall(r'ARCHITECTURE\.md, "([^"]+)"', text)]
    return found


def test_comments_point_to_sections_of_the_architecture():
    named = sections_named_by_comments()
    known = headings(launch.REPOSITORY / "ARCHITECTURE.md")
    assert {path.name for path, _ in named} >= {"window.h", "options.cc"}
    assert [(path, section) for path, section in named if section not in known] == []


def test_no_comment_points_to_a_document_that_is_not_here():
    texts = (path.read_text() for f in ("kernels", "pipeline") for path in (launch.REPOSITORY / f).rglob("*.[hc]*"))
    assert not any("design:" in text for text in texts)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if re.match(r"[a-z]+://", target):
            continue
        name, _, anchor = target.partition("#")
        path = launch.REPOSITORY / name if name else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document):
    """Words in backquotes that begin with a folder of the repository."""
    folders = [path.name for path in launch.REPOSITORY.iterdir() if path.is_dir() and path.name[0] != "."]
    tracked = [name for name in folders if not name.startswith(("build", "demo-"))]
    words = re.findall(r"`((?:" + "|".join(tracked) + r")/[\w./-]*)`", without_code(document.read_text()))
    ignored = {"slurm/site.yaml"}  # the user's own
    assert [word for word in words if word not in ignored and not (launch.REPOSITORY / word).exists()] == []


def test_version_is_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    printed = subprocess.run([launch.WINNOW, "--version"], capture_output=True, text=True, check=True).stdout
    assert VERSION in printed.split()
    assert winnow_prepare.__version__ == winnow_report.__version__ == VERSION
    citation = (launch.REPOSITORY / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [VERSION]


def test_changelog_has_the_version_on_top_of_all_releases():
    sections = re.findall(r"^## \[([^\]]+)\]", (launch.REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:2] == ["Unreleased", VERSION]
