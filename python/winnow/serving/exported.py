"""What an export asks of an engine: winnow-export.json, and the config.json of the checkpoint that was measured."""

import json
import pathlib
import re
from dataclasses import dataclass
from typing import Any

from winnow.common.errors import ExitCode, Failure

RECORD = "winnow-export.json"
OVERRIDES = "hf_overrides.json"
CONFIG = "config.json"


@dataclass(frozen=True)
class Export:
    """folder: of the export. source: the checkpoint that was measured; source_config: its config.json. windows:
    (n_layers) keys, None where the layer is full. selected: keys of the layers that the selection windowed, rising; of
    a plan more than one. engine and route: as winnow export names them, "" in older exports. overrides: fields that
    the engine is given on top of config.json. model_impl: vLLM's, "" by default. checkpoint_sha256: of the source, as
    recorded."""

    folder: pathlib.Path
    source: pathlib.Path
    source_config: dict[str, Any]
    target: str
    windows: tuple[int | None, ...]
    selected: tuple[int, ...]
    engine: str
    route: str
    overrides: dict[str, Any]
    model_impl: str
    checkpoint_sha256: str

    @property
    def served(self) -> pathlib.Path:
        """The checkpoint that the engine loads."""
        return self.folder if (self.folder / CONFIG).is_file() else self.source

    @property
    def window_keys(self) -> int | None:
        """The narrowest of the selected windows, None where there is none."""
        return self.selected[0] if self.selected else None

    @property
    def own_windows(self) -> list[int | None]:
        """(n_layers) keys of the layers that are windowed as the measured checkpoint has it, else None."""
        return [None if keys in self.selected else keys for keys in self.windows]

    @property
    def full_layers(self) -> list[int]:
        return [layer for layer, keys in enumerate(self.windows) if keys is None]

    @property
    def widest_window(self) -> int:
        return max((keys for keys in self.windows if keys is not None), default=1)


def read_export(folder: pathlib.Path, model: pathlib.Path | None) -> Export:
    """model: the checkpoint in place of the one that the record names. Failure where a file is not there or is not
    what it should be."""
    record = _read_json(folder / RECORD, "give the folder that winnow export wrote")
    if record.get("format") != "winnow-export" or record.get("format_version") != 1:
        raise Failure(ExitCode.BAD_DATA, f"{folder / RECORD}: is no record of winnow export of version 1")
    windows = record.get("windows")
    if (
        not isinstance(windows, list)
        or not windows
        or not all(keys is None or (type(keys) is int and keys > 0) for keys in windows)
    ):
        raise Failure(
            ExitCode.BAD_DATA, f"{folder / RECORD}: windows: expected a number of keys or null for each layer"
        )
    source = (model or pathlib.Path(str(record.get("source") or record.get("model") or ""))).absolute()
    config = _read_json(source / CONFIG, "give the checkpoint that was measured with --model DIR")
    if config.get("num_hidden_layers") != len(windows):
        raise Failure(
            ExitCode.BAD_DATA,
            f"{source / CONFIG}: num_hidden_layers is {config.get('num_hidden_layers')}, but the export has "
            f"{len(windows)} layers; give the checkpoint that was measured with --model DIR",
        )
    if "kv" in record:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{folder / RECORD}: kv: its keys and values are rounded, and only what an engine computes as it is can be "
            "checked: export the same windows without types",
        )
    selected, sha256 = _selected_windows(windows, config), str(record.get("checkpoint_sha256") or "")
    if len(selected) > 1 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise Failure(
            ExitCode.BAD_DATA,
            f"{folder / RECORD}: windows of {', '.join(map(str, selected))} keys are measured as a plan's, which needs "
            "checkpoint_sha256; export the plan again",
        )
    route = str(record.get("route") or "")
    overrides = folder / OVERRIDES
    if not (folder / CONFIG).is_file() and not overrides.is_file():
        raise Failure(
            ExitCode.BAD_DATA,
            f"{folder}: has neither {CONFIG} nor {OVERRIDES}: an export with --target {record.get('target')} cannot be "
            "checked; export with --target hf, vllm, sglang, llamacpp or mlx",
        )
    return Export(
        folder=folder.absolute(),
        source=source,
        source_config=config,
        target=str(record.get("target")),
        windows=tuple(windows),
        selected=selected,
        engine=str(record.get("engine") or ""),
        route=route,
        overrides=_read_json(overrides, "") if overrides.is_file() else {},
        model_impl=_model_impl(folder, route),
        checkpoint_sha256=sha256,
    )


def own_windows(n_layers: int, config: dict[str, Any]) -> list[int | None]:
    """(n_layers) keys of the layers that the measured checkpoint windows by itself, else None."""
    types = config.get("layer_types")
    if not isinstance(types, list) or len(types) != n_layers or config.get("use_sliding_window") is False:
        return [None] * n_layers
    return [config.get("sliding_window") if kind == "sliding_attention" else None for kind in types]


def _selected_windows(windows: list[int | None], config: dict[str, Any]) -> tuple[int, ...]:
    """Of the layers that have none by themselves."""
    own = own_windows(len(windows), config)
    sizes = {keys for keys, own_keys in zip(windows, own, strict=True) if keys is not None and keys != own_keys}
    if len(sizes) > 1:
        sizes.discard(config.get("sliding_window"))
    return tuple(sorted(sizes))


def _model_impl(folder: pathlib.Path, route: str) -> str:
    """What vLLM or SGLang are started with."""
    if route in ("transformers", "plugin"):
        return "transformers" if route == "transformers" else "vllm"
    script = folder / "serve.sh"
    found = re.search(r"--model-impl[ =](\w+)", script.read_text("utf-8", "replace")) if script.is_file() else None
    return found[1] if found else ""


def _read_json(path: pathlib.Path, advice: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: not there; {advice}".rstrip("; ")) from error
    except OSError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Failure(ExitCode.BAD_DATA, f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Failure(ExitCode.BAD_DATA, f"{path}: expected a JSON object")
    return content
