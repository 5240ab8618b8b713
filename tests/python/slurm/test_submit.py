"""`winnow sweep submit` with a real Slurm: what it queues, what it prints, and what it refuses."""

import launch
import pytest
import slurm_cluster
from slurm_sweeps import Sweep

UNAVAILABLE = 69

slurm_cluster.skip_without()


def test_two_submits_at_once_queue_each_cell_once(work, cluster):
    sweep = Sweep(work, cluster, "twice", "sbatch: [--hold]", windows=list(range(40, 60)))
    both = [sweep.start("submit", "--executor", "slurm", "--site", sweep.site, "--max-parallel", "3") for _ in range(2)]
    said = [process.communicate(timeout=launch.TIMEOUT_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(cluster.queue()) == 20
    assert {cell["state"] for cell in sweep.states().values()} == {"queued"}
    assert (
        "ArrayTaskThrottle=3"
        in cluster.command("scontrol", "show", "job", next(iter(cluster.queue())).split("_")[0]).stdout
    )
    assert "20 queued or running, 0 to run" in sweep.submit().stderr
    assert "cancelled 20 cells" in sweep.call("cancel").stdout
    sweep.wait_until_idle()
    assert {cell["state"] for cell in sweep.states().values()} == {"waiting"}


def test_a_dry_run_prints_the_scripts(work, cluster):
    site = (
        '{partition: main, account: lab, qos: long, gpu_type: h100, modules: [openmpi/5, "a b"],'
        " setup: [\"export X='$Y'\"], sbatch: [--comment=two words], signal_seconds: 90}"
    )
    sweep = Sweep(
        work,
        cluster,
        "dry",
        site,
        defaults={
            "ranks_per_node": 2,
            "gpus_per_node": 2,
            "time": "02:00:00",
            "memory": "4G",
            "sbatch": ["--constraint=a&b"],
        },
    )
    done = sweep.submit("--dry-run", "--max-parallel", "1")
    assert done.returncode == 0, done.stderr
    assert not sweep.output.exists()
    lines = done.stdout.splitlines()
    for line in [
        "#SBATCH --array=0-1%1",
        "#SBATCH --signal=USR1@90",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gres=gpu:h100:2",
        "#SBATCH --time=02:00:00",
        "#SBATCH --mem=4G",
        "#SBATCH --partition=main",
        "#SBATCH --account=lab",
        "#SBATCH --qos=long",
        '#SBATCH "--comment=two words"',
        '#SBATCH "--constraint=a&b"',
        "module load 'openmpi/5'",
        "module load 'a b'",
        "export X='$Y'",
    ]:
        assert line in lines, line
    last = [line for line in lines if line][-1]
    assert last.startswith("exec '") and last.endswith('--task "$((0 + SLURM_ARRAY_TASK_ID))"')


@pytest.mark.parametrize(
    "site, words",
    [("partition: nowhere", "invalid partition specified"), ("sbatch: [--no-such-option]", "unrecognized option")],
)
def test_what_sbatch_refuses_is_said_in_its_words(work, cluster, site, words):
    sweep = Sweep(work, cluster, "refused", site)
    done = sweep.submit()
    assert done.returncode == UNAVAILABLE, done.stderr
    (message,) = launch.error_lines(done.stderr)[-1:]
    assert "sbatch refused" in message and words in message
    assert not list((sweep.output / "submissions").iterdir())
    assert {cell["state"] for cell in sweep.states().values()} == {"waiting"}


def test_without_sbatch(work, cluster, tmp_path):
    sweep = Sweep(work, cluster, "none")
    done = sweep.submit(PATH=str(tmp_path))
    assert done.returncode == UNAVAILABLE
    assert "sbatch" in done.stderr and "--executor local" in done.stderr


@pytest.mark.parametrize(
    "site, words",
    [
        ("partitoin: gpu", ["1:1", "partitoin", "partition"]),
        ("requeue: never", ["requeue", "successor"]),
        ("modules: gcc", ["modules"]),
        ("signal_seconds: soon", ["signal_seconds"]),
        ("a: [", ["site.yaml:"]),
    ],
)
def test_bad_site_settings_are_refused(work, cluster, site, words):
    sweep = Sweep(work, cluster, "badsite", site)
    done = sweep.submit()
    assert done.returncode == 64, done.stderr
    for word in words:
        assert word in done.stderr
    assert not sweep.output.exists()


def test_a_node_without_slurms_accounting(cluster):
    """The tests' Slurm has none: nothing may depend on sacct."""
    assert cluster.command("sacct", check=False).returncode != 0
