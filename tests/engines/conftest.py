"""What several files of tests start from."""

import shutil
import sys

import launch
import pytest

sys.path.insert(0, str(launch.REPOSITORY / "tests/real"))
import fetch  # noqa: E402


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """SmolLM2-135M, a Llama of 30 layers."""
    try:
        gguf = fetch.fetch("smollm2-135m")
    except fetch.Unavailable as error:
        pytest.skip(f"no checkpoint: {error}")
    folder = tmp_path_factory.mktemp("smollm2")
    done = launch.run(["import", gguf, "--out", folder / "model"], folder)
    assert done.returncode == 0, done.stderr
    yield folder / "model"
    shutil.rmtree(folder)
