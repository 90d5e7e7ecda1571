"""Whether a folder of training shards can be read; told before anything starts."""

import json
from pathlib import Path
from typing import Any

from pretrain.data.config import DataConfig
from recaption.common.config import UserError
from recaption.common.files import read_json


def check_shards(folder: Path | str) -> list[dict[str, Any]]:
    """The shards of the folder's index, all of them there and of the size that they were written.

    The streaming library would wait for ever for one that is missing.
    """
    index = Path(folder) / "index.json"
    if not index.is_file():
        raise UserError(
            f"{folder} is not a folder of training shards (no index.json): "
            "`python -m recaption pack` writes one"
        )
    try:
        shards: list[dict[str, Any]] = json.loads(index.read_text())["shards"]
        num_samples = sum(shard["samples"] for shard in shards)
        files = [shard["zip_data"] or shard["raw_data"] for shard in shards]
        sizes = {file["basename"]: file["bytes"] for file in files}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is damaged ({error!r}): pack the shards again") from None
    for name, size in sizes.items():
        path = Path(folder) / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
            raise UserError(f"{path} {what}: copy or pack the shards again")
    if not num_samples:
        raise UserError(f"{folder} holds no sample")
    return shards


def check_sources(config: DataConfig) -> None:
    """Whether every sample has a caption of the one source wanted, by what ``pack`` counted."""
    marker = Path(config.train) / "pack.json"
    if len(config.captions.sources) != 1 or not marker.is_file():
        return
    (source,) = config.captions.sources
    summary = read_json(marker)["summary"]
    num_without = summary["num_samples"] - summary["sources"].get(source, 0)
    if num_without:
        raise UserError(
            f"{num_without:,} of {summary['num_samples']:,} samples of {config.train} have no "
            f"caption of the source {source!r} (there are: {', '.join(summary['sources'])}); pack "
            f"again with require=[{source}], or name more in data.captions.sources"
        )
