"""A snapshot of the hub's cache, whose files are links to blobs, as a plain folder."""

import contextlib
import json
import os
import pathlib
import shutil

from winnow.common.errors import ExitCode, Failure
from winnow.importing.checkpoint_files import INDEX

WEIGHTS = "model.safetensors"
# Weights in other formats, which nothing here reads; they can be as large as all the rest.
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot", ".gguf", ".ckpt", ".tflite")


def find_snapshot(path: pathlib.Path) -> pathlib.Path:
    """The folder with config.json: the path itself, or the snapshot that refs/main of a model's folder in the cache
    names. Failure where there is none."""
    if (path / "config.json").exists():
        return path
    reference = path / "refs" / "main"
    if (path / "snapshots").is_dir():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            snapshot = path / "snapshots" / reference.read_text(encoding="ascii").strip()
            if (snapshot / "config.json").exists():
                return snapshot
        raise Failure(
            ExitCode.NO_INPUT,
            f"{path}: refs/main names no snapshot with config.json; name one, {path}/snapshots/REVISION",
        )
    ggufs = sorted(each.name for each in path.glob("*.gguf"))
    hint = f"; name one of its GGUF files, such as {path / ggufs[0]}" if ggufs else ""
    if (path / "config.json").is_symlink():
        hint = ": its link leads nowhere; download the model again"
    raise Failure(ExitCode.NO_INPUT, f"{path}: there is no config.json{hint}")


def files_of(snapshot: pathlib.Path) -> list[pathlib.Path]:
    """The files to be taken over, in order. Failure where one is missing, or the weights are cut short."""
    names = sorted(
        each.name
        for each in snapshot.iterdir()
        if not each.is_dir() and not each.name.endswith(_OTHER_WEIGHTS) and not each.name.startswith(".")
    )
    for name in [*names, *_weight_files(snapshot)]:
        path = snapshot / name
        if not path.exists():
            what = "its link leads nowhere" if path.is_symlink() else "is not there"
            raise Failure(ExitCode.NO_INPUT, f"{path}: {what}: the download is not complete; repeat it")
        if not path.is_file():
            raise Failure(ExitCode.BAD_DATA, f"{path}: is not a regular file")
        if name.endswith(".safetensors"):
            _check_safetensors(path)
    return [snapshot / name for name in names]


def _weight_files(snapshot: pathlib.Path) -> list[str]:
    index = snapshot / INDEX
    if not index.exists():
        return [WEIGHTS]
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(ExitCode.BAD_DATA, f"{index}: is no index of weights: {error}") from error
    for name in named:
        if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
            raise Failure(ExitCode.BAD_DATA, f"{index}: weight_map names {name!r}, which is no file beside it")
    return sorted(named)


def _check_safetensors(path: pathlib.Path) -> None:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np"):
            pass
    except Exception as error:  # the package's own kind, OSError
        raise Failure(
            ExitCode.BAD_DATA, f"{path}: is no whole safetensors file: {' '.join(str(error).split())[:200]}"
        ) from error


def take_over(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Makes `target` the file that `source` leads to: weights as a second name of the same bytes where the file system
    can, all else as a copy. Returns whether it is a second name; raises OSError."""
    if source.suffix == ".safetensors":
        with contextlib.suppress(OSError):
            os.link(source.resolve(), target)
            return True
    shutil.copyfile(source, target)
    return False
