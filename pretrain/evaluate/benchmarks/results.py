"""`results.json`: what one model reaches on benchmarks, by one version of the code.

Benchmarks may come one by one, and what was there before stays, as long as it is of the same model,
code and batch size. Other results are moved aside, never mixed and never lost.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaption.common.files import atomic_write, read_json

RESULTS = "results.json"


class Results:
    """The results of a folder; `tree` is what stands in the file.

    Args:
        output: the folder.
        header: model, code and settings that all figures of a file have in common.
    """

    def __init__(self, output: Path, header: Mapping[str, Any]) -> None:
        self.path = output / RESULTS
        self.moved: Path | None = None  # where other results went, once these are written
        self.tree: dict[str, Any] = {**header, "benchmarks": {}, "left_out": {}}
        commit = header["code"]["commit"]
        self._is_known_code = bool(commit) and not commit.endswith("+")
        before = read_json(self.path) if self.path.exists() else {}
        self._are_others_there = bool(before) and any(
            before.get(key) != json.loads(json.dumps(header[key])) for key in header
        )
        if before and not self._are_others_there:
            self.tree["benchmarks"] = before["benchmarks"]
            self.tree["left_out"] = before["left_out"]

    def has(self, name: str, described: Mapping[str, Any]) -> bool:
        """Whether the figures of a benchmark are there, of the same files and by known code.

        `described` is what stands in the file beside `figures` and `seconds`.
        """
        there = self.tree["benchmarks"].get(name)
        wanted = json.loads(json.dumps(described))
        return (
            self._is_known_code
            and there is not None
            and all(there.get(key) == value for key, value in wanted.items())
        )

    def put(self, name: str, described: Mapping[str, Any]) -> None:
        """Adds or replaces a benchmark, and writes the file."""
        self.tree["left_out"].pop(name, None)
        self.tree["benchmarks"][name] = described
        self._write()

    def leave_out(self, name: str, reason: str) -> None:
        """Notes what the model has no answers for, and writes the file."""
        self.tree["benchmarks"].pop(name, None)
        self.tree["left_out"][name] = reason
        self._write()

    def _write(self) -> None:
        if self._are_others_there:
            self.moved = _free_name(self.path)
            self.path.rename(self.moved)
            self._are_others_there = False
        with atomic_write(self.path) as path:
            path.write_text(json.dumps(self.tree, indent=2) + "\n")


def _free_name(path: Path) -> Path:
    number = 1
    while (moved := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return moved
