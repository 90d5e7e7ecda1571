"""The benchmarks that are not retrieval, as the registry takes them up."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pretrain.evaluate.benchmarks import cifar, fg_ovd, imagenet, refcoco, sugarcrepe
from pretrain.evaluate.benchmarks import segmentation as pixels
from pretrain.evaluate.benchmarks.base import Options
from pretrain.evaluate.choice import evaluate as choice
from pretrain.evaluate.classification import evaluate as classification
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.grounding import evaluate as grounding
from pretrain.evaluate.segmentation import evaluate as segmentation


class Entry(NamedTuple):
    """A benchmark, field by field as the registry's."""

    name: str  # as in benchmark=NAME
    title: str  # as in tables
    variants: Mapping[str, str]  # published variants and their protocols; the first is the usual
    read: Callable[[Path, Options], Any]
    evaluate: Callable[[Any, Encoders, int], dict[str, Any]]


VISION = (
    Entry("imagenet", "ImageNet", imagenet.VARIANTS, imagenet.read, classification),
    Entry("imagenet-v2", "ImageNet-V2", imagenet.V2_VARIANTS, imagenet.read_v2, classification),
    Entry("imagenet-o", "ImageNet-O", imagenet.O_VARIANTS, imagenet.read_o, classification),
    Entry("cifar10", "CIFAR-10", cifar.CIFAR10_VARIANTS, cifar.read_cifar10, classification),
    Entry("cifar100", "CIFAR-100", cifar.CIFAR100_VARIANTS, cifar.read_cifar100, classification),
    Entry("fg-ovd", "FG-OVD", fg_ovd.VARIANTS, fg_ovd.read, choice),
    Entry("sugarcrepe", "SugarCrepe", sugarcrepe.VARIANTS, sugarcrepe.read, choice),
    Entry("refcoco", "RefCOCO", refcoco.UNC_VARIANTS, refcoco.read_refcoco, grounding),
    Entry("refcoco+", "RefCOCO+", refcoco.UNC_VARIANTS, refcoco.read_refcoco_plus, grounding),
    Entry("refcocog", "RefCOCOg", refcoco.UMD_VARIANTS, refcoco.read_refcocog, grounding),
    Entry("voc20", "VOC20", pixels.VOC20_VARIANTS, pixels.read_voc20, segmentation),
    Entry("ade20k", "ADE20K", pixels.ADE20K_VARIANTS, pixels.read_ade20k, segmentation),
)
