"""The gradient of a whole batch, whose encoders see only a piece of it at a time.

Contrastive losses compare every sample of a batch with every other, so that gradients of pieces do
not add up to that of the batch. But a loss sees features only. So: the features of all pieces
without a graph, the loss of all features and its gradient with regard to each, then each piece
again, with a graph, to lead its features' gradient back (GradCache, Gao et al. 2021). The stem,
which normalises over the batch, goes over the whole of it, before and after.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretrain.data.tokens import PackedTexts
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective
from pretrain.ops.known_gradients import with_gradients
from pretrain.trained_module import TrainedModule

#: Random states of the pieces of a step lie this far apart.
_SEED_STRIDE = 1 << 48


def backpropagate(
    engine: Engine,
    module: TrainedModule,
    images: Tensor,
    texts: Sequence[PackedTexts],
    exchange: Exchange,
    generator: torch.Generator,
    seed: int,
) -> dict[str, Tensor]:
    """Leaves the gradient of the batch's loss in the engine.

    Args:
        engine: around `module`.
        module: what is trained.
        images: (B, 3, H, W) normalised.
        texts: of the images, in as many pieces as the batch is to be computed in.
        exchange: reaches the other ranks' features.
        generator: of what the objective draws.
        seed: of what the encoders draw (dropout); each piece draws the same both times.

    Returns:
        named terms of the loss, without a graph; the loss is their sum.
    """
    if len(texts) == 1:
        torch.manual_seed(seed)
        features = engine.forward(images, texts[0])
        terms, loss, gradients = _loss(module.objective, features, exchange, generator)
        engine.backward(_attached(loss, features, gradients, module.objective))
        return terms

    pieces = images.chunk(len(texts))
    with torch.no_grad():
        stem = module.stem_features(images)
    stem_pieces = [None] * len(texts) if stem is None else stem.chunk(len(texts))
    found = []
    for number, (piece, some, own) in enumerate(zip(pieces, texts, stem_pieces, strict=True)):
        torch.manual_seed(seed + number * _SEED_STRIDE)
        with torch.no_grad():
            found.append(engine.forward(piece, some, own))
    image = ImageFeatures.concatenate([image for image, _ in found])
    text = TextFeatures.concatenate([text for _, text in found])
    terms, loss, gradients = _loss(module.objective, (image, text), exchange, generator)

    gradients_of_stem = []
    start = 0
    for number, (piece, some, own) in enumerate(zip(pieces, texts, stem_pieces, strict=True)):
        torch.manual_seed(seed + number * _SEED_STRIDE)
        if own is not None:
            own = own.detach().requires_grad_()
        features = engine.forward(piece, some, own)
        part = slice(start, start + len(piece))
        start = part.stop
        is_last = number + 1 == len(texts)
        of_piece = {name: gradient[part] for name, gradient in gradients["features"].items()}
        attached = {"features": of_piece, "objective": gradients["objective"] if is_last else []}
        # The objective's gradient goes along with the last piece's.
        objective = module.objective if is_last else None
        value = _attached(loss, features, attached, objective)
        engine.backward(value, is_last=is_last and stem is None)
        if own is not None:
            assert own.grad is not None
            gradients_of_stem.append(own.grad)
    if stem is not None:
        again = module.stem_features(images)
        assert again is not None
        value = with_gradients(loss, [again], [torch.cat(gradients_of_stem)])
        engine.backward(value, is_last=True)
    return terms


_Features = tuple[ImageFeatures, TextFeatures]


def _loss(
    objective: Objective, features: _Features, exchange: Exchange, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor, dict[str, Any]]:
    """Terms, loss, and the gradients with regard to all features and the objective's weights."""
    image, text = (part.map(lambda x: x.detach().requires_grad_()) for part in features)
    terms = objective(image, text, exchange, generator)
    loss = torch.stack(list(terms.values())).sum()
    leaves = _named((image, text))
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, [*leaves.values(), *weights], materialize_grads=True)
    gradients = {
        "features": dict(zip(leaves, found[: len(leaves)], strict=True)),
        "objective": list(found[len(leaves) :]),
    }
    return {name: term.detach() for name, term in terms.items()}, loss.detach(), gradients


def _attached(
    loss: Tensor, features: _Features, gradients: dict[str, Any], objective: Objective | None
) -> Tensor:
    """The loss, whose gradients with regard to features and weights are known."""
    named = _named(features)
    weights = [w for w in objective.parameters() if w.requires_grad] if objective else []
    return with_gradients(
        loss,
        [*named.values(), *weights],
        [*(gradients["features"][name] for name in named), *gradients["objective"]],
    )


def _named(features: _Features) -> dict[str, Tensor]:
    image, text = features
    named = {f"image.{name}": tensor for name, tensor in image}
    return named | {f"text.{name}": tensor for name, tensor in text}
