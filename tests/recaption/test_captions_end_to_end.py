"""Captions through vLLM and the tiny model of the repository, in the captioner's environment."""

import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
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
    return folder, json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


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
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: vLLM cannot load") and "no such type" in line


def test_what_fails_in_a_process_of_the_engine_is_told_in_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("k0", 0))
    shutil.copytree(TINY_LVLM, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = recaption(tmp_path, f"engine.vllm.model={tmp_path}/model")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: vLLM cannot load") and "SafetensorError" in line
    (log,) = (tmp_path / "out/work").glob("engine-*.log")
    assert str(log) in line and "Traceback" in log.read_text()


def test_a_run_shows_what_we_say_and_not_what_vllm_says(
    captioned: tuple[Path, dict[str, Any]],
) -> None:
    (log,) = (captioned[0] / "out/work").glob("engine-*.log")
    assert "Loading weights took" in log.read_text()
    lines = captioned[1]["stderr"].splitlines()
    assert len(lines) <= 2 and all("images/s" in line for line in lines), lines


def test_a_worker_that_is_killed_takes_its_engine_along(tmp_path: Path) -> None:
    members = [member for index in range(200) for member in sample(f"k{index}", index)]
    write_tar(tmp_path / "in/a.tar", members)
    # As an installed package has it; the environment may be of another checkout.
    points = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]
    metadata = tmp_path / "installed/recaption_here-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: recaption-here\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in functions.items())
            for group, functions in points.items()
        )
    )
    command = [str(RECAPTION_PYTHON), "-m", "recaption", "run", "configs/recaption/tiny.yaml"]
    worker = subprocess.Popen(
        [*command, f"input={tmp_path}/in", f"output={tmp_path}/out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}/installed"},
    )
    try:
        wait_for(lambda: num_journalled(tmp_path / "out/work") > 1, 300, worker)
        of_worker = psutil.Process(worker.pid).children(recursive=True)
        assert len(of_worker) >= 3  # a decoder, the engine's core, its worker
    finally:
        worker.kill()
        worker.wait()
    _, alive = psutil.wait_procs(of_worker, timeout=20)
    for process in alive:
        process.kill()
    assert not alive


def num_journalled(work: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in work.glob("*.journal.*"))


def wait_for(condition: Callable[[], bool], timeout: float, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.1)
