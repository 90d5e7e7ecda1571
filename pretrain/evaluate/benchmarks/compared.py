"""Results of other models, whose rows stand beside ours."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.results import RESULTS
from recaption.common.config import ConfigError, UserError
from recaption.common.files import read_json


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
        tree = read_json(path)
        try:
            compared.append(Compared(tree["model"]["name"], tree["benchmarks"]))
        except (KeyError, TypeError):
            raise UserError(f"{path} holds no results of benchmarks") from None
    return compared


def alike(
    name: str, result: Mapping[str, Any], compared: Sequence[Compared]
) -> list[tuple[str, Mapping[str, Any]]]:
    """(model, result) of those who were given the same variant and the same files of a benchmark.

    Others are named on stderr: on other files figures do not compare.
    """
    found = []
    for other in compared:
        theirs = other.benchmarks.get(name)
        if theirs is None:
            continue
        if all(theirs.get(key) == result[key] for key in ("variant", "inputs")):
            found.append((other.model, theirs))
        else:
            print(
                f"warning: {name} of {other.model} is not compared: it is of another variant or of "
                "other files",
                file=sys.stderr,
            )
    return found
