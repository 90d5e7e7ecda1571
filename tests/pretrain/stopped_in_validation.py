"""``python -m pretrain``, whose second rank asks for a stop at the third batch of a validation."""

import os
import signal
import sys
from typing import Any

from pretrain.__main__ import main
from pretrain.distributed.launch import announce_rank

if __name__ == "__main__":
    announce_rank()
    from pretrain import validation

    normalise, num_batches = validation.normalise, 0

    def count_and_normalise(*args: Any) -> Any:
        global num_batches
        num_batches += 1
        if num_batches == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGUSR1)
        return normalise(*args)

    validation.normalise = count_and_normalise
    sys.exit(main())
