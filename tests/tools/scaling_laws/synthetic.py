"""Tables whose laws are known."""

import csv
from pathlib import Path
from typing import Any

from tools.scaling_laws.made import CURVE, JOINT, curve, joint, ladder, noise, trunk_noise

__all__ = [
    "CURVE",
    "JOINT",
    "curve",
    "joint",
    "ladder",
    "ladder_rows",
    "noise",
    "trunk_noise",
    "write_rows",
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ladder_rows(
    method: str = "caft", scatter: float = 0.01, seed: int = 0, k: float = 6.0, **changes: float
) -> list[dict[str, Any]]:
    """Rows in Canopy's columns of a ladder that follows ``JOINT`` with ``changes``."""
    places = ladder()
    losses = joint(*places.T, **{**JOINT, **changes}) * noise(len(places), scatter, seed)
    return [
        {
            "name": f"{method}-{size:.0e}-{samples:.0e}",
            "model": f"{size:.0e}",
            "params_image": 0.6 * size,
            "params_text": 0.4 * size,
            "params": size,
            "flops_per_sample": k * size,
            "samples": samples,
            "flops": k * size * samples,
            "loss": loss,
            "error": loss / 4,
            "method": method,
            "status": "ok",
        }
        for (size, samples), loss in zip(places.tolist(), losses.tolist(), strict=True)
    ]
