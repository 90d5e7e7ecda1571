"""CAFT's cheap retrieval: the blended score for the texts that the whole score ranks first."""

import torch
from torch import Tensor

from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftObjective


@torch.inference_mode()
def reranked(
    objective: CaftObjective,
    images: ImageFeatures,
    texts: TextFeatures,
    whole: Tensor,
    alpha: float,
    num_candidates: int,
) -> Tensor:
    """(num_images, num_texts) blended scores of each image's best texts, on the CPU.

    As in the published code, all others get the lowest number there is: they are not found. That
    holds from text to image, too, where a text that an image did not choose is not found by it.

    Args:
        whole: (num_images, num_texts) whole scores.
        num_candidates: texts of each image that are looked at again, 16 as published.
    """
    assert images.fine_tokens is not None and texts.parts is not None
    count = min(num_candidates, len(texts))
    best = whole.topk(count, dim=1)
    scores = torch.full_like(whole, torch.finfo(whole.dtype).min)
    for row, chosen in enumerate(best.indices):
        local = objective.local_scores(images[row : row + 1], texts[chosen.to(texts.parts.device)])
        blended = (1 - alpha) * best.values[row] + alpha * local[0].float().cpu()
        scores[row, chosen] = blended
    return scores
