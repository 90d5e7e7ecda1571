"""Reference tensors, computed by the methods' published code."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pretrain.distributed.ranks import Ranks, joined_ranks
from tests.places import SHARED
from tests.pretrain.distributed.processes import launch

GOLDEN = SHARED / "golden"


@dataclass
class Golden:
    """One stored case: its tensors by key, and its hyper-parameters."""

    tensors: dict[str, Tensor]
    hyper: dict[str, Any]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose key starts with `prefix`, without it."""
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Reads a stored case such as `caft/loss_single`; skips where the reference data are not."""

    def read(case: str) -> Golden:
        path = GOLDEN / f"{case}.safetensors"
        if not path.exists():
            pytest.skip(f"no reference data at {path}; set CANOPY_SHARED")
        note = path.with_suffix(".json")
        hyper = json.loads(note.read_text()).get("hyper", {}) if note.exists() else {}
        return Golden(load_file(path), hyper)

    return read


@pytest.fixture(scope="session")
def assert_gradients() -> Callable[[nn.Module, dict[str, Tensor]], None]:
    """Compares the gradients of a module's parameters with expected ones by name."""

    def check(module: nn.Module, expected: dict[str, Tensor]) -> None:
        own = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        assert own.keys() == expected.keys()
        for name, gradient in expected.items():
            # Rounding is that of the largest entry: gradients of a key's bias, say, are sums of
            # large terms that cancel.
            scale = max(1.0, gradient.abs().max().item())
            torch.testing.assert_close(
                own[name].view_as(gradient),
                gradient,
                rtol=1e-3,
                atol=1e-5 * scale,
                msg=lambda m, n=name: f"{n}: {m}",
            )

    return check


@pytest.fixture(scope="module")
def ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], list[Any]]:
    """What the test's file gives on each of so many gloo ranks, from one launch a number."""

    @cache
    def results(world_size: int) -> list[Any]:
        return launch(str(request.path), tmp_path_factory.mktemp("ranks"), world_size)

    return results


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    """This process as the only rank of a group."""
    monkeypatch.setenv("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with joined_ranks() as ranks:
        yield ranks


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads, for this test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(set_num_threads: Callable[[int], None]) -> None:
    """Products go to oneDNN, which one thread does not ask for."""
    set_num_threads(2)
