"""DeepSpeed around the model: sharded weights, gradients and optimiser states, and clipping."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.distributed.shards import Shards
from pretrain.models.blocks import Block, Mlp
from pretrain.models.image.stem import ConvStem
from pretrain.ops.graph_pooling import GraphPooling
from recaption.common.config import check_at_least, check_choice

#: Modules whose weights are used outside the modules that hold them: ZeRO 3 gathers all weights of
#: one at once.
GATHERED_WHOLE = (Block, Mlp, GraphPooling)


@dataclass
class EngineConfig:
    zero_stage: int = 1  # what ZeRO shards: 0 nothing, 1 optimiser states, 2 gradients, 3 weights
    precision: str = "fp32"  # of the encoders' products: fp32 or bf16; weights stay in fp32
    max_grad_norm: float = 0.0  # clip gradients to this norm; 0: do not clip
    # A rank's batch goes through the encoders in so many pieces, of which only one is kept for the
    # backward; gradients are those of the whole batch, for a second forward.
    num_micro_batches: int = 1
    compile: bool = False  # torch.compile on the towers; needs a C++ compiler on CPUs
    ema_decay: float = 0.0  # of a running mean of the weights, saved beside them; 0: none

    def __post_init__(self) -> None:
        check_choice("engine.zero_stage", self.zero_stage, (0, 1, 2, 3))
        check_choice("engine.precision", self.precision, ("fp32", "bf16"))
        check_at_least(1, {"engine.num_micro_batches": self.num_micro_batches})


class Engine:
    """One training step: ``forward`` and ``backward``, any number of times, then ``step``.

    Args:
        module: what is trained; its `objective`, if it has one, is used outside its forward.
        parameter_groups: groups of AdamW, with an `lr_scale` each.
        config: what is sharded, and how gradients are clipped.
        batch_size: samples a rank and step.
        adam: further arguments of AdamW.
    """

    def __init__(
        self,
        module: nn.Module,
        parameter_groups: Iterable[dict[str, Any]],
        config: EngineConfig,
        batch_size: int,
        adam: dict[str, Any],
    ) -> None:
        self.module = module
        self._max_grad_norm = config.max_grad_norm or math.inf
        # Imported late: it chooses its accelerator, and takes seconds, when it is imported.
        import deepspeed
        from deepspeed.utils import logger

        logger.setLevel("ERROR")
        # DeepSpeed calls collectives by names that torch renamed; nothing that a user can mend.
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
        # A shared-memory all-reduce that DeepSpeed would compile for minutes on a CPU's first run.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        fused = torch.cuda.is_available()  # one kernel for all parameters
        optimizer = torch.optim.AdamW(list(parameter_groups), fused=fused, **adam)
        num_trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        zero: dict[str, Any] = {
            "stage": config.zero_stage,
            "reduce_bucket_size": reduce_bucket_size(num_trained),
        }
        if config.zero_stage == 3:
            for part in module.modules():
                if isinstance(part, GATHERED_WHOLE):
                    deepspeed.utils.set_z3_leaf_module(part, True)
            zero["memory_efficient_linear"] = False  # it replaces torch's for good
        self._deepspeed, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": batch_size,
                "gradient_accumulation_steps": 1,
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                "gradient_clipping": config.max_grad_norm if config.zero_stage else 0.0,
                "steps_per_print": 10**9,
            },
        )
        self.shards = Shards(self._deepspeed)
        self.shards.keep_whole(used_outside_their_modules(module))

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self._deepspeed(*inputs, **options)

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        """Adds the gradient of ``loss``; the last one of a step begins to reduce them."""
        self._deepspeed.set_gradient_accumulation_boundary(is_last)
        self._deepspeed.backward(loss)

    def step(self) -> bool:
        """Updates the weights, unless the gradient is not finite; whether it did."""
        skipped = self.num_skipped_steps
        if not self._deepspeed.zero_optimization():
            self._clip_or_leave_out()
        self._deepspeed.step()
        if self.num_skipped_steps > skipped:
            self.shards.gather_kept()
            return False
        return True

    def _clip_or_leave_out(self) -> None:
        """What DeepSpeed does to the gradient with ZeRO, and not without."""
        parameters = list(self._deepspeed.module.parameters())
        self._grad_norm = nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)
        if not self._grad_norm.isfinite():
            self._deepspeed.skipped_steps += 1
            for parameter in parameters:
                parameter.grad = None

    @property
    def num_skipped_steps(self) -> int:
        """Updates that were left out because the gradient was not finite."""
        return int(self._deepspeed.skipped_steps)

    @property
    def grad_norm(self) -> float:
        """Norm of the last step's gradient over all ranks, before clipping."""
        if self._deepspeed.zero_optimization():
            return float(self._deepspeed.get_global_grad_norm())
        return float(self._grad_norm)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets each group's rate to ``learning_rate`` times the group's ``lr_scale``."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]


def reduce_bucket_size(num_trained: int) -> int:
    """Numbers in the buffer that gradients are laid together in: DeepSpeed's default at most.

    With ZeRO it is allocated whole, so that the default takes 1.9 GiB of the smallest model.
    """
    return min(500_000_000, num_trained)


def used_outside_their_modules(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that no module's call would gather, or not for as long as they are needed.

    Those of the objective, which is called outside the engine; of the stem, whose input needs no
    gradient, from which DeepSpeed concludes that its backward is over; and positions and the like,
    which stand in modules of many parts.
    """
    objective = getattr(module, "objective", None)
    found = list(objective.parameters()) if objective is not None else []
    for part in module.modules():
        if isinstance(part, ConvStem):
            found += part.parameters()
        elif next(part.children(), None) is not None and not isinstance(part, GATHERED_WHOLE):
            found += part.parameters(recurse=False)
    return list(dict.fromkeys(found))
