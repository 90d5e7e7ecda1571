"""What a run tells, and that failing to tell it stops nothing."""

import contextlib
import errno
import importlib.util
import math
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.data.stream import Batch
from pretrain.data.tokens import pack_tokens
from pretrain.distributed.ranks import Ranks
from pretrain.metrics import read_metrics, read_validations
from pretrain.metrics.flops import count_flops
from pretrain.metrics.run import RunMetrics
from pretrain.models.count import forward_macs
from pretrain.models.registry import build_model
from recaption.common.config import ConfigError, load_config
from tests.pretrain.trainruns import TINY

BATCH = Batch(torch.zeros(4, 3, 32, 32), pack_tokens([[0] * 5] * 8, 2), ["a"] * 4, 1)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def config(folder: Path, *overrides: str) -> PretrainConfig:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    required = ["data.train=nowhere", "train.num_steps=100"]
    return load_config(PretrainConfig, [str(path), f"run={folder}", *required, *overrides])


def window(metrics: RunMetrics, step: int, **values: float) -> dict[str, float]:
    with metrics.watch("data"):
        metrics.step(BATCH, num_bad_samples=1)
    terms, scales = {"whole": 2.0, "part": 1.5}, {"scale": 14.0}
    return metrics.window(step, terms, scales, learning_rate=1e-3, **values)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and the labels that are not of every metric."""
    common = {"run", "node", "rank"}
    return {
        (s.name, *(value for label, value in s.labels.items() if label not in common)): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_a_row_reaches_the_log_the_console_and_prometheus(
    one_rank: Ranks, tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    depths = iter([1, 4])
    metrics = RunMetrics(
        config(tmp_path, f"metrics.port={free_port}", "metrics.peak_flops=1e12"),
        one_rank,
        first_step=0,
        totals={"num_skipped_steps": 7},
        queue_depth=lambda: next(depths),
    )
    window(metrics, 1, num_skipped_steps=9)
    with metrics.saving():
        pass
    row = window(metrics, 2, num_skipped_steps=9, grad_norm=0.5)
    recall = {f"{way}_r{k}": 0.25 for way in ("t2i", "i2t") for k in (1, 5, 10)}
    metrics.validation(2, recall | {"loss": math.nan, "num_images": 500.0})
    url = f"http://127.0.0.1:{free_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        told = samples(answer.read().decode())
    metrics.close()

    assert row["loss"] == 3.5
    assert row["cut_text_share"] == 1 / 8
    assert row["bad_sample_share"] == 1 / 4
    assert row["tokens_per_second"] == pytest.approx(row["samples_per_second"] * 10)
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert read_metrics(tmp_path / "metrics.jsonl")[1] == row
    lines = capsys.readouterr().out.splitlines()
    (validation,) = read_validations(tmp_path / "metrics.jsonl")
    assert validation["step"] == 2
    assert validation["validation"] == recall | {"loss": None, "num_images": 500.0}
    assert lines[2].startswith("validation after step 2  text to image R@1 25.0 % R@5 25.0 %")
    assert lines[1].startswith("step 2/100  loss 3.5000  ") and lines[1].endswith(" left")

    assert told["canopy_step",] == 2
    assert told["canopy_loss_term", "part"] == 1.5
    assert told["canopy_validation", "i2t_r5"] == 0.25
    assert told["canopy_logit_parameter", "scale"] == 14.0
    assert told["canopy_grad_norm",] == 0.5
    assert told["canopy_samples_total",] == 8
    assert told["canopy_tokens_total",] == 80
    assert told["canopy_cut_texts_total",] == 2
    assert told["canopy_bad_samples_total",] == 2
    assert told["canopy_skipped_steps_total",] == 2  # those of earlier attempts are not of this one
    assert told["canopy_loader_queue_depth",] == 4
    assert told["canopy_step_share", "data"] > 0
    assert 0 <= told["canopy_checkpoint_age_seconds",] < 60
    assert told["canopy_checkpoint_cost_seconds",] < 10
    assert told["canopy_process_memory_bytes", "resident"] > 2**27
    assert told["canopy_mfu",] == row["mfu"]
    assert told["canopy_running",] == 1
    with pytest.raises(OSError):  # the port is free again
        urllib.request.urlopen(url, timeout=1)


def test_model_flops_are_three_times_those_of_the_forward(one_rank: Ranks, tmp_path: Path) -> None:
    run = config(tmp_path)
    num, length = num_texts(run.data.captions), run.model.text.part.context_length
    state = torch.get_rng_state()
    flops = count_flops(run.model, num)
    assert torch.equal(torch.get_rng_state(), state)
    macs = forward_macs(build_model(run.model), 32, num, length, with_tokens=False)
    expected = 6 * (macs["image"] + macs["text"]) + 2 * macs["superpixels"]
    assert flops.of(1, num * length) == pytest.approx(expected)
    row = window(RunMetrics(config(tmp_path, "metrics.peak_flops=1e9"), one_rank, 0), 1)
    assert row["mfu"] == pytest.approx(flops.of(1, 10) * row["samples_per_second"] / 1e9)
    assert "mfu" not in window(RunMetrics(config(tmp_path), one_rank, 0), 1)


def test_a_text_file_tells_the_end(one_rank: Ranks, tmp_path: Path) -> None:
    metrics = RunMetrics(
        config(tmp_path, f"metrics.textfile={tmp_path}/{{rank}}.prom"), one_rank, 0
    )
    window(metrics, 1)
    assert samples((tmp_path / "0.prom").read_text())["canopy_running",] == 1
    metrics.close()
    assert samples((tmp_path / "0.prom").read_text())["canopy_running",] == 0
    assert not list(tmp_path.glob("0.prom.*"))


def test_other_nodes_tell_of_themselves_alone(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 8 is the first of the second node; rank 9, beside it, tells nothing."""
    chosen = config(tmp_path, f"metrics.textfile={tmp_path}/{{rank}}.prom")
    for rank in (8, 9):
        metrics = RunMetrics(chosen, replace(one_rank, rank=rank, local_rank=rank - 8), 0)
        window(metrics, 1)
        metrics.close()
    told = samples((tmp_path / "8.prom").read_text())
    assert {name for name, *_ in told} == {"canopy_step_share", "canopy_process_memory_bytes"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8.prom", "tiny.yaml"]
    assert capsys.readouterr() == ("", "")


def test_a_run_that_goes_back_tells_its_steps_once(one_rank: Ranks, tmp_path: Path) -> None:
    metrics = RunMetrics(config(tmp_path), one_rank, 0)
    for step in (10, 20, 30):
        window(metrics, step)
    metrics.step(BATCH)
    metrics.rewind(10)
    row = window(metrics, 20, num_rollbacks=1)
    assert row["left_seconds"] > 0
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20]
    assert read_metrics(tmp_path / "metrics.jsonl")[1]["num_rollbacks"] == 1


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        with contextlib.suppress(OSError), (folder / "full").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_nothing(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk(tmp_path / "disk") as disk:
        chosen = config(tmp_path, f"metrics.textfile={disk}/run.prom")
        metrics = RunMetrics(chosen, one_rank, 0)
        for step in (1, 2, 3):
            window(metrics, step)
        assert [path.name for path in disk.iterdir()] == ["full"]
        error = capsys.readouterr().err
        assert error.count("warning") == 1
        assert f"{disk}/run.prom is not written" in error
        assert os.strerror(errno.ENOSPC) in error

        (disk / "full").unlink()
        window(metrics, 4)
        told = samples((disk / "run.prom").read_text())
        assert told["canopy_metrics_failures_total", "textfile"] == 3
        assert told["canopy_step",] == 4
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


def test_a_port_that_is_taken_stops_nothing(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        metrics = RunMetrics(config(tmp_path, f"metrics.port={port}"), one_rank, 0)
        window(metrics, 1)
        metrics.close()
    assert f"nobody serves 127.0.0.1:{port} (OSError: [Errno 98]" in capsys.readouterr().err


def test_a_folder_that_is_gone_stops_nothing(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise RuntimeError("the workers are gone")

    chosen = config(tmp_path, f"run={tmp_path / 'gone'}", "metrics.textfile=/nowhere/a.prom")
    metrics = RunMetrics(chosen, one_rank, 0, queue_depth=fail)
    for step in (1, 2):
        assert window(metrics, step)["loss"] == 3.5
    metrics.close()
    lines = capsys.readouterr().err.splitlines()
    for words in ("metrics.jsonl failed", "/nowhere/a.prom is not written", "workers are gone"):
        assert len([line for line in lines if words in line]) == 1
    assert len(lines) == 3


def test_the_console_tells_every_so_many_steps(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = RunMetrics(config(tmp_path, "metrics.console_every=50"), one_rank, 20)
    for step in (*range(30, 100, 10), 100):
        window(metrics, step)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 70/100", "step 100/100"]


def test_tensorboard_is_written_where_it_is_installed(
    one_rank: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = RunMetrics(config(tmp_path, "metrics.tensorboard=true"), one_rank, 0)
    window(metrics, 1)
    metrics.close()
    error = capsys.readouterr().err
    if importlib.util.find_spec("tensorboard") is None:
        assert error.count("\n") == 1 and "No module named 'tensorboard'" in error
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert error == ""
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (loss,) = events.Scalars("loss")
    assert (loss.step, loss.value) == (1, 3.5)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("metrics.port=70000", "metrics.port=70000"),
        ("metrics.textfile=a.txt", r"a\.txt.*\.prom"),
        ("metrics.peak_flops=-1", "metrics.peak_flops=-1"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, override)
