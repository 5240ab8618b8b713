"""Runs of the winnow executable for the benchmarks."""

import json
import os
import platform
import shlex
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}


class WinnowFailed(RuntimeError):
    """What winnow said last; `command` as it was run."""

    def __init__(self, message, command=()):
        super().__init__(message)
        self.command = shlex.join(command)


@dataclass
class Run:
    """A calibration that has ended."""

    provenance: dict
    nll: np.ndarray  # (examples, 1 + layers): the base, then each layer windowed alone
    seconds: list  # of each example, loading and statistics left out
    command: str


class Winnow:
    """One executable; its run directories are thrown away."""

    def __init__(self, program, directory, timeout_seconds=None):
        self.program = Path(program).resolve()
        self.directory = Path(directory)
        self.timeout_seconds = timeout_seconds

    def run(self, words, ranks=None):
        """Standard output of `winnow WORDS`."""
        command = [*([] if ranks is None else [*MPIRUN, "-n", str(ranks)]), str(self.program), *map(str, words)]
        try:
            done = subprocess.run(
                command, env=os.environ | MPI_ENVIRONMENT, capture_output=True, text=True, timeout=self.timeout_seconds
            )
        except subprocess.TimeoutExpired:
            raise WinnowFailed(f"no result after {self.timeout_seconds} s", command) from None
        except OSError as error:
            raise WinnowFailed(str(error), command) from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            raise WinnowFailed(f"{last} (exit code {done.returncode})", command)
        return done.stdout

    def calibrate(self, model, data, flags, ranks=None):
        out = self.directory / "run"
        shutil.rmtree(out, ignore_errors=True)
        words = ["calibrate", "--model", model, "--data", data, "--out", out, *flags, "--json"]
        provenance = json.loads(self.run(words, ranks))["provenance"]
        with h5py.File(out / "results.h5") as file:
            calibration = file["calibration"]
            nll = np.column_stack([calibration["nll_base"][:], calibration["nll"][:]])
        return Run(provenance, nll, seconds_of_examples(out / "shards"), shlex.join(map(str, ["winnow", *words])))

    def has_flag(self, verb, flag):
        return flag in self.run([verb, "--help"])


def seconds_of_examples(shards):
    """Time of each example in the order of the set; an example whose layers were split has several shards."""
    seconds = defaultdict(float)
    for path in shards.glob("calibration.*.h5"):
        with h5py.File(path) as file:
            seconds[int(file.attrs["example"])] += float(file.attrs["seconds"])
    return [seconds[example] for example in sorted(seconds)]


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
