"""Training shards from disk: what is damaged or missing is told before anything starts."""

import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from streaming import MDSWriter

from pretrain.data.captions import CaptionsConfig, PartsConfig
from pretrain.data.config import DataConfig
from pretrain.data.stream import Batch, BatchStream, read_samples
from pretrain.data.tokens import Tokenizer
from recaption.common.config import UserError
from tests.pretrain.pickles import Touch
from tests.pretrain.trainruns import write_training_shards


def stream(
    folder: Path, context_length: int = 32, num_workers: int = 0, **captions: object
) -> BatchStream:
    config = DataConfig(
        train=str(folder),
        batch_size=4,
        num_workers=num_workers,
        captions=CaptionsConfig(**{"parts": PartsConfig(num_free=0), **captions}),  # type: ignore[arg-type]
    )
    return BatchStream(config, Tokenizer(context_length), image_size=32, seed=0, world_size=1)


def test_texts_that_are_cut_are_counted(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    batch = next(iter(stream(folder)))
    assert batch.num_cut_texts == 0 and batch.images.shape == (4, 3, 32, 32)
    batch = next(iter(stream(folder, context_length=3)))
    assert batch.num_cut_texts == 16 and len(batch.texts.offsets) == 17


@pytest.mark.parametrize("read", [lambda folder: list(read_samples(folder)), stream])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "shard.00000.mds").unlink(), "shard.00000.mds is missing"),
        (lambda folder: (folder / "shard.00000.mds").write_bytes(b"x"), "has 1 bytes instead of"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json is damaged"),
        (lambda folder: (folder / "index.json").unlink(), "no index.json"),
    ],
)
def test_damaged_shards_are_told_at_the_start(tmp_path: Path, read, damage, message) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    damage(folder)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_too_few_samples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than one global batch"):
        stream(write_training_shards(tmp_path / "three", 3))
    with pytest.raises(UserError, match="num_canonical_nodes"):
        stream(write_training_shards(tmp_path / "five", 5))


def test_no_sample_at_all(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 0)
    with pytest.raises(UserError, match="no sample"):
        stream(folder)


def test_a_column_of_pickles_is_not_read(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with MDSWriter(out=str(tmp_path / "shards"), columns={"image": "pkl"}) as writer:
        writer.write({"image": Touch(touched)})
    with pytest.raises(UserError, match="is not read"):
        list(read_samples(tmp_path / "shards"))
    assert not touched.exists()


def test_samples_without_the_source_wanted_are_told_at_the_start(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    summary = {"num_samples": 8, "sources": {"long": 7, "raw": 8}}
    (folder / "pack.json").write_text(json.dumps({"summary": summary}))
    stream(folder, sources=["raw"])
    with pytest.raises(UserError, match=r"1 of 8 samples.*'long'.*require=\[long\]"):
        stream(folder, sources=["long"])


def contents(batches: list[Batch]) -> list[tuple]:
    return [
        (batch.keys, batch.images.tolist(), batch.texts.tokens.tolist(), batch.num_cut_texts)
        for batch in batches
    ]


def drawn(folder: Path, num_workers: int = 0) -> BatchStream:
    """A stream whose texts and crops differ from pass to pass."""
    return stream(folder, num_workers=num_workers, parts=PartsConfig(num_free=2))


@pytest.mark.parametrize("num_samples", [8, 14, 39])
def test_what_comes_out_is_the_same_with_any_number_of_workers(
    tmp_path: Path, num_samples: int
) -> None:
    """Over several passes, which 2 and 3 workers do not share evenly."""
    folder = write_training_shards(tmp_path / "shards", num_samples)
    expected = contents(list(islice(drawn(folder), 25)))
    assert len({repr(content) for content in expected}) == 25  # each pass draws anew
    for num_workers in (1, 2, 3):
        (tmp_path / f"{num_workers}").symlink_to(folder)
        batches = drawn(tmp_path / f"{num_workers}", num_workers)
        assert contents(list(islice(batches, 25))) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_on_from_any_batch(tmp_path: Path, num_workers: int) -> None:
    """What was prepared ahead and not handed out is handed out after the resume."""
    folder = write_training_shards(tmp_path / "shards", 8)  # two batches a pass
    whole, expected, states = drawn(folder, num_workers), [], []
    for batch in islice(whole, 9):
        states.append(json.loads(json.dumps(whole.state_dict())))
        expected += contents([batch])
    for done in range(1, 7):
        (tmp_path / f"{done}").symlink_to(folder)
        resumed = drawn(tmp_path / f"{done}", 2 - num_workers)
        resumed.load_state_dict(states[done - 1])
        assert resumed.state_dict() == states[done - 1]
        assert contents(list(islice(resumed, 3))) == expected[done : done + 3]


def test_workers_outlive_passes_and_prepare_the_next_ones(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)  # two batches a pass
    before = set(psutil.Process().children())
    batches = stream(folder, num_workers=1)
    assert batches.num_ready_batches() is None
    running = iter(batches)
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 1  # at work before the first batch is asked for
    for _ in range(10):
        next(running)
        assert set(psutil.Process().children()) - before == workers
    last_state = batches.state_dict()
    deadline = time.monotonic() + 30
    while batches.num_ready_batches() != 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert batches.num_ready_batches() == 4  # more than the pass has left
    assert batches.state_dict() == last_state
    del running
    assert set(psutil.Process().children()) == before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_compressed_shards_are_unpacked(tmp_path: Path, num_workers: int) -> None:
    plain = write_training_shards(tmp_path / "plain", 24, size_limit=2**13)
    packed = write_training_shards(tmp_path / "zip", 24, size_limit=2**13, compression="zstd")
    names = {path.name for path in packed.iterdir()}
    assert "shard.00001.mds.zstd" in names and "shard.00001.mds" not in names
    expected = contents(list(islice(drawn(plain), 9)))
    assert contents(list(islice(drawn(packed, num_workers), 9))) == expected


def test_a_stream_leaves_nothing_in_shared_memory(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    num_open = psutil.Process().num_fds()
    mapped = {entry.path for entry in psutil.Process().memory_maps()}
    for _ in range(5):
        list(islice(stream(folder, num_workers=1), 5))
    assert psutil.Process().num_fds() <= num_open + 1  # torch may open one for good
    after = {entry.path for entry in psutil.Process().memory_maps()} - mapped
    assert [path for path in after if path.startswith("/dev/shm")] == []


def test_the_stream_draws_nothing_from_the_generator_that_makes_the_weights(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    state = torch.get_rng_state()
    list(islice(stream(folder), 5))
    assert torch.equal(torch.get_rng_state(), state)


WORKERS_AT_WORK = """
import sys
from pathlib import Path
import psutil
from tests.pretrain.data.test_stream import stream
folder, end = Path(sys.argv[1]), sys.argv[2]
batches = iter(stream(folder, num_workers=2))
next(batches)
print(*[child.pid for child in psutil.Process().children()], flush=True)
if end == "error":
    (folder / "shard.00000.mds").unlink()
    for batch in batches:
        pass
elif end == "killed":
    for batch in batches:
        pass
"""


@pytest.mark.parametrize("end", ["normal", "error", "killed"])
def test_no_worker_is_left_behind(tmp_path: Path, end: str) -> None:
    folder = write_training_shards(tmp_path / "shards", 8)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS_AT_WORK, str(folder), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        if end == "killed":
            process.kill()
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == {"normal": 0, "error": 1, "killed": -signal.SIGKILL}[end], errors
    assert ("is gone since training began" in errors) == (end == "error")
    assert len(pids) >= 2, errors
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
