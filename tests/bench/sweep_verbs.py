"""Times `winnow sweep plan` and `status` over 2,000 cells in every state. The target is 2 s each.

.venv/bin/python tests/bench/sweep_verbs.py [--winnow build/winnow] [--cells 2000] [--repetitions 5]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import tiny  # noqa: E402

TARGET_SECONDS = 2.0
N_MODELS, N_DATASETS = 10, 10


def write_sweep(directory, n_cells):
    """Ten models and ten data sets of 64 examples; as many windows as it takes."""
    for model in range(N_MODELS):
        tiny.write_checkpoint(directory / f"m{model}", layers=2, seed=model)
    for data in range(N_DATASETS):
        tiny.write_calibration(directory / f"d{data}.h5", [900 + 7 * data] * 64, seed=data)
    windows = [16 + window for window in range(-(-n_cells // (N_MODELS * N_DATASETS)))]
    sweep = {
        "name": "bench",
        "output": "out",
        "windows": windows,
        "models": [{"name": f"m{model}", "path": f"m{model}"} for model in range(N_MODELS)],
        "datasets": [{"name": f"d{data}", "data": f"d{data}.h5"} for data in range(N_DATASETS)],
    }
    (directory / "sweep.yaml").write_text(json.dumps(sweep, indent=1))
    return directory / "sweep.yaml"


def fill(cells):
    """A quarter of the cells each: done, failed, interrupted in the middle, waiting."""
    for i, cell in enumerate(cells):
        run = Path(cell["run_directory"])
        kind = i % 4
        if kind == 3:
            continue
        (run / "attempts").mkdir(parents=True)
        record = {"attempt": 1, "started": "2026-01-01T00:00:00Z", "host": "node", "of_submission": 1}
        if kind != 2:
            record |= {"ended": "2026-01-01T01:00:00Z", "exit_code": 0 if kind == 0 else 65, "error": "weights are bad"}
        (run / "attempts" / "1.json").write_text(json.dumps(record))
        (run / "attempts" / "1.log").write_text("winnow: weights are bad\n")
        (run / "progress.json").write_text(json.dumps({"cells_done": 5, "cells_total": 10, "eta_seconds": 9.0}))
        if kind == 0:
            (run / "results.h5").write_bytes(b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", default=Path(__file__).resolve().parents[2] / "build" / "winnow", type=Path)
    parser.add_argument("--cells", default=2000, type=int)
    parser.add_argument("--repetitions", default=5, type=int)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="winnow-bench-"))
    try:
        file = write_sweep(directory, options.cells)

        def run(*words):
            begin = time.monotonic()
            out = subprocess.run(
                [options.winnow.resolve(), "sweep", words[0], file, *words[1:]],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            return time.monotonic() - begin, out

        cells = json.loads(run("plan", "--json")[1])["cells"]
        fill(cells)
        counts = json.loads(run("status", "--json")[1])["counts"]
        print(f"{len(cells)} cells: {counts}")
        is_met = True
        for words in (["plan"], ["plan", "--json"], ["status"], ["status", "--json"]):
            seconds = sorted(run(*words)[0] for _ in range(options.repetitions))
            is_met = is_met and seconds[-1] <= TARGET_SECONDS
            print(f"{' '.join(words):15}  median {seconds[len(seconds) // 2]:.2f} s, slowest {seconds[-1]:.2f} s")
        print(f"target of {TARGET_SECONDS:.0f} s: {'met' if is_met else 'MISSED'}")
        return 0 if is_met else 1
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
