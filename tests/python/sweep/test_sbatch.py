"""winnow sweep submit and whatever sbatch and squeue say or do not say: no cell is queued twice, none is forgotten.

The commands of Slurm are small scripts here; slurm/ has a real one.
"""

import json
import os
import signal
import subprocess

import launch
import pytest
import tiny

UNAVAILABLE = 69
SBATCH = """#!/bin/bash
for script; do :; done
echo call >> calls
number=$((5000 + $(wc -l < calls)))
name=$(grep -o -e '--job-name=[^ ]*' "$script")
queue() { echo "$number|0|PENDING|${name#--job-name=}|Priority" >> queue; }
"""
SQUEUE = """#!/bin/bash
[ -e squeue-is-away ] && { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
[ -n "$SQUEUE_STATES" ] || cat queue
"""
TIMED_OUT = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"


class Site:
    """A sweep of one cell, and a Slurm made of scripts in `bin`, which work in `path`."""

    def __init__(self, path):
        self.path = path
        tiny.write_checkpoint(path / "m", layers=2)
        tiny.write_calibration(path / "c.h5", [40])
        (path / "night.yaml").write_text(
            "name: night\noutput: out\nmodels: [{name: a, path: m}]\ndatasets: [{name: d, data: c.h5}]\nwindows: [16]\n"
        )
        (path / "bin").mkdir()
        (path / "queue").touch()
        (path / "calls").touch()
        self.script("squeue", SQUEUE)
        self.script("scontrol", "#!/bin/bash\n")
        self.environment = os.environ | {
            "PATH": f"{path / 'bin'}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(path / "none"),
            "XDG_CACHE_HOME": str(path / "cache"),
        }

    def script(self, name, text):
        (self.path / "bin" / name).write_text(text)
        (self.path / "bin" / name).chmod(0o755)

    def sbatch(self, body):
        self.script("sbatch", SBATCH + body + "\n")

    def command(self, verb, *more):
        return [launch.WINNOW.resolve(), "sweep", verb, "night.yaml", *more]

    def run(self, verb, *more, **environment):
        return subprocess.run(
            self.command(verb, *more),
            cwd=self.path,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=launch.TIMEOUT_SECONDS,
        )

    def submit(self, **environment):
        return self.run("submit", "--executor", "slurm", **environment)

    def cell(self):
        (cell,) = json.loads(self.run("status", "--json").stdout)["cells"]
        return cell

    def calls(self):
        return len((self.path / "calls").read_text().splitlines())

    def submitted(self):
        (found,) = (self.path / "out" / "submissions").glob("*/submitted.json")
        return found

    def let_time_pass(self):
        content = json.loads(self.submitted().read_text())
        content["unclear_since"] = {name: since - 1000 for name, since in content["unclear_since"].items()}
        self.submitted().write_text(json.dumps(content))


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def assert_nothing_more_is_submitted(site, state="queued"):
    before = site.calls()
    again = site.submit()
    assert again.returncode == 0, again.stderr
    assert "1 queued or running, 0 to run" in again.stderr
    assert site.calls() == before and site.cell()["state"] == state


@pytest.mark.parametrize(
    "body",
    [
        "queue; echo $number",
        "queue; echo 'Welcome, 42 users'; printf '\\033[32m%s;east\\033[0m\\r\\n' $number; echo bye",
        'queue; echo "Submitted batch job $number on cluster east"',
        "queue; echo $number >&2",
        "queue; echo 17; echo $number",
        "queue",
        "queue; kill -9 $$",
        f"queue; {TIMED_OUT}",
        "queue; echo $number; exit 3",
    ],
)
def test_a_job_is_known_whatever_sbatch_says(site, body):
    site.sbatch(body)
    done = site.submit()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("job 5001: group-1, 1 cells")
    assert json.loads(site.submitted().read_text()) == {"jobs": {"group-1": "5001"}}
    assert site.cell()["job"] == "5001_0"
    assert_nothing_more_is_submitted(site)


@pytest.mark.parametrize("body", ["true", TIMED_OUT])
def test_while_it_is_not_clear_nothing_takes_its_place(site, body):
    site.sbatch(body)
    done = site.submit()
    assert done.returncode == UNAVAILABLE
    assert "does not say whether it took" in done.stderr and "count as queued" in done.stderr
    assert_nothing_more_is_submitted(site)
    assert "sbatch did not say" in site.cell()["last_error"]
    assert "nothing of night.yaml is in a queue" in site.run("cancel").stdout
    site.let_time_pass()
    assert site.cell()["state"] == "waiting"
    site.sbatch("queue; echo $number")
    assert site.submit().returncode == 0
    assert site.calls() == 2 and site.cell()["job"] == "5002_0"


def test_a_squeue_that_does_not_answer_is_no_empty_queue(site):
    site.sbatch("queue; touch squeue-is-away; " + TIMED_OUT)
    assert site.submit().returncode == UNAVAILABLE
    for _ in range(2):
        done = site.submit()
        assert done.returncode == UNAVAILABLE and "squeue does not answer" in done.stderr
    assert site.calls() == 1
    (site.path / "squeue-is-away").unlink()
    assert_nothing_more_is_submitted(site)


def test_a_submit_that_is_killed_remembers_what_it_asked_for(site):
    site.sbatch("echo $$ > pid.part; mv pid.part pid; exec sleep 600")
    process = subprocess.Popen(
        site.command("submit", "--executor", "slurm"), cwd=site.path, env=site.environment, stderr=subprocess.DEVNULL
    )
    launch.wait_for(lambda: (site.path / "pid").exists(), process)
    process.kill()
    process.wait()
    os.kill(int((site.path / "pid").read_text()), signal.SIGKILL)
    assert_nothing_more_is_submitted(site)


def test_what_is_refused_is_free_at_once(site):
    site.sbatch("echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    for n_calls in (1, 2):
        done = site.submit()
        assert done.returncode == UNAVAILABLE and "invalid partition" in done.stderr
        assert site.calls() == n_calls and not list((site.path / "out" / "submissions").iterdir())


def test_a_users_own_filters_hide_no_job(site):
    site.sbatch('queue; [ -z "$SBATCH_JOB_NAME$SBATCH_WAIT" ] && echo $number')
    assert site.submit(SBATCH_JOB_NAME="mine", SBATCH_WAIT="1").returncode == 0
    site.environment["SQUEUE_STATES"] = "RUNNING"
    assert_nothing_more_is_submitted(site)
