"""ImageNet's validation set, ImageNet-V2 and ImageNet-O, as folders of classes.

The 1,000 class names and the 80 templates are those that OpenAI published with CLIP, taken from
the installed `open_clip.zero_shot_metadata`; the WordNet ids in their order from `timm`.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pretrain.evaluate.benchmarks.base import ClassificationSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import check_root, is_folder, not_there, visible
from pretrain.evaluate.benchmarks.present import Present

_PROMPTS = (
    "Class names and the 80 templates of OpenAI's CLIP (open_clip.zero_shot_metadata); a class is "
    "the mean over its prompts of normalised features, normalised again"
)
VARIANTS = {"val": f"ILSVRC2012's validation set, 50,000 images, 1,000 classes. {_PROMPTS}"}
V2_VARIANTS = {
    name: f"ImageNet-V2 (Recht et al. 2019), its set {name}, 10,000 images. {_PROMPTS}"
    for name in ("matched-frequency", "threshold-0.7", "top-images")
}
O_VARIANTS = {
    "test": "ImageNet-O (Hendrycks et al. 2021), 2,000 images, as zero-shot classification among "
    "its 200 classes by folder (as CLIP-Benchmark and DataComp); the paper's own measure, the AUPR "
    f"of detecting that an image is of none of them, is another. {_PROMPTS}"
}
#: Folders of the three published sets of ImageNet-V2, by variant.
V2_FOLDERS = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold-0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}
_NUM_IMAGENET_O = 2_000
_NUM_IMAGENET_O_CLASSES = 200
_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


@cache
def class_names() -> tuple[str, ...]:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


@cache
def class_ids() -> tuple[str, ...]:
    """WordNet ids (n01440764, ...) in the order of `class_names`."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def templates() -> tuple[str, ...]:
    """The 80 prompts, with {} for the class."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def read(root: Path, options: Options, num_per_class: int = 50) -> ClassificationSet:
    """`root`, or `root`/val, with a folder of 50 images for each WordNet id.

    Raises:
        LayoutError: no such folders, images are missing, or a class has more.
    """
    check_root(root)
    folder = next((f for f in (root, root / "val") if _has_ids(f)), None)
    heap = next((f for f in (root, root / "val") if any(f.glob("ILSVRC2012_val_*"))), None)
    is_one_class = _has_ids(root.absolute().parent)
    if folder is None and heap is not None and not is_one_class:
        raise LayoutError(
            f"{heap} holds the validation images in one heap: sort them into folders by WordNet "
            "id first (valprep.sh)"
        )
    if folder is None:
        raise not_there(
            root,
            "folders named by WordNet ids (n01440764, ...), nor val/",
            lambda near: _has_ids(near) or _has_ids(near / "val"),
        )
    return _read_folders("imagenet", root, folder, class_ids(), num_per_class, options)


def read_v2(root: Path, options: Options, num_per_class: int = 10) -> ClassificationSet:
    """`root`, or the published folder below it, with folders 0 to 999, named by class number.

    Raises:
        LayoutError: no such folders, another variant's, images are missing, or a class has more.
    """
    check_root(root)
    name = V2_FOLDERS[options.variant or "matched-frequency"]
    folder = root / name if (root / name).is_dir() else root
    # A link, or `.`, has the name of another variant, or none.
    others = {folder.name, folder.resolve().name} & set(V2_FOLDERS.values()) - {name}
    if others:
        raise LayoutError(
            f"{folder} is {min(others)}, another variant than the one asked for, {name}"
        )
    numbers = [str(number) for number in range(1000)]

    def has_numbers(near: Path) -> bool:
        return any(is_folder(near / number) for number in numbers)

    if not has_numbers(folder):
        raise not_there(
            root,
            f"folders 0 to 999, nor {name}/ with such folders",
            lambda near: has_numbers(near / name) or (near.name == name and has_numbers(near)),
        )
    return _read_folders("imagenet-v2", root, folder, numbers, num_per_class, options)


def read_o(root: Path, options: Options) -> ClassificationSet:
    """`root`, or `root`/imagenet-o, with 200 folders named by WordNet ids.

    Raises:
        LayoutError: no such folders, an id that is none of ImageNet's, or images are missing.
    """
    check_root(root)
    folder = root / "imagenet-o" if (root / "imagenet-o").is_dir() else root
    ids = [path.name for path in visible(folder) if path.is_dir()]
    unknown = [name for name in ids if name not in set(class_ids())]
    if not _has_ids(folder):
        raise not_there(
            root,
            "folders of ImageNet's WordNet ids (n01443537, ...), nor imagenet-o/",
            lambda near: _has_ids(near) or _has_ids(near / "imagenet-o"),
        )
    if unknown:
        raise LayoutError(
            f"{folder} has {unknown[0]}/, which is none of ImageNet's WordNet ids (n01443537, ...)"
        )
    by_id = dict(zip(class_ids(), class_names(), strict=True))
    present = Present("imagenet-o", root, options)
    if len(ids) > _NUM_IMAGENET_O_CLASSES:
        raise LayoutError(
            f"{folder} has {len(ids):,} class folders, ImageNet-O {_NUM_IMAGENET_O_CLASSES}"
        )
    if len(ids) < _NUM_IMAGENET_O_CLASSES:
        num_absent = _NUM_IMAGENET_O_CLASSES - len(ids)
        present.lacks(f"{num_absent} of {_NUM_IMAGENET_O_CLASSES} class folders")
    pictures = [list(_pictures(root, folder / name)) for name in ids]
    num_absent = _NUM_IMAGENET_O - sum(map(len, pictures))
    if num_absent > 0:
        present.lacks(f"{num_absent:,} of {_NUM_IMAGENET_O:,} images")
    images, labels = _labelled(pictures, present)
    coverage = present.coverage(len(images), _NUM_IMAGENET_O, ())
    return ClassificationSet(images, labels, [by_id[name] for name in ids], templates(), coverage)


def _read_folders(
    benchmark: str,
    root: Path,
    folder: Path,
    folders: Sequence[str],
    num_per_class: int,
    options: Options,
) -> ClassificationSet:
    """Classes in the order of their folders, each with the same number of images."""
    present = Present(benchmark, root, options)
    pictures = [list(_pictures(root, folder / name)) for name in folders]
    for name, of_class in zip(folders, pictures, strict=True):
        if len(of_class) > num_per_class:
            raise LayoutError(
                f"{folder / name} has {len(of_class):,} images, more than the protocol's "
                f"{num_per_class} of a class: is it another set, such as the one for training?"
            )
        if len(of_class) < num_per_class:
            num_absent = num_per_class - len(of_class)
            present.lacks(f"{num_absent} of {num_per_class} images of {name}/")
    images, labels = _labelled(pictures, present)
    coverage = present.coverage(len(images), num_per_class * len(folders), ())
    return ClassificationSet(images, labels, class_names(), templates(), coverage)


def _labelled(
    pictures: Sequence[Sequence[Picture]], present: Present
) -> tuple[list[Picture], list[int]]:
    """Pictures of all classes and the class of each, those that are of use."""
    pairs = [
        (picture, label)
        for label, of_class in enumerate(pictures)
        for picture in of_class
        if present.has_picture(picture.name, str(present.root))
    ]
    return [picture for picture, _ in pairs], [label for _, label in pairs]


def _has_ids(folder: Path) -> bool:
    """Whether it has folders by WordNet ids."""
    return any(is_folder(path) for path in folder.glob("n[0-9]*"))


def _pictures(root: Path, folder: Path) -> Iterator[Picture]:
    for path in visible(folder):
        if path.suffix.lower() in _SUFFIXES:
            yield Picture(root, str(path.relative_to(root)))
