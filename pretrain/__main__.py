"""``python -m pretrain train | plan | preflight | import | evaluate | release | export``."""

import importlib
import sys

from pretrain.distributed.launch import announce_rank, end_with_launcher
from recaption.common.config import run_command

_COMMANDS = {
    "train": ("pretrain.train", "train on packed shards; resumes a run that exists"),
    "plan": ("pretrain.plan", "memory, arithmetic and days of a training, before it is begun"),
    "preflight": ("pretrain.preflight", "say what would stop a run, before it takes the GPUs"),
    "evaluate": ("pretrain.evaluate", "retrieval, localisation and an HTML report"),
    "import": ("pretrain.release.importers.command", "open a published checkpoint as a run"),
    "release": ("pretrain.release", "write a folder that opens in three lines"),
    "export": ("pretrain.release.exports.command", "write a model for another library"),
}
#: Started on every rank by torchrun or srun.
_ON_ALL_RANKS = ("train", "preflight", "evaluate")


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in _COMMANDS:
        print("usage: python -m pretrain COMMAND [CONFIG.yaml ...] [key=value ...]\n")
        for name, (_, summary) in _COMMANDS.items():
            print(f"  {name:<10}{summary}")
        print("\n`python -m pretrain COMMAND --help` lists the command's keys.")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    return run_command(run, arguments)


def run(arguments: list[str]) -> int | None:
    """A command's name and its arguments; returns its exit status."""
    if arguments[0] in _ON_ALL_RANKS:
        end_with_launcher()
        announce_rank()  # before anything is imported that asks who it is
    module = importlib.import_module(_COMMANDS[arguments[0]][0])
    status: int | None = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
