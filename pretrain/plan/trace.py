"""Memory of a computation that is not computed: fake tensors, and which of them live when."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTrace(TorchDispatchMode):
    """Bytes of the tensors that live, told apart by what they are for.

    Counts storages from the operation that makes them to the moment in which the last tensor on
    them goes. What an operation needs within itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        """Bytes that live now, but for gradients of parameters."""
        self.gradients = 0
        """Bytes of the parameters' gradients that live now."""
        self.timeline: list[tuple[int, int]] = []
        """(live, gradients) after each operation."""
        self._roles: dict[int, str] = {}  # of each storage that lives

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._watch(leaf.untyped_storage())
        self.timeline.append((self.live, self.gradients))
        return result

    def watch_gradients(self, module: nn.Module) -> None:
        """From now on what is accumulated in `module`'s parameters counts as gradients."""
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._is_gradient)

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        if self._roles.get(storage._cdata) == "live":
            self._roles[storage._cdata] = "gradients"
            self.live -= storage.nbytes()
            self.gradients += storage.nbytes()

    def _watch(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._roles or size == 0:
            return
        self._roles[key] = "live"
        self.live += size
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        role = self._roles.pop(key)
        setattr(self, role, getattr(self, role) - size)


@contextmanager
def traced_memory() -> Iterator[MemoryTrace]:
    """Within it tensors have shapes and no numbers, and the trace counts them."""
    # Real tensors may come in: the random generator's, and the layout of texts.
    with FakeTensorMode(allow_non_fake_inputs=True), MemoryTrace() as trace:
        yield trace
