import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from recaption.common.config import UserError, load_config
from recaption.common.signals import EXIT_UNFINISHED
from recaption.config import RunConfig
from recaption.runner import RunSummary, run
from recaption.table import read_stats, read_table
from tests.places import SHARED
from tests.recaption.shard_files import Members, picture, sample, to_bytes, write_tar


def caption(shards: Path, tables: Path, *arguments: str) -> RunSummary:
    existing = ["engine.name=existing", f"input={shards}", f"output={tables}"]
    return run(load_config(RunConfig, [*existing, *arguments]))


def rows_of(tables: Path, shard: str) -> dict[str, dict[str, Any]]:
    rows = read_table(tables, shard).to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def bad_members() -> Members:
    """One sample for each thing that can be wrong, all in one shard."""
    whole = to_bytes(picture(1, (200, 150)))
    text = json.dumps({"sentences": ["A picture of blocks"]}).encode()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    gray16 = Image.new("I;16", (8, 8), 40000)
    images = {
        "corrupt.jpg": whole[: len(whole) // 2],
        "zero.jpg": b"",
        "large.png": to_bytes(picture(2, (300, 300)), "PNG"),
        "gray16.png": to_bytes(gray16, "PNG"),
        "cmyk.jpg": to_bytes(Image.new("CMYK", (8, 8))),
        "palette.png": to_bytes(picture(3).convert("P"), "PNG"),
        "animated.webp": to_bytes(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    }
    members: Members = []
    for name, content in images.items():
        members += [(name, content), (f"{name.split('.')[0]}.json", text)]
    members += sample("good", 4)
    members += [
        ("latin.jpg", to_bytes(picture(5))),
        ("latin.txt", b"caf\xe9"),
        ("latin.json", text),
    ]
    members += [("bare.jpg", to_bytes(picture(6)))]
    members += [("textonly.txt", b"no image here")]
    members += sample("good", 7, ["An impostor under the same key"])
    members += sample("silent", 8, ["Hm"])
    return members


def test_every_key_gets_one_row_with_its_reason(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/bad.tar", bad_members())
    summary = caption(tmp_path / "in", tmp_path / "out", "images.max_pixels=50000")
    rows = rows_of(tmp_path / "out", "bad")
    verdicts = {
        key: (row["status"], row["reason"].split(":")[0] if row["reason"] else None)
        for key, row in rows.items()
    }
    assert verdicts == {
        "corrupt": ("failed", "corrupt-image"),
        "zero": ("failed", "empty-image"),
        "large": ("failed", "too-many-pixels"),
        "gray16": ("ok", None),
        "cmyk": ("ok", None),
        "palette": ("ok", None),
        "animated": ("ok", None),
        "good": ("ok", None),
        "latin": ("ok", None),
        "bare": ("failed", "no-caption"),
        "textonly": ("failed", "no-image"),
        "silent": ("rejected", "too-short"),
    }
    assert rows["good"]["caption"] == "Picture good has blocks. There are twelve of them."
    assert rows["good"]["sentences"] == ["Picture good has blocks", "There are twelve of them"]
    assert rows["silent"]["caption"] == "Hm."
    assert list(rows) == list(verdicts), "rows stand in the order of the tar"

    stats = read_stats(tmp_path / "out", "bad")
    assert stats is not None
    assert stats.status == {"ok": 6, "failed": 5, "rejected": 1}
    assert stats.reasons["corrupt-image"] == 1 and stats.reasons["too-short"] == 1
    # `text-missing` counts the images of the first group, and `bare`; their alt text is optional.
    assert stats.notes == {"text-missing": 8, "text-not-utf8": 1, "animated": 1}
    assert [member["reason"] for member in stats.bad_members] == ["duplicate key"] * 3
    assert not stats.truncated
    assert summary.status == stats.status and summary.num_bad_members == 3


def test_of_a_cut_off_tar_all_that_is_readable_is_captioned(tmp_path: Path) -> None:
    members = [member for index in range(4) for member in sample(f"k{index}", index)]
    whole = write_tar(tmp_path / "whole.tar", members)
    content = whole.read_bytes()
    image_of_last = content.index(members[-3][1])
    write_tar(tmp_path / "in/cut.tar", []).write_bytes(content[: image_of_last + 100])
    write_tar(tmp_path / "in/sound.tar", sample("other", 9))

    summary = caption(tmp_path / "in", tmp_path / "out")
    rows = rows_of(tmp_path / "out", "cut")
    assert [row["status"] for row in rows.values()] == ["ok", "ok", "ok", "failed"]
    assert rows["k3"]["reason"] == "image-cut-off: the tar ends inside it"
    stats = read_stats(tmp_path / "out", "cut")
    assert stats is not None and stats.truncated
    assert stats.damage is not None and stats.bad_members[0]["name"] == "k3.jpg"
    assert rows_of(tmp_path / "out", "sound")["other"]["status"] == "ok"
    assert summary.num_damaged_shards == 1
    assert "cut off tars 1" in str(summary)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"no \*.tar"):
        caption(tmp_path / "in", tmp_path / "out")


def test_finished_shards_are_skipped_and_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("a", 0))
    caption(tmp_path / "in", tmp_path / "out")
    marker = tmp_path / "out/a.stats.json"
    written = marker.stat().st_mtime_ns
    write_tar(tmp_path / "in/b.tar", sample("b", 1))
    summary = caption(tmp_path / "in", tmp_path / "out")
    assert (summary.num_skipped_shards, summary.num_processed, summary.num_images) == (1, 1, 2)
    assert marker.stat().st_mtime_ns == written
    assert (tmp_path / "out/config.yaml").is_file()


def test_another_prompt_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("a", 0))
    caption(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="another output folder"):
        caption(tmp_path / "in", tmp_path / "out", "engine.existing.field=other")


