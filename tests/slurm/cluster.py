"""A real Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.daemons import free_ports, running

DAEMONS = ("munged", "slurmctld", "slurmd")
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "COMPLETING")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MessageTimeout=90
FirstJobId={first_job}
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=4000
PartitionName=main Nodes=n[1-2] Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes=n[1-2] State=UP PriorityTier=2
"""


#: Of a node, so that no node takes all of a test's workers.
CPUS = 2
#: Numbers of jobs for each cluster of this machine; their ports repeat after 750.
NUM_JOBS = 250


def why_no_cluster() -> str | None:
    """What is missing for a cluster here, or None."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if subprocess.run(_as_a_machine(["true"]), capture_output=True).returncode:
        return "two nodes on one machine need mounts of their own: root may not unshare and mount"
    return None


def _as_a_machine(command: list[str]) -> list[str]:
    """Runs a node's daemon with a /dev/shm and a boot id of its own, as real nodes have."""
    mounts = (
        "mount -t tmpfs tmpfs /dev/shm && cat /proc/sys/kernel/random/uuid > /dev/shm/.boot_id && "
        'mount --bind /dev/shm/.boot_id /proc/sys/kernel/random/boot_id && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", mounts, "sh", *command]


@dataclass
class Cluster:
    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Runs one of Slurm's commands and returns what it printed."""
        process = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    def state(self, job: str) -> str:
        shown = self.run("scontrol", "show", "job", job, "--oneliner").split()
        fields = dict(field.split("=", 1) for field in shown if "=" in field)
        return fields["JobState"]

    def wait(self, job: str, timeout: float = 300.0) -> str:
        """The state in which a job ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if (state := self.state(job)) not in UNFINISHED:
                return state
            time.sleep(0.5)
        raise TimeoutError(f"job {job} still runs after {timeout:.0f} s: {self.log()}")

    def job_log(self, job: str) -> str:
        """What a job, and its ranks, have printed so far."""
        shown = self.run("scontrol", "show", "job", job, "--oneliner")
        log = Path(shown.split(" StdOut=")[1].split()[0])
        ranks = sorted(log.with_suffix("").glob("rank-*.log"))
        return "\n".join(path.read_text() for path in (log, *ranks) if path.exists())

    def log(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))


def first_job() -> int:
    """Where a cluster begins to number its jobs, apart from those of pytest's other processes.

    They share /tmp and the ports: a job would remove the folder of another of the same number.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 1 + NUM_JOBS * int(number)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Brings the daemons up in ``folder`` and takes them down again."""
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            host=socket.gethostname(),
            ports=free_ports(3),
            cpus=min(os.cpu_count() or 1, CPUS),
            first_job=first_job(),
        )
    )
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log"]
    munge += [f"--seed-file={folder}/munge.seed", "--force", "--foreground"]
    cluster = Cluster(folder, {**os.environ, "SLURM_CONF": str(config)})
    with ExitStack() as daemons:
        for command in (
            ["munged", *munge],
            ["slurmctld", "-D", "-c", "-f", str(config)],
            _as_a_machine(["slurmd", "-D", "-f", str(config), "-N", "n1"]),
            _as_a_machine(["slurmd", "-D", "-f", str(config), "-N", "n2"]),
        ):
            daemons.enter_context(_running(command, cluster))
        _wait_until_idle(cluster)
        yield cluster
        subprocess.run(["scancel", "--user=root"], env=cluster.environment, check=False)
        time.sleep(1)


@contextmanager
def _running(command: list[str], cluster: Cluster) -> Iterator[None]:
    with running(command, cluster.folder / f"{command[0]}.out", env=cluster.environment):
        if command[0] == "munged":
            _wait_for(cluster.folder / "munge.socket")
        yield


def _wait_for(path: Path, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def _wait_until_idle(cluster: Cluster, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    states: list[str] = []
    while states != ["idle", "idle"]:
        assert time.monotonic() < deadline, f"nodes are {states}: {cluster.log()}"
        time.sleep(0.5)
        answer = subprocess.run(
            ["sinfo", "--noheader", "--partition=main", "--Node", "--format=%T"],
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        states = answer.stdout.split()
