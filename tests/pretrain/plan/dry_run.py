"""Prints what the first of 64 pretended ranks holds and sends under DeepSpeed.

By ZeRO stage, with one and two micro-batches.

    python dry_run.py CONFIG.yaml

The trainer's own step, with the real towers, in this process alone: torch's fake process group
stands for the other 63 ranks.
"""

import json
import os
import sys

import torch
from torch import nn

WORLD_SIZE = 64
TEXT_LENGTH = 8


def main(arguments: list[str]) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    from pretrain.plan.command import PlanConfig
    from pretrain.plan.traffic import pretended_ranks
    from recaption.common.config import load_config

    config = load_config(PlanConfig, [*arguments, "data.train=none"])
    # What a pretended rank sends never comes: let it be zeros, not what lay in memory.
    torch.empty_like, torch.empty = torch.zeros_like, torch.zeros
    with pretended_ranks(WORLD_SIZE):
        rows = [dry_run(config, stage, number) for stage in (0, 1, 2, 3) for number in (1, 2)]
    print(json.dumps(rows))


def dry_run(config, stage, num_pieces):
    """Numbers held, and bytes sent in the last of three steps: ZeRO 3 learns in the first."""
    from pretrain.data.captions import num_texts
    from pretrain.data.tokens import pack_tokens
    from pretrain.distributed.engine import Engine
    from pretrain.distributed.exchange import Exchange
    from pretrain.distributed.microbatch import backpropagate
    from pretrain.ema import Ema
    from pretrain.optim import parameter_groups
    from pretrain.plan.traffic import Traffic
    from pretrain.trained_module import build_module

    config.engine.zero_stage, config.engine.num_micro_batches = stage, num_pieces
    module = build_module(config).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()  # pretended ranks have no statistics to add
    size, side = config.data.batch_size, config.model.image.size
    engine = Engine(module, parameter_groups(module, config.optim), config.engine, size, {})
    engine.set_learning_rate(1e-6)
    ema = Ema(engine.shards, 0.9)
    number = num_texts(config.data.captions)
    texts = pack_tokens([[0] * TEXT_LENGTH] * (size * number), number)
    pieces = texts.split(config.engine.num_micro_batches)
    images = torch.randn(size, 3, side, side)
    for seed in range(3):
        with Traffic() as traffic:
            backpropagate(engine, module, images, pieces, Exchange(), torch.Generator(), seed=seed)
            engine.step()
        ema.update(seed + 1)
    places = engine.shards._places()
    return {
        "stage": stage,
        "num_pieces": num_pieces,
        "weights": sum(engine.shards.piece(p).numel() for p in engine.shards.trained.values()),
        "kept_whole": sum(
            p.numel()
            for p in engine.shards.trained.values()
            if stage < 3 or p.ds_status.name == "AVAILABLE"
        ),
        "gradients": _room_for_gradients(engine, stage),
        "updated": sum(place.numel() for place in places),
        "states": sum(
            engine.shards._state(place)[key].numel()
            for place in places
            for key in ("exp_avg", "exp_avg_sq")
        ),
        "ema": sum(mean.numel() for mean in ema._means.values()),
        "sent": traffic.sent,
    }


def _room_for_gradients(engine, stage):
    """Numbers of gradients that lie ready behind the backward, where there is a place for them."""
    return engine._deepspeed.optimizer.grad_partitions_flat_buffer.numel() if stage == 3 else None


if __name__ == "__main__":
    main(sys.argv[1:])
