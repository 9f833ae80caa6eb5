"""Prepare the next things while the present one is being sent: in order, a few at a time, with backpressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
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
    at_once: Callable[[_S], _T | None] = lambda _: None,
) -> AsyncIterator[AsyncIterator[_T]]:
    """What ``prepare`` makes of each element of ``source``, in its order; ``width`` are in preparation at most.

    ``source`` is not asked for more than that, so a slow reader slows it down. As long as ``at_once`` gives what is to
    be made, nothing is prepared ahead, since nothing has to be waited for. What ``source`` or ``prepare`` raises comes
    out at its place in the order. Leaving the block cancels everything; what was prepared and not taken is discarded.
    """
    tasks: set[asyncio.Task[_T]] = set()
    queue: asyncio.Queue[asyncio.Task[_T] | None] = asyncio.Queue()
    places = asyncio.Semaphore(width)
    producers: list[asyncio.Task[None]] = []

    async def produce(first: _S) -> None:
        def begin(element: _S) -> None:
            task = asyncio.ensure_future(prepare(element))
            assert isinstance(task, asyncio.Task)
            tasks.add(task)
            queue.put_nowait(task)

        try:
            await places.acquire()
            begin(first)
            while True:
                await places.acquire()
                try:
                    begin(await anext(source))
                except StopAsyncIteration:
                    return
        finally:
            queue.put_nowait(None)

    async def take() -> AsyncGenerator[_T, None]:
        async for element in source:
            if (item := at_once(element)) is None:
                break
            yield item
        else:
            return
        producer = asyncio.create_task(produce(element))
        producers.append(producer)
        while (task := await queue.get()) is not None:
            item = await asyncio.shield(task)
            tasks.discard(task)
            yield item
            places.release()
        await producer

    try:
        async with aclosing(take()) as taken:
            yield taken
    finally:
        for one in (*producers, *tasks):
            one.cancel()
        await asyncio.gather(*producers, *tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                discard(task.result())
