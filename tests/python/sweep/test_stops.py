"""winnow sweep on one machine: stops, crashes and attempts; results equal direct runs."""

import os
import pathlib
import shutil
import signal

import launch
import pytest
import tiny
from run_folder import shards
from sweep_folder import SLOW_LENGTHS, Folder, direct, processes, ranks_of, states

MOST_SHARDS = len(SLOW_LENGTHS) - 3  # on disk when a test stops a cell in its middle


@pytest.fixture(scope="module")
def slow_direct(tmp_path_factory, inputs):
    """results.h5 of the slow model's direct run with a window, made when it is first asked for."""
    folder = Folder(tmp_path_factory.mktemp("direct"), inputs)
    made = {}

    def result(window, dataset="long"):
        if (window, dataset) not in made:
            made[window, dataset] = direct(folder, f"{dataset}{window}", "slow", dataset, window)
        return made[window, dataset]

    return result


def freeze(folder, n_ranks, *more, n_shards=1, most=MOST_SHARDS):
    """(process, its ranks) of a sweep whose ranks stand still: its first cell has n_shards to `most` units on disk, and
    its last one waits."""

    def begin():
        launch.wait_for(lambda: not processes(str(folder.path)))
        shutil.rmtree(folder.path / "out", ignore_errors=True)
        return folder.start(*more)

    runs = folder.path / "out" / "runs"
    return launch.freeze_in_the_middle(
        begin,
        n_ranks,
        lambda: len(list(runs.glob("*-w64-*/shards/*.h5"))) >= n_shards,
        lambda: len(list(runs.glob("*-w64-*/shards/*.h5"))) <= most and not list(runs.glob("*-w16-*/attempts/*")),
        lambda process: ranks_of(folder),
    )


@pytest.mark.parametrize("ranks, jobs", [(1, 1), (2, 1), (1, 2)])
def test_ctrl_c_and_submit_again(folder, slow_direct, ranks, jobs):
    # Many examples: between the signal and the end that mpirun gives its ranks, these go on.
    folder.write(
        models=["slow"], datasets=["many"], windows=[64, 32, 16], defaults={"threads": 1, "ranks_per_node": ranks}
    )
    process, frozen = freeze(folder, ranks * jobs, "--jobs", jobs, n_shards=2)
    process.send_signal(signal.SIGINT)
    # mpirun lets its ranks go on by itself.
    launch.wait_for(lambda: all(launch.signals_pending(pid) or not launch.is_frozen(pid) for pid in frozen))
    launch.thaw(frozen)
    code, text, err = launch.finish(process)
    assert code == 75, err
    assert "submit again" in text
    assert not processes(str(folder.path))
    stopped = folder.cells()
    assert stopped[0]["state"] == "interrupted" and 0 < stopped[0]["progress"] < 1
    assert stopped[2]["state"] == "waiting"
    kept = {path: path.stat().st_mtime_ns for cell in stopped for path in shards(cell["run_directory"])}
    assert len(kept) >= 2
    again = folder.submit()
    assert again.returncode == 0, again.stderr
    assert states(folder.cells()) == ["done"] * 3
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # no finished unit was computed twice
    for cell in folder.cells():
        tiny.assert_same_tables(slow_direct(cell["window"], "many"), pathlib.Path(cell["run_directory"]) / "results.h5")


def test_kill_9_of_a_rank_is_repeated(folder, slow_direct):
    folder.write(models=["slow"], datasets=["long"], windows=[64], defaults={"threads": 1, "ranks_per_node": 2})
    process, ranks = freeze(folder, 2)
    os.kill(ranks[-1], signal.SIGKILL)
    launch.thaw(ranks)
    code, _, err = launch.finish(process)
    assert code == 0, err
    assert "trying again" in err
    (cell,) = folder.cells()
    assert cell["state"] == "done" and cell["attempts"] == 2
    tiny.assert_same_tables(slow_direct(64), pathlib.Path(cell["run_directory"]) / "results.h5")


def test_attempts_are_limited(folder):
    folder.write(
        models=["slow"], datasets=["many"], windows=[64], max_attempts=2, defaults={"threads": 1, "ranks_per_node": 2}
    )
    # Not before a unit is done: an mpirun whose rank dies while it connects may wait for ever.
    process, ranks = freeze(folder, 2, most=3)
    out = folder.path / "out" / "runs"
    for attempt in (1, 2):
        os.kill(ranks[-1], signal.SIGKILL)
        launch.thaw(ranks)
        record = next(out.glob(f"*/attempts/{attempt}.json"))
        launch.wait_for(lambda record=record: '"ended": "' in record.read_text(), process)
        before = len(list(out.glob("*/shards/*.h5")))
        if attempt == 1:
            launch.wait_for(lambda before=before: len(list(out.glob("*/shards/*.h5"))) > before, process)
            ranks = ranks_of(folder)
    code, text, err = launch.finish(process)
    assert code not in (0, 75), err
    (cell,) = folder.cells()
    assert cell["state"] == "failed" and cell["attempts"] == 2
    assert cell["last_error"].startswith("given up after 2 attempts: ")
    assert cell["last_error"] in text
    assert folder.submit().returncode == 0  # a new submission counts anew
    assert states(folder.cells()) == ["done"]


@pytest.mark.parametrize("victim", ["submit", "run-cell"])
def test_kill_9_of_the_executor(folder, victim):
    folder.write(models=["slow"], datasets=["long"], windows=[64, 32], defaults={"threads": 1, "ranks_per_node": 2})
    process = folder.start()
    launch.wait_for(lambda: len(list((folder.path / "out" / "runs").glob("*/shards/*.h5"))) >= 1, process)
    if victim == "submit":
        process.kill()
    else:
        os.kill(processes("run-cell")[0], signal.SIGKILL)
    launch.finish(process)
    launch.wait_for(lambda: not processes(str(folder.path)))  # nobody is left behind
    assert "running" not in states(folder.cells())
    again = folder.submit()
    assert again.returncode == 0, again.stderr
    assert states(folder.cells()) == ["done"] * 2


def test_two_submits_at_once_run_no_cell_twice(folder):
    folder.write(models=["slow"], datasets=["long"], windows=[64, 48, 32, 16])
    both = [folder.start(), folder.start()]
    looks = []
    while any(process.poll() is None for process in both):
        looks.append(states(folder.cells()))
    for process in both:
        code, _, err = launch.finish(process)
        assert code in (0, 75), err
    assert states(folder.cells()) == ["done"] * 4
    assert len(folder.attempts()) == 4
    assert any("running" in look for look in looks)
    assert len(list((folder.path / "out" / "runs").glob("*/shards/*.h5"))) == 4 * len(SLOW_LENGTHS)


def test_status_watch_ends_with_the_sweep(folder):
    folder.write(models=["slow"], datasets=["long"], windows=[64])
    process = folder.start()
    watched = folder.run("status", "--watch")
    code, _, err = launch.finish(process)
    assert code == 0 and watched.returncode == 0, err
    assert "1 cells: 1 done" in watched.stdout.strip().splitlines()[-1]
