"""Sweeps on a real Slurm of two nodes (slurm_cluster.py): a night in which everything happens, and nothing is lost."""

import json
import os
import pathlib
import signal
import stat

import launch
import pytest
import slurm_cluster
import tiny
from slurm_sweeps import (
    LAYERS,
    LENGTHS,
    MODELS,
    WINDOWS,
    Sweep,
    assert_each_cell_once,
    assert_kept,
    attempts,
    freeze,
    freeze_all,
    is_waiting,
    job_of,
    snapshot,
    step_daemons,
)

UNAVAILABLE = 69
LIMIT_MINUTES = 2
SIGNAL_SECONDS = 70  # before that; Slurm looks at limits twice a minute, and USR1 comes up to 60 s early
RUNNING = ("RUNNING", "COMPLETING")
# A folder that no shell may see unquoted.
AWKWARD = 'night\'s "run" $(touch x) #1; é'

if slurm_cluster.missing_programs():
    REASON = (
        "no Slurm here: "
        + ", ".join(slurm_cluster.missing_programs())
        + " missing; jobs/setup.sh slurm installs Debian's"
    )
    if "CI" in os.environ:
        pytest.exit(REASON, returncode=1)
    pytest.skip(REASON, allow_module_level=True)


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


# ---- one night -------------------------------------------------------------------------------------------------------


def test_a_night(work, cluster, direct):
    """Cancelled, out of time, node lost, controller restart, corrupt: a second submit leaves that one alone missing."""
    limited, cancelled, victim = ("small", "long", 64), ("small", "code", 96), ("wide", "code", 96)
    sweep = Sweep(
        work,
        cluster,
        "night",
        f"signal_seconds: {SIGNAL_SECONDS}",
        models=[
            {"name": "small", "path": str(work / "small")},
            {"name": "wide", "path": str(work / "wide"), "nodes": 2, "ranks_per_node": 1},
            {"name": "corrupt", "path": str(work / "corrupt")},
        ],
        datasets=[{"name": name, "data": str(work / f"{name}.h5")} for name in ("long", "code")],
        overrides=[
            {
                "match": dict(zip(("model", "dataset", "window"), limited, strict=True)),
                "set": {"time": str(LIMIT_MINUTES)},
            },
            {"match": {"model": "corrupt"}, "set": {"sbatch": ["--nice=1"]}},
        ],
    )
    directories = {key: pathlib.Path(cell["run_directory"]) for key, cell in sweep.states().items()}
    assert len(directories) == 12
    done = sweep.submit()
    assert done.returncode == 0, done.stderr
    # small; small with a time limit; wide, over two nodes; corrupt: one call of sbatch each.
    assert done.stdout.count("job ") == 4 and len({job.split("_")[0] for job in cluster.queue()}) == 4, done.stdout

    stopped = [directories[key] for key in (limited, cancelled, victim)]
    frozen = freeze_all(cluster, stopped)
    kept = {key: snapshot(directories[key]) for key in (limited, cancelled, victim)}
    other_node = next(node for node in slurm_cluster.NODES if node != frozen[0][1])
    job = job_of(directories[cancelled])
    cluster.command("scancel", job)
    cluster.wait_for(lambda: job not in cluster.queue(), "scancel does not end it")
    cluster.stop_controller()
    cluster.start_controller()
    # Half of the victim's ranks are on the lost node, and whatever else runs there.
    steps = step_daemons(directories[key] for key in directories if key[0] == "wide")
    cluster.kill_node(other_node)
    cluster.wait_for(lambda: cluster.is_down(other_node), "nobody misses the node")
    # Slurm's PMIx names a socket by job and step: a job that is repeated cannot start beside the rest of its first run.
    cluster.wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in steps), "a step does not end")
    cluster.start_node(other_node)
    # Meanwhile time has run out for the one that stood still: Slurm wakes it with USR1.
    cluster.wait_for(lambda: attempts(directories[limited])[0]["exit_code"] == 75, "it is not told to stop")

    sweep.wait_until_idle()
    states = sweep.states()
    for key, cell in states.items():
        if key[0] == "corrupt":
            assert cell["state"] == "failed" and "model.safetensors" in cell["last_error"], cell
        elif key == cancelled:
            assert cell["state"] == "interrupted", cell
        else:
            assert cell["state"] == "done", (cell, attempts(directories[key]))
    assert len(attempts(directories[limited])) >= 2
    assert len(attempts(directories[victim])) >= 2

    finished = {key: snapshot(directory) for key, directory in directories.items() if key[0] != "corrupt"}
    again = sweep.submit()
    assert again.returncode == 0, again.stderr
    assert "5 to run" in again.stderr
    sweep.wait_until_idle()
    for key, cell in sweep.states().items():
        assert cell["state"] == ("failed" if key[0] == "corrupt" else "done"), cell
        if key[0] == "corrupt":
            continue
        tiny.assert_same_tables(direct(*key), directories[key] / "results.h5")
        assert_each_cell_once(directories[key])
        assert_kept(finished[key], directories[key])
    for key, before in kept.items():
        assert_kept(before, directories[key])
    assert not list(work.parent.rglob("x"))  # nobody expanded a name


# ---- interruptions ---------------------------------------------------------------------------------------------------


