"""``python -m recaption COMMAND``: web shards -> caption tables -> training shards."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from PIL import Image

from recaption.common.config import UserError, load_config, print_json, run_command
from recaption.common.signals import EXIT_UNFINISHED, take_warnings_as_sigterm
from recaption.config import RetryConfig, RunConfig
from recaption.pack import PackConfig, pack
from recaption.report import ReportConfig, write_report
from recaption.runner import retry, run
from recaption.status import StatusConfig, status
from recaption.verify import Verification, VerifyConfig, verify

USAGE = """usage: python -m recaption COMMAND [YAML ...] [key=value ...] [--json]
       python -m recaption COMMAND --help

  run     captions the images of web shards, into one table per tar; workers share the tars
  status  how far the workers of an output folder are: rate, time left, failures by reason
  retry   asks again what failed in the tables of `run`
  verify  proves that every key has its rows exactly once, and that tables are what they say
  report  one HTML file: captions beside their images, lengths, reasons, worst cases
  pack    joins web shards and caption tables into training shards

--json prints the figures as one JSON object in the last line.
"""
COMMANDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "run": (RunConfig, run),
    "status": (StatusConfig, status),
    "retry": (RetryConfig, retry),
    "verify": (VerifyConfig, verify),
    "report": (ReportConfig, write_report),
    "pack": (PackConfig, pack),
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    name, *arguments = argv
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}: use {' or '.join(COMMANDS)}")
    schema, command = COMMANDS[name]
    usage = f"usage: python -m recaption {name} [YAML ...] [key=value ...] [--json]"
    config: Any = load_config(schema, arguments, usage)
    # A job that is told to stop ends as one that is interrupted by Ctrl-C, in the background too.
    take_warnings_as_sigterm()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # `images.max_pixels` decides instead, and what it refuses is a row.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        summary = command(config)
    except KeyboardInterrupt:
        if "SLURM_JOB_ID" not in os.environ:
            raise
        print("stopped; the job goes on from here later", file=sys.stderr)
        return EXIT_UNFINISHED
    print(summary)
    print_json(arguments, vars(summary))
    return 1 if isinstance(summary, Verification) and summary.num_problems else 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
