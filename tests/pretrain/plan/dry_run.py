"""Prints what the first of 64 pretended ranks holds and sends under DeepSpeed, by ZeRO stage."""

import json
import os
import sys

import torch
from torch import nn

WORLD_SIZE = 64


def main(config_path: str) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    from pretrain.plan.command import PlanConfig
    from pretrain.plan.traffic import pretended_ranks
    from pretrain.trained_module import build_module
    from recaption.common.config import load_config
    from tools.check_plan import TrainingLoss

    config = load_config(PlanConfig, [config_path, "data.train=none"])
    # What a pretended rank sends never comes: let it be zeros, not what lay in memory.
    torch.empty_like = torch.zeros_like
    with pretended_ranks(WORLD_SIZE):
        rows = [
            dry_run(config, stage, TrainingLoss(build_module(config)).train())
            for stage in (0, 1, 2)
        ]
        # The weights of stage 3 are gathered by modules: here some that hold nothing else.
        layers = nn.Sequential(nn.Linear(500, 600), nn.GELU(), nn.Linear(600, 400))
        rows.append(dry_run(config, 3, layers))
    print(json.dumps(rows))


def dry_run(config, stage, module):
    """Bytes of the optimiser's numbers, and sent in the second of two steps."""
    from pretrain.data.captions import num_texts
    from pretrain.data.tokens import pack_tokens
    from pretrain.distributed.engine import Engine
    from pretrain.optim import parameter_groups
    from pretrain.plan.traffic import Traffic
    from pretrain.plan.zero import count_weights

    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()  # pretended ranks have no statistics to add
    weights = count_weights(module, config.optim)
    config.engine.zero_stage = stage
    groups = parameter_groups(module, config.optim)
    engine = Engine(module, groups, config.engine, config.data.batch_size, {})
    engine.set_learning_rate(1e-6)
    if stage == 3:
        inputs = (torch.zeros(2, 500),)
    else:
        size, side = config.data.batch_size, config.model.image.size
        number = num_texts(config.data.captions)
        texts = pack_tokens([[0] * 8] * (size * number), number)
        inputs = (torch.randn(size, 3, side, side), texts)
    for _ in range(2):
        with Traffic() as traffic:
            engine.backward(engine.forward(*inputs).sum())
            engine.step()
    deepspeed = engine._deepspeed.optimizer
    updated = (
        deepspeed.fp32_partitioned_groups_flat
        if stage == 3
        else [p for group in engine._optimizer.param_groups for p in group["params"]]
    )
    return {
        "groups": weights.groups,
        "updated": sum(p.numel() for p in updated),
        "states": sum(
            state.numel()
            for values in engine._optimizer.state.values()
            for name, state in values.items()
            if name in ("exp_avg", "exp_avg_sq")
        ),
        "sent": traffic.sent,
    }


if __name__ == "__main__":
    main(sys.argv[1])
