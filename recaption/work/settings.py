"""What all workers of an output folder must agree on, whoever comes first.

``settings.json`` in the folder of claims says it before the first table does: a worker with
another prompt, model or filter ends before it captions anything. What decides only how fast it
goes is not in there.
"""

import contextlib
import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.common.files import read_json, sync
from recaption.engine import CaptionOrigin
from recaption.table import changed_settings

SETTINGS = "settings.json"


def agree_on_settings(work: Path, origins: list[CaptionOrigin], filters: dict[str, Any]) -> None:
    """Writes the settings, if this worker is the first, or compares its own with them.

    Raises:
        UserError: another worker began with other prompts, models or filters.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / SETTINGS
    ours = {"origins": [asdict(origin) for origin in origins], "filters": filters}
    if not path.exists():
        # Whole when it appears, and only once: a link is made by one worker, also over NFS.
        temporary = work / f".{SETTINGS}.{uuid.uuid4().hex}.tmp"
        temporary.write_text(json.dumps(ours, indent=1, ensure_ascii=False) + "\n")
        sync(temporary)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    theirs = read_json(path)
    try:
        then = [CaptionOrigin(**origin) for origin in theirs["origins"]], theirs["filters"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it") from None
    # As JSON has it: a tuple is a list there.
    changed = changed_settings((origins, json.loads(json.dumps(filters))), then)
    if changed:
        raise UserError(
            f"{work.parent} is being captioned with another {' and '.join(changed)} ({path}): use "
            f"another output folder, or delete its tables and {work.name}/"
        )
