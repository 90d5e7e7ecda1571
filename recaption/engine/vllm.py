"""Captions from a vision-language model, served by vLLM's asynchronous engine.

The engine runs in processes of its own. One that dies, or hangs, is started again, and the requests
that it had are asked again: first a few at a time, then one alone, so that a request that kills
the engine fails alone. One that has grown too large is started again in between.
"""

import asyncio
import contextlib
import importlib.util
import math
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from recaption.common.config import ConfigError, UserError
from recaption.engine.base import CaptionAnswer, CaptionRequest
from recaption.engine.models import resolve_model
from recaption.engine.refusals import Refusals
from recaption.engine.turns import Turns
from recaption.engine.vllm_output import EngineLog
from recaption.engine.vllm_processes import interruptible, memory_of_all
from recaption.engine.vllm_settings import (
    VllmConfig,
    check_known,
    check_own_keys,
    prepare_environment,
    runs_on_cpu,
)
from recaption.engine.vllm_start import KilledAtStart, VllmStarter, one_line
from recaption.prompts import PromptConfig, seed_of

#: Seconds that a worker whose engine was told to end waits to be told so itself.
ABORT_PAUSE = 2.0
#: A request that was with so many engines when they died is given up; it was alone with the last.
MAX_DEATHS = 3
#: Seconds between two looks at whether the engine still gives tokens.
STALL_INTERVAL = 1.0
#: Seconds between two looks at the memory, which is a matter of milliseconds.
MEMORY_INTERVAL = 5.0


