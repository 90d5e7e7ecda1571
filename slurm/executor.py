"""What jobs of every kind ask Slurm for, and their way through submitit."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit import Job, SlurmExecutor

from recaption.common.config import UserError, check_at_least

_LIBRARY = Path("slurm/lib.sh")


@dataclass
class JobConfig:
    """What does not depend on what the job does."""

    name: str = "canopy"
    logs: str = "logs"  # folder on a disk that all nodes see
    time_minutes: int = 1440
    signal_seconds: int = 300  # ahead of the time limit: what is in hand must be saved by then
    partition: str = ""
    account: str = ""
    qos: str = ""
    max_parallel: int = 256  # jobs of an array at a time
    options: list[str] = field(default_factory=list)  # more of sbatch's: [constraint=a100]

    def __post_init__(self) -> None:
        for name in ("time_minutes", "signal_seconds", "max_parallel"):
            check_at_least(1, {name: getattr(self, name)})


def job_parameters(config: JobConfig, more: dict[str, Any]) -> dict[str, Any]:
    """What submitit makes the batch script of; ``more`` are further options of `sbatch`."""
    given = [option.removeprefix("--").partition("=") for option in config.options]
    return {
        "job_name": config.name,
        "time": config.time_minutes,
        "signal_delay_s": config.signal_seconds,
        "array_parallelism": config.max_parallel,
        **{name: getattr(config, name) or None for name in ("partition", "account", "qos")},
        "additional_parameters": {
            "requeue": True,
            **{name: value or True for name, _, value in given},
            **more,
        },
        "setup": [
            f"export PYTHON={shlex.quote(os.environ.get('PYTHON', sys.executable))}",
            f"source {_LIBRARY}",
            "begin",
        ],
        "teardown": ["finish $?"],
    }


def submit_tasks(
    logs: str, parameters: dict[str, Any], tasks: Sequence[Callable[[], str]]
) -> list[Job[str]]:
    """One submission for all; several become an array.

    Raises:
        UserError: this is no place to submit from.
    """
    if not _LIBRARY.is_file():
        raise UserError(f"no {_LIBRARY} here: start this from the repository's folder")
    if shutil.which("sbatch") is None:
        raise UserError("no sbatch here: start this where jobs are submitted")
    executor = SlurmExecutor(Path(logs).absolute(), max_num_timeout=sys.maxsize)
    executor.update_parameters(**parameters)
    with executor.batch():
        return [executor.submit(task) for task in tasks]
