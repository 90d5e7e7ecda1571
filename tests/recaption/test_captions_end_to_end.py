"""Captions through vLLM and the tiny model of the repository, in the captioner's environment."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recaption.engine.models import TINY_LVLM
from recaption.table import read_stats, read_table
from tests.places import RECAPTION_PYTHON, needs_recaption_environment
from tests.recaption.shard_files import sample, write_tar

NUM_IMAGES = 6

pytestmark = [
    pytest.mark.slow,
    needs_recaption_environment,
    pytest.mark.skipif(not (TINY_LVLM / "config.json").exists(), reason=f"no model in {TINY_LVLM}"),
]


def recaption(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(RECAPTION_PYTHON),
        "-m",
        "recaption",
        "run",
        f"input={folder}/in",
        f"output={folder}/out",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments, "--json"], capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("captioned")
    members = [member for index in range(NUM_IMAGES) for member in sample(f"k{index}", index)]
    members += [("again.jpg", members[0][1]), ("corrupt.jpg", b"\xff\xd8\xff")]
    write_tar(folder / "in/a.tar", members)
    limits = [
        "prompts.long.sampling.max_tokens=24",
        "filters.keep_cut_off=true",
        "filters.min_words=1",
    ]
    done = recaption(folder, *limits)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_every_image_has_a_caption_of_the_model(captioned: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = captioned
    rows = {row["key"]: row for row in read_table(folder / "out", "a").to_pylist()}
    assert len(rows) == NUM_IMAGES + 2
    for key in [f"k{index}" for index in range(NUM_IMAGES)]:
        row = rows[key]
        assert row["status"] in ("ok", "rejected") and row["caption"]
        assert 1 <= row["num_tokens"] <= 24
        assert row["finish_reason"] in ("stop", "length")
        assert " ".join(row["sentences"]).split() == row["caption"].split()
        assert (row["model"], row["prompt_id"]) == ("tiny_lvlm", "long")
    assert rows["corrupt"]["reason"].startswith("corrupt-image")
    stats = read_stats(folder / "out", "a")
    assert stats is not None and stats.num_tokens == figures["num_tokens"] > NUM_IMAGES
    assert figures["images_per_second"] > 0


def test_the_model_looks_at_the_image(captioned: tuple[Path, dict[str, Any]]) -> None:
    rows = {row["key"]: row for row in read_table(captioned[0] / "out", "a").to_pylist()}
    assert rows["again"]["caption"] == rows["k0"]["caption"]
    assert len({row["caption"] for row in rows.values() if row["caption"]}) > 1


MIXED = """
import asyncio, json
from dataclasses import asdict
from PIL import Image
from recaption.engine import CaptionRequest, EngineConfig, build_engine
from recaption.prompts import PromptConfig, SamplingConfig

PROMPTS = {"long": PromptConfig(sampling=SamplingConfig(max_tokens=8))}
IMAGES = {"a": Image.new("RGB", (9, 9)), "bad": "no image", "b": Image.new("RGB", (500, 20))}

async def ask():
    engine = build_engine(EngineConfig(), PROMPTS)
    await engine.start()
    requests = [CaptionRequest(key, "long", "Describe.", image) for key, image in IMAGES.items()]
    answers = await asyncio.gather(*(engine.answer(request) for request in requests))
    await engine.close()
    return {key: asdict(answer) for key, answer in zip(IMAGES, answers)}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask())))
"""
ALL_BAD = """
import asyncio
from recaption.common.config import run_command
from recaption.engine import CaptionRequest, EngineConfig, build_engine
from recaption.prompts import PromptConfig

async def ask():
    engine = build_engine(EngineConfig(), {"long": PromptConfig()})
    await engine.start()
    try:
        for number in range(100):
            await engine.answer(CaptionRequest(str(number), "long", "Describe.", "no image"))
    finally:
        await engine.close()

if __name__ == "__main__":
    print(run_command(lambda _: asyncio.run(ask()), []))
"""


def test_a_prompt_that_the_engine_refuses_fails_alone() -> None:
    done = subprocess.run([str(RECAPTION_PYTHON), "-c", MIXED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["bad"]["failure"].startswith("prompt-refused: ")
    assert answers["a"]["failure"] is None and answers["b"]["failure"] is None
    assert answers["a"]["num_tokens"] >= 1 and answers["b"]["num_tokens"] >= 1


def test_a_model_that_refuses_every_image_stops_the_run() -> None:
    done = subprocess.run([str(RECAPTION_PYTHON), "-c", ALL_BAD], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2"
    assert "refuses every image" in done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prompts.long.sampling.top_p=0", ["prompts.long.sampling", "top_p"]),
        ("engine.vllm.kwargs.max_num_seq=4", ["max_num_seq", "'max_num_seqs'"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    write_tar(tmp_path / "in/a.tar", sample("k0", 0))
    done = recaption(tmp_path, override)
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ") and all(word in message for word in words), message
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("k0", 0))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "no such type"}')
    done = recaption(tmp_path, f"engine.vllm.model={tmp_path}/model")
    assert done.returncode == 2
    assert "error: vLLM cannot load" in done.stderr and "Traceback" not in done.stderr
