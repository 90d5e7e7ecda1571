"""What a task of a submitted job does: as one of `slurm/pretrain_vitl.sh` and `recaption.sh`."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from submitit.helpers import DelayedSubmission


@dataclass
class Pretraining:
    """One run, the pre-flight first; every task of the job calls it.

    If training is not at its last step the process ends with the status that `slurm/lib.sh` asks
    for: submitit then writes no result, and the job goes back to the queue or ends.
    """

    arguments: list[str]  # of `pretrain train`

    def __call__(self) -> str:
        from pretrain.__main__ import run
        from recaption.common.config import run_command

        for command in ("preflight", "train"):
            status = run_command(run, [command, *self.arguments])
            if status:
                sys.exit(status)
        return "trained to the last step"

    def checkpoint(self) -> DelayedSubmission:
        """For a signal before training listens to it: submitit itself sends the job back."""
        return DelayedSubmission(self)


@dataclass
class Recaptioning:
    """One worker, run by the captioner's Python: vLLM and submitit live in two environments.

    If it has work left the process ends with its status, for `slurm/lib.sh` as above.
    """

    arguments: list[str]  # of `recaption run`
    python: str

    def __call__(self) -> str:
        # Slurm signals the worker as well, which alone knows what it means.
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
        status = subprocess.run(
            ["bash", "-c", 'source slurm/lib.sh && run_worker "$@"', "worker", *self.arguments],
            env={**os.environ, "PYTHON": self.python},
        ).returncode
        if status:
            sys.exit(status if status > 0 else 128 - status)
        return "nothing left to take"

    def checkpoint(self) -> DelayedSubmission:
        """For a signal before the worker runs: submitit itself sends the job back."""
        return DelayedSubmission(self)
