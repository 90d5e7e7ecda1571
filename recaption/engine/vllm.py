"""Captions from a vision-language model, served by vLLM's asynchronous engine.

The engine runs in processes of its own. One that dies is started again, and the requests that it
had are asked again, those that were with two that died one at a time: a request that kills the
engine fails alone.
"""

import asyncio
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaption.common.config import ConfigError, UserError
from recaption.engine.base import CaptionAnswer, CaptionRequest
from recaption.engine.models import resolve_model
from recaption.engine.vllm_settings import (
    VllmConfig,
    check_known,
    check_own_keys,
    engine_arguments,
    prepare_environment,
    runs_on_cpu,
)
from recaption.prompts import PromptConfig, seed_of

#: When the first so many images are all refused, no image is at fault.
NUM_REFUSALS = 16
#: A request that was with so many engines when they died is given up.
MAX_DEATHS = 3


class VllmEngine:
    """Raises: UserError: vLLM is not installed, or the settings are wrong."""

    sees_images = True
    encoding = None

    def __init__(self, config: VllmConfig, prompts: Mapping[str, PromptConfig]) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine.name=vllm needs vLLM, which this environment does not have: run "
                "`make .venv-recaption/.installed` and use .venv-recaption/bin/python (on GPUs: "
                "pip install -e '.[recaption-gpu]'). engine.name=existing needs none."
            )
        check_own_keys(config.kwargs)
        self._model = resolve_model(config.model)
        self._on_cpu = runs_on_cpu()
        prepare_environment(self._on_cpu, is_local=isinstance(self._model, Path))
        check_known(config.kwargs)
        self.max_in_flight = config.max_in_flight
        self._config, self._prompts = config, prompts
        for prompt_id in prompts:
            self._check_sampling(prompt_id)
        self._llm: Any = None
        self._starting = asyncio.Lock()
        self._suspects = asyncio.Lock()
        self._num_requests = 0
        self._num_refused: int | None = 0  # of the first images; None once one was accepted
        self._num_deaths_in_a_row = 0
        self.num_restarts = 0

    async def start(self) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = engine_arguments(self._config, str(self._model), self._on_cpu)
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"vLLM cannot load {self._config.model}: {one_line(error)}") from error

    async def answer(self, request: CaptionRequest) -> CaptionAnswer:
        for num_deaths in range(MAX_DEATHS):
            llm = self._llm
            try:
                if num_deaths < MAX_DEATHS - 1:
                    return await self._ask(llm, request)
                async with self._suspects:
                    llm = self._llm
                    return await self._ask(llm, request)
            except _EngineDied:
                await self._start_again(llm)
        return CaptionAnswer(failure=f"engine-died: {MAX_DEATHS} times with this request")

    async def close(self) -> None:
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    async def _ask(self, llm: Any, request: CaptionRequest) -> CaptionAnswer:
        from vllm.renderers import ChatParams
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            _, (prompt,) = await llm.renderer.render_chat_async(
                [self._messages(request)], ChatParams()
            )
        # Whatever the model's processor raises for one image costs that image only.
        except Exception as error:
            return self._refused(error)
        self._num_requests += 1
        sampling = self._sampling(request.prompt_id, request.key)
        try:
            outputs = [out async for out in llm.generate(prompt, sampling, str(self._num_requests))]
        except EngineDeadError as error:
            raise _EngineDied from error
        except Exception as error:
            if llm.errored:
                raise _EngineDied from error
            return self._refused(error)
        self._num_refused = None
        self._num_deaths_in_a_row = 0
        completion = outputs[-1].outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            return CaptionAnswer(failure=f"engine-failed: finish reason {completion.finish_reason}")
        return CaptionAnswer(
            completion.text.strip(),
            num_tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
        )

    async def _start_again(self, dead: Any) -> None:
        async with self._starting:
            if dead is not self._llm:
                return  # another request has seen to it
            self._num_deaths_in_a_row += 1
            if self._num_deaths_in_a_row > self._config.max_restarts:
                raise UserError(
                    f"vLLM's engine died {self._num_deaths_in_a_row} times without an answer in "
                    "between: see what it said above (memory? engine.vllm.kwargs?)"
                )
            print("warning: vLLM's engine died and is started again", file=sys.stderr, flush=True)
            await self.close()
            self.num_restarts += 1
            await self.start()

    def _messages(self, request: CaptionRequest) -> list[Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        if request.image is not None:
            content.insert(0, {"type": "image_pil", "image_pil": request.image})
        system = self._prompts[request.prompt_id].system
        messages: list[Any] = [{"role": "system", "content": system}] if system else []
        return [*messages, {"role": "user", "content": content}]

    def _refused(self, error: Exception) -> CaptionAnswer:
        """Raises: UserError: the first images are all refused, which is no fault of theirs."""
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if self._num_refused is not None:
            self._num_refused += 1
            if self._num_refused == NUM_REFUSALS:
                raise UserError(
                    f"{self._config.model} refuses every image, the last with: {one_line(cause)}. "
                    "Is it a model for images, and engine.vllm.max_model_len long enough?"
                )
        return CaptionAnswer(failure=f"prompt-refused: {one_line(cause)}")

    def _check_sampling(self, prompt_id: str) -> None:
        try:
            self._sampling(prompt_id, "")
        except Exception as error:  # which class it raises differs with its version
            raise ConfigError(f"prompts.{prompt_id}.sampling: {one_line(error)}") from None

    def _sampling(self, prompt_id: str, key: str) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self._prompts[prompt_id].sampling
        seed = seed_of(prompt_id, key, sampling.seed) if sampling.temperature > 0 else None
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            seed=seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


class _EngineDied(Exception):
    pass


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
