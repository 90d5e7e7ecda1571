"""Small benchmarks in the layouts that their authors publish."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pretrain.evaluate.benchmarks.base import Options, RetrievalSet
from pretrain.evaluate.benchmarks.registry import BENCHMARKS

TEXTS = [f"This is picture {n}. It has a colour. Nothing else is there." for n in range(6)]


def write_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (24, 36, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_dci(root: Path) -> Path:
    folder = root / "densely_captioned_images"
    for number, text in enumerate(TEXTS):
        short, _, extra = text.partition(". ")
        image = f"sa_{number}.jpg"
        write_picture(folder / "photos" / image, number)
        entry = {"image": image, "short_caption": short, "extra_caption": extra, "mask_data": {}}
        write_json(folder / "annotations" / f"{number}.json", entry)
    names = [f"{number}.json" for number in range(6)]
    write_json(folder / "splits.json", {"train": names[:4], "valid": names[4:5], "test": names[5:]})
    elsewhere = "../DCI/dataset/densely_captioned_images/photos"
    chosen = [{"filename": f"{elsewhere}/sa_{n}.jpg", "caption": TEXTS[n]} for n in (4, 2)]
    write_json(root / "DCI_test.json", chosen)
    return root


def write_docci(root: Path) -> Path:
    rows = []
    for number, text in enumerate(TEXTS):
        split = ("train", "test", "test", "test", "qual_dev", "qual_test")[number]
        image = f"{split}_{number:05}.jpg"
        write_picture(root / "images" / image, number)
        rows.append({"example_id": image, "split": split, "image_file": image, "description": text})
    write_lines(root / "annotations" / "docci_descriptions.jsonlines", rows)
    return root


def write_sharegpt4v(root: Path) -> Path:
    entries = []
    for number, text in enumerate(TEXTS):
        image = f"sam/images/sa_{number}.jpg"
        write_picture(root / image, number)
        asked = {"from": "human", "value": "<image>\nDescribe it"}
        answer = {"from": "gpt", "value": text}
        entries.append({"id": f"sa_{number}", "image": image, "conversations": [asked, answer]})
    write_json(root / "share4v_sam_10k.json", entries)
    return root


def write_urban1k(root: Path) -> Path:
    (root / "caption").mkdir(parents=True)
    # Numbered from 1, so that 10 must come after 2.
    for number, text in zip((1, 2, 3, 4, 5, 10), TEXTS, strict=True):
        write_picture(root / "image" / f"{number}.jpg", number)
        (root / "caption" / f"{number}.txt").write_text(f"{text}\nA second line.\n")
    return root


def write_iiw(root: Path) -> Path:
    places = (
        ("IIW-400", "image/key", "aar_test_0460{}", "docci_aar"),
        ("DCI_Test", "image", "sa_{}.jpg", "dci"),
        ("DOCCI_Test", "image", "test_0000{}", "DOCCI_Test/images"),
    )
    for start, (name, key, form, folder) in zip((0, 2, 4), places, strict=True):
        rows = []
        for number in (start, start + 1):
            image = form.format(number)
            file = image if image.endswith(".jpg") else f"{image}.jpg"
            write_picture(root / folder / file, number)
            rows.append({key: image, "IIW": TEXTS[number], "objects": []})
        write_lines(root / name / "data.jsonl", rows)
    return root


def write_coco(root: Path) -> Path:
    """Three images with 5, 6 and 5 captions, in the mixed order of the official file."""
    images, annotations = [], []
    for number, num_captions in ((0, 5), (1, 6), (2, 5)):
        name = f"{139 + number:012}.jpg"
        write_picture(root / "val2017" / name, number)
        images.append({"id": 139 + number, "file_name": name, "width": 36, "height": 24})
        annotations += [
            {"image_id": 139 + number, "id": n, "caption": f"Picture {number} in words {n}."}
            for n in range(num_captions)
        ]
    annotations.sort(key=lambda annotation: annotation["id"])
    tree = {"info": {}, "images": images, "annotations": annotations}
    write_json(root / "annotations" / "captions_val2017.json", tree)
    return root


def write_flickr30k(root: Path) -> Path:
    lines = []
    for number in range(4):
        image = f"{1000 + number}.jpg"
        write_picture(root / "flickr30k-images" / image, number)
        lines += [f"{image}#{n}\tPicture {number} in words {n} ." for n in range(5)]
    (root / "results_20130124.token").write_text("\n".join(lines) + "\n")
    (root / "test.txt").write_text("1001\n1003\n")
    return root


WRITERS = {
    "dci": write_dci,
    "docci": write_docci,
    "sharegpt4v": write_sharegpt4v,
    "urban1k": write_urban1k,
    "iiw": write_iiw,
    "coco": write_coco,
    "flickr30k": write_flickr30k,
}


def write_goal_joint(root: Path) -> Path:
    """Two photos, a part of the first, and all of the second as the part that fits a sentence."""
    photos = "../DCI/densely_captioned_images/photos"
    parts = "../pipline/segment_with_background_DCI_test_set_max_0.01"
    entries = [
        {"filename": f"{photos}/sa_1.jpg", "caption": TEXTS[1]},
        {"filename": f"{photos}/sa_2.jpg", "caption": TEXTS[2]},
        {"filename": f"{parts}/sa_1.jpg_results/sa_1_max_3.png", "caption": "It has a colour"},
        {"filename": f"{parts}/sa_2.jpg_results/original_image.jpg", "caption": "Nothing else"},
    ]
    write_json(root / "DCI_test_joint_sim_max_1:1.json", entries)
    for number in (1, 2):
        write_picture(root / "densely_captioned_images" / "photos" / f"sa_{number}.jpg", number)
    for number, entry in enumerate(entries[2:], 3):
        write_picture(root / entry["filename"].removeprefix("../pipline/"), number)
    return root


def read(name: str, root: Path, variant: str = "", allow_missing: bool = True) -> RetrievalSet:
    benchmark = BENCHMARKS[name]
    options = Options(variant or next(iter(benchmark.variants)), allow_missing)
    data = benchmark.read(root, options)
    assert isinstance(data, RetrievalSet)
    return data


def names(data: RetrievalSet) -> list[str]:
    return [picture.path.name for picture in data.images]
