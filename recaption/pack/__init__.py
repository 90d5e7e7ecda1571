"""Web shards and their caption tables -> MDS training shards."""

from recaption.pack.config import PackConfig
from recaption.pack.job import PackSummary, pack
from recaption.pack.samples import COLUMNS

__all__ = ["COLUMNS", "PackConfig", "PackSummary", "pack"]
