"""Whether the tables of a disturbed run are those of an undisturbed one, key by key."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.shards import Shard, find_shards
from recaption.table import read_table

#: What may differ: nothing but this is compared.
_COMPARED = ("sha256", "caption", "raw_caption", "sentences", "num_tokens", "status", "reason")


@dataclass
class Comparison:
    num_rows: int = 0
    missing: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    #: Not in the tar.
    unknown: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def compare(tars: str, killed: Path, whole: Path) -> Comparison:
    """Every key of the tars must have one row a prompt in ``killed``, and that of ``whole``."""
    found = Comparison()
    for tar in find_shards(tars):
        expected = {_place(row): row for row in read_table(whole, tar.stem).to_pylist()}
        prompts = {prompt for _, prompt in expected}
        with_shard = Shard(tar)
        keys = [sample.key for sample in with_shard.index.samples]
        with_shard.close()
        try:
            rows = read_table(killed, tar.stem).to_pylist()
        except UserError as error:
            found.missing.append(str(error))
            continue
        found.num_rows += len(rows)
        counts = Counter(_place(row) for row in rows)
        for place in [(key, prompt) for key in keys for prompt in sorted(prompts)]:
            if counts[place] != 1:
                problems = found.double if counts[place] else found.missing
                problems.append(f"{tar.stem} {place[0]} {place[1]}")
        for row in rows:
            other = expected.get(_place(row))
            if row["key"] not in keys or other is None:
                found.unknown.append(f"{tar.stem} {row['key']}")
                continue
            unequal = [name for name in _COMPARED if row[name] != other[name]]
            if unequal:
                shown = ", ".join(f"{name} {row[name]!r} not {other[name]!r}" for name in unequal)
                found.different.append(f"{tar.stem} {row['key']}: {shown[:300]}")
    return found


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["key"], row["prompt_id"]
