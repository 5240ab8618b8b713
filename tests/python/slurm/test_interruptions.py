"""Cells on a real Slurm that are preempted, told to stop, cancelled, or without a controller, one at a time."""

import json
import signal

import launch
import pytest
import slurm_cluster
import tiny
from slurm_sweeps import (
    WINDOWS,
    Sweep,
    assert_each_cell_once,
    assert_kept,
    attempts,
    freeze,
    is_waiting,
    job_of,
    snapshot,
    what_was_said,
)

slurm_cluster.skip_without()


def one_cell(work, cluster, name, site="", **keys):
    sweep = Sweep(work, cluster, name, site, windows=[WINDOWS[0]], **keys)
    return sweep, sweep.run_directory()


def assert_done_as_directly(sweep, run_directory, direct, n_attempts):
    sweep.wait_until_idle()
    assert sweep.states()["small", "long", WINDOWS[0]]["state"] == "done"
    assert len(attempts(run_directory)) == n_attempts, f"{what_was_said(run_directory)}\n{sweep.cluster.logs()}"
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
