"""Work in threads that an asynchronous program does not leave behind."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """As ``asyncio.to_thread``, but a task that is cancelled waits for the thread first.

    A thread cannot be stopped: what is given back or closed after a cancellation would still be
    in use.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
