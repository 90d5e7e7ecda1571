"""`code.json` of a run: which code trained which of its steps."""

import json
from pathlib import Path
from typing import Any

from pretrain.checkpoint import run_folder
from pretrain.evaluate.provenance import describe_code
from recaption.common.files import atomic_write, read_json

CODE = "code.json"


def note_code(run: Path, first_step: int, checkpoint: Path | None = None) -> None:
    """What runs here trains the steps after `first_step`; what is noted of those is dropped.

    Args:
        checkpoint: that of `first_step`, which may be another run's: its code trained the steps
            before. None: there is none yet.
    """
    before = read_code(run_folder(checkpoint)) if checkpoint is not None else []
    parts = [part for part in before if part["after_step"] < first_step]
    now = {"after_step": first_step, **describe_code()}
    if not parts or now != {**parts[-1], "after_step": first_step}:
        parts.append(now)
    with atomic_write(run / CODE) as temporary:
        temporary.write_text(json.dumps(parts, indent=2) + "\n")


def read_code(run: Path) -> list[dict[str, Any]]:
    """By steps: `after_step`, and what `describe_code` told; empty for a run that noted nothing."""
    parts: list[dict[str, Any]] = read_json(run / CODE) if (run / CODE).is_file() else []
    return parts
