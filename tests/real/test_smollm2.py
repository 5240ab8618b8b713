"""A real checkpoint from its GGUF to an export, as a user would: SmolLM2-135M-Instruct, prompts of 2k to 4k tokens."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import h5py
import launch
import numpy as np
import pytest

REAL = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(REAL))
import fetch  # noqa: E402

try:
    GGUF = fetch.fetch("smollm2-135m")
except fetch.Unavailable as error:
    pytest.skip(f"no checkpoint: {error}", allow_module_level=True)

TORCH_PYTHON = launch.REPOSITORY / ".venv-torch/bin/python"
WINDOW = 512
LAYERS = 30
MOST_NEEDED = 18  # the layer, whatever the prompts: with longer ones too, and by a wide margin
EXACT_EXAMPLES, TAIL_EXAMPLES = 2, 8
TAIL_ROWS = 256
# nats per answer token, float32 on both sides. A logit is of size 40 at most and comes out of 61 sums of up to 1536
# products one after another. Errors of a sum are independent: sqrt(1536) eps = 2.3e-6 of it, those of the 61 sums
# together sqrt(61) times as much, 1.8e-5; times 40 that is 7e-4 nats of a token, less in a mean over many.
TOLERANCE = 7e-4
LONGEST_SECONDS = 3000


def winnow(folder, *arguments):
    done = subprocess.run(
        launch.command(arguments),
        env=launch.environment(folder / "cache"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With model/, calibration.h5 and control.h5."""
    folder = tmp_path_factory.mktemp("smollm2")
    winnow(folder, "import", GGUF, "--out", "model")
    sources = pathlib.Path(importlib.util.find_spec("transformers").origin).parents[1]
    words = [
        "--model",
        "model",
        "--out",
        "prompts",
        "--sources",
        sources,
        "--min-tokens",
        "2000",
        "--max-tokens",
        "4000",
    ]
    words += ["--count", str(TAIL_EXAMPLES), "--control-tokens", "600"]
    subprocess.run([sys.executable, REAL / "make_prompts.py", *words], cwd=folder, check=True)
    for name, source in (("calibration", "calibration"), ("control", "calibration-short")):
        limits = ["--min-prompt-tokens", "1", "--min-answer-tokens", "1", "--count", "all"]
        winnow(
            folder, "prepare", "--model", "model", "--input", f"prompts/{source}.jsonl", "--out", f"{name}.h5", *limits
        )
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """{name: run directory} of the exact and the tail sweep."""
    common = ["--model", "model", "--data", "calibration.h5", "--window", WINDOW, "--device", "cpu"]
    winnow(folder, "calibrate", *common, "--limit", EXACT_EXAMPLES, "--out", "exact")
    tail = ["--limit", TAIL_EXAMPLES, "--tail-rows", TAIL_ROWS, "--control", "short=control.h5"]
    winnow(folder, "calibrate", *common, *tail, "--out", "tail")
    return {name: folder / name for name in ("exact", "tail")}


def table(run, *names):
    with h5py.File(run / "results.h5") as file:
        return [file["calibration"][name][...] for name in names]


def test_prompts_are_of_the_lengths_asked_for_and_no_source_is_in_both_splits(folder):
    files = {}
    for split in ("calibration", "held-out"):
        rows = [json.loads(line) for line in (folder / f"prompts/{split}.jsonl").open()]
        assert len(rows) == TAIL_EXAMPLES and {row["source"] for row in rows} == {
            *("function", "docstring", "constants", "sentence", "class")
        }
        names = [line[4:] for row in rows for line in row["prompt"].splitlines() if line.startswith("### ")]
        files[split] = {name for name in names if name.endswith(".py")}
        assert len(files[split]) >= TAIL_EXAMPLES
    assert files["calibration"] & files["held-out"] == set()
    with h5py.File(folder / "calibration.h5") as file:
        prompts = file["answer_start"][...]
        assert len(prompts) == TAIL_EXAMPLES and prompts.min() > 2000 and prompts.max() < 4100
    with h5py.File(folder / "control.h5") as file:
        assert WINDOW < file["answer_start"][...].max() < 750


def test_the_model_answers_and_some_layers_need_the_whole_prompt(runs):
    for name, n_examples in (("exact", EXACT_EXAMPLES), ("tail", TAIL_EXAMPLES)):
        nll, delta, accuracy = table(runs[name], "nll_base", "delta_nll", "token_accuracy_base")
        assert delta.shape == (n_examples, LAYERS) and np.isfinite(delta).all()
        assert nll.mean() < 1.5 and accuracy.mean() > 0.6  # a model that is read wrongly guesses: ln(49152) = 10.8
        mean = delta.mean(axis=0)
        assert mean.max() > 0.1 and np.median(np.abs(mean)) < mean.max() / 5  # few layers matter, and much
        assert np.argmax(mean) == MOST_NEEDED


def test_the_tail_sweep_finds_the_layers_of_the_exact_one(runs):
    (exact,) = table(runs["exact"], "delta_nll")
    (tail,) = table(runs["tail"], "delta_nll")
    first, second = exact.mean(axis=0), tail[:EXACT_EXAMPLES].mean(axis=0)
    assert len(set(np.argsort(-first)[:5]) & set(np.argsort(-second)[:5])) >= 3
    assert np.argmax(first) in np.argsort(-second)[:3]


def test_selection_and_exports(folder, runs):
    winnow(folder, "select", runs["tail"], "--method", "nll", "--keep", 8, "--out", "selection.json")
    kept = json.loads((folder / "selection.json").read_text())["layers"]
    (delta,) = table(runs["tail"], "delta_nll")
    assert sorted(kept) == sorted(np.argsort(-delta.mean(axis=0), kind="stable")[:8].tolist())
    winnow(folder, "export", "selection.json", "--target", "hf", "--out", "export")
    config = json.loads((folder / "export/config.json").read_text())
    assert config["sliding_window"] is not None
    assert [i for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"] == sorted(kept)
    assert (folder / "export/tokenizer.json").exists() and (folder / "export/model.safetensors").exists()


@pytest.fixture(scope="module")
def transformers_nlls(folder, runs):
    needed = [TORCH_PYTHON, "-c", "import accelerate, gguf, torch"]
    if not TORCH_PYTHON.exists() or subprocess.run(needed, capture_output=True).returncode != 0:
        pytest.skip("there is no .venv-torch with torch and gguf: make test-torch makes it")
    (delta,) = table(runs["exact"], "delta_nll")
    worst = int(np.argmax(delta.mean(axis=0)))
    patterns = [[], [worst], [0]]
    words = [GGUF, "calibration.h5", str(WINDOW), json.dumps(patterns), "transformers.json"]
    subprocess.run([TORCH_PYTHON, REAL / "transformers_nlls.py", "model", *words], cwd=folder, check=True)
    return patterns, json.loads((folder / "transformers.json").read_text())


def test_weights_are_those_that_transformers_reads_from_the_gguf(transformers_nlls):
    assert transformers_nlls[1]["other_tensors"] == []


def test_nlls_are_those_of_transformers_in_float32(runs, transformers_nlls):
    patterns, found = transformers_nlls
    base, nll = table(runs["exact"], "nll_base", "nll")
    for pattern, expected in zip(patterns, found["nll"], strict=True):
        ours = nll[:, pattern[0]] if pattern else base
        assert np.abs(ours - expected).max() < TOLERANCE, (pattern, ours, expected)
