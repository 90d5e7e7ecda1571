"""Submits workers of `recaption run` through submitit, as one array of jobs.

    python -m slurm.submit recaption num_workers=64 -- CONFIG.yaml input=SHARDS output=TABLES

Behind `--` are the arguments of `recaption run`, checked before anything is submitted. A job does
what `slurm/recaption.sh` does: one worker with the GPUs of its job, back to the queue until there
is nothing left to take. Start it from the repository's folder; logs, and what submitit writes, lie
in `logs`. --json prints the jobs in the last line.
"""

import shutil
from dataclasses import dataclass
from typing import Any

from submitit import Job

from recaption.common.config import UserError, check_at_least, load_config
from recaption.config import RunConfig
from recaption.shards import find_shards
from slurm.executor import JobConfig, job_parameters, submit_tasks
from slurm.job import Recaptioning


@dataclass
class RecaptionJobConfig(JobConfig):
    """What an array of workers asks Slurm for."""

    name: str = "recaption"
    num_workers: int = 16
    gpus_per_worker: int = 1  # several: the model is spread over them
    cpus_per_worker: int = 12  # those that neither the worker nor its engine needs decode
    mem_per_cpu: str = "6G"
    python: str = ".venv-recaption/bin/python"  # of the captioner's environment, which has vLLM

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_workers", "cpus_per_worker"):
            check_at_least(1, {name: getattr(self, name)})
        check_at_least(0, {"gpus_per_worker": self.gpus_per_worker})


def submit_workers(config: RecaptionJobConfig, arguments: list[str]) -> list[Job[str]]:
    """Submits workers that all have the same ``arguments`` of `recaption run`.

    Raises:
        UserError: the configuration is wrong, there are no tars or no such Python.
    """
    find_shards(load_config(RunConfig, arguments).input)
    if shutil.which(config.python) is None:
        raise UserError(f"python={config.python}: no such program; `make env` makes it")
    task = Recaptioning(arguments, config.python)
    return submit_tasks(config.logs, worker_parameters(config), [task] * config.num_workers)


def worker_parameters(config: RecaptionJobConfig) -> dict[str, Any]:
    """What submitit makes the batch script of."""
    more: dict[str, Any] = {"mem-per-cpu": config.mem_per_cpu}
    if config.gpus_per_worker:
        more |= {"gpus-per-node": config.gpus_per_worker}
    return {
        **job_parameters(config, more),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": config.cpus_per_worker,
        "srun_args": [f"--cpus-per-task={config.cpus_per_worker}"],
    }
