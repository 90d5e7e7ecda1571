"""The configuration of ``python -m recaption pack``."""

import os
import re
from dataclasses import dataclass, field
from typing import Any

from recaption.common.config import ConfigError, check_at_least, check_choice, to_dict
from recaption.images import ImageConfig

#: Settings that decide what is written; not where from, where to or how fast.
DECIDING = (
    *("require", "images", "image_format", "quality", "shard_size", "bucket_size"),
    *("shuffle", "seed", "val_share", "duplicates", "licences"),
)


@dataclass
class PackConfig:
    #: A folder of tars, one tar, or a glob in quotes; also under s3:// or gs://.
    shards: str
    #: The new folder of training shards; s3:// and gs:// are uploaded to.
    output: str
    #: Folders of caption tables, separated by commas; none for the alt texts alone. FOLDER=NAME
    #: calls a folder's captions NAME-PROMPT, for tables of one prompt by several models.
    tables: str | None = None
    #: Sources (prompt ids, `raw` for the alt text) without a caption of which a sample is left out.
    require: list[str] = field(default_factory=list)
    images: ImageConfig = field(default_factory=ImageConfig)
    #: How images are stored: jpeg, or png for small lossless sources.
    image_format: str = "jpeg"
    #: JPEG quality.
    quality: int = 95
    #: Largest size of a training shard, in MiB.
    shard_size: int = 64
    #: Whether samples are shuffled, over all tars; else they stay in the order of the input.
    shuffle: bool = True
    seed: int = 0
    #: Share of the images that goes to `OUTPUT/val` (the others to `OUTPUT/train`), by the hash of
    #: the image: the same images in every pack. 0 for no such folders.
    val_share: float = 0.0
    #: What becomes of a sample whose image came before: drop (to quarantine.jsonl), or keep (and
    #: list it in duplicates.jsonl).
    duplicates: str = "drop"
    #: Licences and terms of images, alt texts and captions, for the data card.
    licences: list[str] = field(default_factory=list)
    #: Processes that decode and write; 0 for one a CPU.
    num_processes: int = 0
    #: What one process writes at a time, and holds in memory, in MiB. Its last shard is smaller.
    bucket_size: int = 512
    #: A folder for intermediate files, about as large as the output; without it OUTPUT.partial.
    work: str | None = None

    def __post_init__(self) -> None:
        check_choice("image_format", self.image_format, ("jpeg", "png"))
        check_choice("duplicates", self.duplicates, ("drop", "keep"))
        for name in ("quality", "shard_size", "bucket_size"):
            check_at_least(1, {name: getattr(self, name)})
        check_at_least(0, {"num_processes": self.num_processes, "val_share": self.val_share})
        if self.val_share >= 1:
            raise ConfigError(f"val_share={self.val_share}: it must be below 1")
        if self.shard_size >= 4096:
            raise ConfigError(f"shard_size={self.shard_size}: MDS shards end below 4096 MiB")

    @property
    def splits(self) -> tuple[str, ...]:
        """The folders below the output; one without a name where nothing is split off."""
        return ("train", "val") if self.val_share else ("",)

    @property
    def num_workers(self) -> int:
        return self.num_processes or len(os.sched_getaffinity(0))


def table_entries(tables: str | None) -> list[tuple[str, str | None]]:
    """``FOLDER`` or ``FOLDER=NAME``, separated by commas -> folders and names."""
    entries = []
    for entry in filter(None, (tables or "").split(",")):
        named = re.fullmatch(r"(.+)=([\w.-]+)", entry)
        entries.append((named[1], named[2]) if named else (entry, None))
    return entries


def deciding_settings(config: PackConfig) -> dict[str, Any]:
    settings = {name: value for name, value in to_dict(config).items() if name in DECIDING}
    return settings | {"table_names": [name for _, name in table_entries(config.tables)]}
