"""Sweeps on a real Slurm of two nodes (slurm_cluster.py): a night in which everything happens, and nothing is lost."""

import pathlib
import stat

import slurm_cluster
import tiny
from slurm_sweeps import (
    Sweep,
    assert_each_cell_once,
    assert_kept,
    attempts,
    freeze_all,
    job_of,
    snapshot,
    step_daemons,
)

LIMIT_MINUTES = 3
SIGNAL_SECONDS = 70  # before that; Slurm looks at limits twice a minute, and USR1 comes up to 60 s early

slurm_cluster.skip_without()


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


def test_scripts_and_submissions_are_readable_by_others(work, cluster):
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o444 for path in (work / "night").rglob("cells.json")}
    assert modes == {0o444}
