#!/usr/bin/env python3
"""Prints a table of what the last make test-engines measured, from build/engine-checks.

matrix.py [BUILD_DIR]
"""

import json
import pathlib
import sys

PATTERNS = ("hybrid", "full", "windowed", "window-minus-1", "window-plus-1")


def row(path):
    record = json.loads(path.read_text())
    name = path.stem.removeprefix(record["engine"] + "-")
    figures = [f"{record['candidates'][ran]['rms_nats']:.1e}" for ran in PATTERNS]
    text = record.get("text")
    written = f"{text['equal']} of {text['tokens']}" if text else ""
    return [f"{record['engine']} {record['engine_version']}", name, record["verdict"], *figures, written]


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build") / "engine-checks"
    groups = {"right": [], "ignored": [], "wrong": []}
    for path in sorted(folder.glob("*.json")):
        kind = (
            "wrong" if "-wrong-" in path.stem else "ignored" if path.stem.endswith(("ignored", "left-out")) else "right"
        )
        groups[kind].append(row(path))
    for rows in groups.values():
        print("| engine | family, target | verdict | hybrid | full | windowed | W - 1 | W + 1 | same text |")
        print("|---|---|---|---|---|---|---|---|---|")
        print(*(f"| {' | '.join(words)} |" for words in rows), "", sep="\n")


if __name__ == "__main__":
    main()
