"""What a rank holds and sends by ZeRO stage, as DeepSpeed 0.19 does it.

"ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (Rajbhandari et al. 2020),
with what DeepSpeed adds: buckets, copies, and sums to all ranks where the paper sends them to one.
Weights and their gradients are in fp32, also where the encoders compute in bf16: then they are the
masters of the bf16 copies that a forward makes, which count as activations.
"""

from dataclasses import dataclass
from itertools import chain

from pretrain.distributed.engine import (
    GATHERED_WHOLE,
    reduce_bucket_size,
    used_outside_their_modules,
)
from pretrain.ema import spread
from pretrain.optim import OptimConfig, parameter_groups
from pretrain.plan.step import StepTrace
from pretrain.plan.traffic import all_gather_bytes, all_reduce_bytes
from pretrain.trained_module import TrainedModule

BYTES = 4
"""Of a number in fp32."""
STAGES = (0, 1, 2, 3)
#: A gathered weight is kept if it is used again before so many numbers of others were
#: (`stage3_max_reuse_distance`).
MAX_REUSE_DISTANCE = 1_000_000_000
#: Smaller weights are never spread (`stage3_param_persistence_threshold`).
MIN_SPREAD = 100_000


@dataclass
class Weights:
    """Numbers of a module, trained ones by the optimiser's groups."""

    groups: list[list[int]]
    """Numbers of each parameter of each group."""
    other: int
    """Bytes of what is not trained: frozen weights and buffers."""
    kept: list[int]
    """Numbers of each parameter that ZeRO 3 keeps whole on all ranks."""
    in_use: int
    """Numbers that a call of one module needs beside these, where it needs the most."""
    stem: list[int]
    """Numbers of each parameter of what sees the whole batch at once."""
    objective: list[int]
    """And of the objective's."""

    @property
    def trained(self) -> int:
        return sum(map(sum, self.groups))


@dataclass
class RankState:
    """Bytes that a rank holds by ZeRO stage, from step to step and at its worst moments."""

    stage: int
    weights: int
    optimiser: int
    """AdamW's two means, and with ZeRO the copy of the weights that is updated."""
    ema: int
    gradients: int
    bucket: int
    """Held from the beginning of the backward until gradients are reduced."""
    in_update: int
    """For a moment, while the weights are updated."""


def count_weights(module: TrainedModule, optim: OptimConfig) -> Weights:
    """Counts what a module has, on any device."""
    groups = [
        [parameter.numel() for parameter in group["params"]]
        for group in parameter_groups(module, optim)
    ]
    frozen = [p for p in module.parameters() if not p.requires_grad]
    kept = {p for p in module.parameters() if p.requires_grad and p.numel() <= MIN_SPREAD}
    kept |= {p for p in used_outside_their_modules(module) if p.requires_grad}
    called = [
        part.parameters(recurse=isinstance(part, GATHERED_WHOLE)) for part in module.modules()
    ]
    return Weights(
        groups=groups,
        other=sum(t.numel() * t.element_size() for t in [*frozen, *module.buffers()]),
        kept=[p.numel() for p in kept],
        in_use=max(sum(p.numel() for p in own if p not in kept) for own in called),
        stem=[p.numel() for p in module.stem_parameters()],
        objective=[p.numel() for p in module.objective.parameters() if p.requires_grad],
    )


