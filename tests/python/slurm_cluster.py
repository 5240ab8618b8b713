"""A private Slurm of two nodes on this machine: own munged, slurmctld and two slurmd, own folders, loopback only.

No service of the system is touched. Everything that it starts is ended by process number, also after a failure, and the
daemons end with the test when that is killed. Works as root in a container and as any user.
"""

import contextlib
import ctypes
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

NODES = ("node1", "node2")
CPUS = 6  # of a node, whatever the machine has: what matters is that several jobs fit
WAIT_SECONDS = 900  # only a hang takes so long, also beside many other processes
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

# TmpFS of its own for each node: the two PMIx servers of a step would otherwise meet in one folder.
# cred_expire: a requeued job waits that long before it starts again, 120 s by default.
# BatchStartTimeout, and SlurmdTimeout's 300 s: a daemon that gets no processor for seconds is not lost, and its jobs
# are not killed. MessageTimeout stays 10 s: so long does a command wait for a controller that is away.
# JobAcctGather, accounting: none, so sacct has nothing to say.
# FirstJobId: shared memory of MPI's ranks is named by the job, and several clusters may run side by side.
CONFIGURATION = """
ClusterName=winnowtest
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
FirstJobId={ports[0]}000
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
OverTimeLimit=0
BatchStartTimeout=100
KillWait=5
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=4000
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=4000
PartitionName=main Nodes=node1,node2 Default=YES PriorityTier=1 PreemptMode=OFF
PartitionName=scavenge Nodes=node1,node2 PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=node1,node2 PriorityTier=10 PreemptMode=OFF
"""


def missing_programs():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


def skip_without():
    """Skips the file that calls this where there is no Slurm; with CI set that is a failure."""
    if missing := missing_programs():
        reason = f"no Slurm here: {', '.join(missing)} missing; jobs/setup.sh slurm installs Debian's"
        if "CI" in os.environ:
            pytest.exit(reason, returncode=1)
        pytest.skip(reason, allow_module_level=True)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_with_parent():
    """In a daemon before exec: SIGTERM when the test dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class SlurmCluster:
    def __init__(self):
        # Not pytest's folder: names of sockets must be short.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="winnow-slurm-"))
        self.configuration = self.folder / "slurm.conf"
        self.daemons = {}
        self.environment = os.environ | {
            "SLURM_CONF": str(self.configuration),
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        }

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- daemons -----------------------------------------------------------------------------------------------------

    def start(self):
        self.folder.chmod(0o755)
        for name in ("munge", "state", *(f"{kind}-{node}" for kind in ("spool", "tmp") for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.configuration.write_text(
            CONFIGURATION.format(folder=self.folder, ports=free_ports(3), cpus=CPUS, user=getpass.getuser())
        )
        munge = self.folder / "munge"
        self.daemon(
            "munged",
            [
                "munged",
                "--foreground",
                "--force",
                f"--key-file={key}",
                f"--socket={munge}/socket",
                f"--pid-file={munge}/pid",
                f"--log-file={munge}/log",
                f"--seed-file={munge}/seed",
            ],
        )
        self.wait_for(lambda: (munge / "socket").exists(), "munged does not start")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for(lambda: self.idle_nodes() == len(NODES), "the nodes do not come up")

    def daemon(self, name, words, **more):
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                words,
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )

    def start_controller(self):
        self.daemon("slurmctld", ["slurmctld", "-D", "-f", str(self.configuration)])
        self.wait_for(lambda: " UP" in self.command("scontrol", "ping", check=False).stdout, "slurmctld is silent")

    def start_node(self, node):
        self.daemon(node, ["slurmd", "-D", "-N", node, "-f", str(self.configuration)], WINNOW_TEST_NODE=node)

    def stop_controller(self):
        """As for a restart: it writes its state. A killed one forgets the last seconds, and may start jobs twice."""
        self.daemons["slurmctld"].terminate()
        self.daemons["slurmctld"].wait(WAIT_SECONDS)

    def kill_node(self, node):
        """As a power cut does: slurmd, its step daemons and all that they run, and the spool, which such nodes have in
        memory. Sockets of steps that stayed there would keep a repeated job from starting. Slurm is told of it, and
        does not wait for SlurmdTimeout."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        self.kill_processes(
            lambda variables: f"SLURMD_NODENAME={node}" in variables or f"WINNOW_TEST_NODE={node}" in variables
        )
        for left in (self.folder / f"spool-{node}").iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=no power")

    def stop(self):
        for name in ("slurmctld", *NODES, "munged"):
            if name in self.daemons and self.daemons[name].poll() is None:
                self.daemons[name].kill()
                self.daemons[name].wait()
        self.kill_processes(lambda variables: True)
        if "WINNOW_KEEP_SLURM" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill_processes(self, condition):
        """SIGKILL, until there is none: processes of ours, known by their environment, that fulfil the condition."""
        for _ in range(20):
            found = [pid for pid, variables in self.processes() if condition(variables)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                return
            time.sleep(0.05)

    def processes(self):
        """(pid, environment) of everything that runs under this cluster's daemons, step daemons and tasks alike."""
        mine = f"SLURM_CONF={self.configuration}"
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if mine in variables:
                yield int(entry.name), variables

    # ---- commands ----------------------------------------------------------------------------------------------------

    def command(self, *words, check=True):
        done = subprocess.run(
            [str(word) for word in words], env=self.environment, capture_output=True, text=True, timeout=WAIT_SECONDS
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done

    def idle_nodes(self):
        done = self.command("sinfo", "--noheader", "--Node", "--partition=main", "--format=%t", check=False)
        return done.stdout.split().count("idle")

    def is_down(self, node):
        return "State=DOWN" in self.command("scontrol", "show", "node", node).stdout

    def queue(self):
        """{"1234_5": state}, one entry for each task."""
        lines = self.command("squeue", "--noheader", "--array", "--format=%F_%K %T").stdout.splitlines()
        return dict(line.split() for line in lines)

    def wait_for(self, condition, what):
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"{what}\n{self.logs()}")

    def logs(self):
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            parts.append(f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-60:]))
        return "\n".join(parts)
