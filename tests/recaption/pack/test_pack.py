import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recaption.common.config import ConfigError, UserError
from tests.recaption.pack.packing import caption, pack_shards, prepare, quarantine, read_samples
from tests.recaption.shard_files import picture, sample, to_bytes, write_tar

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("streaming") is None, reason="mosaicml-streaming is not installed"
)


def test_round_trip_through_streaming(tmp_path: Path) -> None:
    objects = [{"name": "block", "box": [0.0, 0.0, 0.25, 0.5], "color": "red"}]
    members = sample("k0", 0, ["A picture", "It has blocks"], objects=objects) + sample("k1", 1)
    prepare(tmp_path, members)
    summary = pack_shards(tmp_path)
    assert (summary.num_samples, summary.num_quarantined) == (2, 0)
    assert summary.sources == {"raw": 2, "existing": 2}

    samples = read_samples(tmp_path / "packed")
    first = samples["k0"]
    assert first["captions"] == {
        "raw": ["alt text of k0"],
        "existing": ["A picture", "It has blocks"],
    }
    assert first["objects"] == objects and samples["k1"]["objects"] == []
    assert (first["width"], first["height"], first["shard"]) == (40, 30, "a")
    assert first["sha256"] == hashlib.sha256(members[0][1]).hexdigest()
    with Image.open(io.BytesIO(first["image"])) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        difference = np.asarray(image).astype(int) - np.asarray(picture(0)).astype(int)
    assert abs(difference).mean() < 6


def test_images_are_upright_clean_and_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    exif[0x010E] = "taken at home"
    data = to_bytes(picture(0, (400, 200)), exif=exif)
    prepare(tmp_path, [("k.jpg", data), ("k.json", b'{"sentences": ["A picture of blocks"]}')])
    pack_shards(tmp_path, "images.max_side=100", "image_format=png")
    (only,) = read_samples(tmp_path / "packed").values()
    assert (only["width"], only["height"]) == (50, 100)
    assert b"home" not in only["image"]
    with Image.open(io.BytesIO(only["image"])) as image:
        assert image.format == "PNG" and not image.getexif()


def test_what_is_left_out_is_in_the_manifest(tmp_path: Path) -> None:
    members = sample("good", 0) + sample("twin", 0) + sample("good", 1)
    members += [("corrupt.jpg", b"\xff\xd8\xff broken"), ("corrupt.txt", b"text")]
    members += [("zero.jpg", b""), ("zero.txt", b"text"), ("lost.txt", b"text")]
    members += [("mute.jpg", to_bytes(picture(2))), ("mute.json", b"{}")]
    members += [("short.jpg", to_bytes(picture(3))), ("short.json", b'{"sentences": ["Hm"]}')]
    members += [("alt.jpg", to_bytes(picture(4))), ("alt.txt", b"only an alt text")]
    prepare(tmp_path, members)
    summary = pack_shards(tmp_path)
    samples = read_samples(tmp_path / "packed")
    assert set(samples) == {"good", "alt"}
    assert samples["alt"]["captions"] == {"raw": ["only an alt text"]}
    assert quarantine(tmp_path / "packed") == {
        "twin": "duplicate-image",
        "good.jpg": "bad-member",
        "good.txt": "bad-member",
        "good.json": "bad-member",
        "corrupt": "corrupt-image",
        "zero": "empty-image",
        "lost": "no-image",
        "mute": "missing-caption",
        "short": "missing-caption",  # its only caption was rejected
    }
    assert summary.num_quarantined == 9 and summary.reasons["missing-caption"] == 2


def test_samples_without_a_source_required_are_left_out(tmp_path: Path) -> None:
    members = sample("good", 0)
    members += [("alt.jpg", to_bytes(picture(4))), ("alt.txt", b"only an alt text")]
    prepare(tmp_path, members)
    assert pack_shards(tmp_path, "require=[existing]").num_samples == 1
    assert quarantine(tmp_path / "packed") == {"alt": "no-existing"}


def test_a_picture_that_the_format_cannot_hold_is_left_out(tmp_path: Path) -> None:
    tall = to_bytes(Image.new("RGB", (1, 70_000)), "PNG")
    prepare(tmp_path, [*sample("good", 0), ("tall.png", tall), ("tall.txt", b"a line")])
    pack_shards(tmp_path, "images.max_aspect_ratio=0")
    assert quarantine(tmp_path / "packed") == {"tall": "cannot-encode"}


