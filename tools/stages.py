"""Commands run one after the other; one that was done before is not run again."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.common.files import atomic_write
from recaption.common.progress import format_seconds

# Several processes share the cores: a thread that waits must not keep one busy.
_SHARED_CORES = {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}


class Stages:
    """Runs commands once each; remembers in ``stages.json`` how long each took and what it gave."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        self._done: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            self._done = json.loads(self._path.read_text())

    @property
    def seconds(self) -> dict[str, float]:
        return {name: stage["seconds"] for name, stage in self._done.items()}

    def run(self, name: str, *command: str | Path) -> dict[str, Any]:
        """Runs a command unless it was run before.

        Returns:
            What the command printed as its last line, where it was asked for ``--json``.

        Raises:
            UserError: the command failed.
        """
        if name in self._done:
            taken = format_seconds(self._done[name]["seconds"])
            print(f"\n== {name}: done before, in {taken}", flush=True)
            return self._done[name]["figures"]
        words = [str(word) for word in command]
        print(f"\n== {name}\n$ {shlex.join(words)}", flush=True)
        started = time.monotonic()
        last_line = ""
        with subprocess.Popen(
            words, env={**_SHARED_CORES, **os.environ}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last_line = line
                if not line.startswith("{"):
                    print(line, end="", flush=True)
        if process.returncode != 0:
            raise UserError(f"{name} failed with status {process.returncode}, see above")
        figures = json.loads(last_line) if "--json" in words else {}
        seconds = round(time.monotonic() - started, 1)
        self._done[name] = {"seconds": seconds, "figures": figures}
        with atomic_write(self._path) as path:
            path.write_text(json.dumps(self._done, indent=2))
        return figures


def torchrun(num_ranks: int) -> list[str]:
    """The launcher's words, before the module's name."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(num_ranks), "-m"),
    ]
