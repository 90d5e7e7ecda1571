"""Threads that read ahead are as many as CPUs are this rank's."""

import os

import pytest

from pretrain.evaluate.reading import own_threads, prepare_ahead


@pytest.mark.parametrize(
    ("num_cpus", "num_ranks", "of_slurm", "expected"),
    [
        (6, 1, False, 6),
        (6, 2, False, 3),  # torchrun's ranks share the node's CPUs
        (1, 4, False, 1),
        (6, 2, True, 6),  # srun's have their own
        (200, 2, False, 16),
    ],
)
def test_own_threads(
    num_cpus: int, num_ranks: int, of_slurm: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cpus)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_ranks))
    for name in ("SLURM_STEP_ID", "SLURM_PROCID"):
        if of_slurm:
            monkeypatch.setenv(name, "0")
        else:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert own_threads() == expected


def test_no_more_is_prepared_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    begun: list[int] = []
    prepared = prepare_ahead(range(20), begun.append, ahead=1)
    next(prepared)
    prepared.close()  # type: ignore[attr-defined]
    assert len(begun) <= 2
