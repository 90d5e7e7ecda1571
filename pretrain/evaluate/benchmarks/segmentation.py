"""Pascal VOC 2012 (20 classes) and ADE20K (150 classes) for zero-shot segmentation.

Class names: VOC's from torchvision's metadata of its segmentation models, with the three that are
written as one word spelt out; ADE20K's from the archive's objectInfo150.txt, each by its first.
"""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.dense import LabelMap, SegmentationSet
from pretrain.evaluate.benchmarks.imagenet import templates
from pretrain.evaluate.benchmarks.layout import (
    find_file,
    find_folder,
    read_lines,
    read_text,
    visible,
)
from pretrain.evaluate.benchmarks.present import Present

_PROTOCOL = (
    "Zero-shot, no training, no post-processing: the picture's shorter side at 448 px, windows of "
    "224 px every 112, cosines of patches with each class (80 CLIP templates, averaged), averaged "
    "where windows overlap, enlarged bilinearly to the picture; the highest is the pixel's class. "
    "mIoU over the classes of one confusion matrix of all pixels"
)
VOC20_VARIANTS = {"val": f"VOC 2012, 1,449 images, 20 classes, background ignored. {_PROTOCOL}"}
ADE20K_VARIANTS = {
    "validation": f"SceneParse150, 2,000 images, 150 classes, 'other' ignored. {_PROTOCOL}"
}
_NUM_VOC = 1_449
_NUM_ADE20K = 2_000
_NUM_ADE20K_CLASSES = 150
_SPELT = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}


def read_voc20(root: Path, options: Options) -> SegmentationSet:
    """`root`/VOCdevkit/VOC2012, `root`/VOC2012 or the root itself.

    Raises:
        LayoutError: a list, pictures or labels are missing.
    """
    inside = "ImageSets/Segmentation/val.txt"
    listed = find_file(root, *(f + inside for f in ("VOCdevkit/VOC2012/", "VOC2012/", "")))
    base = listed.parents[2].relative_to(root)
    lines = read_text(listed).split()
    names = list(dict.fromkeys(lines))
    pairs = [(base / f"JPEGImages/{n}.jpg", base / f"SegmentationClass/{n}.png") for n in names]
    present = Present("voc20", root, options)
    present.notes["lines repeated"] = len(lines) - len(names)
    if len(names) < _NUM_VOC:
        present.lacks(f"{_NUM_VOC - len(names):,} of {_NUM_VOC:,} lines of {listed.name}")
    return _set(present, pairs, voc_classes(), _NUM_VOC, listed)


def read_ade20k(root: Path, options: Options) -> SegmentationSet:
    """`root`/ADEChallengeData2016, or the root itself.

    Raises:
        LayoutError: the class names, pictures or labels are missing.
    """
    below = "images/validation"
    images = root / find_folder(root, f"ADEChallengeData2016/{below}", below)
    base = images.parents[1]
    info = find_file(base, "objectInfo150.txt", is_root_sure=True)
    annotations = base / find_folder(base, "annotations/validation", is_root_sure=True)
    stems = {path.stem for path in visible(images, "*.jpg")} | {
        path.stem for path in visible(annotations, "*.png")
    }
    pairs = [
        (
            (images / f"{stem}.jpg").relative_to(root),
            (annotations / f"{stem}.png").relative_to(root),
        )
        for stem in sorted(stems)
    ]
    present = Present("ade20k", root, options)
    if len(pairs) < _NUM_ADE20K:
        present.lacks(f"{_NUM_ADE20K - len(pairs):,} of {_NUM_ADE20K:,} images of {below}")
    return _set(present, pairs, _ade20k_classes(info), _NUM_ADE20K, info)


def voc_classes() -> list[str]:
    """The 20 names in the order of VOC's labels, background left out."""
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    names = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"][1:]
    return [_SPELT.get(name, name) for name in names]


def _set(
    present: Present,
    pairs: list[tuple[Path, Path]],
    classes: list[str],
    num_expected: int,
    annotations: Path,
) -> SegmentationSet:
    images, labels = [], []
    for image, label in pairs:
        # Both are asked for, so that both are named if both are missing.
        there = [present.has_picture(str(name), str(annotations)) for name in (image, label)]
        if all(there):
            images.append(Picture(present.root, str(image)))
            labels.append(LabelMap(present.root / label))
    coverage = present.coverage(len(images), num_expected, [annotations])
    return SegmentationSet(images, labels, classes, templates(), coverage)


def _ade20k_classes(path: Path) -> list[str]:
    """First name of each line of the table: Idx, Ratio, Train, Val, Stuff, Name."""
    rows = [line.split(maxsplit=5) for _, line in read_lines(path)]
    rows = [row for row in rows if len(row) == 6 and row[0].isdigit()]
    names = [row[5].split(",")[0].strip() for row in rows]
    if len(names) != _NUM_ADE20K_CLASSES or not all(names):
        raise LayoutError(f"{path} names {len(names)} classes, not {_NUM_ADE20K_CLASSES}")
    return names
