"""The path from a ranking to each engine, as README.md has it, up to the server's start."""

import re
import shlex
import subprocess

import launch
import pytest
import tiny
from test_engines import SECONDS, python_of

README = (launch.REPOSITORY / "README.md").read_text()


def commands():
    """Those of winnow in the first block of the section, as words."""
    block = README.partition("\n## From a ranking to a served model\n")[2].split("```")[1]
    lines = [line.split("#")[0].split(" && ")[0].strip() for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has a run, and what the first command makes of it."""
    folder = tmp_path_factory.mktemp("readme")
    tiny.write_checkpoint(folder / "model", layers=12, hidden=64, heads=4, kv_heads=2, head_dim=32, vocab=200)
    tiny.write_calibration(folder / "data.h5", [96, 80], vocab=200)
    words = ["calibrate", "--model", "model", "--data", "data.h5", "--out", "run", "--window", 40, "--target", "hf"]
    run(folder, [*words, "--device", "cpu", "--threads", "1"])
    run(folder, commands()[0][1:])
    return folder


def run(folder, words):
    done = subprocess.run(
        launch.command(words),
        cwd=folder,
        env=launch.environment(folder / "cache"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("engine", ["transformers", "llamacpp", "mlx", "vllm", "sglang"])
def test_a_path_from_a_ranking_to_an_engine(engine, folder):
    python = python_of(engine)
    at = next(i for i, words in enumerate(commands()) if f"~/{engine}/bin/python" in words)
    export, check = commands()[at - 1 : at + 1]
    assert export[:2] == ["winnow", "export"] and export[export.index("--out") + 1] == check[2]
    run(folder, export[1:])
    said = run(folder, [str(python) if word.startswith("~") else word for word in check[1:]])
    assert re.search(r" runs the hybrid, and writes the same 32 tokens \(", said), said
