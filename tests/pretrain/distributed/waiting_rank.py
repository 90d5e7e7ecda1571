"""A rank that does nothing: `torchrun -m tests.pretrain.distributed.waiting_rank FOLDER`."""

import os
import sys
import time
from pathlib import Path

from pretrain.distributed.launch import end_with_launcher

if __name__ == "__main__":
    end_with_launcher()
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(120)
