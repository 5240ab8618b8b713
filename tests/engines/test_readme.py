"""The path from a ranking to each engine, as README.md has it, up to an answer of the server that it starts."""

import functools
import re
import subprocess

import launch
import pytest
import servers
import tiny
from test_engines import PYTHONS, SECONDS, python_of

README = (launch.REPOSITORY / "README.md").read_text()
N_TOKENS = 200


def lines():
    """Of the first block of the section: each its commands."""
    block = README.partition("\n## From a ranking to a served model\n")[2].split("```")[1]
    found = [line.split("#")[0].strip() for line in block.splitlines()]
    return [line.split(" && ") for line in found if line]


def path_of(engine):
    """The commands after the ranking: the export, its check, and what starts the server."""
    at = next(i for i, commands in enumerate(lines()) if f"~/{engine}/bin/python" in commands[0])
    return [*lines()[at - 1], *lines()[at]]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, request):
    """{whether llama.cpp's converter is to know the tokenizer: folder}: it has a run, and its ranking."""

    @functools.cache
    def make(is_converted):
        folder = tmp_path_factory.mktemp("readme")
        words = [servers.word(token) for token in range(N_TOKENS)]
        if is_converted:
            n_tokens = servers.write_real_checkpoint(folder / "model", request.getfixturevalue("smollm2"))
        else:
            n_tokens = len(words)
            tiny.write_checkpoint(folder / "model", 12, hidden=64, head_dim=32, vocab=n_tokens)
            servers.write_tokenizer(folder / "model", words)
        tiny.write_calibration(folder / "data.h5", [96, 80], vocab=n_tokens)
        (folder / "home").mkdir()
        for engine, python in PYTHONS.items():
            (folder / "home" / engine).symlink_to(python.parents[1])
        flags = "--data data.h5 --window 40 --target hf --device cpu --threads 1"
        run(folder, f"winnow calibrate --model model {flags} --out run")
        run(folder, *lines()[0])
        return folder

    return make


def run(folder, command, *before):
    """What it prints. before: folders that come first on PATH."""
    environment = launch.environment(folder / "cache") | {"HOME": str(folder / "home")}
    environment["PATH"] = ":".join(map(str, [*before, launch.BUILD, environment["PATH"]]))
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("engine", ["transformers", "llamacpp", "mlx", "vllm", "sglang"])
def test_a_path_from_a_ranking_to_an_engine(engine, folder_of, tmp_path):
    python = python_of(engine)
    is_converted = engine == "llamacpp"
    checkout = servers.llama_cpp_of() if is_converted else None
    folder = folder_of(is_converted)
    if checkout:
        (folder / "home/llama.cpp").symlink_to(checkout)
    export, check, *start = path_of(engine)
    assert export.split()[:2] == ["winnow", "export"]
    run(folder, export)
    assert re.search(r" runs the hybrid, and writes the same 32 tokens \(", run(folder, check))
    if not start:
        return  # Transformers is no server
    *convert, serve = start
    for command in convert:
        run(folder, f"{command} --outtype f32", python.parent)
    script = folder / serve
    with servers.served(engine, script, tmp_path / "server.log") as port:
        servers.assert_writes_the_hybrid(engine, port, script.parent, tmp_path)
