"""``engine.compile``: the losses of a run without it, in pieces and after a resume too."""

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pretrain.config import PretrainConfig
from pretrain.distributed.ranks import Ranks
from pretrain.metrics import read_metrics
from pretrain.train import train
from pretrain.trained_module import build_module
from recaption.common.config import load_config
from tests.pretrain.trainruns import write_training_shards
from tests.pretrain.untrained import TINY_CLIP

HEADERS = Path(sysconfig.get_path("include"))
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not (HEADERS / "Python.h").exists(),
    reason="no C++ compiler, or no headers of Python: apt-get install g++ python3-dev",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Without dropout, of which a compiled tower would draw another."""
    shards = write_training_shards(tmp_path / "shards", 16)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_CLIP.replace("data: {", f"data: {{train: {shards}, batch_size: 4, "))
    with path.open("a") as file:
        file.write("optim: {num_warmup_steps: 1}\ntrain: {num_steps: 3, log_every: 1}\n")
    return path


@pytest.fixture
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def losses(config: Path, run: Path, ranks: Ranks, *overrides: str) -> list[float]:
    train(load_config(PretrainConfig, [str(config), f"run={run}", *overrides]), ranks)
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl")]


def test_a_compiled_run_in_pieces_and_resumed(
    config: Path,
    tmp_path: Path,
    one_rank: Ranks,
    fresh_compiler: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that a compiler does but the machine code, which takes it minutes (see below)."""
    expected = losses(config, tmp_path / "plain", one_rank)
    compiled: list[str] = []

    def compile_quickly(module: nn.Module, **options: bool) -> None:
        compiled.append(type(module).__name__)
        module._compiled_call_impl = torch.compile(
            module._call_impl, backend="aot_eager", **options
        )

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    run, options = tmp_path / "compiled", ["engine.compile=true", "engine.num_micro_batches=2"]
    losses(config, run, one_rank, *options, "train.stop_at_step=2")
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] >= 2 and frames["ok"] == frames["total"]
    resumed = losses(config, run, one_rank, *options)
    assert resumed == pytest.approx(expected, rel=1e-5)
    assert compiled == ["VisionTransformer", "PartTextEncoder"] * 2


@needs_compiler
def test_machine_code_of_a_tower(config: Path, fresh_compiler: None) -> None:
    """Features and gradients of the image tower are those without it."""
    module = build_module(load_config(PretrainConfig, [str(config), "run=run"])).train()
    images = torch.randn(4, 3, 32, 32)
    found = []
    for compiles in (False, True):
        if compiles:
            module.compile_towers()
        pooled = module.model.encode_image(images).pooled
        weights = torch.linspace(-1, 1, pooled.numel()).view_as(pooled)
        trained = [p for p in module.model.image.parameters() if p.requires_grad]
        found.append([pooled, *torch.autograd.grad((pooled * weights).sum(), trained)])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["inductor"]["fxgraph_cache_miss"] >= 1
