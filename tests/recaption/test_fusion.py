"""Fusion in two steps: captions by one model, then alt text and caption joined by another."""

import json
from pathlib import Path

import pytest

from recaption.common.config import ConfigError, load_config
from recaption.config import RunConfig
from recaption.runner import run
from recaption.table import read_table
from tests.places import CONFIGS
from tests.recaption.engine.chat_server import ChatServer, Handler
from tests.recaption.pack.packing import pack_shards, quarantine, read_samples
from tests.recaption.shard_files import picture, sample, to_bytes, write_tar

RECIPE = CONFIGS / "recaption/prompts/fusion_by_text.yaml"
SEEN = "A man with a beard stands in front of a long brick wall."


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Three images: with alt text, without, and with a caption that was rejected."""
    members = sample("named", 0, [SEEN])
    metadata = json.dumps({"sentences": [SEEN]}).encode()
    members += [("bare.jpg", to_bytes(picture(1))), ("bare.json", metadata)]
    members += sample("rejected", 2, ["Hm"])
    write_tar(tmp_path / "in/a.tar", members)
    existing = ["engine.name=existing", "engine.existing.prompt_id=long"]
    arguments = [*existing, f"input={tmp_path / 'in'}", f"output={tmp_path / 'long'}"]
    run(load_config(RunConfig, arguments))
    return tmp_path


def fusion(folder: Path, url: str, *arguments: str) -> RunConfig:
    given = [str(RECIPE), "engine.name=server", f"engine.server.url={url}"]
    places = [f"input={folder / 'in'}", f"output={folder / 'fused'}"]
    return load_config(RunConfig, [*given, *places, *arguments])


def test_the_second_model_reads_the_caption_and_the_alt_text(captioned: Path) -> None:
    def behave(handler: Handler, key: str, number: int) -> None:
        handler.caption(f"Joined: {SEEN}")

    with ChatServer(behave) as server:
        summary = run(fusion(captioned, server.url, f"captions={captioned / 'long'}"))
        asked = [one["body"]["messages"] for one in server.asked]
    assert summary.status == {"ok": 2, "failed": 1} and summary.reasons == {"no-caption": 1}
    rows = {row["key"]: row for row in read_table(captioned / "fused", "a").to_pylist()}
    assert {row["prompt_id"] for row in rows.values()} == {"fused"}
    assert rows["rejected"]["reason"].startswith("no-caption: no ok row")

    assert all(system["role"] == "system" for system, _ in asked)
    contents = [user["content"] for _, user in asked]
    assert all(part["type"] == "text" for content in contents for part in content)
    texts = sorted(content[-1]["text"] for content in contents)
    assert "<alt>alt text of named</alt>" in texts[0] and SEEN in texts[0]
    assert texts[1] == f"Write this again, word by word, and nothing else: {SEEN}"


def test_both_steps_come_into_the_training_shards(captioned: Path) -> None:
    with ChatServer(lambda handler, *_: handler.caption(f"Joined: {SEEN}")) as server:
        run(fusion(captioned, server.url, f"captions={captioned / 'long'}"))
    pack_shards(captioned, tables=f"{captioned}/long,{captioned}/fused")
    samples = read_samples(captioned / "packed")
    assert set(samples["named"]["captions"]) == {"raw", "long", "fused"}
    assert set(samples["bare"]["captions"]) == {"long", "fused"}
    assert samples["named"]["captions"]["fused"] == [f"Joined: {SEEN}"]
    assert set(samples["rejected"]["captions"]) == {"raw"}
    assert quarantine(captioned / "packed") == {}


def test_a_prompt_that_needs_captions_says_so(captioned: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.fused\.text has \{caption\}: give captions="):
        fusion(captioned, "http://127.0.0.1:1/v1")
