"""Things that start side by side and stop side by side, and none of which is ever left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def all_of(*work: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all, in order. Once one has failed, or we are told to stop, none goes on unwatched."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """``all_of`` two that give different things."""
    results: list[Any] = await all_of(first, second)
    return results[0], results[1]


async def together(stack: AsyncExitStack, *managers: AbstractAsyncContextManager[T]) -> list[T]:
    """Enter them all at once; ``stack`` leaves them all at once, those too that were up when another failed.

    Raises what the first of them raised.
    """
    entered: list[AbstractAsyncContextManager[T]] = []

    async def leave() -> None:
        failures = await asyncio.gather(
            *(manager.__aexit__(None, None, None) for manager in entered), return_exceptions=True
        )
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure

    async def enter(manager: AbstractAsyncContextManager[T]) -> T:
        value = await manager.__aenter__()
        entered.append(manager)
        return value

    stack.push_async_callback(leave)
    return await all_of(*(enter(manager) for manager in managers))


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[T], stop: threading.Event) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager without blocking the loop.

    ``stop`` is set when we are told to stop while it is being entered: it should then raise as soon as it can.
    """
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: what it starts all the same is stopped once it has.
        stop.set()
        await asyncio.wait([entering])
        if entering.exception() is None:
            await asyncio.to_thread(manager.__exit__, None, None, None)
        raise
    try:
        yield value
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
