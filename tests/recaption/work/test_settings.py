from dataclasses import replace
from pathlib import Path

import pytest

from recaption.common.config import UserError
from recaption.engine import CaptionOrigin
from recaption.work.settings import agree_on_settings
from tests.recaption.shard_files import sample, write_tar
from tests.recaption.test_runner import caption

ORIGIN = CaptionOrigin("long", "tiny", "abc", "123")


def test_the_first_one_decides(tmp_path: Path) -> None:
    filters = {"min_words": 3, "scripts": ("Latin",)}
    agree_on_settings(tmp_path / "work", [ORIGIN], filters)
    agree_on_settings(tmp_path / "work", [ORIGIN], filters)
    for origin, other, name in [
        (replace(ORIGIN, prompt_id="short"), filters, "prompt_id"),
        (replace(ORIGIN, model="large"), filters, "model"),
        (ORIGIN, {**filters, "min_words": 4}, "min_words"),
    ]:
        with pytest.raises(UserError, match=f"another {name} .*settings.json"):
            agree_on_settings(tmp_path / "work", [origin], other)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["settings.json"]


def test_a_worker_with_another_prompt_ends_before_it_captions(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("a", 0))
    caption(tmp_path / "in", tmp_path / "out")
    for path in (tmp_path / "out").glob("a.*"):  # as if the first had none finished yet
        path.unlink()
    with pytest.raises(UserError, match="another sampling_hash"):
        caption(tmp_path / "in", tmp_path / "out", "engine.existing.field=other")
    assert not list((tmp_path / "out").glob("*.parquet"))
    summary = caption(tmp_path / "in", tmp_path / "out", "num_decoded_ahead=2")
    assert summary.status == {"ok": 1}
