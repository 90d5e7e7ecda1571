"""Benchmarks from their files to the figures, by the command, with one small model."""

import json
from typing import Any

import pytest

from pretrain.evaluate import main
from tests.pretrain.evaluate.benchmarks.layouts import WRITERS
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    write_ade,
    write_cifar100,
    write_fg_ovd,
)
from tests.pretrain.untrained import write_run

#: (images, texts) of what the writers write, and what the protocol has.
RETRIEVAL = {
    "dci": (6, 6, 7805),
    "docci": (3, 3, 5000),
    "sharegpt4v": (6, 6, 10_000),
    "urban1k": (6, 6, 1000),
    "iiw": (6, 6, 612),
    "coco": (3, 16, 5000),
    "flickr30k": (2, 10, 1000),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, write in WRITERS.items():
        write(folder / name)
    write_fg_ovd(folder / "fg-ovd")
    write_cifar100(folder / "cifar100")
    (folder / "ade20k").mkdir()
    write_ade(folder / "ade20k", "ADE_val_00000001")
    names = [*WRITERS, "fg-ovd", "cifar100", "ade20k"]
    roots = ", ".join(f"{name}: {folder / name}" for name in names)
    run = write_run(folder / "run")
    main(
        [
            *("benchmark=all", f"roots={{{roots}}}", f"checkpoint={run}"),
            *("allow_missing=true", "batch_size=200", "report=false"),
        ]
    )
    return json.loads((run / "results.json").read_text())["benchmarks"]


@pytest.mark.parametrize("name", RETRIEVAL)
def test_retrieval(name: str, results: Any) -> None:
    num_images, num_texts, num_expected = RETRIEVAL[name]
    result = results[name]
    figures, coverage = result["figures"], result["coverage"]
    assert (figures["num_images"], figures["num_texts"]) == (num_images, num_texts)
    assert coverage["share"] == pytest.approx(num_images / num_expected)
    assert coverage["num_missing"] == 0
    assert result["inputs"]["pictures"]["num_files"] == num_images
    recalls = figures["columns"]["blended"]["text_to_image"]
    assert 0 <= recalls["r1"] <= recalls["r5"] <= recalls["r10"] == 1
    assert figures["chance"]["text_to_image"]["r1"] == pytest.approx(1 / num_images)


def test_choice(results: Any) -> None:
    figures = results["fg-ovd"]["figures"]
    assert figures["num_choices"] == 4
    assert set(figures["by_group"]) == {"hard", "medium", "easy", "trivial"}
    assert figures["chance"]["accuracy"] == pytest.approx(1 / 11)


def test_classification(results: Any) -> None:
    figures = results["cifar100"]["figures"]
    assert (figures["num_images"], figures["num_classes"]) == (1, 2)
    assert figures["top5"] == 1


def test_segmentation(results: Any) -> None:
    result = results["ade20k"]
    assert result["figures"]["num_images"] == result["figures"]["num_classes_seen"] == 1
    assert result["figures"]["chance"]["pixel_accuracy"] == pytest.approx(1 / 150)
    assert result["inputs"]["labels"]["num_files"] == 1
