"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of the `refer` toolkit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.dense import GroundingSet, Region
from pretrain.evaluate.benchmarks.layout import (
    find_file,
    find_folder,
    list_field,
    read_json_file,
    text_field,
    typed_field,
)
from pretrain.evaluate.benchmarks.pickles import read_pickle
from pretrain.evaluate.benchmarks.present import Present
from recaption.images import ImageConfig

_PROTOCOL = (
    "every expression with its picture, squashed to the model's square so that all of it is seen. "
    "iou: mean over expressions of the IoU of the thing's mask, at the map's size, with the pixels "
    "above the map's mean plus one standard deviation; no training, no proposals. pointing: "
    "whether the map's peak lies on the mask"
)
UNC_VARIANTS = {split: f"UNC split {split}: {_PROTOCOL}" for split in ("val", "testA", "testB")}
UMD_VARIANTS = {split: f"UMD split {split}: {_PROTOCOL}" for split in ("val", "test")}
#: Expressions by split. RefCOCO's as BAAI's FlagEval tells them (flageval.baai.ac.cn/docs/en,
#: Visual Grounding); these and all others stand in a list on GitHub of what the toolkit's files
#: give, its schema pivot.stageb.official_ref_split_contract/v1.
_NUM_EXPRESSIONS = {
    "refcoco": {"val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"val": 4_896, "test": 9_602},
}
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "train2014", "images/train2014", "images")


def _reader(folder: str, refs: str) -> Callable[[Path, Options], GroundingSet]:
    def read(root: Path, options: Options) -> GroundingSet:
        """`root` with `folder`/instances.json, `folder`/refs(...).p, and COCO's train2014 pictures.

        Raises:
            LayoutError: files are missing, a pickle holds more than data, a reference names what
                is not there.
        """
        return _read(root, folder, refs, options)

    return read


read_refcoco = _reader("refcoco", "refs(unc).p")
read_refcoco_plus = _reader("refcoco+", "refs(unc).p")
read_refcocog = _reader("refcocog", "refs(umd).p")


def _read(root: Path, folder: str, refs: str, options: Options) -> GroundingSet:
    refs_path = find_file(root, f"{folder}/{refs}")
    instances_path = find_file(root, f"{folder}/instances.json", is_root_sure=True)
    image_folder = find_folder(root, *_IMAGE_FOLDERS, is_root_sure=True)
    split = options.variant or "val"
    entries = read_pickle(refs_path)
    if not isinstance(entries, list):
        raise LayoutError(f"{refs_path} holds a {type(entries).__name__}, not a list")
    instances = read_json_file(instances_path, dict)
    pictures = _by_id(instances, "images", instances_path)
    things = _by_id(instances, "annotations", instances_path)
    present = Present(folder, root, options)
    images: dict[str, int] = {}  # name -> position
    sentences: list[list[str]] = []
    regions: list[list[Region]] = []
    num_in_file = 0  # expressions
    for number, entry in enumerate(entries):
        where = f"{refs_path} reference {number}"
        if text_field(entry, "split", where) != split:
            continue
        rows = list_field(entry, "sentences", where)
        num_in_file += len(rows)
        texts = _texts(rows, where, present)
        picture = pictures.get(typed_field(entry, "image_id", int, where))
        thing = things.get(typed_field(entry, "ann_id", int, where))
        if picture is None or thing is None:
            what = f"image {entry['image_id']}" if picture is None else f"thing {entry['ann_id']}"
            raise LayoutError(f"{where} is about {what}, which {instances_path} does not have")
        file_name = text_field(picture, "file_name", str(instances_path))
        name = f"{image_folder}/{Path(file_name).name}"
        region = _region(thing, picture, instances_path)
        try:
            region.runs()
        except LayoutError as error:
            present.lacks(str(error))
            present.notes["expressions whose thing has no mask"] += len(rows)
            continue
        if not present.has_picture(name, str(instances_path)) or not texts:
            continue
        if name not in images:
            images[name] = len(images)
            sentences.append([])
            regions.append([])
        # The published sets say some things twice in the same words; both count, as published.
        present.notes["expressions repeated for their thing"] += len(texts) - len(set(texts))
        sentences[images[name]] += texts
        regions[images[name]] += [region] * len(texts)
    if not num_in_file:
        raise LayoutError(f"{refs_path} has no reference of the split {split}")
    num_in_protocol = _NUM_EXPRESSIONS[folder][split]
    if num_in_file < num_in_protocol:
        num_absent = num_in_protocol - num_in_file
        present.lacks(f"{num_absent:,} of {num_in_protocol:,} expressions of {split} in {refs}")
    num_found, num_expected = sum(map(len, sentences)), max(num_in_protocol, num_in_file)
    coverage = present.coverage(num_found, num_expected, [refs_path, instances_path])
    return GroundingSet([Picture(root, name) for name in images], sentences, regions, coverage)


def _texts(rows: list[Any], where: str, present: Present) -> list[str]:
    """The expressions of a reference, stripped; those that are empty are passed over."""
    texts: list[str] = []
    for number, row in enumerate(rows):
        at = f"{where} sentence {number}"
        texts += present.texts([(text_field(row, "sent", at), at)]) or []
    return texts


def _by_id(instances: Any, name: str, path: Path) -> dict[int, Any]:
    rows = list_field(instances, name, str(path))
    return {typed_field(row, "id", int, f"{path}, one of its {name}"): row for row in rows}


def _region(thing: Any, picture: Any, path: Path) -> Region:
    where = f"{path} annotation {thing['id']}"
    height, width = (typed_field(picture, side, int, str(path)) for side in ("height", "width"))
    if min(height, width) < 1 or height * width > ImageConfig().max_pixels:
        raise LayoutError(f"{path}: image {picture['id']} is of {width} x {height} pixels")
    return Region(where, typed_field(thing, "segmentation", (list, dict), where), height, width)