def test_a_table_of_another_tar_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, sample("a", 0))
    write_tar(tmp_path / "in/a.tar", [*sample("b", 1), ("b.cls", b"3")])
    notes = pack_shards(tmp_path).notes
    assert notes == {"table-of-another-tar": 1, "not-in-table": 1, "ignored-cls": 1}
    assert "was made from another tar" in capsys.readouterr().err


def test_a_cut_off_tar_is_packed_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", sample("k0", 0) + sample("k1", 1)).read_bytes()
    path = write_tar(tmp_path / "in/a.tar", [])
    path.write_bytes(whole[: len(whole) // 3])
    caption(tmp_path / "in", tmp_path / "tables")
    summary = pack_shards(tmp_path)
    assert summary.num_damaged_shards == 1
    assert set(read_samples(tmp_path / "packed")) == {"k0"}
    assert "damaged-tar" in quarantine(tmp_path / "packed").values()


def test_several_tables_are_joined(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0, short=["Blocks of many colours"]))
    names = ["engine.existing.field=short", "engine.existing.prompt_id=short"]
    caption(tmp_path / "in", tmp_path / "more", *names)
    pack_shards(tmp_path, tables=f"{tmp_path}/tables,{tmp_path}/more")
    (only,) = read_samples(tmp_path / "packed").values()
    assert set(only["captions"]) == {"raw", "existing", "short"}


def test_tables_must_be_finished_and_of_different_prompts(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0))
    write_tar(tmp_path / "in/b.tar", sample("k1", 1))
    with pytest.raises(UserError, match=r"b.parquet is not finished"):
        pack_shards(tmp_path)
    caption(tmp_path / "in", tmp_path / "tables")
    with pytest.raises(UserError, match="prompt_id 'existing' in"):
        pack_shards(tmp_path, tables=f"{tmp_path}/tables,{tmp_path}/tables")
    assert not (tmp_path / "packed").exists()


def test_a_caption_of_another_image_is_not_used(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0) + sample("k1", 1))
    write_tar(tmp_path / "in/a.tar", sample("k0", 0) + sample("k1", 2))
    pack_shards(tmp_path)
    assert quarantine(tmp_path / "packed") == {"k1": "other-image"}


def test_malformed_objects_do_not_cost_the_image(tmp_path: Path) -> None:
    good = {"name": "block", "box": [0, 0.5, 1.0, 1]}
    bad = [{"label": "dog"}, {"name": "dog"}, {"name": "dog", "box": [0, 1, "a", 2]}, 3]
    prepare(tmp_path, sample("k0", 0, objects="a block") + sample("k1", 1, objects=[*bad, good]))
    assert pack_shards(tmp_path).notes == {"objects-malformed": 2}
    samples = read_samples(tmp_path / "packed")
    assert (samples["k0"]["objects"], samples["k1"]["objects"]) == ([], [good])


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    prepare(tmp_path, [("k.jpg", b""), ("k.txt", b"text")])
    with pytest.raises(UserError, match="no usable sample; quarantined: empty-image 1"):
        pack_shards(tmp_path)
    assert not list(tmp_path.glob("packed*"))


def test_a_finished_folder_is_skipped_and_never_overwritten(tmp_path: Path) -> None:
    prepare(tmp_path, sample("k0", 0))
    first = pack_shards(tmp_path)
    marker = tmp_path / "packed/pack.json"
    written = marker.stat().st_mtime_ns
    again = pack_shards(tmp_path)
    assert again.was_finished and again.num_samples == first.num_samples
    with pytest.raises(UserError, match="other settings: use another output"):
        pack_shards(tmp_path, "quality=80")
    write_tar(tmp_path / "in/b.tar", sample("k1", 1))
    caption(tmp_path / "in", tmp_path / "tables")
    with pytest.raises(UserError, match="other shards or tables: use another output"):
        pack_shards(tmp_path)
    assert marker.stat().st_mtime_ns == written
    marker.unlink()
    with pytest.raises(UserError, match="holds no packed shards"):
        pack_shards(tmp_path)


def test_errors_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"no \*.tar"):
        pack_shards(tmp_path)
    with pytest.raises(ConfigError, match="image_format is 'tiff'; choose jpeg or png"):
        pack_shards(tmp_path, "image_format=tiff")


def test_without_streaming_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, sample("k0", 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs mosaicml-streaming.*make .venv-train"):
        pack_shards(tmp_path)
    assert not (tmp_path / "packed").exists()
