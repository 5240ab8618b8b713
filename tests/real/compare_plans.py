#!/usr/bin/env python3
"""A pattern against others on the same held-out examples, with intervals that hold for all of them together.

    compare_plans.py RESULTS.h5 PATTERN OTHER... [--seed 0]

RESULTS.h5 is of `winnow evaluate`; patterns are named as its table names them, or without ":K" behind. For each other
pattern it prints the mean NLL, nats a token, and the pattern's less the other's with a simultaneous 95 % interval:
studentised bootstrap of the examples, with the quantile of the largest |t| over all others (Romano and Wolf 2005).
"""

import argparse
import pathlib

import h5py
import numpy as np

RESAMPLES = 10_000


def read(path):
    """({name: column}, (examples, patterns) NLL)."""
    with h5py.File(path) as file:
        group = file["evaluation"]
        names = [name.decode() for name in group["pattern"][:]]
        nll = group["nll"][:]
    columns = {name.rsplit(":", 1)[0]: i for i, name in enumerate(names)} | {name: i for i, name in enumerate(names)}
    return columns, nll.T if nll.shape[0] == len(names) else nll


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("results", type=pathlib.Path)
    flags.add_argument("pattern")
    flags.add_argument("others", nargs="+")
    flags.add_argument("--seed", type=int, default=0)
    options = flags.parse_args()
    columns, nll = read(options.results)
    for name in [options.pattern, *options.others]:
        if name not in columns:
            flags.error(f"{options.results} has no pattern {name}; it has {', '.join(columns)}")
    own = nll[:, columns[options.pattern]]
    differences = np.stack([own - nll[:, columns[name]] for name in options.others], axis=1)
    n = len(own)
    means, errors = differences.mean(axis=0), differences.std(axis=0, ddof=1) / np.sqrt(n)
    drawn = differences[np.random.default_rng(options.seed).integers(0, n, (RESAMPLES, n))]
    drawn_errors = drawn.std(axis=1, ddof=1) / np.sqrt(n)
    distances = np.abs(drawn.mean(axis=1) - means) / np.where(drawn_errors > 0, drawn_errors, np.inf)
    critical = np.quantile(distances.max(axis=1), 0.95)
    print(f"{options.pattern}: {own.mean():.3f} nats a token, {n} examples")
    for name, mean, error in zip(options.others, means, errors, strict=True):
        low, high = mean - critical * error, mean + critical * error
        print(f"| {name} | {nll[:, columns[name]].mean():.3f} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] |")


if __name__ == "__main__":
    main()
