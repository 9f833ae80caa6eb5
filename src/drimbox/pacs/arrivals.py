"""From the threads where instances land to the event loop of who reads them: one retrieve, start to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from drimbox.pacs.delivery import Delivery, Expectation, Pressure
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.inbox import Inbox

_log = logging.getLogger(__name__)
Carry = Callable[[Delivery], Coroutine[None, None, None]]
"""Brings what a delivery awaits; ends when all has landed, raises what says why not, and stops when it is cancelled."""


@asynccontextmanager
async def delivering(
    inbox: Inbox, expectation: Expectation, pressure: Pressure, carry: Carry, *, by_receiver: bool
) -> AsyncIterator[AsyncIterator[StoredInstance]]:
    """What is awaited as it lands; its files are good until the block is left, which cancels what still comes.

    ``by_receiver``: the instances come over associations that the PACS opens to our receiver.
    """
    arrivals = _Arrivals()
    opened = inbox.expect if by_receiver else inbox.alone
    delivery = opened(expectation, arrivals.put, arrivals.fail, pressure)
    runner = asyncio.create_task(carry(delivery))
    runner.add_done_callback(lambda _: arrivals.end())
    given = _given(arrivals, delivery, runner)
    try:
        yield given
    finally:
        # In a thread: removing the files of a large series takes a while.
        await asyncio.to_thread(inbox.end, delivery)
        await _ended(runner)
        # What brought it may have been writing while its folder went.
        await asyncio.to_thread(delivery.close)
        await given.aclose()


async def _given(
    arrivals: _Arrivals, delivery: Delivery, runner: asyncio.Task[None]
) -> AsyncGenerator[StoredInstance, None]:
    while (stored := await arrivals.next()) is not None:
        delivery.taken(stored)
        yield stored
    if delivery.error is not None:
        raise delivery.error
    # Ended: either everything is there, or this says why not.
    await asyncio.shield(runner)


async def _ended(runner: asyncio.Task[None]) -> None:
    """What brought it is over, cancelled where it still ran; what it says has been told, or nobody waits for it."""
    runner.cancel()
    await asyncio.wait([runner])
    if not runner.cancelled() and (error := runner.exception()) is not None:
        _log.debug("retrieve left with %r", error)


class _Arrivals:
    """Instances on their way from the threads where they land to the event loop of the reader."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[StoredInstance | None] = asyncio.Queue()
        self._over = False

    def put(self, stored: StoredInstance) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, stored)

    def fail(self) -> None:
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def next(self) -> StoredInstance | None:
        if self._over:
            return None
        stored = await self._queue.get()
        self._over = stored is None
        return stored
