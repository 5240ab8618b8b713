"""One rank on one GPU beside two ranks on two GPUs of the same host: time, and whether the tables are equal.

    python3 tests/bench/two_gpus.py [--winnow build/winnow] [--model-dir DIR] [--examples 6] [--tokens 24576] [--tiny]

A Qwen3-4B shape with random weights (8 GB in --model-dir); needs torch. The exact sweep, after one run that warms the
page cache. Time is that of the whole measurement, and without the loading of the weights.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import random_model  # noqa: E402
from winnow_process import Winnow  # noqa: E402

ANSWER_TOKENS = 256


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winnow", type=Path, default=Path("build/winnow"))
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--examples", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=24576)
    parser.add_argument("--tiny", action="store_true", help="checks this script on a CPU, measures nothing")
    arguments = parser.parse_args()
    shape = random_model.TINY if arguments.tiny else random_model.QWEN3_4B
    device = "cpu" if arguments.tiny else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model_dir or Path(folder) / "model"
        random_model.write_checkpoint(model, shape, device)
        data = Path(folder) / "data.h5"
        random_model.write_calibration(data, arguments.tokens, ANSWER_TOKENS, arguments.examples, shape.vocab)
        winnow = Winnow(arguments.winnow, folder)
        flags = ["--window", 64 if arguments.tiny else 2048, "--device", device]
        winnow.calibrate(model, data, [*flags, "--limit", 1, "--tail-rows", 0])
        runs = {ranks: winnow.calibrate(model, data, flags, ranks) for ranks in (1, 2)}
    assert np.array_equal(runs[1].nll, runs[2].nll), "the tables differ"
    measuring = {}
    for ranks, run in runs.items():
        facts = run.provenance
        measuring[ranks] = facts["wall_seconds"] - facts["load_seconds"]
        print(
            f"{ranks} ranks: {facts['wall_seconds']:.2f} s, of which loading {facts['load_seconds']:.2f} s; "
            f"sums by {facts['reduction']}; {facts['devices']}"
        )
    print(
        f"tables equal bit for bit; measuring {measuring[1] / measuring[2]:.3f}x, all "
        f"{runs[1].provenance['wall_seconds'] / runs[2].provenance['wall_seconds']:.3f}x as fast on two"
    )


if __name__ == "__main__":
    main()
