"""What a checkpoint promises: whole, on disk, and only then called complete."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pretrain import checkpoint
from pretrain.checkpoint import COMPLETE, WEIGHTS, TrainState, save_checkpoint

NUM_RANKS = 2


@dataclass
class ThreadRanks:
    """One rank of a few that are threads of this process."""

    rank: int
    meeting: Barrier

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        self.meeting.wait(timeout=20)


@dataclass
class SmallEngine:
    rank: int

    def save(self, folder: Path) -> None:
        (folder / f"optimizer_{self.rank}.pt").write_text("state")

    def full_state_dict(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.ones(2)}


def save_slowly(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """As safetensors does: under another name until the file is whole. Only slower."""
    temporary = path.with_name(".being-written")
    save_file(tensors, temporary)
    time.sleep(0.3)
    temporary.rename(path)


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Saves one checkpoint; gives the names that were synced, and whether COMPLETE was there."""
    synced: list[tuple[str, bool]] = []

    def note(path: Path) -> None:
        assert path.exists(), path
        synced.append((path.name, any(tmp_path.rglob(COMPLETE))))

    monkeypatch.setattr(checkpoint, "save_file", save_slowly)
    monkeypatch.setattr(checkpoint, "sync", note)
    meeting = Barrier(NUM_RANKS)

    def save(rank: int) -> Path:
        engine: Any = SmallEngine(rank)
        ranks: Any = ThreadRanks(rank, meeting)
        try:
            return save_checkpoint(tmp_path, engine, TrainState(3, 24, NUM_RANKS, {}), ranks, 1)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(NUM_RANKS) as pool:
        folders = list(pool.map(save, range(NUM_RANKS)))
    assert folders == [tmp_path / "checkpoints" / "step-00000003"] * NUM_RANKS
    return synced


def test_a_slow_rank_is_waited_for(synced: list[tuple[str, bool]]) -> None:
    """Every rank syncs the folder, and finds all that the others wrote."""
    whole = {WEIGHTS, "state.json", "optimizer_0.pt", "optimizer_1.pt"}
    names = [name for name, _ in synced]
    assert {name for name in names if names.count(name) >= NUM_RANKS} >= whole
    assert ".being-written" not in names


def test_all_is_on_disk_before_the_marker_says_so(synced: list[tuple[str, bool]]) -> None:
    first = [is_complete for _, is_complete in synced].index(True)
    before = {name for name, _ in synced[:first]}
    assert before >= {WEIGHTS, "state.json", "optimizer_0.pt", "optimizer_1.pt"}
    assert synced[first][0] == COMPLETE
