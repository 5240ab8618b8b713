"""The program: what the source is, the new folder, the summary."""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from winnow import __version__
from winnow.common import streams
from winnow.common.errors import ExitCode, Failure
from winnow.common.folder import NewFolder, check_new_folder
from winnow.common.program import Parser, Program, say
from winnow.common.text import clean, json_for_terminal, one_line
from winnow.importing import snapshot

DESCRIPTION = """A checkpoint in another shape to a folder as Hugging Face stores it, which calibrate, prepare and
inspect read: a GGUF file becomes config.json, weights in bfloat16, tokenizer and chat template; a snapshot of the hub's
cache a folder without links."""

EPILOG = """Of a GGUF in several parts, name any. Quantised weights become the nearest bfloat16 of the figures that
llama.cpp computes with. What config.json could not say is refused: an architecture, a kind of RoPE scaling, metadata or
a tensor that is not known here. Weights of a snapshot are not copied where the file system can give them a second name.

Exit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 Python packages missing, 71 out of memory, 73 cannot
create output, 74 I/O error, 75 interrupted (nothing was written).

Example:
  winnow import SmolLM2-135M-Instruct.Q4_1.gguf --out smollm2
  winnow import ~/.cache/huggingface/hub/models--Qwen--Qwen3-4B --out Qwen3-4B
"""
PROGRAM = Program(
    name="winnow-import",
    prefix="winnow: import: ",
    interrupted=(ExitCode.INTERRUPTED, "interrupted, nothing was written; the same command begins anew"),
    out_of_memory="free some memory and repeat the command",
)
SECONDS_BETWEEN = 0.5  # lines of progress on a terminal


def parser() -> argparse.ArgumentParser:
    flags = Parser(say=say, prog="winnow import", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    flags.add_argument(
        "source",
        metavar="SOURCE",
        type=pathlib.Path,
        help="GGUF file; or snapshot of the hub's cache, or a model's folder there, of which refs/main is taken",
    )
    flags.add_argument(
        "--out",
        metavar="DIR",
        type=pathlib.Path,
        required=True,
        help="new folder of the checkpoint; must not be there, or be empty",
    )
    flags.add_argument("--json", action="store_true", help="summary as JSON")
    flags.add_argument("--version", action="version", version=f"winnow-import {__version__}")
    return flags


class _Progress:
    """A line on a terminal: how much of the weights is written."""

    def __init__(self, total_bytes: int) -> None:
        self._total, self._written, self._next = total_bytes, 0, 0.0
        self._is_shown = sys.stderr.isatty()

    def add(self, n_bytes: int) -> None:
        self._written += n_bytes
        if self._is_shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN
            streams.note(f"\r{self._written / 1e9:.2f} of {self._total / 1e9:.2f} GB written", end="")

    def end(self) -> None:
        if self._is_shown:
            streams.note("\r\033[K", end="")


def _import_gguf(source: pathlib.Path, out: pathlib.Path) -> dict[str, Any]:
    from winnow.importing import checkpoint_files, config, tokenizer, weights
    from winnow.importing.gguf_file import GgufFile

    file = GgufFile(source)
    check_new_folder(out, file.paths, flag="--out")
    architecture = config.find_architecture(file)
    model = config.model_config(file, architecture)
    tensors = weights.plan(file, architecture, model)
    with NewFolder(out) as folder:
        names = ["config.json", "generation_config.json"]
        names += tokenizer.write_tokenizer(file, folder.path, model["vocab_size"], model["max_position_embeddings"])
        checkpoint_files.write_json(folder.path / "config.json", model)
        checkpoint_files.write_json(folder.path / "generation_config.json", config.generation_config(file))
        progress = _Progress(sum(tensor.size_bytes for tensor in tensors))
        names += checkpoint_files.write_weights(folder.path, tensors, progress.add)
        progress.end()
        folder.keep()
    types = sorted({tensor.tensor_type.name for tensor in file.tensors.values()})
    return {
        "source": str(source),
        "kind": "gguf",
        "model_type": model["model_type"],
        "layers": model["num_hidden_layers"],
        "tensors": len(tensors),
        "weight_bytes": sum(tensor.size_bytes for tensor in tensors),
        "tensor_types": types,
        "has_chat_template": file.field("tokenizer.chat_template") is not None,
        "out": str(out),
        "files": sorted(names),
    }


def _import_snapshot(source: pathlib.Path, out: pathlib.Path) -> dict[str, Any]:
    source = snapshot.find_snapshot(source)
    files = snapshot.files_of(source)
    check_new_folder(out, files, [source], flag="--out")
    n_shared = 0
    with NewFolder(out) as folder:
        for file in files:
            n_shared += snapshot.take_over(file, folder.path / file.name)
        folder.keep()
    return {
        "source": str(source),
        "kind": "snapshot",
        "weight_files_shared": n_shared,
        "out": str(out),
        "files": [file.name for file in files],
    }


def _as_text(report: dict[str, Any]) -> str:
    if report["kind"] == "gguf":
        lines = [
            f"{report['source']}: {report['model_type']}, {report['layers']} layers, tensors of type "
            f"{', '.join(report['tensor_types'])}",
            f"{report['out']}: {report['tensors']} tensors in bfloat16, {report['weight_bytes'] / 1e9:.2f} GB",
        ]
        if not report["has_chat_template"]:
            lines.append("It has no chat template: winnow prepare needs --template FILE or --raw.")
    else:
        lines = [f"{report['out']}: {len(report['files'])} files of {report['source']}"]
        if report["weight_files_shared"]:
            lines.append(f"{report['weight_files_shared']} files of weights share their bytes with the cache.")
    return "\n".join([*map(one_line, lines), "Written: " + one_line(", ".join(report["files"]))])


def _run(arguments: Sequence[str] | None) -> None:
    flags = parser().parse_args(arguments)
    try:
        report = (_import_snapshot if flags.source.is_dir() else _import_gguf)(flags.source, flags.out)
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"{flags.out}: cannot be written: {error.strerror or error}") from error
    text = json_for_terminal(json.dumps(report, ensure_ascii=False)) if flags.json else clean(_as_text(report))
    try:
        streams.say(text)
    except OSError as error:
        raise Failure(
            ExitCode.IO_ERROR, f"{flags.out}: written, but not the summary on standard output: {error.strerror}"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return PROGRAM.run_for_winnow(lambda: _run(arguments))
