"""Writes what a version of winnow leaves behind, as fixtures for the versions after it: write.py WINNOW DIRECTORY.

test_compatibility.py reads them. A new folder is made before a change that could break old files, with the program
from before the change; folders that are there stay as they are.
"""

import json
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "golden" / "qwen3"
sys.path.insert(0, str(HERE.parent / "python"))

import tiny  # noqa: E402  (beside the tests that use it)

LENGTHS = [90, 120, 70, 100, 80, 110]
WINDOW = ["--window", "24", "--sinks", "2", "--threads", "1", "--device", "cpu"]

# What these print is kept, too.
PRINTED = {
    "stats": ["stats", "calibrate/results.h5"],
    "stats-json": ["stats", "calibrate/results.h5", "--json"],
    "inspect-data": ["inspect", "long.h5"],
    "inspect-results": ["inspect", "calibrate/results.h5"],
    "inspect-search": ["inspect", "search/results.h5"],
    "inspect-evaluation": ["inspect", "evaluate/results.h5"],
    "inspect-selection": ["inspect", "selection.json"],
    "select-kl": ["select", "calibrate/results.h5", "--method", "kl", "--keep", "2", "--json"],
    "select-light-transfer": ["select", "calibrate/results.h5", "--method", "light-transfer", "--keep", "1", "--json"],
    "select-greedy-forward": ["select", "search/results.h5", "--method", "greedy-forward", "--keep", "1", "--json"],
}


def main(program: str, directory: str) -> None:
    out = pathlib.Path(directory).resolve()
    out.mkdir(parents=True)
    winnow = pathlib.Path(program).resolve()

    def run(*words: str, verb: str = "calibrate") -> None:
        # Files name the program and the model as they were typed: no path of this machine goes into them.
        subprocess.run(["winnow", verb, *words], executable=winnow, cwd=out, check=True, stdout=subprocess.DEVNULL)

    shutil.copytree(MODEL, out / "model")

    tiny.write_calibration(out / "long.h5", LENGTHS, vocab=200)
    tiny.write_calibration(out / "short.h5", [40, 44, 48], seed=5, vocab=200)
    model = ["--model", "model"]
    data = ["--data", "long.h5"]
    signals = ["--control", "short=short.h5", "--signals", "kl,sensitivity,mass,lazy", "--lazy-recent", "16"]
    run(*model, *data, *WINDOW, *signals, "--out", "calibrate")
    # The same with one half of its units and no result: stopped in the middle.
    shutil.copytree(out / "calibrate", out / "interrupted")
    (out / "interrupted" / "results.h5").unlink()
    shards = sorted((out / "interrupted" / "shards").iterdir())
    for shard in shards[::2]:
        shard.unlink()
    shutil.rmtree(out / "calibrate" / "shards")
    run(*model, *data, *WINDOW, "--method", "greedy-forward", "--keep", "1", "--out", "search", verb="search")
    run("calibrate/results.h5", "--keep", "2", "--out", "selection.json", verb="select")
    patterns = ["--pattern", "selection.json", "--pattern", "windowed", "--pattern", "periodic:2@0"]
    run(*model, *data, *WINDOW, *patterns, "--generate", "4", "--out", "evaluate", verb="evaluate")
    outputs = out / "outputs"
    outputs.mkdir()
    for name, words in PRINTED.items():
        done = subprocess.run(
            ["winnow", *words], executable=winnow, cwd=out, check=True, capture_output=True, text=True
        )
        (outputs / f"{name}.txt").write_text(done.stdout)
    for leftover in [out / "model", *out.glob("*/profile*"), out / "search" / "shards", out / "evaluate" / "shards"]:
        shutil.rmtree(leftover, ignore_errors=True)
    version = subprocess.run([winnow, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    (out / "made_by.json").write_text(json.dumps({"version": version}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
