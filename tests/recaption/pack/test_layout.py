"""The order of samples, splits, twins, the names of captions and the data card."""

import importlib.util
import json
from pathlib import Path

import pytest

from recaption.common.config import ConfigError, UserError
from tests.recaption.pack.packing import caption, noise, pack_shards, prepare, read_samples
from tests.recaption.shard_files import sample, write_tar

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("streaming") is None, reason="mosaicml-streaming is not installed"
)
NUM_TARS, NUM_SAMPLES = 3, 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for tar in range(NUM_TARS):
        members = [
            member
            for place in range(NUM_SAMPLES)
            for member in sample(f"{tar}-{place:02d}", tar * NUM_SAMPLES + place)
        ]
        write_tar(folder / f"in/{tar}.tar", members)
    caption(folder / "in", folder / "tables")
    return folder


def pack_to(source: Path, output: Path, *arguments: str) -> list[str]:
    """The keys in the order of the training shards."""
    tables = str(source / "tables")
    pack_shards(source, f"output={output}", *arguments, tables=tables)
    return list(read_samples(output))


def test_the_order_is_that_of_the_input_or_a_shuffle_over_all_tars(
    source: Path, tmp_path: Path
) -> None:
    ordered = pack_to(source, tmp_path / "ordered", "shuffle=false")
    assert ordered == [f"{t}-{p:02d}" for t in range(NUM_TARS) for p in range(NUM_SAMPLES)]
    shuffled = pack_to(source, tmp_path / "shuffled")
    other = pack_to(source, tmp_path / "other", "seed=1")
    assert sorted(shuffled) == sorted(other) == ordered
    assert len({tuple(keys) for keys in (ordered, shuffled, other)}) == 3
    # Each third of a shuffled set holds samples of each tar.
    for start in range(0, NUM_TARS * NUM_SAMPLES, NUM_SAMPLES):
        assert {key[0] for key in shuffled[start : start + NUM_SAMPLES]} == {"0", "1", "2"}


@pytest.mark.parametrize("order", ["shuffle=true", "shuffle=false"])
def test_the_order_does_not_depend_on_the_size_of_buckets(tmp_path: Path, order: str) -> None:
    for tar in range(4):
        seeds = range(6 * tar, 6 * tar + 6)
        members = [(f"{seed:02d}.png", noise(seed)) for seed in seeds]
        members += [(f"{seed:02d}.txt", b"noise") for seed in seeds]
        write_tar(tmp_path / f"in/{tar}.tar", members)
    common = ("image_format=png", "shard_size=1", order)
    pack_shards(tmp_path, "bucket_size=1", *common, tables="")
    pack_shards(tmp_path, f"output={tmp_path}/one", *common, tables="")
    assert len(list((tmp_path / "packed").glob("bucket-*"))) > 1
    assert len(list((tmp_path / "one").glob("bucket-*"))) == 1
    assert len(list((tmp_path / "one").glob("*/*.mds"))) > 1
    assert max(path.stat().st_size for path in tmp_path.glob("*/*/*.mds")) <= 2**20
    assert list(read_samples(tmp_path / "packed")) == list(read_samples(tmp_path / "one"))