class VllmEngine:
    """Raises: UserError: vLLM is not installed, or the settings are wrong.

    Args:
        config: of the engine.
        prompts: those of the requests.
        log: where what vLLM prints goes; None: to the console.
    """

    sees_images = True
    encoding = None

    def __init__(
        self, config: VllmConfig, prompts: Mapping[str, PromptConfig], log: Path | None = None
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine.name=vllm needs vLLM, which this environment does not have: run "
                "`make .venv-recaption/.installed` and use .venv-recaption/bin/python (on GPUs: "
                "pip install -e '.[recaption-gpu]'). engine.name=existing needs none."
            )
        check_own_keys(config.kwargs)
        model = resolve_model(config.model)
        self._log = EngineLog(log)
        prepare_environment(runs_on_cpu(), isinstance(model, Path), is_logged=log is not None)
        self._config, self._prompts = config, prompts
        self._starter = VllmStarter(config, model, self._log)
        with self._log.divert(), interruptible():
            check_known(config.kwargs)
            for prompt_id in prompts:
                self._check_sampling(prompt_id)
        #: Known when the engine has started, if the configuration leaves it to the engine.
        self.max_in_flight = config.max_in_flight
        self.num_restarts = 0
        self.num_recycles = 0
        self._llm: Any = None
        self._turns = Turns()
        self._few = asyncio.Semaphore(1)
        self._starting = asyncio.Lock()
        self._watchers: list[asyncio.Task[None]] = []
        self._num_requests = 0
        self._num_answers = 0
        self._refusals = Refusals(
            "image", "Is it a model for images, and engine.vllm.max_model_len long enough?"
        )
        self._num_deaths_in_a_row = 0
        self._failure: UserError | None = None

    async def start(self) -> None:
        self._start_unless_killed()
        self._check_memory()
        self.max_in_flight = self._config.max_in_flight or self._as_many_as_keep_it_busy()
        self._few = asyncio.Semaphore(math.isqrt(self.max_in_flight))
        self._watchers = [asyncio.create_task(self._watch_for_stalls())]
        if self._config.max_memory:
            self._watchers.append(asyncio.create_task(self._watch_memory()))

    async def answer(self, request: CaptionRequest) -> CaptionAnswer:
        for num_deaths in range(MAX_DEATHS):
            async with self._turn(num_deaths):
                llm = await self._living()
                try:
                    return await self._ask(llm, request)
                except _EngineDied:
                    pass
            await self._start_again(llm)
        return CaptionAnswer(failure=f"engine-died: {MAX_DEATHS} times with this request")

    async def close(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        self._stop()

    @contextlib.asynccontextmanager
    async def _turn(self, num_deaths: int) -> AsyncIterator[None]:
        """The more engines died with a request, the fewer others are asked beside it."""
        if num_deaths == MAX_DEATHS - 1:
            async with self._turns.alone():
                yield
        elif num_deaths:
            async with self._few, self._turns.together():
                yield
        else:
            async with self._turns.together():
                yield

    async def _living(self) -> Any:
        """The engine; a dead one is started again first, so that no request is blamed for it."""
        if self._failure is not None:
            raise self._failure
        if self._llm is None or self._llm.errored:
            await self._start_again(self._llm)
        return self._llm

    async def _ask(self, llm: Any, request: CaptionRequest) -> CaptionAnswer:
        from vllm.renderers import ChatParams
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            _, (prompt,) = await llm.renderer.render_chat_async(
                [self._messages(request)], ChatParams()
            )
        # Whatever the model's processor raises for one image costs that image only.
        except Exception as error:
            if llm is not self._llm or llm.errored:
                raise _EngineDied from error
            return self._refused(error)
        self._num_requests += 1
        sampling = self._sampling(request.prompt_id, request.key)
        try:
            outputs = [out async for out in llm.generate(prompt, sampling, str(self._num_requests))]
        except EngineDeadError as error:
            raise _EngineDied from error
        except Exception as error:
            if llm is not self._llm or llm.errored:
                raise _EngineDied from error
            return self._refused(error)
        completion = outputs[-1].outputs[0]
        if completion.finish_reason == "abort":
            # Nobody here aborts: the engine was told to end, as by Slurm, which signals every
            # process of a job. This worker is about to be cancelled, too, unless it is not.
            await asyncio.sleep(ABORT_PAUSE)
            raise _EngineDied
        self._refusals.answered()
        self._num_answers += 1
        self._num_deaths_in_a_row = 0
        if completion.finish_reason not in ("stop", "length"):
            return CaptionAnswer(failure=f"engine-failed: finish reason {completion.finish_reason}")
        return CaptionAnswer(
            completion.text.strip(),
            num_tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
        )

    def _start_unless_killed(self) -> None:
        """Starts an engine; once more if it was killed meanwhile, as settings do not do."""
        while self._llm is None:
            try:
                self._llm = self._starter.start()
            except KilledAtStart as error:
                if self.num_restarts >= self._config.max_restarts:
                    raise
                self.num_restarts += 1
                print(f"warning: {error}; it is started again", file=sys.stderr, flush=True)

    def _as_many_as_keep_it_busy(self) -> int:
        """What the engine works on at once, and half as many that wait to take their places."""
        of_engine = self._llm.vllm_config
        num_engines = of_engine.parallel_config.data_parallel_size
        return int(of_engine.scheduler_config.max_num_seqs) * num_engines * 3 // 2

    def _stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            self._starter.stop(llm)

    async def _start_again(self, dead: Any) -> None:
        async with self._starting:
            if dead is not self._llm:
                return  # another request has seen to it
            if self._failure is not None:
                raise self._failure
            cause = self._log.root_cause()
            print(
                f"warning: vLLM's engine died{f', {cause}' if cause else ''}, and is started again"
                f"{self._log}",
                file=sys.stderr,
                flush=True,
            )
            self._stop()
            while self._llm is None:
                self._num_deaths_in_a_row += 1
                if self._num_deaths_in_a_row > self._config.max_restarts:
                    raise self._fail(
                        f"vLLM's engine died {self._num_deaths_in_a_row} times without an answer "
                        f"in between: memory, or engine.vllm.kwargs?{self._log}"
                    )
                self.num_restarts += 1
                try:
                    self._llm = self._starter.start()
                except UserError as error:
                    print(f"warning: {error}", file=sys.stderr, flush=True)

    def _fail(self, message: str) -> UserError:
        """An error for this request and all others, as no engine will answer them."""
        self._failure = self._failure or UserError(message)
        return self._failure

    async def _watch_for_stalls(self) -> None:
        """Kills an engine that has requests and gives no tokens for long: it is asked anew then."""
        before: Any = None
        seconds = 0.0
        while True:
            looked = time.monotonic()
            await asyncio.sleep(STALL_INTERVAL)
            now = self._progress()
            # A worker that was itself stopped for an hour has not waited for an hour.
            seconds += min(time.monotonic() - looked, 2 * STALL_INTERVAL)
            if now is None or now != before:
                before, seconds = now, 0.0
            elif seconds > self._config.stall_timeout:
                print(
                    f"warning: vLLM's engine has given nothing for {seconds:.0f} s "
                    "(engine.vllm.stall_timeout) and is killed",
                    file=sys.stderr,
                    flush=True,
                )
                self._starter.processes.kill()
                seconds = 0.0

    def _progress(self) -> tuple[int, ...] | None:
        """What changes with each token and each answer; None while nothing is asked."""
        if self._llm is None or not self._llm.output_processor.has_unfinished_requests():
            return None
        states = self._llm.output_processor.request_states.values()
        tokens = sum(s.detokenizer.num_output_tokens() for s in states if s.detokenizer is not None)
        return (id(self._llm), self._num_answers, self._num_requests, tokens)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_INTERVAL)
            used = await asyncio.to_thread(memory_of_all)
            if used > self._config.max_memory:
                grown = self._llm
                async with self._turns.alone():
                    if grown is self._llm:  # else it died meanwhile, and this one is new
                        await self._recycle(used)

    async def _recycle(self, used: float) -> None:
        """Starts the engine again, in between requests."""
        async with self._starting:
            print(
                f"{used:.1f} GiB of host memory are more than engine.vllm.max_memory="
                f"{self._config.max_memory}: the engine is started again",
                file=sys.stderr,
                flush=True,
            )
            try:
                self._stop()
                self._start_unless_killed()
                self._check_memory()
            except UserError as error:
                self._fail(str(error))
            self.num_recycles += 1

    def _check_memory(self) -> None:
        """Raises: UserError: too little is allowed; starting the engine again would not help."""
        limit = self._config.max_memory
        used = memory_of_all() if limit else 0.0
        if used > limit:
            self._stop()
            raise UserError(
                f"engine.vllm.max_memory={limit}: {used:.1f} GiB of host memory are in use right "
                "after the engine's start; allow more than that, or load less"
            )

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
        return self._refusals.refused(self._config.model, one_line(cause))

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
