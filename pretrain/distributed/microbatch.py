"""The gradient of a whole batch, whose encoders see only a piece of it at a time.

Contrastive losses compare every sample of a batch with every other, so that gradients of pieces do
not add up to that of the batch. But a loss sees features only. So: the features of all pieces
without a graph, the loss of all features and its gradient with regard to each, then each piece
again, with a graph, to lead its features' gradient back (GradCache, Gao et al. 2021). The stem,
which normalises over the batch, goes over the whole of it, before and after.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretrain.data.tokens import PackedTexts
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
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
        terms, loss, of_features, of_weights = _loss(module, features, exchange, generator)
        engine.backward(_attached(loss, features, of_features, of_weights))
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
    whole = (
        ImageFeatures.concatenate([image for image, _ in found]),
        TextFeatures.concatenate([text for _, text in found]),
    )
    terms, loss, of_features, of_weights = _loss(module, whole, exchange, generator)
    # ZeRO takes the first gradient of a step as it is, and adds the others to it: what has none in
    # the first piece needs one of zero there.
    of_weights += [(weight, torch.zeros_like(weight)) for weight in module.stem_parameters()]

    of_stem = []
    for number, (piece, some, own) in enumerate(zip(pieces, texts, stem_pieces, strict=True)):
        torch.manual_seed(seed + number * _SEED_STRIDE)
        if own is not None:
            own = own.detach().requires_grad_()
        features = engine.forward(piece, some, own)
        part = slice(number * len(piece), (number + 1) * len(piece))
        of_piece = {name: gradient[part] for name, gradient in of_features.items()}
        value = _attached(loss, features, of_piece, [] if number else of_weights)
        engine.backward(value, is_last=number + 1 == len(texts) and stem is None)
        if own is not None:
            assert own.grad is not None
            of_stem.append(own.grad)
    if stem is not None:
        again = module.stem_features(images)
        assert again is not None
        engine.backward(with_gradients(loss, [again], [torch.cat(of_stem)]))
    return terms


_Features = tuple[ImageFeatures, TextFeatures]
_OfWeights = list[tuple[nn.Parameter, Tensor]]


def _loss(
    module: TrainedModule, features: _Features, exchange: Exchange, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor], _OfWeights]:
    """Terms, loss, and its gradients with regard to features and to the objective's weights."""
    image, text = (part.map(lambda x: x.detach().requires_grad_()) for part in features)
    assert isinstance(image, ImageFeatures) and isinstance(text, TextFeatures)
    terms = module.objective(image, text, exchange, generator)
    loss = torch.stack(list(terms.values())).sum()
    leaves = _named((image, text))
    weights = [weight for weight in module.objective.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, [*leaves.values(), *weights], materialize_grads=True)
    of_features = dict(zip(leaves, found[: len(leaves)], strict=True))
    of_weights = list(zip(weights, found[len(leaves) :], strict=True))
    detached = {name: term.detach() for name, term in terms.items()}
    return detached, loss.detach(), of_features, of_weights


def _attached(
    loss: Tensor, features: _Features, of_features: dict[str, Tensor], of_weights: _OfWeights
) -> Tensor:
    """The loss, whose gradients with regard to features and weights are known."""
    named = _named(features)
    tensors = [*named.values(), *(weight for weight, _ in of_weights)]
    gradients = [*(of_features[name] for name in named), *(found for _, found in of_weights)]
    return with_gradients(loss, tensors, gradients)


def _named(features: _Features) -> dict[str, Tensor]:
    image, text = features
    named = {f"image.{name}": tensor for name, tensor in image}
    return named | {f"text.{name}": tensor for name, tensor in text}
