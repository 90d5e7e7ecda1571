"""Commands run one after the other; one that was done before is not run again."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recaption.common.config import JSON_FLAG, UserError
from recaption.common.files import atomic_write
from recaption.common.progress import format_seconds

# Several processes share the cores: a thread that waits must not keep one busy.
SHARED_CORES = {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}


class Stages:
    """Runs commands once each; remembers in ``stages.json`` how long each took and what it gave.

    The seconds of a stage that was interrupted and run again are those of all its attempts.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        self._stages: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            self._stages = json.loads(self._path.read_text())

    @property
    def seconds(self) -> dict[str, float]:
        return {name: stage["seconds"] for name, stage in self._stages.items()}

    def run(self, name: str, *command: str | Path) -> dict[str, Any]:
        """Runs a command unless it was run before.

        Returns:
            What the command printed as its last line, where it was asked for ``--json``.

        Raises:
            UserError: the command failed, or was another one when it was run before.
        """
        words = [str(word) for word in command]
        before = self._stages.setdefault(name, {"command": words, "seconds": 0.0, "done": False})
        if before["command"] != words:
            raise UserError(
                f"{self._path.parent} was made with other settings: {name} was "
                f"`{shlex.join(before['command'])}`; use another output folder, or delete this one"
            )
        if before["done"]:
            print(f"\n== {name}: done before, in {format_seconds(before['seconds'])}", flush=True)
            return before["figures"]
        print(f"\n== {name}\n$ {shlex.join(words)}", flush=True)
        started = time.monotonic()
        try:
            last_line = self._run(name, words)
        finally:
            before["seconds"] = round(before["seconds"] + time.monotonic() - started, 1)
            self._write()
        figures = json.loads(last_line) if JSON_FLAG in words else {}
        before |= {"done": True, "figures": figures}
        self._write()
        return figures

    def _run(self, name: str, words: list[str]) -> str:
        """Shows what the command prints, and returns its last line."""
        last_line = ""
        with subprocess.Popen(
            words, env={**SHARED_CORES, **os.environ}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last_line = line
                if not line.startswith("{"):
                    print(line, end="", flush=True)
        if process.returncode != 0:
            raise UserError(f"{name} failed with status {process.returncode}, see above")
        return last_line

    def _write(self) -> None:
        with atomic_write(self._path) as path:
            path.write_text(json.dumps(self._stages, indent=2))


def torchrun(num_ranks: int) -> list[str]:
    """The launcher's words, before the module's name."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(num_ranks), "-m"),
    ]
