"""A real engine in trouble: ``vllm_trials.py`` makes it, in the captioner's environment."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recaption.engine.models import TINY_LVLM
from tests.places import RECAPTION_PYTHON, needs_recaption_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # an engine starts six times
    needs_recaption_environment,
    pytest.mark.skipif(not (TINY_LVLM / "config.json").exists(), reason=f"no model in {TINY_LVLM}"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    log = tmp_path_factory.mktemp("trials") / "engine.log"
    script = Path(__file__).with_name("vllm_trials.py")
    done = subprocess.run(
        [str(RECAPTION_PYTHON), str(script), str(log)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr + log.read_text()[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"stderr": done.stderr, "log": log.read_text()}


def test_a_prompt_that_the_engine_refuses_fails_alone(found: dict[str, Any]) -> None:
    assert found["mixed"]["bad"]["failure"].startswith("prompt-refused: ")
    for key in ("k0", "k1"):
        assert found["mixed"][key]["failure"] is None and found["mixed"][key]["num_tokens"] >= 1


def test_a_model_that_refuses_every_image_stops_the_run(found: dict[str, Any]) -> None:
    assert "refuses every image" in found["all_refused"]


def test_a_request_that_kills_the_engine_fails_alone(found: dict[str, Any]) -> None:
    disturbed = found["disturbed"]
    assert disturbed.pop("killer")["failure"].startswith("engine-died")
    assert disturbed == found["undisturbed"], "the captions of all others are the same"


def test_a_killed_or_hanging_engine_is_started_again(found: dict[str, Any]) -> None:
    assert found["num_restarts"] == 1 + 3  # its core killed, its worker killed, its core stopped
    assert found["stderr"].count("is started again") == 1 + 4  # and once for its memory
    assert "(engine.vllm.stall_timeout) and is killed" in found["stderr"]
    assert "Traceback" not in found["stderr"] and "Traceback" in found["log"]


def test_an_engine_that_is_killed_while_it_starts_is_started_again(found: dict[str, Any]) -> None:
    assert found["num_restarts_at_start"] == 1
    assert "Engine core initialization failed" in found["stderr"]


def test_only_unanswered_requests_are_asked_again(found: dict[str, Any]) -> None:
    assert found["asked_after_answer"] == []
    assert max(found["num_asked"].values()) == 3 == found["num_asked"]["killer"]


def test_suspects_are_asked_in_ever_smaller_company(found: dict[str, Any]) -> None:
    first, second, third = found["beside_killer"]
    assert first >= second and second <= 1 and third == 0


def test_an_engine_that_grows_is_recycled(found: dict[str, Any]) -> None:
    assert found["num_recycles"] == 1
    assert found["recycled"] == found["undisturbed"]


def test_too_little_memory_is_an_error(found: dict[str, Any]) -> None:
    assert "engine.vllm.max_memory=0.1: " in found["too_little_memory"]
    assert "right after the engine's start" in found["too_little_memory"]


def test_nothing_is_left_when_the_engine_is_closed(found: dict[str, Any]) -> None:
    assert found["left_over"] == []
