"""Sweeps on the private Slurm of slurm_cluster.py: their files, what their cells did, and cells that stand still."""

import json
import pathlib
import signal
import subprocess
import time

import h5py
import launch
from run_folder import shards

LENGTHS = [900 + 13 * i for i in range(24)]
LAYERS = 6
WINDOWS = [64, 96]
MODELS = ["small", "wide"]


class Sweep:
    """A sweep file, its site settings, and what the cells' directories say."""

    def __init__(self, work, cluster, name, site="", **keys):
        self.work, self.cluster, self.name = work, cluster, name
        self.output = work / name
        self.file = work / f"{name}.yaml"
        self.site = work / f"{name}.site.yaml"
        self.site.write_text(site or "{}")
        content = {
            "name": name,
            "output": str(self.output),
            "device": "cpu",
            "windows": WINDOWS,
            "models": [{"name": MODELS[0], "path": str(work / MODELS[0])}],
            "datasets": [{"name": "long", "data": str(work / "long.h5")}],
            "defaults": {"ranks_per_node": 2, "threads": 1},
        } | keys
        self.file.write_text(json.dumps(content))  # JSON is YAML

    def start(self, verb, *more, **environment):
        return subprocess.Popen(
            [launch.WINNOW, "sweep", verb, self.file, *more],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.cluster.environment | environment,
        )

    def call(self, verb, *more, **environment):
        process = self.start(verb, *more, **environment)
        out, err = process.communicate(timeout=launch.TIMEOUT_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def submit(self, *more, **environment):
        return self.call("submit", "--executor", "slurm", "--site", self.site, *more, **environment)

    def states(self):
        done = self.call("status", "--json")
        assert done.returncode == 0, done.stderr
        return {(cell["model"], cell["dataset"], cell["window"]): cell for cell in json.loads(done.stdout)["cells"]}

    def run_directory(self, model="small", dataset="long", window=WINDOWS[0]):
        return pathlib.Path(self.states()[model, dataset, window]["run_directory"])

    def wait_until_idle(self):
        self.cluster.wait_for(lambda: not self.cluster.queue(), f"the queue of {self.name} does not empty")


def snapshot(run_directory):
    """{name: (inode, time of writing)}: a unit that was computed again would have written another file."""
    found = [(path.name, path.stat()) for path in shards(run_directory)]
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found}


def assert_kept(before, run_directory):
    after = snapshot(run_directory)
    assert {name: after.get(name) for name in before} == before


def assert_each_cell_once(run_directory):
    """Over all shards every (example, variant) stands once, and none is missing."""
    found = []
    for path in shards(run_directory):
        with h5py.File(path) as file:
            found += [(int(file.attrs["example"]), int(variant)) for variant in file["variant"][()]]
    assert len(found) == len(set(found)) == len(LENGTHS) * (LAYERS + 1)
    assert not list(run_directory.rglob("*.bad"))


def attempts(run_directory):
    """Records of those in which ranks began. On a busy machine srun may not start them, say because the credential that
    it shows is older than cred_expire: that is tried again, and uses up no attempt."""
    records = [json.loads(path.read_text()) for path in (run_directory / "attempts").glob("*.json")]
    return sorted((record for record in records if not record["failed_launches"]), key=lambda record: record["attempt"])


def ranks_of(run_directory):
    """Processes of winnow calibrate that work on a run directory."""
    return [
        pid
        for pid, (_, words) in launch.winnow_processes().items()
        if words[1:2] == ["calibrate"] and f"--out={run_directory}" in words
    ]


def step_daemons(run_directories):
    """Parents of the ranks that work on these run directories: slurmstepd of each node."""
    found = launch.winnow_processes()
    return {found[pid][0] for directory in run_directories for pid in ranks_of(directory) if pid in found}


def is_waiting(pid, number):
    """Whether a signal was sent to a process that is stopped and has not taken it yet."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    pending = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("ShdPnd:", "SigPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in pending)


def node_of(pid):
    variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return next(word.split("=")[1] for word in variables if word.startswith("SLURMD_NODENAME="))


def freeze_all(cluster, directories):
    """Stops the ranks of these cells, each when it has finished units and has others before it.

    Returns (ranks, node of the first one) of each: a time limit may end them before they are asked for it.
    """
    frozen = {}
    deadline = time.monotonic() + launch.TIMEOUT_SECONDS
    next_look = time.monotonic() + 1
    is_idle = False
    while time.monotonic() < deadline and not is_idle:
        if time.monotonic() > next_look:  # a cell that died leaves nothing to wait for
            is_idle, next_look = not cluster.queue(), time.monotonic() + 1
        for run_directory in directories:
            if run_directory in frozen or not shards(run_directory):
                continue
            assert not (run_directory / "results.h5").exists(), "the cell was done before it could be stopped"
            ranks = ranks_of(run_directory)
            if len(ranks) == 2:
                launch.send(ranks, signal.SIGSTOP)
                frozen[run_directory] = ranks, node_of(ranks[0])
        if len(frozen) == len(directories):
            return [frozen[run_directory] for run_directory in directories]
        time.sleep(0.005)
    said = "\n".join(what_was_said(directory) for directory in directories if directory not in frozen)
    raise AssertionError(f"{directories} do not begin\n{cluster.logs()}\n{said}")


def what_was_said(run_directory):
    """The attempts of a cell and the output of its sweep's jobs."""
    logs = sorted(run_directory.parents[1].rglob("*.log"))
    return "\n".join(
        [f"{attempts(run_directory)}", *(f"== {path}\n{path.read_text(errors='replace')}" for path in logs)]
    )


def freeze(cluster, run_directory):
    return freeze_all(cluster, [run_directory])[0][0]


def job_of(run_directory):
    record = attempts(run_directory)[-1]
    return f"{record['slurm_job']}_{record['slurm_task']}"
