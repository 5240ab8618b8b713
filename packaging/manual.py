#!/usr/bin/env python3
"""Makes manual pages from what the programs print under --help, so that each flag is described in one place.

    manual.py [--all] WINNOW DIR

WINNOW is the program of a build tree. DIR gets winnow.1.gz, and winnow-VERB.1.gz for every verb: those that its help
lists, their own verbs (winnow-sweep-plan), and the programs winnow-VERB beside it. A verb that cannot print its help,
as the Python programs without their packages, is left out with a line; with --all that is an error.

The date is that of SOURCE_DATE_EPOCH, else today. The same program and date give the same bytes.
"""

import argparse
import gzip
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNAVAILABLE = 69
# Headings of lists of verbs in the help of winnow, and of a verb that has verbs.
VERB_LISTS = {"Subcommands", "Programs of their own"}


class Block(NamedTuple):
    """A part of a help text: a heading ("" where there is none) and the lines below it."""

    heading: str
    lines: list[str]


class Page(NamedTuple):
    """A manual page before it is written: the words of its command, one line on it, and its help text."""

    command: list[str]
    summary: str
    help: str

    @property
    def name(self) -> str:
        return "-".join(self.command)


def run(program: Path, arguments: list[str]) -> str:
    """What the program prints; RuntimeError with its last words where it fails."""
    # argparse wraps to the terminal's width, also within words; a manual page is wrapped by who shows it.
    environment = os.environ | {"COLUMNS": "10000", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


def blocks(text: str) -> Iterator[Block]:
    """A heading ends with a colon and its list follows at once; other text is in paragraphs, between empty lines."""
    lines = text.splitlines()
    heading, block = "", []
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        is_heading = re.match(r"\S.*:$", line) and following.startswith(" ")
        if is_heading or not line.strip() or re.match(r"[Uu]sage: ", line):
            if block:
                yield Block(heading, block)
            heading, block = "", []
        if is_heading:
            heading = line[:-1]
        elif line.strip():
            block.append(line)
    if block:
        yield Block(heading, block)


def entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The entries of a list: "  --flag VALUE   what it does", whose text may go on in lines further to the right."""
    entry, text = "", []
    for line in lines:
        if re.match(r" {1,4}\S", line):
            if entry:
                yield entry, " ".join(text)
            entry, *text = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            entry = re.sub(r"^(-\w),(?=-)", r"\1, ", entry)
        else:
            text.append(line.strip())
    yield entry, " ".join(text)


def verbs(text: str) -> dict[str, str]:
    """The verbs that a help text lists, each with its line."""
    return {name: line for block in blocks(text) if block.heading in VERB_LISTS for name, line in entries(block.lines)}


def pages(winnow: Path) -> Iterator[Page | str]:
    """All pages; instead of one that cannot be made, a line that says why."""
    top = run(winnow, ["--help"])
    yield Page(["winnow"], "finds the layers of a language model that must keep full attention", top)
    found = verbs(top)
    for program in sorted(winnow.parent.glob("winnow-*")):
        if program.is_file() and os.access(program, os.X_OK):
            found.setdefault(program.name.removeprefix("winnow-"), "")
    queue = [([verb], line) for verb, line in found.items()]
    while queue:
        words, summary = queue.pop(0)
        try:
            text = run(winnow, [*words, "--help"])
        except RuntimeError as error:
            yield f"{'-'.join(['winnow', *words])}(1): {error}"
            continue
        yield Page(["winnow", *words], summary or first_sentence(text), text)
        queue += [([*words, verb], line) for verb, line in verbs(text).items()]


def first_sentence(text: str) -> str:
    """Of the description: the first paragraph that is not the usage."""
    for block in blocks(text):
        if not re.match(r"[Uu]sage: ", block.lines[0]):
            return re.split(r"(?<=\w)\.(?:\s|$)", " ".join(block.lines))[0]
    return ""


def escape(text: str) -> str:
    """Text as roff shows it unchanged; dashes and quotes that can be copied from a terminal."""
    for character, code in {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}.items():
        text = text.replace(character, code)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def verbatim(lines: list[str]) -> str:
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    body = escape("\n".join(line[indent:] for line in lines))
    return f".PP\n.RS 4\n.EX\n{body}\n.EE\n.RE\n"


def roff(page: Page, others: list[str], version: str, date: str) -> str:
    """The page as a manual page in roff: NAME, SYNOPSIS, DESCRIPTION, OPTIONS and what else its help says."""
    sections: dict[str, list[str]] = {
        name: [] for name in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "NOTES", "EXIT STATUS", "EXAMPLES")
    }
    for block in blocks(page.help):
        text = "\n".join(block.lines)
        if re.match(r"[Uu]sage: ", text):
            usage = " ".join(text.split(": ", 1)[1].split())
            sections["SYNOPSIS"].append(f"{escape(usage)}\n")
        elif block.heading in ("Example", "Examples"):
            sections["EXAMPLES"].append(verbatim(block.lines))
        elif block.heading:
            items = "".join(f".TP\n.B {escape(entry)}\n{escape(line)}\n" for entry, line in entries(block.lines))
            sections["OPTIONS"].append(f".SS {escape(block.heading)}\n{items}")
        elif text.startswith("Exit codes: "):
            sections["EXIT STATUS"].append(f"{escape(text.removeprefix('Exit codes: '))}\n")
        else:
            where = "NOTES" if sections["OPTIONS"] else "DESCRIPTION"
            is_code = all(line.startswith("  ") for line in block.lines)
            sections[where].append(verbatim(block.lines) if is_code else f".PP\n{escape(text)}\n")
    body = "".join(f".SH {name}\n{''.join(parts)}" for name, parts in sections.items() if parts)
    summary = page.summary[:1].lower() + page.summary[1:]
    see_also = "\n".join(rf".BR \%{escape(name)} (1){',' if name != others[-1] else ''}" for name in others)
    return (
        '.\\" Made by packaging/manual.py from the help text of the program.\n'
        f'.TH {escape(page.name.upper())} 1 {escape(date)} "{escape(version)}" "winnow manual"\n'
        f".SH NAME\n{escape(page.name)} \\- {escape(summary)}\n{body}.SH SEE ALSO\n{see_also}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="a page that cannot be made is an error")
    parser.add_argument("winnow", type=Path, help="the program of a build tree")
    parser.add_argument("directory", type=Path, help="where the pages go; pages that are there are replaced")
    options = parser.parse_args()

    made = list(pages(options.winnow.resolve()))
    missing = [page for page in made if isinstance(page, str)]
    made = [page for page in made if isinstance(page, Page)]
    for line in missing:
        print(f"manual: left out: {line}", file=sys.stderr)
    if missing and options.all:
        return UNAVAILABLE
    version = " ".join(run(options.winnow.resolve(), ["--version"]).split()[:2])
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    options.directory.mkdir(parents=True, exist_ok=True)
    for old in options.directory.glob("winnow*.1.gz"):
        old.unlink()
    for page in made:
        # A page refers to the program and to the verbs beside and below its own.
        others = [
            other.name
            for other in made
            if other is not page
            and (other.command[:-1] in (page.command, page.command[:-1]) or other.command == page.command[:-1])
        ]
        text = roff(page, others, version, date)
        (options.directory / f"{page.name}.1.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
