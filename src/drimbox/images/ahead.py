"""Prepare the next things while the present one is being sent: in order, a few at a time, with backpressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")


@asynccontextmanager
async def prepared_ahead(
    source: AsyncIterator[_S],
    prepare: Callable[[_S], Awaitable[_T]],
    discard: Callable[[_T], None],
    *,
    width: int,
) -> AsyncIterator[AsyncIterator[_T]]:
    """What ``prepare`` makes of each element of ``source``, in its order; ``width`` are in preparation at most.

    ``source`` is not asked for more than that, so a slow reader slows it down. What ``source`` or ``prepare`` raises
    comes out at its place in the order. Leaving the block cancels everything; what was prepared and not taken is
    discarded.
    """
    tasks: set[asyncio.Task[_T]] = set()
    queue: asyncio.Queue[asyncio.Task[_T] | None] = asyncio.Queue()
    places = asyncio.Semaphore(width)

    async def produce() -> None:
        try:
            while True:
                await places.acquire()
                try:
                    element = await anext(source)
                except StopAsyncIteration:
                    return
                task = asyncio.ensure_future(prepare(element))
                assert isinstance(task, asyncio.Task)
                tasks.add(task)
                queue.put_nowait(task)
        finally:
            queue.put_nowait(None)

    async def take() -> AsyncIterator[_T]:
        while (task := await queue.get()) is not None:
            item = await asyncio.shield(task)
            tasks.discard(task)
            yield item
            places.release()
        await producer

    producer = asyncio.create_task(produce())
    try:
        yield take()
    finally:
        producer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(producer, *tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                discard(task.result())
