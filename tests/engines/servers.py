"""An export's serve.sh, started as it stands, and what it answers over HTTP."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import launch
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file
from test_engines import N_NEW, PYTHONS, SECONDS

from winnow.serving.engines import ENGINES
from winnow.serving.expected import Winnow
from winnow.serving.exported import read_export
from winnow.serving.probe import Probe, make_probe
from winnow.serving.verdict import Ran, judge

HOST = "127.0.0.1"
NORM = "model.norm.weight"
STANDS_IN = launch.REPOSITORY / "tests/engines/llama_server"
# Further flags of each engine: one sequence in float32 on the CPU, nothing that only a GPU has.
FLAGS = {
    "vllm": "--dtype float32 --enforce-eager --max-num-seqs 1 --max-model-len 512",
    "sglang": "--device cpu --dtype float32 --attention-backend torch_native --sampling-backend pytorch "
    "--disable-cuda-graph --disable-overlap-schedule --max-running-requests 1 --max-total-tokens 1024",
    "llamacpp": "--cache-type-k f32 --cache-type-v f32 --flash-attn off --threads 1 --no-warmup",
    "mlx": "",
}
VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


def environment(engine):
    """The engine's programs come first on PATH: of llama.cpp those of the folder LLAMA_SERVER, else the stand-in."""
    folders = [PYTHONS[engine].parent]
    if engine == "llamacpp":
        folders.insert(0, os.environ.get("LLAMA_SERVER") or STANDS_IN)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | VARIABLES
    return variables | {"PATH": ":".join(map(str, [*folders, os.environ["PATH"]]))}


def free_port():
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


def request(port, path, body=None):
    """What the server answers: JSON to a body, else text."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://{HOST}:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
        text = answer.read()
    return text if body is None else json.loads(text)


def is_ready(port):
    try:
        request(port, "/health")
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False
    return True


@contextlib.contextmanager
def served(engine, script, log):
    """The port at which script answers; it and all that it started have ended afterwards."""
    port = free_port()
    words = [script, *FLAGS[engine].split(), "--host", HOST, "--port", port]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [str(word) for word in words],
            env=environment(engine),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not is_ready(port):
                said = log.read_text(errors="replace")[-4000:]
                assert process.poll() is None, f"{script} ended with {process.returncode}:\n{said}"
                assert time.monotonic() < deadline, f"{script} is not ready in {SECONDS} seconds:\n{said}"
                time.sleep(0.5)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def written(engine, port, tokens, n_new):
    """(token ids, their NLL in nats or None) that the server writes greedily after tokens."""
    return _WRITTEN[engine](port, tokens, n_new)


def _by_vllm(port, tokens, n_new):
    model = json.loads(request(port, "/v1/models"))["data"][0]["id"]
    body = {"model": model, "prompt": tokens, "max_tokens": n_new, "temperature": 0, "ignore_eos": True}
    choice = request(port, "/v1/completions", body | {"logprobs": 0, "return_token_ids": True})["choices"][0]
    return choice["token_ids"], [-each for each in choice["logprobs"]["token_logprobs"]]


def _by_sglang(port, tokens, n_new):
    wanted = {"temperature": 0, "max_new_tokens": n_new, "ignore_eos": True}
    answer = request(port, "/generate", {"input_ids": tokens, "sampling_params": wanted, "return_logprob": True})
    rows = answer["meta_info"]["output_token_logprobs"]
    return [row[1] for row in rows], [-row[0] for row in rows]


def _by_llamacpp(port, tokens, n_new):
    """It has no log-probabilities of tokens whose text ends within a character."""
    body = {"prompt": tokens, "n_predict": n_new, "temperature": 0.0, "samplers": ["temperature"], "n_probs": 1}
    answer = request(port, "/completion", body | {"ignore_eos": True, "return_tokens": True})
    rows = answer["completion_probabilities"]
    is_whole = [row["id"] for row in rows] == answer["tokens"]
    return answer["tokens"], [-row["logprob"] for row in rows] if is_whole else None


def _by_mlx(port, tokens, n_new):
    """It takes prompts as text: the words of write_tokenizer."""
    body = {"prompt": " ".join(map(word, tokens)), "max_tokens": n_new, "temperature": 0.0, "logprobs": True}
    rows = request(port, "/v1/completions", body)["choices"][0]["logprobs"]["content"]
    return [row["id"] for row in rows], [-row["logprob"] for row in rows]


_WRITTEN = {"vllm": _by_vllm, "sglang": _by_sglang, "llamacpp": _by_llamacpp, "mlx": _by_mlx}


def assert_writes_the_hybrid(engine, port, folder, scratch):
    """The server writes what winnow writes with the export's windows, and winnow alone with these; its
    log-probabilities of these tokens are the hybrid's alone, too."""
    export = read_export(folder, None)
    n_tokens, keys = export.source_config["vocab_size"], export.window_keys
    probe = make_probe(n_tokens, keys, keys, 2**31, None)
    text, nll = written(engine, port, probe.tokens, N_NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINNOW_BIN", str(launch.BUILD))
        winnow = Winnow(export, pathlib.Path(scratch), 1)
        assert text == winnow.text(probe, N_NEW)
        expected = winnow.token_nlls(Probe([*probe.tokens, *text], len(probe.tokens), 0))
    found = expected[Ran.HYBRID] if nll is None else np.array(nll)
    verdict = judge(found, expected, 0, ENGINES[engine].tolerance)
    print(f"{engine}: {verdict.past}")
    assert verdict.ran is Ran.HYBRID, verdict


def llama_cpp_of():
    """The checkout of llama.cpp that LLAMA_CPP names, or what jobs/setup.sh has of one."""
    named = os.environ.get("LLAMA_CPP")
    folder = pathlib.Path(named) if named else PYTHONS["llamacpp"].parents[1] / "llama.cpp"
    if not (folder / "convert_hf_to_gguf.py").is_file():
        pytest.skip(f"no converter in {folder}: name a checkout of llama.cpp in LLAMA_CPP")
    python = PYTHONS["llamacpp"]
    if subprocess.run([python, "-c", "import sentencepiece, torch, transformers"], capture_output=True).returncode:
        pytest.skip(f"{python} lacks what the converter needs: make test-engines makes it")
    return folder


def word(token):
    """The text of a token where a model has the tokenizer of write_tokenizer."""
    return f"t{token}"


def write_tokenizer(folder, words):
    tiny.write_tokenizer(folder, words)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def write_real_checkpoint(folder, real):
    """A small random Qwen3 with the tokenizer of a real checkpoint, which llama.cpp's converter must know; returns its
    number of tokens."""
    n_tokens = json.loads((real / "config.json").read_text())["vocab_size"]
    tiny.write_checkpoint(folder, layers=12, hidden=64, head_dim=32, vocab=n_tokens)
    # llama.cpp has probabilities in float32, where those of NLLs beyond some 87 nats are 0.
    tensors = load_file(folder / "model.safetensors")
    tiny.write_safetensors(folder / "model.safetensors", tensors | {NORM: tensors[NORM] / 4})
    for file in real.glob("tokenizer*"):
        shutil.copy(file, folder)
    return n_tokens
