"""Servers that share requests: which one is asked next, and what happens while one is away.

One that cannot be reached is left out until it lists its models again, which it is asked for more
and more rarely. One that says ``Retry-After`` is left alone for so long. When none is left,
requests wait; after ``engine.server.patience`` seconds of that the run ends.
"""

import asyncio
import email.utils
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import openai

from recaption.common.config import UserError
from recaption.engine.server_settings import ServerConfig, api_key

#: Seconds for a connection, and for the list of models.
CONNECT_TIMEOUT = 10.0
#: Seconds after which it is said that the first server is waited for.
TELL_AFTER = 5.0
#: Longest wait between two questions whether a server is back, seconds.
MAX_PROBE_INTERVAL = 10.0


class Endpoint:
    """One server."""

    def __init__(self, url: str, client: openai.AsyncOpenAI) -> None:
        self.url, self.client = url, client
        self.num_in_flight = 0
        self.num_asked = 0
        #: When it may be asked again, by the monotonic clock.
        self.rests_until = 0.0
        #: Since when it cannot be reached; None while it can.
        self.down_since: float | None = time.monotonic()
        self.last_error = ""
        #: Whether it was said that it is away.
        self.was_told = False
        #: Names of its models; empty where it does not list them.
        self.models: list[str] = []
        #: vLLM takes sampling parameters that the API does not know.
        self.is_vllm = False


class Endpoints:
    """Use as a context manager: entering waits for the first server.

    Raises:
        UserError: none can be reached, or the first has not the model, or the key is missing.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._key = api_key(config)
        self._endpoints = [
            Endpoint(
                url,
                openai.AsyncOpenAI(
                    base_url=url,
                    # Else the library takes one from the environment, which is for another server.
                    api_key=self._key or "none",
                    max_retries=0,  # a second try may go to another server
                    timeout=openai.Timeout(config.timeout, connect=CONNECT_TIMEOUT),
                ),
            )
            for url in config.urls
        ]
        self._probes: dict[Endpoint, asyncio.Task[None]] = {}
        #: The model that is asked: the one of the configuration, or the only one there.
        self.model = config.model

    async def __aenter__(self) -> Self:
        for endpoint in self._endpoints:
            self._probes[endpoint] = asyncio.create_task(self._wait_for(endpoint, delay=0.0))
        try:
            first = await self._choose()
            if not self.model:
                if len(first.models) != 1:
                    listed = ", ".join(first.models) or "none"
                    raise UserError(
                        f"{first.url} lists as models: {listed}; give one as engine.server.model"
                    )
                self.model = first.models[0]
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        for task in self._probes.values():
            task.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        for endpoint in self._endpoints:
            await endpoint.client.close()

    @property
    def num_up(self) -> int:
        return sum(endpoint.down_since is None for endpoint in self._endpoints)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Endpoint]:
        """The server with the fewest requests; waits while there is none.

        Raises:
            UserError: there has been none for too long, or it has not the model.
        """
        endpoint = await self._choose()
        endpoint.num_in_flight += 1
        endpoint.num_asked += 1
        try:
            yield endpoint
        finally:
            endpoint.num_in_flight -= 1

    def leave_out(self, endpoint: Endpoint, error: Exception) -> None:
        """It cannot be reached: others are asked until it is back."""
        endpoint.last_error = self.tell(error)
        if endpoint.down_since is None:
            endpoint.down_since = time.monotonic()
            _tell_away(endpoint)
            self._probes[endpoint] = asyncio.create_task(self._wait_for(endpoint, delay=0.25))

    def let_rest(self, endpoint: Endpoint, error: openai.APIStatusError) -> None:
        """Leaves the server alone for as long as its answer asks for.

        Raises:
            UserError: that is longer than the patience of the run.
        """
        seconds = _retry_after(error.response.headers)
        if seconds > self._config.patience:
            raise UserError(
                f"{endpoint.url} asks to wait for {seconds:.0f} s, longer than "
                f"engine.server.patience: {self.tell(error)}"
            )
        endpoint.rests_until = max(endpoint.rests_until, time.monotonic() + seconds)

    def tell(self, error: BaseException) -> str:
        """An error in one line that does not show the key, which servers may repeat."""
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        text = " ".join(f"{type(cause or error).__name__}: {cause or error}".split())
        return (text.replace(self._key, "***") if self._key else text)[:300]

    async def _choose(self) -> Endpoint:
        while True:
            now = time.monotonic()
            up = [endpoint for endpoint in self._endpoints if endpoint.down_since is None]
            ready = [endpoint for endpoint in up if endpoint.rests_until <= now]
            if ready:
                chosen = min(ready, key=lambda one: (one.num_in_flight, one.num_asked))
                self._check_model(chosen)
                return chosen
            if up:
                wait = min(endpoint.rests_until for endpoint in up) - now
                # Not all at the same moment.
                await asyncio.sleep(wait + random.uniform(0, min(1.0, 0.1 * wait)))
                continue
            self._check_patience(now)
            for endpoint in self._endpoints:
                if not endpoint.was_told and now - (endpoint.down_since or now) > TELL_AFTER:
                    _tell_away(endpoint)
            await asyncio.sleep(0.1)

    def _check_patience(self, now: float) -> None:
        newest = max(self._endpoints, key=lambda endpoint: endpoint.down_since or 0.0)
        if now - (newest.down_since or now) > self._config.patience:
            raise UserError(
                f"no server at {', '.join(self._config.urls)} for {self._config.patience:.0f} s "
                f"({newest.last_error}): start it, then run the same command again; what is "
                "answered is kept"
            )

    def _check_model(self, endpoint: Endpoint) -> None:
        if self.model and endpoint.models and self.model not in endpoint.models:
            raise UserError(
                f"engine.server.model: {endpoint.url} has no {self.model!r}, but "
                f"{', '.join(endpoint.models)[:300]}"
            )

    async def _wait_for(self, endpoint: Endpoint, delay: float) -> None:
        """Asks a server for its models until it answers."""
        while True:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(max(2 * delay, 0.25), MAX_PROBE_INTERVAL)
            try:
                page: Any = await endpoint.client.models.list(timeout=CONNECT_TIMEOUT)
                listed = [model for model in page.data if isinstance(model.id, str)]
            except openai.APIStatusError as error:
                if error.status_code >= 500:
                    endpoint.last_error = self.tell(error)
                    continue
                listed = []  # it is there; what it thinks of the key, the first request tells
            except openai.APIConnectionError as error:
                endpoint.last_error = self.tell(error)
                continue
            except (openai.OpenAIError, AttributeError, TypeError, ValueError):
                listed = []  # it is there, and lists nothing that can be read
            endpoint.models = [model.id for model in listed]
            endpoint.is_vllm = any(getattr(model, "owned_by", "") == "vllm" for model in listed)
            if endpoint.was_told:
                away = time.monotonic() - (endpoint.down_since or 0.0)
                print(f"{endpoint.url} is back after {away:.0f} s", file=sys.stderr, flush=True)
            endpoint.down_since, endpoint.was_told = None, False
            return


def _tell_away(endpoint: Endpoint) -> None:
    endpoint.was_told = True
    text = f"warning: {endpoint.url} is away and waited for: {endpoint.last_error}"
    print(text, file=sys.stderr, flush=True)


def was_reached(error: openai.APIConnectionError) -> bool:
    """Whether the server may have had the request before the connection was lost."""
    # By name: the library's versions raise the errors of httpx or of httpx2.
    return type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")


def _retry_after(headers: Any) -> float:
    """Seconds; 0 where nothing is said or understood."""
    value = headers.get("retry-after", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return 0.0
