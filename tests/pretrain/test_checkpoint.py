"""What a checkpoint promises: whole, on disk, and only then called complete."""

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain import saving
from pretrain.checkpoint import (
    COMPLETE,
    MOMENTS,
    STATE,
    WEIGHTS,
    SavedTensors,
    TrainState,
    complete_checkpoints,
    read_state,
)
from pretrain.config import TrainConfig
from pretrain.saving import CheckpointSaver
from recaption.common.config import UserError


class OneRank:
    is_first = True
    world_size = 1

    def any(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        pass


class SmallShards:
    """A weight that says in which step it was saved."""

    def __init__(self) -> None:
        self.weight = torch.zeros(2)
        self.num_updates = 5

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "weight", self.weight

    def moments(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "exp_avg.weight", torch.ones(2)


def saver_of(run: Path, **options: Any) -> tuple[CheckpointSaver, SmallShards]:
    shards, ranks = SmallShards(), OneRank()
    config = TrainConfig(**options)
    return CheckpointSaver(run, config, shards, None, ranks), shards  # type: ignore[arg-type]


def save(saver: CheckpointSaver, step: int) -> None:
    saver.save(TrainState(step=step, num_samples_seen=8 * step, global_batch=8))


def test_all_is_on_disk_before_the_marker_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def note(path: Path) -> None:
        assert path.exists(), path
        synced.append((path.name, any(tmp_path.rglob(COMPLETE))))

    monkeypatch.setattr(saving, "sync", note)
    saver, _ = saver_of(tmp_path)
    save(saver, 3)
    saver.wait()
    first = [is_complete for _, is_complete in synced].index(True)
    assert {name for name, _ in synced[:first]} >= {WEIGHTS, MOMENTS, STATE}
    assert synced[first][0] == COMPLETE


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is the state of the moment at which it was asked for."""
    may_write = threading.Event()

    def save_when_told(tensors: dict[str, torch.Tensor], path: Path) -> None:
        assert may_write.wait(20)
        save_file(tensors, path)

    monkeypatch.setattr(saving, "save_file", save_when_told)
    saver, shards = saver_of(tmp_path)
    save(saver, 1)
    shards.weight += 1  # the next step
    assert complete_checkpoints(tmp_path) == []
    may_write.set()
    saver.wait()
    (folder,) = complete_checkpoints(tmp_path)
    assert load_file(folder / WEIGHTS)["weight"].tolist() == [0, 0]


def test_all_whom_the_umask_lets_may_read_it_and_it_says_how_many_ranks_wrote_it(
    tmp_path: Path,
) -> None:
    former = os.umask(0o027)
    try:
        saver, _ = saver_of(tmp_path)
        save(saver, 1)
        saver.wait()
    finally:
        os.umask(former)
    (folder,) = complete_checkpoints(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert read_state(folder).num_ranks == 1
    state = json.loads((folder / STATE).read_text())
    del state["num_ranks"]  # as older ones are
    (folder / STATE).write_text(json.dumps(state))
    assert read_state(folder).num_ranks is None


def test_which_checkpoints_are_kept(tmp_path: Path) -> None:
    saver, _ = saver_of(tmp_path, num_kept_checkpoints=2, keep_every=20)
    for step in range(10, 70, 10):
        save(saver, step)
    saver.wait()
    steps = [int(folder.name.removeprefix("step-")) for folder in complete_checkpoints(tmp_path)]
    assert steps == [20, 40, 50, 60]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_a_checkpoint_that_takes_too_long_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not all of it is the disk's: gathering counts, too."""
    saver, shards = saver_of(tmp_path, slow_save=0.5)
    seconds = 0.0
    clock = SimpleNamespace(monotonic=lambda: seconds)  # the disk may have other work
    monkeypatch.setattr("pretrain.saving.time", clock)
    save(saver, 1)
    saver.wait()
    assert "warning" not in capsys.readouterr().out

    def gathered_slowly() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal seconds
        seconds += 0.6
        yield "weight", shards.weight

    monkeypatch.setattr(shards, "weights", gathered_slowly)
    for step in (2, 3):
        save(saver, step)
    saver.wait()
    assert capsys.readouterr().out.count("writing a checkpoint took 1 s (train.slow_save=0.5)") == 1


def test_what_a_killed_attempt_left_is_removed(tmp_path: Path) -> None:
    """One checkpoint half written, one that was not closed, and one half removed."""
    for name in (".step-00000007.tmp", "step-00000007", "step-00000002"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(b"half")
    saver, _ = saver_of(tmp_path)
    save(saver, 5)
    saver.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_a_marker_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, _ = saver_of(tmp_path)
    write_text = Path.write_text

    def full(path: Path, text: str) -> int:
        if path.name == COMPLETE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    save(saver, 1)
    with pytest.raises(UserError, match="step 1 cannot be written"):
        saver.wait()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    save(saver, 2)
    saver.settle()  # training goes on
    assert saver.num_failures == 2


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saver, _ = saver_of(tmp_path)
    save(saver, 1)
    saver.wait()

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    save(saver, 2)
    with pytest.raises(UserError, match=r"step 2 cannot be written.*No space.*step-00000001"):
        saver.wait()
    assert "warning: the checkpoint of step 2" in capsys.readouterr().out
    assert saver.num_failures == 1
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]

    monkeypatch.setattr(saving, "save_file", save_file)
    save(saver, 3)
    saver.wait()
    assert complete_checkpoints(tmp_path)[-1].name == "step-00000003"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    saver, shards = saver_of(small_disk)
    save(saver, 1)
    saver.wait()
    shards.weight = torch.zeros(2**20)
    save(saver, 2)
    with pytest.raises(UserError, match=r"step 2 cannot be written.*step-00000001"):
        saver.wait()
    assert [folder.name for folder in (small_disk / "checkpoints").iterdir()] == ["step-00000001"]
    shards.weight = torch.zeros(2)
    save(saver, 3)
    saver.wait()
    assert complete_checkpoints(small_disk)[-1].name == "step-00000003"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"\x08" * 20)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        SavedTensors(tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"nothing\.safetensors cannot be read"):
        SavedTensors(tmp_path / "nothing.safetensors")
