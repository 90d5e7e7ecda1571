"""What others published stands beside what it can be compared with, in the same columns."""

from typing import Any

import pytest
import torch

from pretrain.evaluate.benchmarks.published import PUBLISHED, caveat, published
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.table import format_results, lines_of
from pretrain.evaluate.classification import figures as classification_figures

WHOLE = {"share": 1.0, "num_samples": 4, "num_expected": 4, "num_missing": 0, "notes": {}}
CAFT = "CAFT (30M, from scratch)"


def result(benchmark: str, variant: str, figures: dict[str, Any], **coverage: Any) -> Any:
    return {
        "title": benchmark,
        "variant": variant,
        "figures": figures,
        "coverage": WHOLE | coverage,
        "published": published(benchmark, variant),
        "caveat": caveat(benchmark, variant),
    }


def test_they_are_of_known_benchmarks_and_variants() -> None:
    assert all(variant in BENCHMARKS[name].variants for name, variant in PUBLISHED)
    assert published("docci", "test")[CAFT] == {"I2T R@1": 80.6}


def test_a_variant_has_its_own() -> None:
    assert set(published("dci", "1999")) == {"GOAL (400M + DCI)", "MulCLIP (400M + DCI)"}
    assert not set(published("dci", "1999")) & set(published("dci", "7805"))
    assert set(published("docci", "test+qual_test")) == {"GOAL (400M + DCI)"}
    assert published("dci", "joint") == published("sharegpt4v", "1k") == {}


def test_shares_stand_beside_shares() -> None:
    ours = {"miou": 0.25, "pointing": 0.5, "chance": {"miou": 0.1}}
    line = lines_of(result("refcoco", "val", ours), "model")[-1]
    assert (line.name, line.kind, line.cells) == (CAFT, "published", {"miou": "0.2885"})


@pytest.mark.parametrize("name", ["imagenet", "imagenet-v2", "imagenet-o", "cifar10", "cifar100"])
def test_columns_of_classification_are_ours(name: str) -> None:
    ours = classification_figures(torch.tensor([1]), torch.tensor([0]), 2)
    lines = lines_of(result(name, next(iter(BENCHMARKS[name].variants)), ours), "model")
    assert [line.kind for line in lines] == ["ours", "chance", *["published"] * 3]
    assert all(set(line.cells) <= set(lines[0].cells) for line in lines)


def test_columns_of_retrieval_are_ours() -> None:
    way = {"r1": 0.5, "r5": 0.5, "r10": 0.5, "median_rank": 1.0}
    ways = ("r1", "r5", "r10")
    both = {
        w: way | {f"{k}_interval": (0, 1) for k in ways} for w in ("text_to_image", "image_to_text")
    }
    figures = {"columns": {"score": both}, "chance": both}
    lines = lines_of(result("flickr30k", "test", figures), "model")
    assert {line.kind for line in lines[2:]} == {"published"}
    assert all(set(line.cells) <= set(lines[0].cells) for line in lines)
    assert lines[2].cells["T2I R@1"] == "62.2"


def test_beside_an_unknown_number_of_lines_stands_nothing() -> None:
    """FG-OVD's files do not tell whether they are whole."""
    assert not any(published("fg-ovd", variant) for variant in BENCHMARKS["fg-ovd"].variants)


@pytest.mark.parametrize(
    "part",
    [
        {"num_missing": 1},
        {"num_samples": 3, "share": 0.75},
        {"num_texts": 5, "num_texts_expected": 4},
        {"num_expected": None, "share": None},
    ],
)
def test_nothing_stands_beside_a_part(part: dict[str, Any]) -> None:
    """A text that was passed over leaves the share of pictures at one, and is a part yet."""
    some = result("refcoco", "val", {"miou": 0.25}, **part)
    assert [line.kind for line in lines_of(some, "model")] == ["ours"]
    told = format_results(
        {"model": {"name": "model"}, "benchmarks": {"refcoco": some}, "left_out": {}}, {}
    )
    assert "not to be compared with all of it" in told
    assert ("1 missing" in told) == ("num_missing" in part)
    assert ("more texts than the protocol's 4" in told) == ("num_texts" in part)
    assert ("an unknown share of it" in told) == ("num_expected" in part)
    assert "published" not in told
