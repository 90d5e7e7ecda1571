"""Weights and Adam's moments, whole and by name, whatever ZeRO spread over the ranks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

MOMENTS = ("exp_avg", "exp_avg_sq")


class Shards:
    """The state of a DeepSpeed engine, parameter by parameter.

    All methods but `piece` and `num_updates` are collective: every rank must make the same calls.

    Args:
        engine: of ``deepspeed.initialize``, with torch's AdamW and weights in fp32.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._module: nn.Module = engine.module
        self.stage: int = engine.zero_optimization_stage()
        self.trained: dict[str, Any] = {
            n: p for n, p in self._module.named_parameters() if p.requires_grad
        }

    def keep_whole(self, parameters: Iterable[Any]) -> None:
        """Makes ZeRO 3 keep some parameters whole on all ranks, now and after each update."""
        if self.stage < 3:
            return
        kept = self._engine.optimizer.persistent_parameters
        known = {id(parameter) for parameter in kept}
        kept += [p for p in parameters if p.requires_grad and id(p) not in known]
        for parameter in kept:
            parameter.ds_persist = True
            # In the first step, before it knows the order of the modules, DeepSpeed would spread
            # them behind the modules that hold them; not so what other modules use as well.
            parameter.is_external_param = True
        self.gather_kept()

    def gather_kept(self) -> None:
        """Makes whole what ZeRO 3 is to keep so; DeepSpeed forgets it when it skips an update."""
        if self.stage == 3:
            kept = self._engine.optimizer.persistent_parameters
            missing = [p for p in kept if p.ds_status.name == "NOT_AVAILABLE"]
            if missing:
                missing[0].all_gather(missing)

    # ---- whole tensors

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, whole tensor in fp32) of the module's state dict, on the device."""
        import deepspeed

        buffers = dict(self._module.named_buffers())
        parameters = dict(self._module.named_parameters())
        for name in self._module.state_dict():
            if name in buffers:
                yield name, buffers[name].detach()
            elif name in self.trained:
                yield name, self._get(self.trained[name])
            else:
                with deepspeed.zero.GatheredParameters([parameters[name]], enabled=self.stage == 3):
                    yield name, parameters[name].detach().float().clone()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """(`exp_avg.NAME` or `exp_avg_sq.NAME`, whole tensor); nothing before the first update."""
        if self.num_updates:
            self._link_moments()
            for key in MOMENTS:
                for name, parameter in self.trained.items():
                    yield f"{key}.{name}", self._get(parameter, key)

    @property
    def num_updates(self) -> int:
        """Updates that Adam has made."""
        states = [self._state(place) for place in self._places()]
        return max((int(state["step"]) for state in states if "step" in state), default=0)

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes on what `weights` gave, but for frozen ones, which do not change."""
        for name, buffer in self._module.named_buffers():
            if name in weights:
                buffer.copy_(weights[name])
        for name, parameter in self.trained.items():
            self._set(parameter, weights[name].to(parameter.device))

    @torch.no_grad()
    def load_moments(self, moments: Mapping[str, Tensor], num_updates: int) -> None:
        """Takes on what `moments` and `num_updates` gave, on any number of ranks."""
        for place in self._places():
            state = self._state(place)
            state.clear()
            if num_updates:
                state["step"] = torch.tensor(float(num_updates))
                if self._engine.optimizer is not None and _is_fused(self._adam()):
                    state["step"] = state["step"].to(place.device)
                for key in MOMENTS:
                    state[key] = torch.zeros_like(place)
        if not num_updates:
            return
        self._link_moments()
        for key in MOMENTS:
            for name, parameter in self.trained.items():
                self._set(parameter, moments[f"{key}.{name}"].to(parameter.device), key)

    # ---- pieces

    def piece(self, parameter: Any) -> Tensor:
        """The flat piece of a weight that this rank holds: all of it but for ZeRO 3."""
        return (parameter.ds_tensor if self.stage == 3 else parameter).detach().flatten()

    def piece_of(self, parameter: Any, whole: Tensor) -> Tensor:
        """What `piece` would give of another tensor of that shape."""
        flat = whole.flatten()
        if self.stage < 3:
            return flat
        size = parameter.ds_tensor.numel()
        padded = F.pad(flat, (0, size * dist.get_world_size() - len(flat)))
        return padded.narrow(0, size * dist.get_rank(), size)

    def joined(self, parameter: Any, piece: Tensor) -> Tensor:
        """The whole tensor of all ranks' pieces."""
        if self.stage < 3:
            return piece.view_as(parameter)
        pieces = [torch.empty_like(piece) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, piece.contiguous())
        return torch.cat(pieces)[: parameter.ds_numel].view(parameter.ds_shape)

    # ---- DeepSpeed's ways

    def _get(self, parameter: Any, key: str | None = None) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            found = parameter if key is None else self._state(parameter)[key]
        elif key is None:
            found = safe_get_full_fp32_param(parameter)
        else:
            found = safe_get_full_optimizer_state(parameter, key)
        return found.detach()

    def _set(self, parameter: Any, whole: Tensor, key: str | None = None) -> None:
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        if self.stage == 3:
            # By pieces: DeepSpeed's way for whole tensors knows nothing of the last one's padding.
            piece = self.piece_of(parameter, whole)
            if key is not None:
                safe_set_local_optimizer_state(parameter, piece, key)
                return
            safe_set_local_fp32_param(parameter, piece)
            parameter.ds_tensor.data.copy_(piece)
            if parameter.numel() == whole.numel():  # small ones lie whole on every rank too
                parameter.data.copy_(whole)
        elif key is None:
            parameter.data.copy_(whole)
            if self.stage:
                safe_set_full_fp32_param(parameter, whole)
        elif self.stage:
            safe_set_full_optimizer_state(parameter, whole, key)
        else:
            self._state(parameter)[key].copy_(whole)

    def _link_moments(self) -> None:
        """Makes the moments of ZeRO 1 and 2 known by parameter, as they are now."""
        if self.stage in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _adam(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = (
            self._engine.optimizer.optimizer if self.stage else self._engine.optimizer
        )
        return optimizer

    def _places(self) -> list[Tensor]:
        """The tensors that Adam keeps a state of."""
        if self.stage == 3:
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        if self.stage:
            return list(self._engine.optimizer.single_partition_of_fp32_groups)
        return list(self.trained.values())

    def _state(self, place: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._adam().state[place]
        return state


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))
