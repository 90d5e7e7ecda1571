"""Benchmarks on several ranks, started as users start them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate import main
from pretrain.evaluate.sharing import own_items
from pretrain.evaluate.streamed import TILE
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.layouts import TEXTS, write_docci, write_picture
from tests.pretrain.untrained import write_run

NUM_IMAGES = TILE + 40  # two tiles: the third rank has texts only


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("urban1k")
    (root / "caption").mkdir()
    for number in range(1, NUM_IMAGES + 1):
        write_picture(root / "image" / f"{number}.jpg", number)
        text = f"{TEXTS[number % len(TEXTS)]} Number {number}."
        (root / "caption" / f"{number}.txt").write_text(text)
    return root


def test_every_item_is_one_ranks() -> None:
    own = [own_items(23, 4, rank, 3) for rank in range(3)]
    assert sorted(item for items in own for item in items) == list(range(23))
    assert own[1] == [4, 5, 6, 7, 16, 17, 18, 19]


def results(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "results.json").read_text())
    for result in tree["benchmarks"].values():
        del result["seconds"]
    return tree


def test_any_number_of_ranks_gives_the_same_numbers(root: Path, tmp_path: Path) -> None:
    """What ranks share, and what the first does alone while the others wait."""
    run = write_run(tmp_path / "caft")
    classes = write_docci(tmp_path / "docci")
    roots = f"roots={{urban1k: {root}, docci: {classes}}}"
    arguments = ["benchmark=all", roots, f"checkpoint={run}", "allow_missing=true"]
    arguments += ["batch_size=50", "report=false"]
    main([*arguments, f"output={tmp_path / 'one'}"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "3", "-m", "pretrain", "evaluate"]
    done = subprocess.run(
        [*launcher, *arguments, f"output={tmp_path / 'three'}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written: ") == 1
    assert results(tmp_path / "three") == results(tmp_path / "one")
    figures = results(tmp_path / "one")["benchmarks"]["urban1k"]["figures"]
    assert figures["num_images"] == NUM_IMAGES


def test_shards_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="evaluated by one process"):
        main(["checkpoint=run", "data=folder"])