def partition_sizes(weights: Weights, stage: int, world_size: int) -> list[int]:
    """Numbers of each group that a rank updates: whole without ZeRO, else its share, padded.

    Stages 1 and 2 lay a group's parameters end to end and divide the row; stage 3 divides each
    parameter.
    """
    if stage == 0:
        return [sum(group) for group in weights.groups]
    if stage == 3:
        return [_piece(group, world_size) for group in weights.groups]
    unit = 2 * world_size  # DeepSpeed's alignment
    return [2 * -(-sum(group) // unit) for group in weights.groups]


def _piece(sizes: list[int], world_size: int) -> int:
    """Numbers of a rank where each parameter is divided."""
    return sum(-(-size // world_size) for size in sizes)


def rank_state(
    weights: Weights, stage: int, world_size: int, num_pieces: int, has_ema: bool, is_gpu: bool
) -> RankState:
    """What a rank of `world_size` holds.

    Args:
        num_pieces: micro-batches.
        is_gpu: the update is one kernel, without numbers of its own.
    """
    whole = BYTES * weights.trained
    partitions = [BYTES * size for size in partition_sizes(weights, stage, world_size)]
    share = sum(partitions)
    gathered = weights.trained
    if num_pieces > 1 or weights.trained > MAX_REUSE_DISTANCE:
        gathered = min(gathered, sum(weights.kept) + weights.in_use)
    held = share + BYTES * gathered if stage == 3 and world_size > 1 else whole
    if stage == 0:
        # AdamW's own kernel on CPUs needs two more of each parameter in turn; the sum over ranks
        # a copy of the gradients, some at a time.
        largest = BYTES * max(max(group) for group in weights.groups)
        in_update = max(0 if is_gpu else 2 * largest, BYTES * reduce_bucket_size(weights.trained))
    else:
        # The share of a group's gradients is laid together, group by group.
        in_update = max(partitions) * (1 if is_gpu else 3)
    return RankState(
        stage=stage,
        weights=held + weights.other,
        optimiser=(2 if stage == 0 else 3) * share,
        ema=_ema(weights, stage, world_size) if has_ema else 0,
        gradients=whole if stage < 2 else share,
        bucket=0 if stage == 0 else BYTES * reduce_bucket_size(weights.trained),
        in_update=in_update,
    )


def _ema(weights: Weights, stage: int, world_size: int) -> int:
    """Bytes of the running mean on the rank that has the most of it: pieces with ZeRO 3, else whole
    tensors, so that a large one sets the least that some rank has."""
    if stage == 3:
        return BYTES * sum(partition_sizes(weights, stage, world_size))
    sizes = {str(number): size for number, size in enumerate(chain(*weights.groups))}
    held = [0] * world_size
    for name, owner in spread(sizes, world_size).items():
        held[owner] += sizes[name]
    return BYTES * max(held)


def peak(state: RankState, encoders: StepTrace, loss: float, num_pieces: int) -> float:
    """The most bytes at any moment of a step.

    Args:
        state: of the rank.
        encoders: of its batch.
        loss: the most that the objective needs.
        num_pieces: micro-batches.
    """
    resident = state.weights + state.optimiser + state.ema + encoders.batch
    bucket_in_loss = 0 if state.stage < 3 else state.bucket  # stage 3 never gives it back
    in_loss = bucket_in_loss + loss + encoders.activations
    if state.stage < 2:
        in_backward = state.bucket + encoders.peak_with_gradients
    else:
        # Gradients lie in the bucket until it is full, and then as shares: at stage 2 these are
        # made behind the first backward, at stage 3 there is always room for them.
        shares = state.gradients if state.stage == 3 or num_pieces > 1 else 0
        in_backward = state.bucket + max(encoders.peak + shares, state.gradients)
        in_loss += state.gradients if state.stage == 3 else 0
    in_update = state.gradients + state.in_update + bucket_in_loss
    return resident + max(in_loss, in_backward, in_update)


def sent_bytes(weights: Weights, stage: int, world_size: int, num_pieces: int) -> float:
    """Bytes of gradients and weights that a rank sends a step, by ring algorithms.

    At stages 1 and 2 DeepSpeed sums gradients on all ranks, and each keeps its share. From stage 2
    on it does so behind the backward of every micro-batch: once more for the stem, whose gradient
    the first gives as zero, and only once for the objective. At stage 3 weights that are gathered
    for the forward stay for the backward if they come up again soon enough; not with micro-batches,
    whose forwards and backwards each gather all that is not kept.
    """
    whole = BYTES * weights.trained
    padded = BYTES * world_size * sum(partition_sizes(weights, stage, world_size))
    if stage == 0:
        return all_reduce_bytes(whole, world_size)
    if stage < 3:
        reduced = whole
        if stage == 2 and num_pieces > 1:
            reduced = BYTES * _reduced(
                num_pieces, weights.trained, sum(weights.stem), sum(weights.objective)
            )
        return all_reduce_bytes(reduced, world_size) + all_gather_bytes(padded, world_size)
    if num_pieces == 1 and 2 * weights.trained <= MAX_REUSE_DISTANCE:
        return 2 * all_gather_bytes(padded, world_size)
    pieces = [_piece(part, world_size) for part in (weights.stem, weights.objective, weights.kept)]
    stem, objective, kept = (BYTES * world_size * piece for piece in pieces)
    # A forward and a backward; with micro-batches one more forward before.
    times = 2 if num_pieces == 1 else 3 * num_pieces
    reduced = padded if num_pieces == 1 else _reduced(num_pieces, padded, stem, objective)
    return all_gather_bytes(times * (padded - kept) + kept + reduced, world_size)


def _reduced(num_pieces: int, whole: int, stem: int, objective: int) -> int:
    return num_pieces * (whole - stem - objective) + 2 * stem + objective
