"""Classes as texts: a class is the mean over its prompts."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from pretrain.evaluate.encode import batches
from pretrain.evaluate.encode_shared import encode_sentences
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.sharing import join_texts, own_items, rank_and_size
from pretrain.models.features import TextFeatures
from recaption.common.progress import Progress


def fill(templates: Sequence[str], name: str) -> list[str]:
    """The prompts of a class: `name` in place of each template's {}."""
    return [template.replace("{}", name) for template in templates]


def class_texts(
    encoders: Encoders, classes: Sequence[str], templates: Sequence[str], batch_size: int
) -> TextFeatures:
    """One text a class, to be scored as captions are ("Learning Transferable Visual Models From
    Natural Language Supervision", 3.1.4).

    Every feature of length D is of length 1 in each prompt, and again after the mean.
    """
    rows = []
    own = own_items(len(classes), 1, *rank_and_size())
    with Progress(len(own), "classes", "prompts") as progress:
        for place in own:
            prompts = batches(fill(templates, classes[place]), batch_size)
            features = TextFeatures.concatenate([encoders.encode_prompts(p) for p in prompts])
            rows.append(features.map(_mean_direction))
            progress.advance()
    return join_texts(rows)


def class_sentences(
    encoders: Encoders, classes: Sequence[str], templates: Sequence[str], batch_size: int
) -> Tensor:
    """(num_classes, D) of length 1, to be compared with places as sentences are."""
    texts = [prompt for name in classes for prompt in fill(templates, name)]
    features = encode_sentences(texts, encoders, batch_size)
    by_prompt = features.unflatten(0, (len(classes), len(templates))).transpose(0, 1)
    return _mean_direction(by_prompt)[0]


def _mean_direction(features: Tensor) -> Tensor:
    """(P, ..., D) of P prompts -> (1, ..., D)."""
    return F.normalize(F.normalize(features, dim=-1).mean(dim=0, keepdim=True), dim=-1)
