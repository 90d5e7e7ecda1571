"""Whether the others that have shards in hand are alive, seen from outside: their claims move."""

import contextlib
from collections.abc import Iterable
from glob import escape
from pathlib import Path


class SignsOfLife:
    """Watches the claims of a folder from its creation on.

    A claim that is touched or changes hands is a worker's that lives. One that stands still may be
    that of a worker that is gone, until it is stale and can be taken over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: dict[str, dict[str, int]] = {}

    def of_all(self, shards: Iterable[str]) -> bool:
        """Whether every shard's claim has moved since it was first looked at."""
        standing_still = [shard for shard in shards if not self._has_moved(shard)]
        return not standing_still

    def _has_moved(self, shard: str) -> bool:
        claims = {}
        for path in self._folder.glob(f"{escape(shard)}.claim.*"):
            with contextlib.suppress(FileNotFoundError):  # given back this moment
                claims[path.name] = path.stat().st_mtime_ns
        return bool(claims) and self._first.setdefault(shard, claims) != claims
