"""``quarantine.jsonl`` and ``duplicates.jsonl``: what was left out or marked, in order."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recaption.pack.config import PackConfig
from recaption.pack.pieces import open_piece, read_report
from recaption.pack.plan import Plan, load_twins

QUARANTINE, DUPLICATES = "quarantine.jsonl", "duplicates.jsonl"


def write_manifests(config: PackConfig, work: Path, plan: Plan, output: Path) -> Counter[str]:
    """Returns: the lines of the quarantine by their reason's code."""
    twins = load_twins(work)
    pieces = (twins[:, 0] >> np.uint64(32)).astype(np.int64)
    firsts = _keys_of(work, plan, twins[:, 1])
    reasons: Counter[str] = Counter()
    is_dropped = config.duplicates == "drop"
    with (output / QUARANTINE).open("w") as quarantine:
        others = quarantine if is_dropped else (output / DUPLICATES).open("w")
        for number, name in enumerate(plan.names):
            lines = [(*line, quarantine) for line in read_report(work, name).quarantine]
            start, end = np.searchsorted(pieces, [number, number + 1])
            keys = _keys_of(work, plan, twins[start:end, 0])
            for place, key, first in zip(
                twins[start:end, 0].tolist(), keys.to_pylist(), range(start, end), strict=True
            ):
                reason = f"duplicate-image: the same as {firsts[first].as_py()}"
                lines.append((place & 0xFFFFFFFF, key.split("/", 1)[1], reason, others))
            for _, key, reason, file in sorted(lines, key=lambda line: line[0]):
                row: dict[str, Any] = {"key": key, "shard": name, "reason": reason}
                file.write(json.dumps(row) + "\n")
                if file is quarantine:
                    reasons[reason.split(":")[0]] += 1
        others.close()
    return reasons


def _keys_of(work: Path, plan: Plan, places: np.ndarray) -> pa.StringArray:
    """``SHARD/KEY`` of each place in the input. Every piece is opened once."""
    order = np.argsort(places)
    pieces = (places[order] >> np.uint64(32)).astype(np.int64)
    positions = (places[order] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    found = [pa.array([], pa.string())]
    for piece in np.unique(pieces):
        table = open_piece(work, plan.names[piece]).select(["key", "position"])
        by_position = np.argsort(table["position"].to_numpy())
        sorted_positions = table["position"].to_numpy()[by_position]
        rows = by_position[np.searchsorted(sorted_positions, positions[pieces == piece])]
        names = [f"{plan.names[piece]}/{key}" for key in table["key"].take(rows).to_pylist()]
        found.append(pa.array(names, pa.string()))
    back = np.empty(len(places), np.int64)
    back[order] = np.arange(len(places))
    return pa.concat_arrays(found).take(back)
