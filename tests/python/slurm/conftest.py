"""A private Slurm (slurm_cluster.py) with models and data, for the tests of one file."""

import os

import launch
import pytest
import slurm_cluster
import tiny
from slurm_sweeps import LAYERS, LENGTHS, MODELS

# A folder that no shell may see unquoted.
AWKWARD = 'night\'s "run" $(touch x) #1; é'


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster.SlurmCluster() as started:
        yield started


@pytest.fixture(autouse=True)
def quiet_afterwards(cluster):
    """A test that failed leaves nothing to the next one."""
    yield
    if cluster.queue():
        cluster.command("scancel", f"--user={os.getuid()}", check=False)
        cluster.wait_for(lambda: not cluster.queue(), "the queue does not empty")


@pytest.fixture(scope="module")
def work(tmp_path_factory, cluster):
    """Models and data; cells take a second or more, so that there is a middle to stop in."""
    directory = tmp_path_factory.mktemp("slurm") / AWKWARD
    for seed, (name, width) in enumerate(zip(MODELS, (96, 128), strict=True)):
        tiny.write_checkpoint(
            directory / name, layers=LAYERS, hidden=width, heads=8, kv_heads=4, head_dim=16, ffn=2 * width, seed=seed
        )
    tiny.write_checkpoint(directory / "corrupt", layers=LAYERS)
    weights = directory / "corrupt" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "code.h5", LENGTHS[::-1], seed=3, prefix="code")
    cluster.environment |= {
        "XDG_CACHE_HOME": str(directory / "cache"),
        "XDG_CONFIG_HOME": str(directory / "none"),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return directory


@pytest.fixture(scope="module")
def direct(work, cluster):
    """{(model, dataset, window): results.h5} of runs without Slurm, made when they are first asked for."""
    made = {}

    def result(model, dataset, window):
        out = work / "direct" / f"{model}-{dataset}-{window}"
        if out not in made:
            made[out] = launch.run(
                [
                    "calibrate",
                    "--model",
                    work / model,
                    "--data",
                    work / f"{dataset}.h5",
                    "--out",
                    out,
                    "--window",
                    window,
                    "--device",
                    "cpu",
                ],
                work / "cache",
            )
            assert made[out].returncode == 0, made[out].stderr
        return out / "results.h5"

    return result
