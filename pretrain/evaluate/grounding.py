"""Grounding: does the map of an expression lie on the mask of the thing that it refers to?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.benchmarks.dense import GroundingSet, Region
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders, NoMapsError
from pretrain.evaluate.localisation import MapScore, score_mask, summarise
from pretrain.evaluate.reading import prepare_ahead
from recaption.common.config import UserError
from recaption.common.progress import Progress


@torch.inference_mode()
def evaluate(data: GroundingSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """miou and pointing, and beside them what is reached without looking.

    That is: the same hot region anywhere (`chance`), all of the picture, its centre, and the map
    of an expression of the next picture.

    Raises:
        UserError: the model makes no maps, or a picture is not of the size of its masks.
    """
    every_text = [text for texts in data.sentences for text in texts]
    features = _encode(encoders, every_text, batch_size).split([len(t) for t in data.sentences])
    others = [features[(n + 1) % len(features)][:1] for n in range(len(features))]
    read = _squashing(encoders)
    scores: list[MapScore] = []
    positions = list(range(len(data.images)))
    with Progress(len(positions), "images", "ground") as progress:
        ready = prepare_ahead(positions, lambda n: read(data.images[n], data.regions[n]))
        for batch in batches(ready, batch_size):
            encoded = encoders.encode_images([pixels for pixels, _ in batch])
            for row, (pixels, masks) in enumerate(batch):
                position = progress.done + row
                queries = torch.cat([features[position], others[position]])
                maps = encoders.localise(encoded[row : row + 1], queries[None])
                if maps is None:
                    raise NoMapsError(f"{encoders.name} makes no maps of sentences")
                heats = maps[0].float().cpu()
                for heat, mask in zip(heats, masks, strict=False):
                    inside = shrink(torch.from_numpy(mask), pixels.shape[-1])
                    scores.append(score_mask(heat, heats[-1], inside))
            progress.advance(len(batch))
    result = summarise(scores, len(data.images))
    assert result is not None
    return {
        "num_images": result.num_images,
        "num_sentences": result.num_sentences,
        "miou": result.iou,
        "pointing": result.pointing,
        "pointing_by_size": {name: size.pointing for name, size in result.by_size.items()},
        "share_cut": sum(map(encoders.is_cut, every_text)) / len(every_text),
        "chance": {
            "miou": result.iou_chance,
            "pointing": result.pointing_chance,
            "pointing_by_size": {n: size.pointing_chance for n, size in result.by_size.items()},
        },
        "whole_image": {"miou": result.iou_whole_image},
        "image_centre": {"pointing": result.pointing_centre},
        "sentence_of_another_image": {"pointing": result.pointing_other_sentence},
    }


def shrink(mask: Tensor, size: int) -> Tensor:
    """(H, W) bool -> (size, size) bool: where at least half of a pixel belongs to the thing.

    Of a thing too small for that, the pixel that it covers most.
    """
    share = adaptive_avg_pool2d(mask.float()[None], size)[0]
    return share >= min(0.5, share.max().item())


def _squashing(
    encoders: Encoders,
) -> Callable[[Picture, Sequence[Region]], tuple[Tensor, list[np.ndarray]]]:
    """Reads a picture as the model's square, whatever its preprocessing cuts off, and its masks."""
    size = encoders.preprocess(Image.new("RGB", (8, 8))).shape[-1]

    def read(picture: Picture, regions: Sequence[Region]) -> tuple[Tensor, list[np.ndarray]]:
        image = picture.open()
        for region in regions:
            if image.size != (region.width, region.height):
                raise UserError(
                    f"{picture.path} is of {image.width} x {image.height} pixels, "
                    f"{region.where} says {region.width} x {region.height}"
                )
        square = image.resize((size, size), Image.Resampling.BICUBIC)
        return encoders.preprocess(square), [region.mask() for region in regions]

    return read


def _encode(encoders: Encoders, sentences: Sequence[str], batch_size: int) -> Tensor:
    return torch.cat([encoders.encode_sentences(batch) for batch in batches(sentences, batch_size)])
