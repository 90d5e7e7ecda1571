"""Segments and maps on the page of benchmarks: the model is asked again about a few pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pretrain.data.captions import split_caption
from pretrain.data.transforms import Box
from pretrain.evaluate.benchmarks.base import RetrievalSet
from pretrain.evaluate.benchmarks.dense import GroundingSet
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.grounding import read_squashed
from pretrain.evaluate.looks import level_panels, map_uri, picture_uri

_NUM_SENTENCES = 3  # maps shown beside one picture


@dataclass(frozen=True)
class Looks:
    hierarchies: list[list[dict[str, str]]] = field(default_factory=list)  # panels of each picture
    maps: list[dict[str, Any]] = field(default_factory=list)


def look_into(
    data: Any, figures: Mapping[str, Any], encoders: Encoders, num_pictures: int
) -> Looks:
    """Pictures of a benchmark's examples; nothing for tasks that have none.

    Args:
        data: the set, as its reader returned it.
        figures: of the task, as in `results.json`.
        num_pictures: of the found and of the lost, or of the first and of the clearest maps.
    """
    if isinstance(data, RetrievalSet):
        examples = [
            row for some in figures.get("examples", {}).values() for row in some[:num_pictures]
        ]
        return _look_into_examples(examples, data, encoders)
    if isinstance(data, GroundingSet):
        rows = [row for some in figures["maps"].values() for row in some[:num_pictures]]
        return Looks(maps=[_grounded(data, row, encoders) for row in rows])
    return Looks()


@torch.inference_mode()
def _look_into_examples(
    examples: Sequence[Mapping[str, Any]], data: RetrievalSet, encoders: Encoders
) -> Looks:
    looks = Looks()
    pictures = {picture.name: picture for picture in data.images}
    for name, text in {example["image"]: example["text"] for example in examples}.items():
        pixels = encoders.preprocess(pictures[name].open())
        shown = encoders.to_picture(pixels)
        image = encoders.encode_images([pixels])
        if panels := level_panels(shown, image.hierarchy):
            looks.hierarchies.append(panels)
        sentences = split_caption(text)[:_NUM_SENTENCES]
        if not sentences:
            continue
        maps = encoders.localise(image, encoders.encode_sentences(sentences)[None])
        if maps is not None:
            heats = zip(sentences, maps[0].float().cpu(), strict=True)
            rows = [{"sentence": s, "image": map_uri(shown, heat)} for s, heat in heats]
            looks.maps.append({"image": picture_uri(shown), "maps": rows})
    return looks


@torch.inference_mode()
def _grounded(data: GroundingSet, row: Mapping[str, Any], encoders: Encoders) -> dict[str, Any]:
    pixels, masks = read_squashed(data, row["number"], encoders)
    shown = encoders.to_picture(pixels)
    sentence = encoders.encode_sentences([row["text"]])
    maps = encoders.localise(encoders.encode_images([pixels]), sentence[None])
    assert maps is not None, "the task has made maps"
    box = _bounding_box(masks[row["sentence"]])
    image = map_uri(shown, maps[0, 0].float().cpu(), [box])
    told = {"sentence": row["text"], "name": "peak", "hit": row["hit"], "iou": row["iou"]}
    return {"image": picture_uri(shown), "maps": [{"image": image, **told}]}


def _bounding_box(mask: Tensor) -> Box:
    """Of a mask (H, W) bool, as fractions (left, top, right, bottom)."""
    rows, columns = mask.nonzero().unbind(dim=1)
    height, width = mask.shape
    return (
        int(columns.min()) / width,
        int(rows.min()) / height,
        (int(columns.max()) + 1) / width,
        (int(rows.max()) + 1) / height,
    )
