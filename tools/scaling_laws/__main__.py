"""``python -m tools.scaling_laws plan | run | fit | compare | report``."""

import importlib
import sys

from recaption.common.config import run_command

_COMMANDS = {
    "plan": "what each run of a ladder is trained with, and what it costs",
    "run": "train the runs that are not done, here or on Slurm; writes results.csv",
    "fit": "scaling laws of a table of results, with intervals",
    "compare": "two methods at equal compute, with the uncertainty",
    "report": "a page with plots and the table; CSV, JSON and LaTeX",
}


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in _COMMANDS:
        print("usage: python -m tools.scaling_laws COMMAND [LADDER.yaml ...] [key=value ...]\n")
        for name, summary in _COMMANDS.items():
            print(f"  {name:<10}{summary}")
        print("\n`python -m tools.scaling_laws COMMAND --help` lists the command's keys.")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    module = importlib.import_module(f"tools.scaling_laws.{arguments[0]}")
    return run_command(module.main, arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
