"""Shared memory of dead processes goes, that of living ones stays."""

import mmap
import os
import time
from pathlib import Path

import pytest

from pretrain.distributed import leftovers
from pretrain.distributed.launch import job_folder_names
from pretrain.distributed.leftovers import remove_job_folders, remove_leftovers, remove_locks


def make_segment(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(bytes(4096))
    return path


def test_only_what_nobody_has_mapped_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [make_segment(tmp_path, name) for name in ("000000_locals", "torch_12_34_0")]
    live = make_segment(tmp_path, "000001_locals")
    others = make_segment(tmp_path, "postgres.1")
    # Young ones may not be mapped yet.
    assert remove_leftovers(tmp_path) == []
    monkeypatch.setattr("pretrain.distributed.leftovers._YOUNGEST_SECONDS", 0.0)
    with live.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        assert remove_leftovers(tmp_path) == [path.name for path in left]
        assert sorted(tmp_path.iterdir()) == [live, others]
        assert mapped[0] == 0
    assert remove_leftovers(tmp_path) == [live.name]
    assert others.exists()


def test_what_is_made_while_the_maps_are_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner's maps may have been read before, and reading all takes long on a busy node."""
    monkeypatch.setattr(leftovers, "_YOUNGEST_SECONDS", 0.1)
    read_maps = leftovers._mapped_files

    def read_slowly() -> set[tuple[int, int]]:
        mapped = read_maps()
        make_segment(tmp_path, "000000_locals")
        time.sleep(0.3)
        return mapped

    monkeypatch.setattr(leftovers, "_mapped_files", read_slowly)
    assert remove_leftovers(tmp_path) == []


def test_a_segment_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.distributed.leftovers._YOUNGEST_SECONDS", 0.0)
    path = make_segment(tmp_path, "000000_locals")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert remove_leftovers(tmp_path) == []


def test_locks_of_a_killed_attempt_go(tmp_path: Path) -> None:
    lock, other = tmp_path / "000000_barrier_filelock", tmp_path / "cache"
    lock.touch()
    other.touch()
    remove_locks(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_an_attempt_that_has_ended_leaves_the_folder_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preempted attempt tidies up while Slurm has started the job again."""
    job = {"SLURM_JOB_ID": "7", "SLURM_NODEID": "1"}
    for restarts in ("0", "1", "2"):
        environment = {**job, "SLURM_RESTART_COUNT": restarts}
        (tmp_path / job_folder_names(environment)[-1]).mkdir()
    other_node = tmp_path / job_folder_names({**job, "SLURM_NODEID": "0"})[-1]
    other_node.mkdir()
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    remove_job_folders(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canopy-7-1-0", "canopy-7-3-1"]
