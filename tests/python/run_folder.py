"""Command lines of the verbs that measure, and what they leave in their run directory."""

import json
import pathlib


def arguments(verb, work, out, *more, model="model", data="long.h5"):
    """The model, the data and the run directory are named as they are in the folder `work`."""
    return [verb, "--model", work / model, "--data", work / data, "--out", work / out, *more]


def shards(run):
    return sorted((pathlib.Path(run) / "shards").glob("*.h5"))


def last_run(run):
    return json.loads((pathlib.Path(run) / "run.json").read_text())["informative"]["runs"][-1]
