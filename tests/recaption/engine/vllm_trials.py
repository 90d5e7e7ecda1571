"""Troubles of a real engine, one after the other in one process, because each start takes long.

    .venv-recaption/bin/python tests/recaption/engine/vllm_trials.py LOG

Prints what happened as one JSON object in the last line; ``test_vllm_trials`` looks at it.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from recaption.common.config import UserError
from recaption.engine import CaptionAnswer, CaptionRequest
from recaption.engine import vllm as engine_module
from recaption.engine.refusals import NUM_REFUSALS
from recaption.engine.vllm import VllmEngine
from recaption.engine.vllm_processes import memory_of_all
from recaption.engine.vllm_settings import VllmConfig
from recaption.prompts import PromptConfig, SamplingConfig

NUM_IMAGES = 12
PROMPTS = {"long": PromptConfig(sampling=SamplingConfig(max_tokens=48))}


def request(key: str) -> CaptionRequest:
    blocks = np.random.default_rng(len(key) + ord(key[-1])).integers(0, 255, (3, 4, 3), np.uint8)
    image = Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)
    return CaptionRequest(key, "long", "Describe.", image)


def processes_of_engine() -> tuple[psutil.Process, psutil.Process]:
    """The engine's core, and the worker below it that holds the model."""
    for child in psutil.Process().children():
        below = child.children()
        if below:
            return child, below[-1]
    raise AssertionError("no engine is running")


def kill_core() -> None:
    processes_of_engine()[0].kill()


def kill_worker() -> None:
    processes_of_engine()[1].kill()


def stop_core() -> None:
    processes_of_engine()[0].send_signal(signal.SIGSTOP)


def kill_starting_core() -> None:
    """The core of an engine that is being started, as soon as it is there."""
    while True:
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):  # no tracker of resources
                time.sleep(1.0)
                return child.kill()
        time.sleep(0.05)


class WatchedEngine(VllmEngine):
    """Counts how often each key is asked, and does harm while ``killer`` is being answered."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_asked: Counter[str] = Counter()
        self.asked_after_answer: list[str] = []
        self.beside_killer: list[int] = []
        self.harms: list[Callable[[], None]] = []
        self.ballast: np.ndarray | None = None
        self._answered: set[str] = set()
        self._asking: set[str] = set()

    async def _ask(self, llm: Any, request: CaptionRequest) -> CaptionAnswer:
        self.num_asked[request.key] += 1
        if request.key in self._answered:
            self.asked_after_answer.append(request.key)
        self._asking.add(request.key)
        try:
            if request.key == "killer":
                harm = self.harms.pop(0)
                asyncio.get_running_loop().call_later(0.3, self._do_harm, harm)
                while True:  # until the engine dies
                    await super()._ask(llm, request)
            answer = await super()._ask(llm, request)
        finally:
            self._asking.discard(request.key)
        self._answered.add(request.key)
        return answer

    def _do_harm(self, harm: Callable[[], None]) -> None:
        self.beside_killer.append(len(self._asking) - 1)
        harm()

    def _stop(self) -> None:
        super()._stop()
        self.ballast = None  # stands for what an engine grows by, and gives back when it ends


async def ask_all(engine: VllmEngine, keys: list[str]) -> dict[str, Any]:
    answers = await asyncio.gather(*(engine.answer(request(key)) for key in keys))
    return {key: asdict(answer) for key, answer in zip(keys, answers, strict=True)}


async def trials(log: Path) -> dict[str, Any]:
    keys = [f"k{number:x}" for number in range(NUM_IMAGES)]
    config = VllmConfig(max_in_flight=4, stall_timeout=20.0)
    engine = WatchedEngine(config, PROMPTS, log)
    found: dict[str, Any] = {}

    refused = [CaptionRequest(key, "long", "Describe.", "no image") for key in "ab"]  # type: ignore[arg-type]
    threading.Thread(target=kill_starting_core).start()
    await engine.start()
    found["num_restarts_at_start"] = engine.num_restarts
    try:
        for number in range(NUM_REFUSALS):
            found["refused"] = asdict(await engine.answer(refused[number % 2]))
    except UserError as error:
        found["all_refused"] = str(error)

    found["undisturbed"] = await ask_all(engine, keys)
    found["mixed"] = await ask_all(engine, ["k0", "k1"]) | {
        "bad": asdict(await engine.answer(refused[0]))
    }

    # A request with which the engine dies each time, in three ways.
    engine._answered.clear()
    engine.asked_after_answer.clear()
    engine.num_asked.clear()
    engine.harms = [kill_core, kill_worker, stop_core]
    found["disturbed"] = await ask_all(engine, [*keys[:2], "killer", *keys[2:]])
    found["num_restarts"] = engine.num_restarts
    found["num_asked"] = dict(engine.num_asked)
    found["asked_after_answer"] = list(engine.asked_after_answer)
    found["beside_killer"] = engine.beside_killer

    # An engine that grows.
    limit = memory_of_all() + 0.3
    config.max_memory = limit
    engine_module.MEMORY_INTERVAL = 0.2
    watcher = asyncio.create_task(engine._watch_memory())
    engine.ballast = np.ones(2**26)  # half a GiB
    answers: dict[str, Any] = {}
    while engine.num_recycles == 0:
        answers = await ask_all(engine, keys)
    found["recycled"] = answers | await ask_all(engine, keys)
    found["num_recycles"] = engine.num_recycles
    watcher.cancel()

    config.max_memory = 0.1
    try:
        engine._check_memory()
    except UserError as error:
        found["too_little_memory"] = str(error)
    await engine.close()
    found["left_over"] = [
        process.name()
        for process in psutil.Process().children(recursive=True)
        if not is_tracker(process)
    ]
    return found


def is_tracker(process: psutil.Process) -> bool:
    return "resource_tracker" in " ".join(process.cmdline())


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(json.dumps(asyncio.run(trials(Path(sys.argv[1])))))
    os._exit(0)
