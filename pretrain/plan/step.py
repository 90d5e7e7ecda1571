"""What a rank keeps in a step beside weights and optimiser: a real step on fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.data.tokens import pack_tokens
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.microbatch import backpropagate
from pretrain.models.count import forward_macs
from pretrain.models.dual import DualEncoder
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.ops.packing import Packing, pack_by_length
from pretrain.ops.recompute import Recomputing
from pretrain.plan.trace import MemoryTrace, traced_memory
from pretrain.plan.traffic import Traffic, pretended_ranks
from pretrain.trained_module import TrainedModule, build_module

Features = tuple[ImageFeatures, TextFeatures]


@dataclass
class StepTrace:
    """Bytes of one rank in a step, weights and gradients of weights left out."""

    batch: int
    """Images and tokens of the whole batch."""
    activations: int
    """What lives beside the batch when the loss is computed: what is kept for the backward, or with
    micro-batches the features and what the stem gave of the whole batch."""
    peak: int
    """The most that lives at any other moment beside the batch."""
    peak_with_gradients: int
    """The same with those gradients of weights that there are by then."""
    features: Features
    """Of one piece of the batch, fake."""


@dataclass
class LossTrace:
    """The objective of one rank, with its gradients."""

    memory: float
    """Bytes at the worst moment, beside the features that it is given."""
    sent: float
    """Bytes sent to other ranks."""
    flops: float
    """Arithmetic: 1 MAC = 2 FLOPs."""
    num_operations: float
    """Of tensors."""


def trace_step(config: PretrainConfig, text_length: int) -> StepTrace:
    """The trainer's step on one rank, all texts `text_length` tokens long.

    As on a CPU; GPUs have other kernels for some operations, which keep as much or less.
    """
    batch_size, num_pieces = config.data.batch_size, config.engine.num_micro_batches
    number = num_texts(config.data.captions)
    packing = _packing(batch_size // num_pieces * number, text_length)
    module = build_without_numbers(config)
    with traced_memory() as trace:
        module.to_empty(device="cpu")
        trace.watch_gradients(module)
        weights = trace.live
        side, piece_size = config.model.image.size, batch_size // num_pieces
        images = torch.zeros(batch_size, 3, side, side)
        texts = [
            pack_tokens([[0] * text_length] * (piece_size * number), number)
            for _ in range(num_pieces)
        ]
        before = trace.live
        engine = _WatchedEngine(module, trace)
        with _laid_out(module.model, packing):
            backpropagate(
                cast(Engine, engine),
                module,
                images,
                texts,
                Exchange(),
                torch.Generator(),
                seed=0,
            )
    first, last = engine.loss_began, engine.loss_ended
    timeline = trace.timeline[:first] + trace.timeline[last:]
    return StepTrace(
        batch=before - weights,
        activations=trace.timeline[first - 1][0] - before,
        peak=max(live for live, _ in timeline) - before,
        peak_with_gradients=max(live + gradients for live, gradients in timeline) - before,
        features=engine.features,
    )


class _WatchedEngine:
    """What a step asks of an engine, without one; notices when the loss is computed."""

    def __init__(self, module: TrainedModule, trace: MemoryTrace) -> None:
        self._module, self._trace = module, trace
        self.loss_began = self.loss_ended = 0
        module.objective.register_forward_pre_hook(self._begin_loss)

    def forward(self, *inputs: Any) -> Features:
        self._end_loss()
        image, text = self._module(*inputs)
        self.features = image.detach(), text.detach()
        return image, text

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        self._end_loss()
        loss.backward()

    def _begin_loss(self, *_: Any) -> None:
        self.loss_began = len(self._trace.timeline)

    def _end_loss(self) -> None:
        if self.loss_began and not self.loss_ended:
            self.loss_ended = len(self._trace.timeline)


def trace_loss(config: PretrainConfig, features: Features, world_size: int) -> LossTrace:
    """The loss of a rank among `world_size` and its gradients.

    Where texts go round a ring each further rank adds the same operations: beyond eight ranks they
    are extrapolated from four and eight. Other objectives are traced as they are.

    Args:
        features: shapes, of any number of samples.
    """
    few = [_traced_loss(config, features, ranks) for ranks in (4, 8) if ranks < world_size]
    goes_round = len(few) == 2 and few[0].num_operations < few[1].num_operations
    if not goes_round:
        return _traced_loss(config, features, world_size)
    steps = (world_size - 4) / 4
    pairs = zip(*map(astuple, few), strict=True)
    return LossTrace(*(four + steps * (eight - four) for four, eight in pairs))


def count_forward_macs(config: PretrainConfig, text_length: int) -> dict[str, int]:
    """Multiply-accumulates of an image and its texts, forward; see `pretrain.models.count`."""
    number = num_texts(config.data.captions)
    packing = _packing(number, text_length)
    module = build_without_numbers(config)
    with traced_memory(), _laid_out(module.model, packing):
        module.to_empty(device="cpu")
        size, with_tokens = config.model.image.size, module.with_tokens
        return forward_macs(module.model, size, number, text_length, with_tokens)


def count_recomputed_macs(config: PretrainConfig, text_length: int) -> int:
    """Multiply-accumulates of the forward of one image and its texts in what
    `train.recompute_blocks` computes again."""
    number = num_texts(config.data.captions)
    packing = _packing(number, text_length)
    module = build_without_numbers(config).eval()
    side = config.model.image.size
    counter = FlopCounterMode(display=False)
    found, begun = 0, []

    def begin(*_: Any) -> None:
        begun.append(counter.get_total_flops())

    def end(*_: Any) -> None:
        nonlocal found
        flops = counter.get_total_flops() - begun.pop()
        found += 0 if begun else flops  # what lies within another such part counts with that

    for part in module.model.modules():
        if isinstance(part, Recomputing):
            part.register_forward_pre_hook(begin)
            part.register_forward_hook(end)
    with traced_memory(), _laid_out(module.model, packing), torch.no_grad():
        module.to_empty(device="cpu")
        image = torch.zeros(1, 3, side, side)
        texts = pack_tokens([[0] * text_length] * number, number)
        with sdpa_kernel(SDPBackend.MATH), counter:
            module.model.encode_image(image, with_tokens=module.with_tokens)
            module.model.encode_text(texts)
    return found // 2


def build_without_numbers(config: PretrainConfig) -> TrainedModule:
    """What the run trains, on the meta device: shapes alone."""
    with torch.device("meta"):
        return build_module(config).train()


def _traced_loss(config: PretrainConfig, features: Features, world_size: int) -> LossTrace:
    module = build_without_numbers(config)
    ranks = pretended_ranks(world_size) if world_size > 1 else nullcontext()
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with ranks, traced_memory() as trace, Traffic() as traffic:
        module.objective.to_empty(device="cpu")
        given = [_resized(part, config.data.batch_size) for part in features]
        before = trace.live
        with counter:
            terms = module.objective(*given, Exchange(), torch.Generator())
            torch.stack(list(terms.values())).sum().backward()
    worst = max(live + gradients for live, gradients in trace.timeline) - before
    flops = counter.get_total_flops()
    return LossTrace(worst, traffic.sent, flops, len(trace.timeline))


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


#: The fused attention of CPUs, which torch's counter does not know.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def _packing(num_texts: int, length: int) -> Packing:
    """To be asked for outside of a trace: how texts lie depends on their lengths, and fake tensors
    have no numbers."""
    return pack_by_length(torch.arange(num_texts + 1) * length)


@contextmanager
def _laid_out(model: DualEncoder, packing: Packing) -> Iterator[None]:
    """The text tower is told how its texts lie."""
    tower: Any = model.part_text
    tower._pack = lambda tokens, offsets: packing
    try:
        yield
    finally:
        del tower._pack


def _resized(features: Any, batch_size: int) -> Any:
    """Features of a batch of another size, of which gradients are wanted."""
    return features.map(lambda x: torch.zeros(batch_size, *x.shape[1:]).requires_grad_())
