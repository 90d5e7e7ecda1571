"""Many together, or one alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """Lets requests run together until one wants to be alone, which then waits for all others.

    Of those that want to be alone one has it at a time; they go before those that run together.
    """

    def __init__(self) -> None:
        self._alone = asyncio.Lock()
        self._open = asyncio.Event()
        self._empty = asyncio.Event()
        self._open.set()
        self._empty.set()
        self._num_together = 0

    @contextlib.asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        while not self._open.is_set():
            await self._open.wait()
        self._num_together += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._num_together -= 1
            if self._num_together == 0:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._alone:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()
