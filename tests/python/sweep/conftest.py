"""Models and data for sweeps on one machine."""

import pytest
import tiny
from sweep_folder import LENGTHS, SLOW_LENGTHS, Folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two models and two data sets that take a moment, and a model that takes a second."""
    directory = tmp_path_factory.mktemp("sweep")
    tiny.write_checkpoint(directory / "models" / "a", layers=3, seed=1)
    tiny.write_checkpoint(directory / "models" / "b", layers=2, seed=2)
    tiny.write_checkpoint(
        directory / "models" / "slow", layers=6, hidden=128, heads=8, kv_heads=4, head_dim=16, ffn=384
    )
    (directory / "data").mkdir()
    for model in ("a", "b"):
        tiny.write_calibration(directory / "data" / f"{model}-long.h5", LENGTHS, seed=3)
        tiny.write_calibration(directory / "data" / f"{model}-code.h5", LENGTHS[:4], seed=4, prefix="code")
        tiny.write_calibration(directory / "data" / f"{model}-short.h5", [80, 90], seed=5)
    tiny.write_calibration(directory / "data" / "slow-long.h5", SLOW_LENGTHS)
    tiny.write_calibration(directory / "data" / "slow-many.h5", SLOW_LENGTHS * 3)
    return directory


@pytest.fixture
def folder(tmp_path, inputs):
    return Folder(tmp_path / "sweep", inputs)
