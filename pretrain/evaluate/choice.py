"""Fine-grained choice: of several texts that differ in a detail, which one fits the image?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ChoiceSet, Picture
from pretrain.evaluate.bootstrap import INTERVALS, share_intervals
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encode_shared import encode_captions
from pretrain.evaluate.encoders import Encoders, share_cut
from pretrain.evaluate.reading import read_ahead
from pretrain.evaluate.sharing import is_first, join_blocks, own_items, rank_and_size
from recaption.common.progress import Progress


@torch.inference_mode()
def evaluate(data: ChoiceSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """Figures of `figures`, and the share of texts that were cut at the context.

    Ranks that make this call together share the work, and the first has the figures; the others
    get none.
    """
    every_text = [text for texts in data.choices for text in texts]
    unique = {text: position for position, text in enumerate(dict.fromkeys(every_text))}
    features = encode_captions(list(unique), encoders, batch_size)
    own = own_items(len(data.images), batch_size, *rank_and_size())
    images = [data.images[place] for place in own]
    blocks: list[list[bool]] = []
    with Progress(len(own), "images", "choose") as progress:
        for batch in batches(read_ahead(images, encoders.preprocess), batch_size):
            encoded = encoders.encode_images(batch)
            places = own[progress.done : progress.done + len(batch)]
            blocks.append([])
            for row, place in enumerate(places):
                texts = torch.tensor([unique[text] for text in data.choices[place]])
                scores = encoders.score(encoded[row : row + 1], features[texts])[0]
                blocks[-1].append(bool((scores[0] > scores[1:]).all()))
            progress.advance(len(batch))
    right = [is_right for block in join_blocks(blocks) for is_right in block]
    if not is_first():
        return {}
    return {
        **figures(right, [len(texts) for texts in data.choices], data.groups, data.images),
        "share_cut": share_cut(encoders, every_text),
    }


def figures(
    right: Sequence[bool],
    num_texts: Sequence[int],
    groups: Sequence[str],
    images: Sequence[Picture],
) -> dict[str, Any]:
    """`accuracy`, the share of choices whose right text scores above all others (a tie is wrong),
    its interval under another draw of the image files, by group, and the mean over the groups.
    """
    hits = torch.tensor(right, dtype=torch.float64)
    chance = 1 / torch.tensor(num_texts, dtype=torch.float64)
    files = {image.name: number for number, image in enumerate(images)}
    image_of_choice = np.array([files[image.name] for image in images])
    names = list(dict.fromkeys(groups))
    members = [torch.tensor([group == name for group in groups]) for name in names]

    def by_group(values: Tensor) -> dict[str, float]:
        means = [values[member].mean().item() for member in members]
        return dict(zip(names, means, strict=True))

    return {
        "num_choices": len(right),
        "accuracy": hits.mean().item(),
        "accuracy_interval": share_intervals(hits[:, None].numpy(), image_of_choice)[0],
        "intervals": INTERVALS,
        "mean_of_groups": sum(by_group(hits).values()) / len(names),
        "by_group": by_group(hits),
        "num_by_group": [
            [name, int(member.sum())] for name, member in zip(names, members, strict=True)
        ],
        "chance": {
            "accuracy": chance.mean().item(),
            "mean_of_groups": sum(by_group(chance).values()) / len(names),
            "by_group": by_group(chance),
        },
    }
