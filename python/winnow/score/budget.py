"""What each pattern costs, from the result of the evaluation that it was measured in."""

import pathlib

import numpy

from winnow.common.errors import ExitCode, Failure
from winnow.report.reading import opening
from winnow.score.results import Budget

LENGTH = 131072  # tokens; one of the lengths that a result has


def read(path: pathlib.Path, patterns: list[str]) -> dict[str, Budget]:
    """{pattern: Budget} of a run directory of winnow evaluate. Raises Failure."""
    with opening.open(path) as tree:
        if "evaluation" not in tree.children:
            raise Failure(ExitCode.BAD_DATA, f"{path}: no result of winnow evaluate")
        evaluation = tree["evaluation"].to_dataset()
        names = [str(name) for name in evaluation["pattern"].values]
        missing = [pattern for pattern in patterns if pattern not in names]
        if missing:
            raise Failure(ExitCode.BAD_DATA, f"{path}: has no pattern {missing[0]}, which the responses have")
        n_layers = evaluation.sizes["layer"]
        full = numpy.asarray(evaluation["full_layers"].values)
        sizes = numpy.asarray(evaluation["kv_cache_bytes"].sel(kv_length=LENGTH).values)
        whole = sizes[full == n_layers]
        if not len(whole):
            raise Failure(ExitCode.BAD_DATA, f"{path}: has no pattern with full attention everywhere to compare with")
        return {
            name: Budget(int(layers), float(size / whole[0]))
            for name, layers, size in zip(names, full, sizes, strict=True)
            if name in patterns
        }
