"""`metrics.jsonl` on a disk that is full for a while."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pretrain.metrics import MetricsLog, read_metrics


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The kernel writes no further, as on a full disk: first a piece, then an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_row_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write({"step": 1, "loss": float("nan")})
    with files_of_at_most(path.stat().st_size + 10), pytest.raises(OSError):
        log.write({"step": 2, "loss": 1.0})
    log.write({"step": 3, "loss": 0.5})
    log.close()
    assert read_metrics(path) == [{"step": 1, "loss": None}, {"step": 3, "loss": 0.5}]


def test_rows_behind_the_last_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    MetricsLog(path, 2).write({"step": 3, "loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert read_metrics(path)[-1] == {"step": 3, "loss": 1.0}
