"""Benchmarks that are not retrieval, by their names, with small real models."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate import main
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.vision import VISION
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    write_cifar10,
    write_refcoco,
    write_sugarcrepe,
    write_voc,
)
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run


def test_the_registry_has_them_with_their_protocols() -> None:
    assert set(BENCHMARKS) >= {
        *("imagenet", "imagenet-v2", "imagenet-o", "cifar10", "cifar100", "fg-ovd", "sugarcrepe"),
        *("refcoco", "refcoco+", "refcocog", "voc20", "ade20k"),
    }
    for entry in VISION:
        assert all(len(protocol) > 40 for protocol in entry.variants.values())


@pytest.mark.parametrize("config", [TINY, TINY_CLIP], ids=["caft", "clip"])
def test_every_task_runs_on_a_model(config: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config)
    write_cifar10(tmp_path / "cifar10", ["red", "green"], [0, 1])
    write_sugarcrepe(tmp_path / "sugarcrepe")
    write_refcoco(tmp_path / "refcoco")
    write_voc(tmp_path / "voc20", "2007_000033")
    names = ("cifar10", "sugarcrepe", "refcoco", "voc20")
    roots = ", ".join(f"{name}: {tmp_path / name}" for name in names)
    main(
        [
            f"checkpoint={run}",
            "benchmark=all",
            f"roots={{{roots}}}",
            "allow_missing=true",
            "batch_size=16",
        ]
    )
    results = json.loads((run / "results.json").read_text())["benchmarks"]
    figures: dict[str, Any] = {name: results[name]["figures"] for name in names}
    shares = {
        "cifar10": ("top1", "top5", "per_class"),
        "sugarcrepe": ("accuracy", "mean_of_groups"),
        "refcoco": ("miou", "pointing"),
        "voc20": ("miou", "pixel_accuracy"),
    }
    for name, keys in shares.items():
        assert all(0 <= figures[name][key] <= 1 for key in keys), name
        assert figures[name]["chance"][keys[0]] > 0
    assert results["cifar10"]["coverage"]["share"] == 2 / 10_000
    assert results["refcoco"]["coverage"]["share"] == 3 / 10_834
    # Segments are of what was read as captions; maps of what is grounded, with peak and overlap.
    page = (run / "report" / "benchmarks.html").read_text()
    assert page.count("Where a sentence looks") == 1
    assert len(re.findall(r"[✓✗] peak</span>\s+IoU 0\.\d\d", page)) >= 2
    first = figures["refcoco"]["maps"]["first"]
    assert 0 <= first[0]["iou"] <= 1 and len({row["image"] for row in first}) == len(first)
    assert results["refcoco"]["coverage"]["num_samples"] == 3
    assert set(results["refcoco"]["inputs"]["files"]) == {
        "refcoco/refs(unc).p",
        "refcoco/instances.json",
    }
