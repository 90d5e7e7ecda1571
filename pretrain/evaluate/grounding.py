"""Grounding: does the map of an expression lie on the mask of the thing that it refers to?"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pretrain.evaluate.benchmarks.dense import GroundingSet
from pretrain.evaluate.bootstrap import INTERVALS, share_intervals
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encode_shared import encode_sentences
from pretrain.evaluate.encoders import Encoders, NoMapsError, features_of_blank, share_cut
from pretrain.evaluate.localisation import MapScore, score_mask, summarise
from pretrain.evaluate.reading import prepare_ahead
from pretrain.evaluate.sharing import is_first, join_blocks, own_items, rank_and_size
from recaption.common.config import UserError
from recaption.common.progress import Progress

_NUM_EXAMPLES = 8  # sentences kept for the report, of the first and of the clearest


@torch.inference_mode()
def evaluate(data: GroundingSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """miou and pointing, and beside them what is reached without looking.

    Ranks that make this call together share the images, and the first has the figures; the others
    get none. Without looking is: the same hot region anywhere (`chance`), all of the picture, its
    centre, and the map of an expression of the next picture, where there is another.

    Raises:
        UserError: the model makes no maps, or a picture is not of the size of its masks.
    """
    every_text = [text for texts in data.sentences for text in texts]
    every_feature = encode_sentences(every_text, encoders, batch_size)
    blank = features_of_blank(encoders)
    if encoders.localise(blank, every_feature[:1][None]) is None:
        raise NoMapsError(f"{encoders.name} makes no maps of sentences")
    features = every_feature.split([len(texts) for texts in data.sentences])
    own = own_items(len(data.images), batch_size, *rank_and_size())
    blocks: list[list[MapScore]] = []
    with Progress(len(own), "images", "ground") as progress:
        ready = prepare_ahead(own, lambda n: read_squashed(data, n, encoders))
        for batch in batches(ready, batch_size):
            encoded = encoders.encode_images([pixels for pixels, _ in batch])
            places = own[progress.done : progress.done + len(batch)]
            blocks.append([])
            for row, (place, (_, masks)) in enumerate(zip(places, batch, strict=True)):
                other = features[(place + 1) % len(features)][:1]
                queries = torch.cat([features[place], other])
                maps = encoders.localise(encoded[row : row + 1], queries[None])
                assert maps is not None, "asked before"
                heats = maps[0].float().cpu()
                blocks[-1] += [score_mask(heats[n], heats[-1], m) for n, m in enumerate(masks)]
            progress.advance(len(batch))
    scores = [score for block in join_blocks(blocks) for score in block]
    if not is_first():
        return {}
    result = summarise(scores, len(data.images))
    assert result is not None
    image_of_score = np.repeat(np.arange(len(features)), [len(texts) for texts in data.sentences])
    each = np.array([[score.iou, score.hit] for score in scores], dtype=np.float64)
    iou_interval, hit_interval = share_intervals(each, image_of_score)
    another = {"pointing": result.pointing_other_sentence}
    return {
        "num_images": result.num_images,
        "num_sentences": result.num_sentences,
        "miou": result.iou,
        "miou_interval": iou_interval,
        "pointing": result.pointing,
        "pointing_interval": hit_interval,
        "intervals": INTERVALS,
        "pointing_by_size": {name: size.pointing for name, size in result.by_size.items()},
        "share_cut": share_cut(encoders, every_text),
        "chance": {
            "miou": result.iou_chance,
            "pointing": result.pointing_chance,
            "pointing_by_size": {n: size.pointing_chance for n, size in result.by_size.items()},
        },
        "whole_image": {"miou": result.iou_whole_image},
        "image_centre": {"pointing": result.pointing_centre},
        **({"sentence_of_another_image": another} if len(data.images) > 1 else {}),
        "maps": _examples(scores, data),
    }


def _examples(scores: Sequence[MapScore], data: GroundingSet) -> dict[str, list[dict[str, Any]]]:
    """The first sentences of the set, and those whose maps lie best on what they name.

    One a picture, by the numbers of picture and sentence.
    """
    numbered = [(place, n) for place, texts in enumerate(data.sentences) for n in range(len(texts))]
    by_iou = sorted(range(len(scores)), key=lambda n: -scores[n].iou)

    def some(order: Iterable[int]) -> list[dict[str, Any]]:
        chosen: dict[int, dict[str, Any]] = {}
        for number in order:
            place, sentence = numbered[number]
            if place not in chosen and len(chosen) < _NUM_EXAMPLES:
                chosen[place] = {
                    "image": data.images[place].name,
                    "number": place,
                    "sentence": sentence,
                    "text": data.sentences[place][sentence],
                    "hit": scores[number].hit,
                    "iou": scores[number].iou,
                }
        return list(chosen.values())

    return {"first": some(range(len(scores))), "clearest": some(by_iou)}


def read_squashed(
    data: GroundingSet, number: int, encoders: Encoders
) -> tuple[Tensor, list[Tensor]]:
    """A picture of the set as the model's square, whatever its preprocessing cuts off.

    Returns:
        (3, size, size) as `Encoders.preprocess` gives it, and (size, size) bool, the thing that
        each of its sentences names.

    Raises:
        UserError: the picture is not of the size that its masks have.
    """
    picture, regions = data.images[number], data.regions[number]
    image = picture.open()
    for region in regions:
        if image.size != (region.width, region.height):
            raise UserError(
                f"{picture.path} is of {image.width} x {image.height} pixels, "
                f"{region.where} says {region.width} x {region.height}"
            )
    size = encoders.image_size
    pixels = encoders.preprocess(image.resize((size, size), Image.Resampling.BICUBIC))
    return pixels, [shrink(torch.from_numpy(region.mask()), size) for region in regions]


def shrink(mask: Tensor, size: int) -> Tensor:
    """(H, W) bool -> (size, size) bool: where at least half of a pixel belongs to the thing.

    Of a thing too small for that, the pixel that it covers most.
    """
    share = adaptive_avg_pool2d(mask.float()[None], size)[0]
    return share >= min(0.5, share.max().item())
