"""``python -m tools.train_captioner output=DIR work=DIR [key=value ...] [--json]``

Trains the tiny vision-language model of ``recaption/tiny_lvlm`` from scratch on drawn scenes.
Run in the captioner's environment, whose transformers is the one that vLLM reads with.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

from recaption.common.config import load_config, print_json, run_command


def main(arguments: list[str]) -> None:
    # Two busy cores lose more by spinning than by sleeping; read when torch loads OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from tools.train_captioner.saving import save_captioner
    from tools.train_captioner.train import CaptionerTraining, TrainCaptionerConfig

    config = load_config(TrainCaptionerConfig, arguments, __doc__)
    torch.set_num_threads(config.num_workers)
    started = time.monotonic()
    training = CaptionerTraining(config)
    score = training.run()
    save_captioner(Path(config.output), training.model, training.tokenizer)
    seconds = round(time.monotonic() - started, 1)
    print_json(arguments, {**dataclasses.asdict(score), "seconds": seconds})


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