def one_cell(work, cluster, name, site="", **keys):
    sweep = Sweep(work, cluster, name, site, windows=[WINDOWS[0]], **keys)
    return sweep, sweep.run_directory()


def assert_done_as_directly(sweep, run_directory, direct, n_attempts):
    sweep.wait_until_idle()
    assert sweep.states()["small", "long", WINDOWS[0]]["state"] == "done"
    assert len(attempts(run_directory)) == n_attempts
    tiny.assert_same_tables(direct("small", "long", WINDOWS[0]), run_directory / "results.h5")
    assert_each_cell_once(run_directory)


def test_preemption_that_cancels(work, cluster, direct):
    """PreemptMode=CANCEL takes the job away without a word: its successor goes on."""
    sweep, run_directory = one_cell(work, cluster, "preempted", "{partition: scavenge, requeue: successor}")
    assert sweep.submit().returncode == 0
    freeze(cluster, run_directory)
    kept = snapshot(run_directory)
    first = job_of(run_directory)
    assert sorted(cluster.queue().values()) == ["PENDING", "RUNNING"]
    again = sweep.submit()
    assert again.returncode == 0 and "1 queued or running" in again.stderr
    urgent = cluster.command(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true"
    ).stdout.strip()
    cluster.wait_for(lambda: first not in cluster.queue(), "it is not preempted")
    assert "PREEMPTED" in cluster.command("scontrol", "show", "job", first).stdout
    assert_done_as_directly(sweep, run_directory, direct, 2)
    assert_kept(kept, run_directory)
    assert job_of(run_directory) != first
    assert "COMPLETED" in cluster.command("scontrol", "show", "job", urgent).stdout


def test_where_requeueing_is_forbidden_a_successor_goes_on(work, cluster, direct):
    sweep, run_directory = one_cell(work, cluster, "forbidden", "sbatch: [--no-requeue]")
    assert sweep.submit().returncode == 0
    frozen = freeze(cluster, run_directory)
    first = job_of(run_directory)
    cluster.command("scancel", "--signal=USR1", first)
    cluster.wait_for(lambda: all(is_waiting(rank, signal.SIGUSR1) for rank in frozen), "USR1 does not come")
    launch.send(frozen, signal.SIGCONT)
    assert_done_as_directly(sweep, run_directory, direct, 2)
    assert job_of(run_directory) != first
    assert attempts(run_directory)[0]["exit_code"] == 75


@pytest.mark.parametrize("mode", ["requeue", "successor"])
def test_the_last_attempt_is_not_repeated(work, cluster, mode):
    sweep, run_directory = one_cell(work, cluster, f"last-{mode}", f"requeue: {mode}", max_attempts=1)
    assert sweep.submit().returncode == 0
    frozen = freeze(cluster, run_directory)
    assert len(cluster.queue()) == 1
    cluster.command("scancel", "--signal=USR1", job_of(run_directory))
    cluster.wait_for(lambda: all(is_waiting(rank, signal.SIGUSR1) for rank in frozen), "USR1 does not come")
    launch.send(frozen, signal.SIGCONT)
    sweep.wait_until_idle()
    cell = sweep.states()["small", "long", WINDOWS[0]]
    assert cell["state"] == "failed" and cell["exit_code"] == 75 and cell["attempts"] == 1, cell


@pytest.mark.parametrize("mode", ["requeue", "successor"])
def test_what_is_cancelled_stays_so(work, cluster, direct, mode):
    sweep, run_directory = one_cell(work, cluster, f"cancel-{mode}", f"requeue: {mode}")
    assert sweep.submit().returncode == 0
    freeze(cluster, run_directory)
    kept = snapshot(run_directory)
    assert sweep.states()["small", "long", WINDOWS[0]]["state"] == "running"
    done = sweep.call("cancel")
    assert done.returncode == 0 and "cancelled 1 cells" in done.stdout, done.stderr
    sweep.wait_until_idle()
    assert sweep.states()["small", "long", WINDOWS[0]]["state"] == "interrupted"
    assert sweep.submit().returncode == 0
    assert_done_as_directly(sweep, run_directory, direct, 2)
    assert_kept(kept, run_directory)


def test_a_controller_that_is_away_when_a_cell_is_to_be_requeued(work, cluster, direct):
    sweep, run_directory = one_cell(work, cluster, "away")
    assert sweep.submit().returncode == 0
    frozen = freeze(cluster, run_directory)
    first = job_of(run_directory)
    cluster.stop_controller()
    launch.send(frozen, signal.SIGUSR1)
    launch.send(frozen, signal.SIGCONT)
    cluster.wait_for(lambda: attempts(run_directory)[0]["exit_code"] == 75, "it does not stop")
    note = json.loads(sweep.call("status", "--json").stdout)["note"]
    assert "squeue" in note and "Unable to contact" in note
    cluster.start_controller()
    assert_done_as_directly(sweep, run_directory, direct, 2)
    assert job_of(run_directory) == first


# ---- submit ----------------------------------------------------------------------------------------------------------


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


def test_scripts_and_submissions_are_readable_by_others(work, cluster):
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o444 for path in (work / "night").rglob("cells.json")}
    assert modes == {0o444}
