"""Captions from any server with OpenAI's chat API and pictures: ``vllm serve``, SGLang, a provider.

What a request meets decides what becomes of it:

- a server that cannot be reached: it waits for one that can, which is no try;
- 408, 409, 429, 5xx, a time-out, a connection lost on the way, an answer that cannot be read: it is
  sent again, later and later, ``engine.server.num_tries`` times, then is a row, ``server-failed``;
- any other 4xx: a row, ``prompt-refused``;
- a key that is refused, a model that is not there: the end of the run.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import openai

from recaption.common.config import UserError
from recaption.engine.base import CaptionAnswer, CaptionRequest
from recaption.engine.encoding import EncodedImage
from recaption.engine.endpoints import Endpoint, Endpoints, was_reached
from recaption.engine.refusals import Refusals
from recaption.engine.server_settings import ServerConfig
from recaption.prompts import PromptConfig, SamplingConfig, seed_of

#: Longest back-off, seconds.
MAX_BACKOFF = 60.0
#: When so many requests in a row are given up, none of them is at fault.
NUM_SUSPICIOUS = 16
#: A request that was under way at so many lost connections is sent only when no other such is.
NUM_LOST = 2


class ServerEngine:
    sees_images = True

    def __init__(self, config: ServerConfig, prompts: Mapping[str, PromptConfig]) -> None:
        self.max_in_flight = config.max_in_flight
        self.encoding = config.encoding
        #: Requests sent again, by cause.
        self.retries: Counter[str] = Counter()
        self._config, self._prompts = config, prompts
        self._endpoints = Endpoints(config)
        self._suspects = asyncio.Lock()
        self._refusals = Refusals(
            "request", "Is it a model for images, and its context long enough?"
        )
        self._num_given_up = 0  # since the last answer
        self._last_answer = time.monotonic()

    @property
    def num_servers_up(self) -> int:
        return self._endpoints.num_up

    async def start(self) -> None:
        await self._endpoints.__aenter__()
        self._last_answer = time.monotonic()

    async def answer(self, request: CaptionRequest) -> CaptionAnswer:
        messages = self._messages(request)
        num_tries = num_lost = 0
        while True:
            alone = self._suspects if num_lost >= NUM_LOST else contextlib.nullcontext()
            async with alone, self._endpoints.one() as endpoint:
                try:
                    return self._answered(await self._send(endpoint, request, messages))
                except _Refused as error:
                    return self._refused(str(error))
                except _Unreached:
                    continue
                except _Failed as error:
                    failed = error
            num_tries += 1
            num_lost += failed.was_lost
            if num_tries == self._config.num_tries:
                return self._given_up(f"{failed} ({num_tries} tries)")
            self.retries[failed.cause] += 1
            longest = min(self._config.backoff * 2 ** (num_tries - 1), MAX_BACKOFF)
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    async def close(self) -> None:
        await self._endpoints.close()

    async def _send(
        self, endpoint: Endpoint, request: CaptionRequest, messages: list[Any]
    ) -> CaptionAnswer:
        sampling = self._prompts[request.prompt_id].sampling
        seed = seed_of(request.prompt_id, request.key, sampling.seed)
        try:
            completion = await endpoint.client.chat.completions.create(
                model=self._endpoints.model,
                messages=messages,
                **sampling_arguments(sampling, seed, endpoint.is_vllm),
            )
            return read_completion(completion)
        except openai.APIConnectionError as error:  # time-outs, too
            self._sort_connection_error(endpoint, error)
        except openai.APIStatusError as error:
            self._sort_status(endpoint, error)
        # What is no JSON, or not of this shape, comes out of the library as several classes.
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError) as error:
            raise _Failed("malformed", self._endpoints.tell(error)) from error
        raise AssertionError("both sort by raising")

    def _sort_connection_error(self, endpoint: Endpoint, error: openai.APIConnectionError) -> None:
        if not was_reached(error):
            self._endpoints.leave_out(endpoint, error)
            raise _Unreached from error
        if isinstance(error, openai.APITimeoutError):
            raise _Failed("timeout", f"no answer in {self._config.timeout:g} s") from error
        self._endpoints.leave_out(endpoint, error)
        raise _Failed("connection", self._endpoints.tell(error), was_lost=True) from error

    def _sort_status(self, endpoint: Endpoint, error: openai.APIStatusError) -> None:
        status, text = error.status_code, self._endpoints.tell(error)
        if status in (401, 403):
            raise UserError(
                f"{endpoint.url} refuses the key of engine.server.api_key_variable: {text}"
            ) from error
        if status == 404:
            raise UserError(
                f"{endpoint.url} has no chat with {self._endpoints.model!r}: {text}. See "
                "engine.server.model, and whether engine.server.url ends in /v1"
            ) from error
        if error.code == "insufficient_quota":
            raise UserError(f"{endpoint.url}: {text}") from error
        if status not in (408, 409, 429) and status < 500:
            raise _Refused(text) from error
        if status in (502, 503):  # by a proxy whose server is away
            self._endpoints.leave_out(endpoint, error)
        self._endpoints.let_rest(endpoint, error)
        raise _Failed(f"http-{status}", text) from error

    def _messages(self, request: CaptionRequest) -> list[Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        if request.image is not None:
            image = request.image
            encoded = image if isinstance(image, EncodedImage) else self.encoding.encode(image)
            content.insert(0, {"type": "image_url", "image_url": {"url": encoded.data_url}})
        system = self._prompts[request.prompt_id].system
        messages: list[Any] = [{"role": "system", "content": system}] if system else []
        return [*messages, {"role": "user", "content": content}]

    def _answered(self, answer: CaptionAnswer) -> CaptionAnswer:
        self._refusals.answered()
        self._num_given_up = 0
        self._last_answer = time.monotonic()
        return answer

    def _refused(self, reason: str) -> CaptionAnswer:
        """Raises: UserError: the first requests are all refused, which is no fault of theirs."""
        self._last_answer = time.monotonic()
        return self._refusals.refused(str(self._endpoints.model), reason)

    def _given_up(self, reason: str) -> CaptionAnswer:
        """Raises: UserError: it is so with all requests, for long."""
        self._num_given_up += 1
        seconds = time.monotonic() - self._last_answer
        if self._num_given_up >= NUM_SUSPICIOUS and seconds > self._config.patience:
            raise UserError(
                f"no request was answered for {seconds:.0f} s (engine.server.patience), the last "
                f"one met: {reason}. Look at the server; `retry` asks again what failed"
            )
        return CaptionAnswer(failure=f"server-failed: {reason}")


class _Refused(Exception):
    """The server takes other requests, and not this one."""


class _Unreached(Exception):
    """The request was not sent."""


class _Failed(Exception):
    """The request may do better another time."""

    def __init__(self, cause: str, text: str, was_lost: bool = False) -> None:
        super().__init__(text)
        self.cause, self.was_lost = cause, was_lost


def sampling_arguments(sampling: SamplingConfig, seed: int, is_vllm: bool) -> dict[str, Any]:
    """What a request says about sampling; what the API does not know only where it is needed.

    vLLM takes what is left out from the model's ``generation_config.json``, so it is told all.
    """
    further: dict[str, Any] = {}
    if is_vllm or sampling.top_k != 0:
        further["top_k"] = sampling.top_k or -1
    if is_vllm or sampling.repetition_penalty != 1.0:
        further["repetition_penalty"] = sampling.repetition_penalty
    if is_vllm:
        further["min_p"] = 0.0
    arguments: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.stop:
        arguments["stop"] = sampling.stop
    if sampling.temperature > 0:
        arguments["seed"] = seed
    if further:
        arguments["extra_body"] = further
    return arguments


def read_completion(completion: Any) -> CaptionAnswer:
    """Raises: AttributeError, IndexError, TypeError, ValueError: it is no completion."""
    choice = completion.choices[0]
    caption, finish_reason = choice.message.content, choice.finish_reason
    if caption is None and getattr(choice.message, "refusal", None):
        return CaptionAnswer(failure=f"prompt-refused: {choice.message.refusal}"[:300])
    if finish_reason not in ("stop", "length"):
        return CaptionAnswer(failure=f"server-failed: finish reason {finish_reason}")
    if not isinstance(caption, str | None):
        raise TypeError(f"the caption is a {type(caption).__name__}")
    num_tokens = getattr(completion.usage, "completion_tokens", None)
    return CaptionAnswer(
        (caption or "").strip(),
        num_tokens=num_tokens if isinstance(num_tokens, int) else None,
        finish_reason=finish_reason,
    )
