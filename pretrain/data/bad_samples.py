"""Samples that cannot be decoded: told one by one, counted, and too many of them an error."""

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from recaption.common.config import UserError

#: Samples a rank looks back on, unless its batches are larger.
WINDOW = 1000


@dataclass(frozen=True)
class BadSample:
    """A sample of the training shards that another one stands in for."""

    key: str
    shard: str  # the tar that it was packed from
    file: str  # the training shard that holds it
    reason: str

    def __str__(self) -> str:
        return (
            f"sample {self.key!r} (packed from shard {self.shard}) of {self.file} cannot be "
            f"decoded: {self.reason}"
        )


class BadSampleError(Exception):
    """Inside the loader: this sample is bad, take another."""

    def __init__(self, bad: BadSample) -> None:
        super().__init__(str(bad))
        self.bad = bad


class BadSampleWatch:
    """Tells each bad sample on stderr once, and gives up where there are too many.

    Args:
        max_share: of the last `WINDOW` samples; 0: the first bad one ends the run.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._recent: deque[tuple[int, int]] = deque()  # samples and bad samples of each batch
        self._told: set[tuple[str, str]] = set()

    def look_at(self, num_samples: int, bad_samples: Sequence[BadSample]) -> None:
        """Takes note of one batch.

        Raises:
            UserError: more bad samples in the window than the share allows; names the last.
        """
        for bad in bad_samples:
            if (bad.shard, bad.key) not in self._told:
                self._told.add((bad.shard, bad.key))
                print(f"warning: {bad}; another takes its place", file=sys.stderr, flush=True)
        self._recent.append((num_samples, len(bad_samples)))
        while sum(num for num, _ in self._recent) - self._recent[0][0] >= WINDOW:
            self._recent.popleft()
        num_bad = sum(num for _, num in self._recent)
        window = max(WINDOW, sum(num for num, _ in self._recent))
        # Of a whole window, so that one bad sample among the first few is not a large share.
        if num_bad > self._max_share * window and bad_samples:
            raise UserError(
                f"{bad_samples[-1]}; with it {num_bad} of the last {window:,} samples are bad, "
                f"more than data.max_bad_share={self._max_share}: check the disk, pack the shards "
                "again, or raise the limit"
            )
