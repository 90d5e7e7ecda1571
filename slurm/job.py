"""What a task of a submitted job does: the same as a rank of `slurm/pretrain_vitl.sh`."""

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
