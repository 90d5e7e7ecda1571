"""What a folder remembers of the commands that wrote there."""

from dataclasses import replace
from pathlib import Path

import pytest

from pretrain.evaluate.benchmarks.choosing import CHOSEN, choose, remember
from pretrain.evaluate.config import EvaluateConfig
from recaption.common.config import read_config


def test_variants_that_were_joined_by_commas_are_read_again(tmp_path: Path) -> None:
    """A user's own file may give them so."""
    (tmp_path / CHOSEN).write_text('roots: {refcoco: A}\nvariants: {refcoco: "val,testA"}\n')
    given = EvaluateConfig(checkpoint="c", benchmark="refcoco", root="B", variant="testB")
    remember(given, choose(given), tmp_path)
    again = choose(read_config(EvaluateConfig, tmp_path / CHOSEN))
    assert [one.variant for one in again] == ["val", "testA", "testB"]


def test_paths_are_remembered_so_that_they_hold_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = EvaluateConfig(
        checkpoint="run",
        benchmark="docci",
        root="docci",
        output="out",
        compare=["other/results.json"],
        model="open_clip:tiny.json",
    )
    kept = remember(given, choose(given), tmp_path)
    assert kept == read_config(EvaluateConfig, tmp_path / CHOSEN)
    assert (kept.checkpoint, kept.output) == (str(tmp_path / "run"), str(tmp_path / "out"))
    assert kept.roots == {"docci": str(tmp_path / "docci")}
    assert kept.compare == [str(tmp_path / "other" / "results.json")]
    assert kept.model == f"open_clip:{tmp_path / 'tiny.json'}"
    kept = remember(replace(given, model="open_clip:RN50", output=""), choose(given), tmp_path)
    assert (kept.model, kept.output) == ("open_clip:RN50", "")
