"""Submits runs through submitit: one as a job, several as an array of jobs.

    python -m slurm.submit nodes=8 -- configs/pretrain/caft_b_3m.yaml run=RUNS/a data.train=PACKED
    python -m slurm.submit nodes=1 time_minutes=240 \\
        -- CONFIG.yaml run=RUNS/a optim.learning_rate=1e-3 \\
        -- CONFIG.yaml run=RUNS/b optim.learning_rate=5e-4
    python -m slurm.submit recaption ...     (see python -m slurm.submit recaption --help)

Each `--` begins the arguments of one run, which are those of `pretrain train`, checked before
anything is submitted. A job does what `slurm/pretrain_vitl.sh` does: one rank a GPU, a
pre-flight, and back to the queue until the last step is done. Start it from the repository's
folder; logs, and what submitit writes, lie in `logs`. --json prints the jobs in the last line.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import Job

from pretrain.config import PretrainConfig
from recaption.common.config import (
    JSON_FLAG,
    UserError,
    check_at_least,
    load_config,
    print_json,
    run_command,
)
from slurm import submit_recaption
from slurm.executor import JobConfig, job_parameters, submit_tasks
from slurm.job import Pretraining

_SEPARATOR = "--"
_RECAPTION = "recaption"


@dataclass
class SubmitConfig(JobConfig):
    """What a run asks Slurm for."""

    nodes: int = 8
    gpus_per_node: int = 8
    ranks_per_node: int = 0  # 0: one a GPU; one on a node without GPUs
    cpus_per_rank: int = 8
    exclusive: bool = True  # whole nodes, all of their memory

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nodes", "cpus_per_rank"):
            check_at_least(1, {name: getattr(self, name)})
        check_at_least(0, {"gpus_per_node": self.gpus_per_node})
        check_at_least(0, {"ranks_per_node": self.ranks_per_node})


def main(argv: list[str]) -> None:
    own, runs = _split(argv)
    if own[:1] == [_RECAPTION]:
        worker_config = load_config(
            submit_recaption.RecaptionJobConfig, own[1:], submit_recaption.__doc__
        )
        if len(runs) != 1:
            raise UserError(f"give one {_SEPARATOR} CONFIG.yaml input=SHARDS output=TABLES")
        jobs = submit_recaption.submit_workers(worker_config, runs[0])
        runs *= len(jobs)
    else:
        config = load_config(SubmitConfig, own, __doc__)
        jobs = submit(config, runs)
    for job, arguments in zip(jobs, runs, strict=True):
        print(f"job {job.job_id}: {shlex.join(arguments)}; logs {job.paths.stdout}")
    print_json(argv, {"jobs": [job.job_id for job in jobs]})


def submit(config: SubmitConfig, runs: list[list[str]]) -> list[Job[str]]:
    """Submits each run's arguments; several become one array.

    Raises:
        UserError: no run, a run's configuration is wrong, two share a folder, no Slurm here.
    """
    check_runs(runs)
    tasks = [Pretraining(arguments) for arguments in runs]
    return submit_tasks(config.logs, sbatch_parameters(config), tasks)


def check_runs(runs: list[list[str]]) -> None:
    """Raises: UserError: there is none, one is not understood, or two share a folder."""
    if not runs:
        raise UserError(f"no run given: {_SEPARATOR} CONFIG.yaml run=RUN data.train=PACKED")
    folders = [Path(load_config(PretrainConfig, run).run).resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"run={folder} is given more than once: each run needs a folder")


def sbatch_parameters(config: SubmitConfig) -> dict[str, Any]:
    """What submitit makes the batch script of."""
    more: dict[str, Any] = {}
    if config.exclusive:
        more |= {"mem": "0"}
    if config.gpus_per_node:
        more |= {"gpus-per-node": config.gpus_per_node}
    return {
        **job_parameters(config, more),
        "nodes": config.nodes,
        "ntasks_per_node": config.ranks_per_node or config.gpus_per_node or 1,
        "cpus_per_task": config.cpus_per_rank,
        "exclusive": config.exclusive or None,
        # srun does not take the number of CPUs over from the job.
        "srun_args": [f"--cpus-per-task={config.cpus_per_rank}", "--kill-on-bad-exit=1"],
    }


def _split(argv: list[str]) -> tuple[list[str], list[list[str]]]:
    """What stands before the first `--`, and each run's arguments."""
    parts: list[list[str]] = [[]]
    for argument in argv:
        if argument == _SEPARATOR:
            parts.append([])
        elif argument != JSON_FLAG:
            parts[-1].append(argument)
    return parts[0], parts[1:]


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