def test_the_split_goes_by_the_image(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "packed"
    tables = str(source / "tables")
    summary = pack_shards(source, f"output={output}", "val_share=0.3", tables=tables)
    train, val = read_samples(output / "train"), read_samples(output / "val")
    assert len(train) + len(val) == summary.num_samples == NUM_TARS * NUM_SAMPLES
    assert summary.splits == {"train": len(train), "val": len(val)}
    assert 8 <= len(val) <= 28 and not train.keys() & val.keys()
    for split, samples in (("train", train), ("val", val)):
        figures = json.loads((output / split / "pack.json").read_text())["summary"]
        assert figures["num_samples"] == figures["sources"]["existing"] == len(samples)
    # Of more images those that were in val stay there, and another seed changes nothing.
    more = tmp_path / "more"
    pack_shards(source, f"output={more}", "val_share=0.5", "seed=3", tables=tables)
    assert val.keys() < read_samples(more / "val").keys()


@pytest.mark.parametrize("max_hashes", [2**22, 2])
def test_twins_can_be_kept_and_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_hashes: int
) -> None:
    """Also where they are looked for in several parts."""
    monkeypatch.setattr("recaption.pack.plan.MAX_HASHES", max_hashes)
    write_tar(tmp_path / "in/a.tar", sample("k0", 0) + sample("k1", 1))
    write_tar(tmp_path / "in/b.tar", sample("k2", 1) + sample("k3", 0) + sample("k4", 1))
    write_tar(tmp_path / "in/c.tar", [*sample("k5", 2), ("bad.jpg", b"")])
    twins = [("k2", "b", "a/k1"), ("k3", "b", "a/k0"), ("k4", "b", "a/k1")]
    rows = [
        {"key": k, "shard": s, "reason": f"duplicate-image: the same as {f}"} for k, s, f in twins
    ]
    bad = {"key": "bad", "shard": "c", "reason": "empty-image: zero bytes"}

    def lines(path: Path) -> list[dict[str, str]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    assert pack_shards(tmp_path, tables="").num_samples == 3
    assert lines(tmp_path / "packed/quarantine.jsonl") == [*rows, bad]
    kept = tmp_path / "kept"
    summary = pack_shards(tmp_path, f"output={kept}", "duplicates=keep", "val_share=0.5", tables="")
    assert (summary.num_samples, summary.num_quarantined) == (6, 1)
    assert lines(kept / "duplicates.jsonl") == rows and lines(kept / "quarantine.jsonl") == [bad]
    for split in ("train", "val"):  # never one here and its twin there
        keys = read_samples(kept / split).keys()
        assert len(keys & {"k0", "k3"}) in (0, 2) and len(keys & {"k1", "k2", "k4"}) in (0, 3)


def test_tables_of_one_prompt_get_names(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0, other=["Another model wrote this"]))
    caption(tmp_path / "in", tmp_path / "other", "engine.existing.field=other")
    tables = f"{tmp_path}/tables,{tmp_path}/other"
    with pytest.raises(UserError, match=r"call one otherwise, by tables=...,\S+/other=NAME"):
        pack_shards(tmp_path, tables=tables)
    pack_shards(tmp_path, "require=[qwen-existing]", tables=f"{tables}=qwen")
    (only,) = read_samples(tmp_path / "packed").values()
    assert only["captions"]["qwen-existing"] == ["Another model wrote this"]
    assert set(only["captions"]) == {"raw", "existing", "qwen-existing"}
    with pytest.raises(UserError, match="other settings"):
        pack_shards(tmp_path, "require=[qwen-existing]", tables=f"{tables}=intern")


def test_the_data_card_tells_what_is_there(tmp_path: Path) -> None:
    members = sample("k0", 0, ["Two words, here.", "Three more of them."]) + sample("k1", 0)
    prepare(tmp_path, [*members, ("bad.jpg", b"")])
    pack_shards(tmp_path, "licences=[CC BY 4.0 (images)]", "seed=5")
    card = json.loads((tmp_path / "packed/data_card.json").read_text())
    counts = card["splits"]["all"]
    assert counts["num_samples"] == 1 and counts["num_pixels"] == 40 * 30
    assert counts["sources"]["existing"] == {
        "num_captions": 1,
        "num_sentences": 2,
        "num_words": 7,
        "num_tokens": 10,
    }
    assert card["quarantined"] == {"duplicate-image": 1, "empty-image": 1}
    assert card["num_duplicates"] == 1 and card["seed"] == 5
    raw, existing = card["sources"]
    assert raw["name"] == "raw" and (existing["name"], existing["model"]) == (
        "existing",
        "existing",
    )
    assert existing["prompt_id"] == "existing" and existing["sampling_hash"]
    assert card["licences"] == ["CC BY 4.0 (images)"] and card["code"].startswith("0.1.0")
    text = (tmp_path / "packed/data_card.md").read_text()
    assert "| existing | 1 | 2 | 7 | 10 |" in text and "- CC BY 4.0 (images)" in text
    assert "- duplicate-image: 1" in text and "shuffled, seed 5" in text
    pack_shards(tmp_path, f"output={tmp_path}/other")
    assert "- unknown: not given" in (tmp_path / "other/data_card.md").read_text()


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for setting, message in (
        ("val_share=1", "val_share=1.0: it must be below 1"),
        ("duplicates=mark", "duplicates is 'mark'; choose drop or keep"),
        ("bucket_size=0", "bucket_size=0: it must be at least 1"),
        ("num_processes=-1", "num_processes=-1: it must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            pack_shards(tmp_path, setting)


def test_nothing_of_others_is_taken_from_the_work_folder(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/thesis.txt").write_text("mine")
    pack_shards(tmp_path, f"work={tmp_path}/disk")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["thesis.txt"]