@pytest.fixture
def slow_shards(tmp_path: Path) -> Path:
    """Four shards that take a while: large pictures."""
    data = to_bytes(picture(0, (2500, 2500)), quality=30)
    text = json.dumps({"sentences": ["A picture of blocks"]}).encode()
    for number in range(4):
        members = [
            member
            for index in range(30)
            for member in ((f"{number}-{index}.jpg", data), (f"{number}-{index}.json", text))
        ]
        write_tar(tmp_path / f"in/s{number}.tar", members)
    return tmp_path / "in"


def start(shards: Path, tables: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "recaption", "run", "engine.name=existing"]
    return subprocess.Popen(
        [*command, f"input={shards}", f"output={tables}", "num_decode_processes=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


def wait_for_first_table(tables: Path, process: subprocess.Popen[bytes]) -> None:
    while not list(tables.glob("*.stats.json")):
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_stopped_run_leaves_nothing_half_written(
    slow_shards: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    tables = tmp_path / "out"
    process = start(slow_shards, tables)
    wait_for_first_table(tables, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in errors
    finished = {path.name.split(".")[0] for path in tables.glob("*.stats.json")}
    assert 1 <= len(finished) < 4
    for shard in finished:
        assert read_table(tables, shard).num_rows == 30

    summary = caption(slow_shards, tables)
    assert summary.num_skipped_shards == len(finished)
    assert summary.status == {"ok": 120}
    assert not list(tables.glob(".*"))


def test_a_warning_of_slurm_leaves_the_children_alone_and_ends_with_75(
    slow_shards: Path, tmp_path: Path
) -> None:
    process = start(slow_shards, tmp_path / "out", SLURM_JOB_ID="1")
    wait_for_first_table(tmp_path / "out", process)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_UNFINISHED
    assert errors.decode().splitlines()[-1] == "stopped; the job goes on from here later"
    assert caption(slow_shards, tmp_path / "out").status == {"ok": 120}, "no row says it died"


def test_captions_of_people_flow_through(tmp_path: Path) -> None:
    shard = SHARED / "data/scenes/val-00000.tar"
    if not shard.is_file():
        pytest.skip(f"no real scenes at {shard}; set CANOPY_SHARED")
    summary = caption(shard, tmp_path / "out")
    assert summary.status == {"ok": 1000}
    row = rows_of(tmp_path / "out", "val-00000")["04398"]
    assert row["sentences"][1] == "Small cloud in sky on right edge not touching edge"
    assert row["sentences"][1] in row["caption"]


def test_verdicts_of_the_filters_are_in_the_table(tmp_path: Path) -> None:
    shows = "The image shows twelve blocks. They are of many colors"
    same = "There is a wall of many small blocks that have all the colors one can think of"
    members = sample("opening", 0, [shows]) + sample("refusal", 1, ["I cannot see the image"])
    members += sample("pattern", 2)
    members += [member for i in range(21) for member in sample(f"same{i}", 3, [same])]
    write_tar(tmp_path / "in/a.tar", members)
    summary = caption(tmp_path / "in", tmp_path / "out")
    assert summary.reasons == {"near-duplicate": 21, "refusal": 1}
    rows = rows_of(tmp_path / "out", "a")
    assert rows["opening"]["sentences"] == ["Twelve blocks.", "They are of many colors."]
    assert rows["refusal"]["status"] == "rejected"
    assert rows["pattern"]["status"] == "ok"
    fewer = caption(tmp_path / "in", tmp_path / "b", "filters.near_duplicates.min_others=22")
    assert fewer.reasons == {"refusal": 1}
