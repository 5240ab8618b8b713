"""The plugin for vLLM without vLLM: which windows it reads from config.json, and what it refuses."""

import importlib.util
from types import SimpleNamespace

import launch
import pytest

_spec = importlib.util.spec_from_file_location("winnow_vllm", launch.REPOSITORY / "python/winnow_vllm/winnow_vllm.py")
winnow_vllm = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(winnow_vllm)

FULL, SLIDING = "full_attention", "sliding_attention"


def config(**fields):
    return SimpleNamespace(num_hidden_layers=3, **fields)


@pytest.mark.parametrize(
    "fields, windows",
    [
        ({}, None),
        ({"sliding_window": 8}, None),
        ({"layer_types": [FULL, SLIDING, FULL], "sliding_window": 8}, [None, 8, None]),
        ({"layer_types": [FULL, FULL, FULL], "sliding_window": None}, [None, None, None]),
        ({"layer_windows": [8, 0, 16]}, [8, None, 16]),
        ({"layer_windows": [8, None, 16], "layer_types": [SLIDING] * 3, "sliding_window": 4}, [8, None, 16]),
    ],
)
def test_windows_of_a_configuration(fields, windows):
    assert winnow_vllm.layer_windows(config(**fields)) == windows


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"layer_windows": [8, 0]}, "each of 3 layers"),
        ({"layer_windows": 8}, "each of 3 layers"),
        ({"layer_windows": [8, -1, 0]}, "whole numbers"),
        ({"layer_windows": [8, True, 0]}, "whole numbers"),
        ({"layer_types": [FULL, SLIDING], "sliding_window": 8}, "each of 3 layers"),
        ({"layer_types": [FULL, "chunked_attention", FULL], "sliding_window": 8}, "chunked_attention"),
        ({"layer_types": [FULL, SLIDING, FULL], "sliding_window": None}, "sliding_window is None"),
        ({"layer_types": [FULL, SLIDING, FULL]}, "sliding_window is None"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        winnow_vllm.layer_windows(config(**fields))


def test_a_full_layer_beside_a_window_of_the_whole_model_is_refused():
    listed = config(layer_windows=[8, 0, 16])
    assert winnow_vllm.window_of(listed, 0, 4) == 8
    assert winnow_vllm.window_of(listed, 1, None) is None
    with pytest.raises(ValueError, match="layer 1 is full"):
        winnow_vllm.window_of(listed, 1, 4)
    assert winnow_vllm.window_of(config(), 1, 4) == 4


def test_releases_that_it_does_not_know_are_refused_by_name():
    for known in ("0.32.0", "0.33.0"):
        winnow_vllm.check_release(known)
    for unknown in ("0.31.0", "0.320.0", "1.0.0", "0.3"):
        with pytest.raises(RuntimeError, match=f"this is {unknown}".replace(".", r"\.")):
            winnow_vllm.check_release(unknown)
