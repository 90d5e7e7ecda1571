"""`recaption run engine.name=server` from tar to table, against a server on loopback."""

import base64
import io
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from recaption.common.config import UserError, load_config
from recaption.config import RunConfig
from recaption.runner import RunSummary, run
from recaption.table import read_table
from tests.recaption.engine.chat_server import ChatServer, Handler
from tests.recaption.pack.packing import pack_shards, read_samples
from tests.recaption.shard_files import sample, to_bytes, write_tar

NUM_IMAGES = 12
ALT_TEXTS = [f"alt text of k{number}" for number in range(NUM_IMAGES)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    members = [member for number in range(NUM_IMAGES) for member in sample(f"k{number}", number)]
    members += [("rotten.jpg", b"\xff\xd8"), ("long.jpg", to_bytes(Image.new("RGB", (900, 9))))]
    write_tar(tmp_path / "in/a.tar", members)
    return tmp_path / "in"


def caption(shards: Path, url: str, *arguments: str, prompts: Iterable[str] = ()) -> RunSummary:
    server = [f"url={url}", "backoff=0.01", "num_tries=2", "max_in_flight=3", *arguments]
    given = [f"engine.server.{setting}" for setting in server]
    output = f"output={shards.parent / 'out'}"
    text = "prompts.long.text='{alt_text}'"
    other = ["prompts.long.text_without_alt_text=none", "filters.min_words=1"]
    places = ["engine.name=server", f"input={shards}", output]
    arguments = (*places, text, *other, *prompts, *given)
    return run(load_config(RunConfig, list(arguments)))


def test_every_image_gets_its_row_and_the_server_never_more_than_it_should(shards: Path) -> None:
    def behave(handler: Handler, key: str, number: int) -> None:
        if key == "alt text of k3":
            handler.refuse(400, "too long")
        elif key == "alt text of k4":
            handler.refuse(500)
        else:
            time.sleep(0.2)
            handler.caption(f"Seen: {key}.")

    with ChatServer(behave) as server:
        summary = caption(shards, server.url, "image_format=png")
        assert server.most_at_once == 3
    assert summary.status == {"ok": NUM_IMAGES - 1, "failed": 3}
    assert set(summary.reasons) == {"prompt-refused", "server-failed", "corrupt-image"}
    rows = {row["key"]: row for row in read_table(shards.parent / "out", "a").to_pylist()}
    assert rows["k0"]["caption"] == "Seen: alt text of k0."
    assert rows["k0"]["model"] == "some/model" and rows["k0"]["num_tokens"] == 3
    assert rows["long"]["caption"] == "Seen: none."
    sizes = {one["key"]: size_of(one["body"]) for one in server.asked}
    assert sizes["alt text of k0"] == ("PNG", (40, 30)) and sizes["none"] == ("PNG", (900, 9))


def size_of(body: dict[str, object]) -> tuple[str | None, tuple[int, int]]:
    messages = body["messages"]
    assert isinstance(messages, list)
    url = messages[-1]["content"][0]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    return image.format, image.size


def test_a_server_that_stays_away_ends_the_run_and_no_answer_is_asked_for_twice(
    shards: Path,
) -> None:
    def behave(handler: Handler, key: str, number: int) -> None:
        if key not in {one["key"] for one in server.asked[:5]}:
            server.socket.close()  # takes no further connections
            return handler.hang_up()
        return handler.caption(f"Seen: {key}.")

    gone = pytest.raises(UserError, match=r"no server at .* start it, then run the same command")
    with ChatServer(behave) as server, gone:
        caption(shards, server.url, "patience=2", "num_tries=9")
    answered = {one["key"] for one in server.asked[:5]}
    assert not (shards.parent / "out/a.stats.json").exists()

    with ChatServer(lambda handler, key, number: handler.caption(f"Seen: {key}.")) as second:
        summary = caption(shards, second.url)
    assert summary.status == {"ok": NUM_IMAGES + 1, "failed": 1}
    asked = [one["key"] for one in second.asked]
    assert sorted(asked) == sorted({*ALT_TEXTS, "none"} - answered)


def test_mistakes_are_told_before_anything_is_written(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(UserError, match="names no variable that is set"):
        caption(shards, "http://127.0.0.1:1/v1", "model=m", "api_key_variable=NOT_SET_HERE")
    assert not (shards.parent / "out").exists()


def test_each_prompt_of_a_table_is_a_source_of_the_training_shards(shards: Path) -> None:
    short = ["prompts.short.text='short {alt_text}'", "prompts.short.text_without_alt_text=none"]
    with ChatServer(lambda handler, key, _: handler.caption(f"Seen: {key}.")) as server:
        caption(shards, server.url, prompts=short)
        assert len(server.asked) == 2 * (NUM_IMAGES + 1)
    pack_shards(shards.parent, tables=str(shards.parent / "out"))
    packed = read_samples(shards.parent / "packed")
    assert packed["k0"]["captions"]["long"] == ["Seen: alt text of k0."]
    assert packed["k0"]["captions"]["short"] == ["Seen: short alt text of k0."]
    assert set(packed["k0"]["captions"]) == {"raw", "long", "short"}
