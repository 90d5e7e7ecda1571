"""DeepSpeed around the model: sharded optimiser states, clipping, checkpoints."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recaption.common.config import check_choice


@dataclass
class EngineConfig:
    zero_stage: int = 1  # what ZeRO shards: 0 nothing, 1 optimiser states, 2 gradients too
    precision: str = "fp32"  # of the encoders' products: fp32 or bf16; weights stay in fp32
    max_grad_norm: float = 0.0  # clip gradients to this norm; 0: do not clip

    def __post_init__(self) -> None:
        # Stage 3 must find the tensors that pass between modules, and ours pass in containers.
        check_choice("engine.zero_stage", self.zero_stage, (0, 1, 2))
        check_choice("engine.precision", self.precision, ("fp32", "bf16"))


class Engine:
    """One training step as three calls: ``forward``, ``backward``, ``step``."""

    def __init__(
        self,
        module: nn.Module,
        parameter_groups: Iterable[dict[str, Any]],
        config: EngineConfig,
        batch_size: int,
        adam: dict[str, Any],
    ) -> None:
        self._max_grad_norm = config.max_grad_norm or math.inf
        # Imported late: it chooses its accelerator, and takes seconds, when it is imported.
        import deepspeed
        from deepspeed.utils import logger

        logger.setLevel("WARNING")
        # DeepSpeed calls collectives by names that torch renamed; nothing that a user can mend.
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
        # A shared-memory all-reduce that DeepSpeed would compile for minutes on a CPU's first run.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        fused = torch.cuda.is_available()  # one kernel for all parameters
        optimizer = torch.optim.AdamW(list(parameter_groups), fused=fused, **adam)
        self._deepspeed, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": batch_size,
                "gradient_accumulation_steps": 1,
                "zero_optimization": {"stage": config.zero_stage},
                "zero_allow_untested_optimizer": True,
                "gradient_clipping": config.max_grad_norm if config.zero_stage else 0.0,
                "steps_per_print": 10**9,
            },
        )

    def forward(self, *inputs: Any) -> dict[str, Tensor]:
        return self._deepspeed(*inputs)

    def backward(self, loss: Tensor) -> None:
        self._deepspeed.backward(loss)

    def step(self) -> None:
        """Updates the weights, unless the gradient is not finite."""
        if not self._deepspeed.zero_optimization():
            self._clip_or_leave_out()
        self._deepspeed.step()

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

    def full_state_dict(self) -> dict[str, Tensor]:
        """All weights in fp32 and all buffers, whole, on the CPU. Every rank must call this."""
        from deepspeed.utils import safe_get_full_fp32_param

        module = self._deepspeed.module
        state = {name: buffer.detach().cpu() for name, buffer in module.named_buffers()}
        for name, parameter in module.named_parameters():
            full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            state[name] = (parameter if full is None else full).detach().float().cpu()
        return {name: state[name].contiguous().clone() for name in module.state_dict()}

    def save(self, folder: Path) -> None:
        """Writes this rank's share of weights and optimiser. Every rank must call this."""
        self._deepspeed.save_checkpoint(str(folder), tag="engine", save_latest=False)

    def load(self, folder: Path) -> None:
        with _only_weights_from_pickles():
            path, _ = self._deepspeed.load_checkpoint(str(folder), tag="engine")
        assert path is not None, f"{folder} is complete, but its engine state cannot be read"


@contextmanager
def _only_weights_from_pickles() -> Iterator[None]:
    """DeepSpeed reads its checkpoints with a pickle that may run anything; this one may not."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    forced = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(forced)
    os.environ[forced] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        del os.environ[forced]
        if before is not None:
            os.environ[forced] = before
