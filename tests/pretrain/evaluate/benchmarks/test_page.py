"""Tables for a terminal and a page: what stands on top, in parentheses, and in wide tables."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.benchmarks.page import write_page
from pretrain.evaluate.benchmarks.published import published
from pretrain.evaluate.benchmarks.sugarcrepe import KINDS
from pretrain.evaluate.benchmarks.table import format_results
from pretrain.evaluate.bootstrap import INTERVALS
from pretrain.evaluate.choice import figures as choice_figures
from pretrain.evaluate.classification import figures as classification_figures
from pretrain.evaluate.segmentation import summarise
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders


def result(title: str, variant: str, figures: dict[str, Any]) -> dict[str, Any]:
    whole = {"share": 1.0, "num_samples": 4, "num_expected": 4, "num_missing": 0, "notes": {}}
    return {
        "title": title,
        "variant": variant,
        "protocol": "as published",
        "figures": figures,
        "coverage": whole | {"missing": []},
        "published": published(title.lower(), variant),
        "caveat": "",
        "inputs": {"files": {}},
        "seconds": 1.0,
        "machine": {"device": "x86_64", "num_threads": 1, "num_ranks": 1},
    }


@pytest.fixture
def tree() -> dict[str, Any]:
    number = len(KINDS)
    pictures = [Picture(Path(), str(n)) for n in range(number)]
    choice = choice_figures([True] * number, [2] * number, list(KINDS), pictures)
    classes = [f"thing {n}" for n in range(12)]
    # Of class n the first n of twelve pixels are found, the others as its neighbour.
    own = torch.full((12,), 12.0)
    both = torch.arange(12.0)
    counts = torch.stack([own, both + (own - both).roll(1), both])[None].double()
    labels = torch.zeros(2, dtype=torch.int64)
    benchmarks = {
        "cifar10": result("CIFAR-10", "test", classification_figures(labels + 1, labels, 10)),
        "sugarcrepe": result("SugarCrepe", "all", choice | {"share_cut": 0.0}),
        "ade20k": result("ADE20K", "validation", summarise(counts, classes)),
    }
    return {
        "model": {"name": "ours", "library": "canopy"},
        "code": {"version": "1", "commit": None, "torch": "2"},
        "libraries": {"pillow": "12", "timm": None},
        "benchmarks": benchmarks,
        "left_out": {},
    }


def page_of(tree: dict[str, Any], folder: Path, **others: Any) -> str:
    return write_page(tree, others, {}, ColourEncoders(), folder, 8).read_text()


def rows_of(page: str, attribute: str) -> list[list[str]]:
    """Cells of the first table that has it, without their markup."""
    table = re.search(rf"<table {attribute}>.*?</table>", page, re.DOTALL)
    assert table
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in cells]


def test_all_benchmarks_stand_on_top(tree: dict[str, Any], tmp_path: Path) -> None:
    theirs = result("SugarCrepe", "all", tree["benchmarks"]["sugarcrepe"]["figures"])
    rows = rows_of(page_of(tree, tmp_path, sugarcrepe=[("theirs", theirs)]), 'class="summary"')
    assert rows[0] == ["benchmark", "how much of it", "figure", "ours", "theirs", "chance"]
    assert [row[0] for row in rows[1:]] == [
        "CIFAR-10 test",
        "",
        "SugarCrepe all",
        "ADE20K validation",
    ]
    assert rows[1][1:] == ["all", "top1", "1.0000 (1.0000-1.0000)", "", "0.1000"]
    assert rows[3][3:] == ["1.0000 (1.0000-1.0000)", "1.0000 (1.0000-1.0000)", "0.5000"]
    assert rows[4][2] == "miou"


def test_wide_tables_have_a_figure_a_line(tree: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(tree, tmp_path)
    section = page[page.index('<h2 id="sugarcrepe">') : page.index('<h2 id="ade20k">')]
    rows = rows_of(section, 'class="tall"')
    assert rows[0] == ["", "ours", "chance"]
    assert ["by_group swap_att", "1.0000", "0.5000"] in rows
    # What is wide yet, as of many models, is scrolled.
    assert page.count("<table") == page.count('<div class="wide">') == 4


def test_what_stands_in_parentheses_is_told_of_every_task(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    assert page_of(tree, tmp_path).count(f"In parentheses: {INTERVALS}.") == 4
    assert format_results(tree, {}).count(f"in parentheses: {INTERVALS}") == 1


def test_classes_are_told_apart(tree: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(tree, tmp_path)
    assert all(f"<span>thing {n}<b>" in page for n in range(12))
    told = format_results(tree, {})
    assert re.search(r"iou_by_class, best: thing 11 0\.\d{4}, thing 10 ", told)
    assert re.search(r"iou_by_class, worst: .*, thing 0 0\.0000\n", told)


def test_median_ranks_are_told(tmp_path: Path) -> None:
    recalls = {"r1": 0.5, "r5": 1.0, "r10": 1.0, "r1_interval": [0.2, 0.7], "median_rank": 1.5}
    both = {"text_to_image": recalls, "image_to_text": recalls | {"median_rank": 3.0}}
    figures = {"num_images": 2, "num_texts": 2, "share_cut": 0.0, "intervals": INTERVALS}
    docci = result("DOCCI", "test", figures | {"columns": {"score": both}, "chance": both})
    told = format_results(
        {"model": {"name": "m"}, "benchmarks": {"docci": docci}, "left_out": {}}, {}
    )
    assert re.search(r"T2I median .*I2T median\nm +50\.0 .* 1\.5 .* 3\.0\n", told)
