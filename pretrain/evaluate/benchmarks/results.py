"""`results.json`: what one model reaches on benchmarks, by one version of the code.

Benchmarks may come one by one, from several commands at a time, and what was there before stays, as
long as it is of the same model, code and batch size. Other results are moved aside, never mixed and
never lost.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.registry import key_of_result, place_of_key
from pretrain.evaluate.benchmarks.table import format_results
from recaption.common.config import UserError
from recaption.common.files import atomic_write, read_json

RESULTS = "results.json"
_LOCK = ".results.lock"


def read_results(path: Path) -> dict[str, Any]:
    """What `Results` wrote; keys of before there were several variants become those of now.

    Raises:
        UserError: it is damaged, or no file of results.
    """
    tree = read_json(path)
    try:
        of_benchmarks = tree["benchmarks"].items()
        tree["benchmarks"] = {key_of_result(key, result): result for key, result in of_benchmarks}
        tree.setdefault("left_out", {})
        format_results(tree, {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} holds no results of benchmarks") from None
    return tree  # type: ignore[no-any-return]


class Results:
    """The results of a folder; `tree` is what stands in the file.

    Args:
        output: the folder, which exists.
        header: model, code and settings that all figures of a file have in common.

    Raises:
        UserError: what is there is no file of results.
    """

    def __init__(self, output: Path, header: Mapping[str, Any]) -> None:
        self.path = output / RESULTS
        self.moved: list[Path] = []  # where others' results went, once these are written
        self._header = json.loads(json.dumps(header))
        self.tree: dict[str, Any] = {**self._header, "benchmarks": {}, "left_out": {}}
        commit = header["code"]["commit"]
        self._is_known_code = bool(commit) and not commit.endswith("+")
        self._read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other command writes into the folder meanwhile; `tree` has what they have written."""
        with (self.path.with_name(_LOCK)).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read()
            yield

    def has(self, key: str, described: Mapping[str, Any]) -> bool:
        """Whether the figures of a benchmark are there, of the same files and by known code.

        `described` is what stands in the file beside the figures and what they took.
        """
        self._read()
        there = self.tree["benchmarks"].get(key)
        wanted = json.loads(json.dumps(described))
        return (
            self._is_known_code
            and there is not None
            and all(there.get(name) == value for name, value in wanted.items())
        )

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Adds or replaces a benchmark's result, and writes the file."""
        with self.alone():
            self.tree["left_out"].pop(key, None)
            self.tree["benchmarks"][key] = result
            self._write()

    def leave_out(self, key: str, reason: str) -> None:
        """Notes what the model has no answers for, and writes the file."""
        with self.alone():
            self.tree["benchmarks"].pop(key, None)
            self.tree["left_out"][key] = reason
            self._write()

    def _read(self) -> None:
        """Takes over what is in the file, unless it is others'."""
        there = read_results(self.path) if self.path.exists() else {}
        is_ours = all(there.get(name) == value for name, value in self._header.items())
        self._are_others_there = bool(there) and not is_ours
        if is_ours:
            self.tree = there

    def _write(self) -> None:
        by_place = sorted(self.tree["benchmarks"].items(), key=lambda item: place_of_key(item[0]))
        self.tree["benchmarks"] = dict(by_place)
        if self._are_others_there:
            self.moved.append(_free_name(self.path))
            self.path.rename(self.moved[-1])
        with atomic_write(self.path) as path:
            path.write_text(json.dumps(self.tree, indent=2) + "\n")


def _free_name(path: Path) -> Path:
    number = 1
    while (moved := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return moved
