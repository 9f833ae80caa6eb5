"""A line between two programs: so many bytes a second, so long a way, for all that goes through it together.

Where network namespaces may not be made, this stands in for them; loss and jitter it knows not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_PIECE = 16 * 1024
# What is on its way: two round trips' worth, as the windows of TCP would allow.
_IN_FLIGHT_TRIPS = 2
_MADE_UP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Line:
    """``rate`` in bytes a second each way, ``round_trip`` in seconds; a rate of 0 knows no limit."""

    rate: float = 0.0
    round_trip: float = 0.0


NEAR = Line()
#: 100 Mbit/s and 30 ms: what issue and requirement name.
THIN = Line(100e6 / 8, 0.030)


class _Way:
    """One direction, shared by all connections: piece after piece, each arriving half a round trip later."""

    def __init__(self, line: Callable[[], Line]) -> None:
        self._line = line
        self._free = 0.0

    async def sent(self, size: int) -> float:
        """Wait until these bytes are on the line; the moment at which they arrive."""
        loop, line = asyncio.get_running_loop(), self._line()
        now = loop.time()
        if not line.rate:
            return now
        # A line does not slow down because this machine slept too long: what it missed just now it makes up for.
        self._free = max(self._free, now - _MADE_UP_SECONDS) + size / line.rate
        await asyncio.sleep(max(self._free - now, 0))
        return max(self._free, now) + line.round_trip / 2


class Shaper:
    """A port before another one. ``line`` may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.line = NEAR
        self.port = 0
        self._target = target
        self._ways = (_Way(lambda: self.line), _Way(lambda: self.line))
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            # The handshake of TCP is one round trip.
            await asyncio.sleep(self.line.round_trip)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(far_writer)
            await asyncio.gather(
                self._carry(reader, far_writer, self._ways[0]), self._carry(far_reader, writer, self._ways[1])
            )
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            for each in writers:
                each.close()
            await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        line = self.line
        deep = max(4, int(_IN_FLIGHT_TRIPS * line.rate * line.round_trip / _PIECE)) if line.rate else 64
        flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(deep)
        landing = asyncio.create_task(self._land(flying, writer))
        try:
            while piece := await reader.read(_PIECE):
                await flying.put((await way.sent(len(piece)), piece))
            await flying.put((0.0, b""))
            await landing
        finally:
            landing.cancel()

    async def _land(self, flying: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrives, piece = await flying.get()
            if (wait := arrives - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not piece:
                with suppress(OSError):
                    writer.write_eof() if writer.can_write_eof() else writer.close()
                return
            writer.write(piece)
            await writer.drain()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def shaped(port: int, target: int) -> AsyncIterator[Shaper]:
    """``port`` leads to ``target``, until the block ends."""
    shaper = Shaper(target)
    shaper.port = port
    server = await asyncio.start_server(shaper.accept, "127.0.0.1", port, limit=2**17)
    try:
        yield shaper
    finally:
        server.close()
        await shaper.stop()
