"""The memory for keys and values that an export says an engine will take, beside what the engine itself says."""

import json
import os
import re
import shutil
import subprocess

import launch
import pytest
from test_engines import GOLDEN, SECONDS, export, python_of

from winnow.serving import gguf_export

N_TOKENS = 40960
TOKEN_BYTES = 2 * 2 * 32 * 2  # keys and values of 2 heads of 32 in half precision, of a layer
REPORT = launch.REPOSITORY / "tests/engines/kv_report.py"


@pytest.fixture
def checkpoint(tmp_path):
    """The Qwen3 of 4 layers, 2 of which are windowed, with room for long sequences."""
    model = shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": N_TOKENS}))
    return model


def report(engine, model, n_sequences, overrides=None, ratio=0.0):
    """(what it printed last, its log)."""
    words = [python_of(engine), "-I", REPORT, engine, model, N_TOKENS, n_sequences, json.dumps(overrides or {}), ratio]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def said(folder, n_sequences):
    """What the export says, in bytes."""
    kv = json.loads((folder / "winnow-export.json").read_text())["kv_cache"]
    assert (kv["max_seq_len"], kv["concurrency"]) == (N_TOKENS, n_sequences)
    assert kv["ideal_bytes"] < kv["engine_bytes"] < kv["full_attention_bytes"]
    return kv["engine_bytes"]


def flags(n_sequences):
    return ["--max-seq-len", N_TOKENS, "--concurrency", n_sequences]


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_llamacpp_allocates_what_is_said(checkpoint, n_sequences, tmp_path):
    python_of("llamacpp")
    folder = export(tmp_path, checkpoint, "llamacpp", flags=flags(n_sequences))
    served = (folder / "serve.sh").read_text()
    assert f" --parallel {n_sequences} --ctx-size {N_TOKENS * n_sequences} " in served
    gguf_export.write_gguf(folder, tmp_path / "model.gguf")
    _, log = report("llamacpp", tmp_path / "model.gguf", n_sequences)
    pools = re.findall(r"\( *(\d+) cells, +(\d+) layers, +(\d+)/\d+ seqs\), K \(f16\)", log)
    assert len(pools) == 2, log
    assert sum(int(cells) * int(layers) * int(each) for cells, layers, each in pools) * TOKEN_BYTES == said(
        folder, n_sequences
    )


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_vllm_reckons_what_is_said(checkpoint, n_sequences, tmp_path):
    python_of("vllm")
    folder = export(tmp_path, checkpoint, "vllm", flags=flags(n_sequences))
    overrides = json.loads((folder / "hf_overrides.json").read_text())
    found, _ = report("vllm", checkpoint, n_sequences, overrides)
    assert found["bytes"] == said(folder, n_sequences)


def test_sglang_splits_its_pool_as_is_said(checkpoint, tmp_path):
    python_of("sglang")
    folder = export(tmp_path, checkpoint, "sglang", flags=flags(2))
    ratio = float(re.search(r"--swa-full-tokens-ratio (\S+)", (folder / "serve.sh").read_text())[1])
    _, log = report("sglang", folder, 2, ratio=ratio)
    swa, full = map(int, re.search(r"swa size: (\d+), full size: (\d+)", log).groups())
    assert full == 2 * N_TOKENS
    # The ratio of its pool is of whole tokens.
    assert 2 * (swa + full) * TOKEN_BYTES == pytest.approx(said(folder, 2), rel=1e-4)
