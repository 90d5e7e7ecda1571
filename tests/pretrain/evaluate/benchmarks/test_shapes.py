"""Annotation files whose JSON is of another shape than the published one."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from tests.pretrain.evaluate.benchmarks.layouts import (
    WRITERS,
    write_dci,
    write_flickr30k,
    write_json,
)
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    write_fg_ovd,
    write_refcoco,
    write_sugarcrepe,
)

OTHERS: list[Any] = [None, [], {}, 3, "text", [None], [[]]]


def write_split_as_json(root: Path) -> Path:
    write_flickr30k(root)
    (root / "test.txt").unlink()
    images = [{"filename": f"{1000 + n}.jpg", "split": "test"} for n in range(4)]
    write_json(root / "dataset_flickr30k.json", {"images": images})
    return root


def write_joint(root: Path) -> Path:
    write_dci(root)
    (root / "DCI_test.json").rename(root / "DCI_test_joint_sim_max_11.json")
    return root


class Case(NamedTuple):
    benchmark: str
    variant: str
    write: Callable[[Path], Any]
    files: str  # pattern; the first that fits is changed

    def __str__(self) -> str:
        return f"{self.benchmark}-{self.files}"


RETRIEVAL = [
    Case("dci", "7805", write_dci, "splits.json"),
    Case("dci", "7805", write_dci, "0.json"),
    Case("dci", "1999", write_dci, "DCI_test.json"),
    Case("dci", "joint", write_joint, "DCI_test_joint*"),
    Case("docci", "test", WRITERS["docci"], "*.jsonlines"),
    Case("sharegpt4v", "10k", WRITERS["sharegpt4v"], "share4v*"),
    Case("iiw", "", WRITERS["iiw"], "data.jsonl"),
    Case("coco", "all", WRITERS["coco"], "captions*"),
    Case("flickr30k", "test", write_split_as_json, "dataset*"),
]
OF_CHOICE_AND_PLACES = [
    Case("fg-ovd", "hard", write_fg_ovd, "1_attributes*"),
    Case("sugarcrepe", "all", write_sugarcrepe, "swap_att*"),
    Case("refcoco", "val", write_refcoco, "instances.json"),
]


def places(tree: dict | list, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a JSON tree has values, from the root on; the first entry of a list stands for all."""
    yield path
    below = tree.items() if isinstance(tree, dict) else enumerate(tree[:1])
    for key, value in below:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def changed(case: Case, root: Path) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """(place, value) of each change, which lies in the file meanwhile."""
    case.write(root)
    file = sorted(root.rglob(case.files))[0]
    first, *rest = file.read_text().split("\n") if "jsonl" in file.suffix else [file.read_text()]
    tree = json.loads(first)
    for path in places(tree):
        for value in OTHERS:
            file.write_text("\n".join([json.dumps(replaced(tree, path, value)), *rest]))
            yield path, value


def read(case: Case, root: Path) -> Any:
    return BENCHMARKS[case.benchmark].read(root, Options(case.variant, allow_missing=True))


@pytest.mark.parametrize("case", RETRIEVAL, ids=str)
def test_it_is_told_in_a_line_or_it_is_texts_and_pictures(case: Case, tmp_path: Path) -> None:
    num_told = 0
    for path, value in changed(case, tmp_path):
        try:
            data = read(case, tmp_path)
        except LayoutError as error:
            assert "\n" not in str(error)
            num_told += 1
        else:
            assert path, f"{value} in place of the file's content was taken"
            assert not {"None", "[None]", "[]", "{}", "3"} & set(data.texts)
    assert num_told > len(OTHERS)


@pytest.mark.parametrize("case", OF_CHOICE_AND_PLACES, ids=str)
def test_so_it_is_with_other_tasks(case: Case, tmp_path: Path) -> None:
    num_told = 0
    for _ in changed(case, tmp_path):
        try:
            read(case, tmp_path)
        except LayoutError:
            num_told += 1
    assert num_told > len(OTHERS)


def test_json_that_is_too_deep_is_damaged(tmp_path: Path) -> None:
    (WRITERS["coco"](tmp_path) / "annotations" / "captions_val2017.json").write_text("[" * 99_999)
    with pytest.raises(LayoutError, match=r"captions_val2017\.json is damaged"):
        read(RETRIEVAL[-2], tmp_path)
