"""Where runs begin whose trunk has left no checkpoint."""

import json
from pathlib import Path

import pytest

from pretrain.checkpoint import CONFIG, checkpoint_folder
from recaption.common.config import load_config, write_config
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws.begin import as_begun, can_begin
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs


@pytest.fixture
def rungs(tmp_path: Path) -> list[Rung]:
    """Three lengths of 4, 8 and 16 steps, which begin to cool down at 2, 4 and 8."""
    sizes = {"clip": {"recipe": [str(tmp_path / "clip.yaml")], "sizes": {"s": []}}}
    path = write_ladder(tmp_path, methods=sizes, samples=[16, 32, 64], cost={"text_length": 20})
    return make_rungs(load_config(LadderConfig, [str(path)]))


def have_steps(rung: Rung, *steps: int, is_done: bool = False) -> None:
    for step in steps:
        folder = checkpoint_folder(rung.folder, step)
        folder.mkdir(parents=True)
        (folder / "COMPLETE").touch()
    rung.folder.mkdir(parents=True, exist_ok=True)
    write_config(rung.config, rung.folder / CONFIG)
    if is_done:
        (rung.folder / "result.json").write_text(json.dumps({}))


def test_each_begins_at_the_trunk_before(rungs: list[Rung]) -> None:
    short, middle, long = rungs
    assert [as_begun(rung) for rung in rungs] == rungs
    assert [can_begin(rung) for rung in rungs] == [True, False, False]
    have_steps(short, 2)  # trained so far
    assert as_begun(middle) == middle and can_begin(middle)
    have_steps(middle, 2)  # not yet where the next begins
    assert as_begun(long) == long and not can_begin(long)


def test_a_missing_checkpoint_is_passed_over(rungs: list[Rung]) -> None:
    short, middle, long = rungs
    have_steps(short, 2, 4, is_done=True)
    have_steps(middle, 8, is_done=True)  # and not 4
    found = as_begun(long)
    assert can_begin(found) and found.begin_step == 2
    assert found.parent is not None and found.parent.name == short.name
    begin = str(checkpoint_folder(short.folder, 2))
    assert found.config.train.begin_from == begin
    assert [word for word in found.arguments if "begin_from" in word] == [
        f"train.begin_from={begin}"
    ]
    assert found.num_steps == long.num_steps and found.trunk == middle.name


def test_without_any_checkpoint_it_begins_at_step_0(rungs: list[Rung]) -> None:
    short, middle, long = rungs
    have_steps(short, 4, is_done=True)
    have_steps(middle, 5)  # beyond 4, where it would have been kept
    found = as_begun(long)
    assert (found.parent, found.begin_step, found.config.train.begin_from) == (None, 0, "")
    assert can_begin(found)


def test_a_run_that_has_begun_stays_where_it_began(rungs: list[Rung]) -> None:
    """What it has cost is counted from there, whatever has become of the trunks."""
    short, middle, long = rungs
    have_steps(short, 2, 4, is_done=True)
    have_steps(middle, 8, is_done=True)
    have_steps(as_begun(long), 6)
    folder = checkpoint_folder(middle.folder, 4)  # back again
    folder.mkdir()
    (folder / "COMPLETE").touch()
    found = as_begun(long)
    assert found.parent is not None and found.parent.name == short.name
