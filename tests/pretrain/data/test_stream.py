"""Training shards from disk: what is damaged or missing is told before anything starts."""

import json
from pathlib import Path

import pytest
from streaming import MDSWriter

from pretrain.data.captions import CaptionsConfig, PartsConfig
from pretrain.data.config import DataConfig
from pretrain.data.stream import BatchStream, read_samples
from pretrain.data.tokens import Tokenizer
from recaption.common.config import UserError
from tests.pretrain.pickles import Touch
from tests.pretrain.trainruns import write_training_shards


def stream(folder: Path, context_length: int = 32, **captions: object) -> BatchStream:
    config = DataConfig(
        train=str(folder),
        batch_size=4,
        num_workers=0,
        captions=CaptionsConfig(parts=PartsConfig(num_free=0), **captions),  # type: ignore[arg-type]
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
