"""``python -m tools.scaling_laws plan | run | fit | report | coverage``."""

import importlib
import sys

from recaption.common.config import run_command

_COMMANDS = {
    "plan": "the ladder: sizes, samples, batch, learning rate, compute and cost",
    "run": "train and evaluate what the plan still lacks, here or on Slurm",
    "fit": "fit laws to the results, predict, compare two methods",
    "report": "a page with plots and tables",
    "coverage": "how often the intervals of fits hold the truth, on tables of known laws",
}


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in _COMMANDS:
        print("usage: python -m tools.scaling_laws COMMAND [CONFIG.yaml ...] [key=value ...]\n")
        for name, summary in _COMMANDS.items():
            print(f"  {name:<10}{summary}")
        print("\n`python -m tools.scaling_laws COMMAND --help` lists the command's keys.")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command = importlib.import_module(f"tools.scaling_laws.{arguments[0]}")
    return run_command(command.main, arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
