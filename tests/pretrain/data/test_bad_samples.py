"""Samples that cannot be decoded: another takes the place, they are told, too many end the run."""

import json
from itertools import islice
from pathlib import Path

import pytest

from pretrain.data.bad_samples import WINDOW, BadSample, BadSampleWatch
from pretrain.data.captions import CaptionsConfig, PartsConfig
from pretrain.data.config import DataConfig
from pretrain.data.stream import Batch, BatchStream
from pretrain.data.tokens import Tokenizer
from recaption.common.config import ConfigError, UserError
from tests.pretrain.trainruns import write_training_shards

BAD = BadSample("0007", "test.tar", "shard.00000.mds", "OSError: broken")


def damage_images(folder: Path, indices: list[int]) -> None:
    """Overwrites the middle of JPEGs in the only shard, as a failing disk would."""
    shard = folder / "shard.00000.mds"
    data = bytearray(shard.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    for index in indices:
        data[starts[index] : starts[index] + 40] = bytes(40)
    shard.write_bytes(data)


def stream(folder: Path, num_workers: int = 0, max_bad_share: float = 1.0) -> BatchStream:
    config = DataConfig(
        train=str(folder),
        batch_size=4,
        num_workers=num_workers,
        max_bad_share=max_bad_share,
        captions=CaptionsConfig(parts=PartsConfig(num_free=0)),
    )
    return BatchStream(config, Tokenizer(32), image_size=32, seed=0, world_size=1)


def take(batches: BatchStream, number: int) -> list[Batch]:
    return list(islice(iter(batches), number))


def test_another_sample_takes_the_place_and_the_bad_one_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = take(stream(write_training_shards(tmp_path / "whole", 24)), 6)
    folder = write_training_shards(tmp_path / "damaged", 24)
    damage_images(folder, [3, 11])
    batches = take(stream(folder), 12)
    assert sorted(key for batch in batches[:6] for key in batch.bad_keys) == ["0003", "0011"]
    assert sum(batch.num_bad_samples for batch in batches) == 4  # in each of two passes
    for batch, undamaged in zip(batches, whole, strict=False):
        assert len(batch.keys) == len(batch.images) == 4
        for at, (key, expected) in enumerate(zip(batch.keys, undamaged.keys, strict=True)):
            assert (key == expected) == (expected not in ("0003", "0011"))
            if key == expected:
                assert (batch.images[at] == undamaged.images[at]).all()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2
    for key in ("'0003'", "'0011'"):
        (line,) = [line for line in told if key in line]
        assert "test.tar" in line and "shard.00000.mds" in line


def test_a_resumed_stream_has_the_same_replacements(tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", 24)
    damage_images(folder, [2, 5, 6, 20])
    uninterrupted = [batch.keys for batch in take(stream(folder, num_workers=1), 9)]
    (tmp_path / "again").symlink_to(folder)
    stopped = stream(tmp_path / "again")
    before = take(stopped, 4)
    assert any(batch.bad_keys for batch in before)
    (tmp_path / "resumed").symlink_to(folder)
    resumed = stream(tmp_path / "resumed")
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert [batch.keys for batch in [*before, *take(resumed, 5)]] == uninterrupted


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_samples_end_the_run(tmp_path: Path, num_workers: int) -> None:
    folder = write_training_shards(tmp_path / "shards", 24)
    damage_images(folder, [3])
    with pytest.raises(UserError) as raised:
        take(stream(folder, num_workers, max_bad_share=0), 6)
    message = str(raised.value)
    assert "'0003'" in message and "test.tar" in message and "data.max_bad_share=0" in message
    assert "\n" not in message


@pytest.mark.parametrize("num_workers", [0, 1])
def test_shards_of_bad_samples_only(tmp_path: Path, num_workers: int) -> None:
    folder = write_training_shards(tmp_path / "shards", 24)
    damage_images(folder, list(range(24)))
    with pytest.raises(UserError, match="nor could 20 others"):
        take(stream(folder, num_workers), 1)


def test_the_share_is_one_of_the_last_samples() -> None:
    watch = BadSampleWatch(max_share=3 / WINDOW)
    for _ in range(5):  # three in every window, never more
        watch.look_at(50, [BAD] * 3)
        for _ in range(WINDOW // 50):
            watch.look_at(50, [])
    watch.look_at(50, [BAD] * 3)
    with pytest.raises(UserError, match="4 of the last 1,000 samples"):
        watch.look_at(50, [BAD])


def test_a_batch_larger_than_the_window() -> None:
    watch = BadSampleWatch(max_share=0.01)
    watch.look_at(4 * WINDOW, [BAD] * 40)
    with pytest.raises(UserError, match="41 of the last 4,000"):
        watch.look_at(4 * WINDOW, [BAD] * 41)


def test_a_share_is_a_share() -> None:
    with pytest.raises(ConfigError, match="max_bad_share"):
        DataConfig(train="x", max_bad_share=2)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_goes_away_is_named(tmp_path: Path, num_workers: int) -> None:
    folder = write_training_shards(tmp_path / "shards", 24)
    batches = iter(stream(folder, num_workers))
    next(batches)
    (folder / "shard.00000.mds").unlink()
    with pytest.raises(UserError, match=r"shard.00000.mds is gone since training began"):
        list(islice(batches, 12))
