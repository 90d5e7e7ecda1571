"""Benchmarks on several ranks, started as users start them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.distributed.launch import EXIT_LOST_RANK
from pretrain.evaluate import main
from pretrain.evaluate.sharing import own_items
from pretrain.evaluate.streamed import TILE
from recaption.common.config import UserError
from tests.daemons import free_ports
from tests.pretrain.evaluate.benchmarks.layouts import TEXTS, write_goal_joint, write_picture
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    write_cifar10,
    write_refcoco,
    write_sugarcrepe,
    write_voc,
)
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
        del result["seconds"], result["machine"]
    return tree


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As torchrun gives each of several ranks: figures are alike for ranks, not for threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_any_number_of_ranks_gives_the_same_numbers(root: Path, tmp_path: Path) -> None:
    """One benchmark of every task."""
    run = write_run(tmp_path / "caft")
    labels = [number % 3 for number in range(TILE + 3)]
    folders = {
        "urban1k": root,
        "cifar10": write_cifar10(tmp_path / "cifar10", ["red"] * len(labels), labels),
        "sugarcrepe": write_sugarcrepe(tmp_path / "sugarcrepe"),
        "refcoco": write_refcoco(tmp_path / "refcoco").parents[1],
        "voc20": write_voc(tmp_path / "voc20", *(f"2007_{n:06}" for n in range(17))),
        "dci": write_goal_joint(tmp_path / "dci"),
    }
    roots = "roots={" + ", ".join(f"{name}: {folder}" for name, folder in folders.items()) + "}"
    arguments = [
        "benchmark=all",
        roots,
        "variants={dci: joint}",
        f"checkpoint={run}",
        "allow_missing=true",
    ]
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
    # What each rank did of the two tiles of Urban1k, and of those of CIFAR.
    for num_images in (TILE, NUM_IMAGES - TILE, 3):
        assert f"encode and score: {num_images}/{num_images} images" in done.stderr
    assert f"{NUM_IMAGES}/{NUM_IMAGES} images" not in done.stderr
    assert results(tmp_path / "three") == results(tmp_path / "one")
    figures = results(tmp_path / "one")["benchmarks"]["urban1k"]["figures"]
    assert figures["num_images"] == NUM_IMAGES


ONE_FAILS = """
import sys
from pretrain.evaluate.sharing import join_blocks, rank_and_size, shared_by_ranks
from recaption.common.config import UserError, run_command

def main(_):
    with shared_by_ranks():
        if rank_and_size()[0] == 1:
            raise UserError("a.jpg cannot be opened")
        join_blocks(["of the first rank"])

sys.exit(run_command(main, []))
"""


def test_what_one_rank_cannot_read_is_a_line_of_each() -> None:
    """A picture that is damaged in the middle shows only on the rank that decodes it."""
    (port,) = free_ports(1)
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | shared | {"MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_FAILS],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    told = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [EXIT_LOST_RANK, 2], told
    assert "error: a.jpg cannot be opened" in told[1]
    assert "rank 0 ends, as another one did: its own line tells why" in told[0]
    assert "Traceback" not in told[0] + told[1]


def test_shards_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="evaluated by one process"):
        main(["checkpoint=run", "data=folder"])
