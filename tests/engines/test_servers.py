"""serve.sh and convert.sh of llama.cpp's exports, started as they stand. Other engines' serve.sh: test_readme.py."""

import shutil
import subprocess

import launch
import pytest
import servers
from test_engines import GOLDEN, REAL_WINDOW, WINDOW, export, python_of, serve_check

from winnow.serving import gguf_export


def test_llama_server_answers_with_the_hybrid(tmp_path):
    python_of("llamacpp")
    folder = export(tmp_path, GOLDEN / "qwen3", "llamacpp")
    gguf_export.write_gguf(folder, folder / "model.gguf")
    with servers.served("llamacpp", folder / "serve.sh", tmp_path / "server.log") as port:
        servers.assert_writes_the_hybrid("llamacpp", port, folder, tmp_path)


@pytest.mark.parametrize("name, window", [("qwen3", WINDOW), ("smollm2-135m", REAL_WINDOW)])
def test_what_llama_cpp_s_converter_makes_is_served(name, window, smollm2, tmp_path):
    """A Qwen3 as Mellum, SmolLM2 as Granite SWA; the GGUF is the one that serve-check is asked about, too."""
    python_of("llamacpp")
    checkout = servers.llama_cpp_of()
    model = smollm2
    if name == "qwen3":
        model = tmp_path / "model"
        servers.write_real_checkpoint(model, smollm2)
    folder = export(tmp_path, model, "llamacpp", window)
    variables = servers.environment("llamacpp") | {"LLAMA_CPP": str(checkout)}
    words = [folder / "convert.sh", "--outtype", "f32"]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=launch.TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    file = folder / "model.gguf"
    code, record = serve_check(folder, "llamacpp", f"{name}-converted", 0, "--gguf", file)
    assert code == 0 and record["verdict"] == "hybrid"
    with servers.served("llamacpp", folder / "serve.sh", tmp_path / "server.log") as port:
        servers.assert_writes_the_hybrid("llamacpp", port, folder, tmp_path)
    shutil.rmtree(folder)
