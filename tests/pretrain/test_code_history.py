"""Which code trained which steps."""

from pathlib import Path

import pytest

from pretrain import code_history
from pretrain.checkpoint import checkpoint_folder
from pretrain.code_history import note_code, read_code


def test_steps_by_the_code_that_trained_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(commit: str) -> None:
        code = {"version": "0.1", "commit": commit, "torch": "2.9"}
        monkeypatch.setattr(code_history, "describe_code", lambda: code)

    def noted() -> list[tuple[int, str]]:
        return [(part["after_step"], part["commit"]) for part in read_code(tmp_path)]

    assert noted() == []
    for commit, step, expected in (
        ("a", 0, [(0, "a")]),
        ("b", 0, [(0, "b")]),  # the first attempt came to no checkpoint
        ("b", 10, [(0, "b")]),
        ("c", 20, [(0, "b"), (20, "c")]),
        ("d", 30, [(0, "b"), (20, "c"), (30, "d")]),
        ("b", 20, [(0, "b")]),  # back by a checkpoint; what was done after it is done again
    ):
        at(commit)
        note_code(tmp_path, step, checkpoint_folder(tmp_path, step) if step else None)
        assert noted() == expected
