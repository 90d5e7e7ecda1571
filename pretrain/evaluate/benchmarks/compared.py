"""Results of other models, whose rows stand beside ours."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.results import RESULTS, read_results
from pretrain.evaluate.benchmarks.table import CHANCE
from recaption.common.config import ConfigError


@dataclass(frozen=True)
class Compared:
    """What another model reached, as its `results.json` tells."""

    model: str
    benchmarks: Mapping[str, Mapping[str, Any]]


def read_compared(paths: Sequence[str]) -> list[Compared]:
    """Files of results, or the folders that hold one.

    Raises:
        ConfigError: there is none.
        UserError: it is damaged, or no file of results.
    """
    compared = []
    for given in paths:
        path = Path(given) / RESULTS if Path(given).is_dir() else Path(given)
        if not path.is_file():
            raise ConfigError(
                f"compare={given}: no {path} is there; `evaluate benchmark=` writes it"
            )
        tree = read_results(path)
        compared.append(Compared(str(tree["model"]["name"]), tree["benchmarks"]))
    return compared


def named_apart(ours: str, compared: Sequence[Compared]) -> list[Compared]:
    """The same under names that neither our model, nor chance, nor another of them has."""
    names = [ours, CHANCE]
    apart = []
    for other in compared:
        name, number = other.model, 1
        while name in names:
            number += 1
            name = f"{other.model} ({number})"
        names.append(name)
        apart.append(Compared(name, other.benchmarks))
    return apart


def alike(
    key: str, result: Mapping[str, Any], compared: Sequence[Compared]
) -> list[tuple[str, Mapping[str, Any]]]:
    """(model, result) of those who were given the same variant of a benchmark, by the same
    protocol, and the same files, classes and prompts.

    Others are named on stderr: of other things figures do not compare.
    """
    found = []
    for other in compared:
        theirs = other.benchmarks.get(key)
        if theirs is None:
            continue
        if all(theirs.get(key) == result[key] for key in ("variant", "protocol", "inputs")):
            found.append((other.model, theirs))
        else:
            print(
                f"warning: {key} of {other.model} is not compared: it is of another protocol, or "
                "of other files, classes or prompts",
                file=sys.stderr,
            )
    return found
