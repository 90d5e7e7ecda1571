"""What killed workers left of shards that are finished, and nobody would look at again."""

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

from recaption.table import discard_leftovers
from recaption.work.claims import Claims, all_claims
from recaption.work.journal import all_journals, journal_paths, num_retries_of

_DAY = 86400.0  # seconds; more than clocks of machines differ by


def discard_finished(
    folder: Path, claims: Claims, shards: Collection[str], num_retries: Callable[[str], int | None]
) -> None:
    """Discards journals and stale claims of finished shards that nobody has in hand.

    Journals of a retry that was begun and killed stay for the next one.

    Args:
        folder: of claims and journals.
        claims: this worker's.
        shards: those that are looked at.
        num_retries: of a finished shard's table; None for one that is not finished.
    """
    for clock in folder.glob(".clock.*"):  # of killed workers; one that lives makes it again
        with contextlib.suppress(FileNotFoundError):
            if clock.stat().st_mtime < time.time() - _DAY:
                clock.unlink()
    marked = {shard for shard, _, _ in all_claims(folder)}
    marked |= {shard for shard, _ in all_journals(folder)}
    for shard in sorted(marked.intersection(shards)):
        claim = claims.take(shard)
        if claim is None:
            continue
        finished = num_retries(shard)
        if finished is not None:
            for path in journal_paths(folder, shard):
                if num_retries_of(path) <= finished:
                    path.unlink(missing_ok=True)
            discard_leftovers(folder.parent, shard)
        claims.release(claim)
