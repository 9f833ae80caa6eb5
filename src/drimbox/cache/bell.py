"""Wakes all who wait for something to change."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung by whoever changed something; who waits looks again. For one event loop."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    async def wait(self) -> None:
        """Until it rings."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        # One who is cancelled does not wake the others.
        await asyncio.shield(self._next)
