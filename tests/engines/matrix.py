#!/usr/bin/env python3
"""Prints a table of what the last make test-engines measured, from build/engine-checks.

matrix.py [BUILD_DIR]
"""

import json
import pathlib
import sys


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build") / "engine-checks"
    print("| engine | check | verdict | hybrid | full | windowed | W - 1 | W + 1 | same text |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        name = path.stem.removeprefix(record["engine"] + "-")
        names = ("hybrid", "full", "windowed", "window-minus-1", "window-plus-1")
        figures = [f"{record['candidates'][ran]['rms_nats']:.1e}" for ran in names]
        text = record.get("text")
        written = f"{text['equal']} of {text['tokens']}" if text else ""
        words = [f"{record['engine']} {record['engine_version']}", name, record["verdict"], *figures, written]
        print(f"| {' | '.join(words)} |")


if __name__ == "__main__":
    main()
