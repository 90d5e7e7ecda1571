"""Workers as plain processes or as an array on a cluster; those that were killed come back."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from recaption.common.config import UserError

CHECKOUT = Path(__file__).resolve().parents[2]
#: Ends a worker that dies again and again without being killed, and not the experiment's.
_MAX_CRASHES = 1000


class Workers(Protocol):
    #: Times that a worker was started.
    num_starts: int

    def are_done(self) -> bool:
        """Whether all have ended; brings up again those that died.

        Raises:
            UserError: one has failed for good.
        """


class Processes:
    """Workers of this machine, each started again by the same command until it ends well."""

    def __init__(self, command: list[str], number: int, logs: Path) -> None:
        self._command, self._logs = command, logs
        self._running = {index: self._start(index) for index in range(number)}
        self.num_starts = number

    def are_done(self) -> bool:
        for index, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            if status == 0:
                del self._running[index]
            elif status in (-9, 75):
                self._running[index] = self._start(index)
                self.num_starts += 1
            else:
                raise UserError(f"a worker ended with status {status}: see {self._log(index)}")
        return not self._running

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
            process.wait(60)

    def _start(self, index: int) -> "subprocess.Popen[bytes]":
        with self._log(index).open("a") as log:
            return subprocess.Popen(
                [*self._command, "wait_for_others=false"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )

    def _log(self, index: int) -> Path:
        return self._logs / f"worker-{index}.log"


class Array:
    """Workers as `sbatch slurm/recaption.sh`, on a cluster of two nodes on this machine."""

    def __init__(self, command: list[str], number: int, logs: Path) -> None:
        # The daemons of a cluster are what the tests have them for.
        from tests.slurm import cluster

        if reason := cluster.why_no_cluster():
            raise UserError(f"no cluster here: {reason}")
        self._unfinished = cluster.UNFINISHED
        self._cleanup = contextlib.ExitStack()
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
        self._cluster = self._cleanup.enter_context(cluster.running_cluster(folder))
        given = {"PYTHON": command[0], "OMP_NUM_THREADS": "1", "MAX_CRASHES": str(_MAX_CRASHES)}
        array = self._cluster.run(
            *("env", *(f"{name}={value}" for name, value in given.items())),
            *("sbatch", "--parsable", f"--array=0-{number - 1}", "--gpus-per-node=0"),
            *("--cpus-per-task=1", "--mem-per-cpu=100M", f"--chdir={CHECKOUT}"),
            *(f"--output={logs}/worker-%a.log", "slurm/recaption.sh", *command[4:]),
        )
        self._jobs = [f"{array}_{index}" for index in range(number)]
        self._logs = logs

    @property
    def num_starts(self) -> int:
        return sum(
            path.read_text(errors="replace").count("attempt ")
            for path in self._logs.glob("worker-*.log")
        )

    def are_done(self) -> bool:
        shown = [self._cluster.run("scontrol", "show", "job", job, "-o") for job in self._jobs]
        states = [text.split("JobState=")[1].split()[0] for text in shown]
        for job, state in zip(self._jobs, states, strict=True):
            if state not in (*self._unfinished, "COMPLETED", "REQUEUED"):
                raise UserError(f"job {job} ended as {state}: see {self._logs}")
        return all(state == "COMPLETED" for state in states)

    def stop(self) -> None:
        self._cleanup.close()


@dataclass
class Target:
    """A worker's process and those below it that may be killed."""

    worker: psutil.Process
    engines: list[psutil.Process]
    decoders: list[psutil.Process]


@contextlib.contextmanager
def suspended_targets(output: Path, processes: Iterable[int]) -> Iterator[list[Target]]:
    """Those of the processes that are workers of an output folder, suspended within the block.

    To look at all children takes so long that small work could be over meanwhile.
    """
    with contextlib.ExitStack() as suspended:
        workers = []
        for number in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = psutil.Process(number)
                command = worker.cmdline()
                if command[1:4] == ["-m", "recaption", "run"] and f"output={output}" in command:
                    worker.suspend()
                    suspended.callback(_resume, worker)
                    workers.append(worker)
        yield [_target(worker) for worker in workers]


def _resume(worker: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # killed meanwhile
        worker.resume()


def _target(worker: psutil.Process) -> Target:
    target = Target(worker, [], [])
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in worker.children():
            title = " ".join(child.cmdline())
            if "EngineCore" in title:
                target.engines.append(child)
            elif "spawn_main" in title:  # a decoder, or an engine that has no title yet
                target.decoders.append(child)
    return target


def worker_command(python: str, arguments: list[str]) -> list[str]:
    return [python or sys.executable, "-m", "recaption", "run", *arguments]
