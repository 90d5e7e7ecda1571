"""``python -m pretrain evaluate``: retrieval, localisation, benchmarks, and a report to look at."""

from pretrain.distributed.launch import announced_world_size
from recaption.common.errors import UserError


def main(argv: list[str]) -> None:
    # Imported late: a release uses the maps of this folder and none of its training libraries.
    from pretrain.evaluate.config import read_arguments

    config = read_arguments(argv)
    if config.benchmark:
        from pretrain.evaluate.benchmarks.command import run_benchmarks

        run_benchmarks(config, argv)
    else:
        if announced_world_size() > 1:
            raise UserError("data=FOLDER is evaluated by one process; ranks share benchmark=NAME")
        from pretrain.evaluate.command import evaluate_shards

        evaluate_shards(config, argv)
