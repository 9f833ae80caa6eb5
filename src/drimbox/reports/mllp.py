"""MLLP: frames around HL7 messages on a TCP connection (HL7 v2.5.1, appendix C).

``Framer`` is the protocol without any I/O; ``MllpServer`` moves the bytes, answers in order, and holds the limits.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

START = b"\x0b"
END = b"\x1c\x0d"
_HEAD = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame's content; ``whole`` is False when it was over the limit and only its head was kept."""

    content: bytes
    whole: bool = True


class Framer:
    """Cuts a stream of bytes into frames. Bytes between frames are ignored; an over-long frame keeps its head only."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._buffer = bytearray()
        self._inside = False
        self._overlong = False
        self.received = 0

    @property
    def inside(self) -> bool:
        """Has a frame begun and not ended?"""
        return self._inside

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes."""
        frames = []
        while data:
            if not self._inside:
                start = data.find(START)
                if start < 0:
                    break
                self._inside, self._overlong, self.received = True, False, 0
                self._buffer.clear()
                data = data[start + 1 :]
                continue
            before = len(self._buffer)
            self._buffer += data
            self.received += len(data)
            # The end mark may be cut between two reads.
            end = self._buffer.find(END, max(0, before - 1))
            if end < 0:
                self._cut_overlong()
                break
            data = self._kept(end + len(END), len(self._buffer))
            frames.append(self._frame(end))
            self._inside = False
            self._buffer.clear()
        return frames

    def _frame(self, end: int) -> Frame:
        if self._overlong or end > self._max:
            return Frame(self._kept(0, min(end, _HEAD)), whole=False)
        return Frame(self._kept(0, end))

    def _kept(self, start: int, end: int) -> bytes:
        """A part of the buffer, copied once."""
        with memoryview(self._buffer) as view:
            return bytes(view[start:end])

    def _cut_overlong(self) -> None:
        if len(self._buffer) > self._max or self._overlong:
            self._overlong = True
            # The last byte stays: it may be the first half of the end mark.
            del self._buffer[_HEAD:-1]


Handler = Callable[[Frame, str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may do. Times in seconds; a frame over ``max_bytes`` is answered and dropped."""

    max_bytes: int = 64 * 2**20
    max_connections: int = 64
    idle_timeout: float = 3600.0
    message_timeout: float = 60.0
    # An over-long frame is read to its end (and thrown away) so that its sender gets an answer, but not for ever.
    max_discarded: int = 2**30


@asynccontextmanager
async def listening(
    handler: Handler, *, host: str, port: int, limits: Limits, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Accept connections until the block ends; yields the port. Each frame goes to ``handler``.

    ``handler`` gets the frame and the peer's address; what it raises closes that connection and no other.
    """
    server = _Connections(handler, limits)
    listener = await asyncio.start_server(server.serve, host, port, ssl=tls, limit=2**18)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.close()


class _Connections:
    """The open connections: counted, and closed together."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let the messages being answered get their answer, then close."""
        for task in self._tasks - self._busy:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=10)
            for task in late:
                task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = str(writer.get_extra_info("peername", ("?",))[0])
        if len(self._tasks) >= self._limits.max_connections:
            _log.warning("MLLP connection refused: too many", extra={"peer": peer})
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._talk(reader, writer, peer, task)
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            _log.info("MLLP connection ended: %s", type(error).__name__, extra={"peer": peer})
        except asyncio.CancelledError:
            # Only the server's own end cancels us; the connection ends quietly.
            _log.debug("MLLP connection closed at the end of the service")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str, task: asyncio.Task[None]
    ) -> None:
        framer = Framer(self._limits.max_bytes)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.idle_timeout
        while True:
            async with asyncio.timeout_at(deadline):
                data = await reader.read(2**18)
            if not data:
                return
            was_inside = framer.inside
            for frame in framer.feed(data):
                self._busy.add(task)
                try:
                    reply = await self._handler(frame, peer)
                    writer.write(START + reply + END)
                    async with asyncio.timeout(self._limits.message_timeout):
                        await writer.drain()
                finally:
                    self._busy.discard(task)
                was_inside = False
            if framer.received > self._limits.max_discarded:
                _log.warning("MLLP frame without end", extra={"peer": peer})
                return
            if not framer.inside:
                deadline = loop.time() + self._limits.idle_timeout
            elif not was_inside:
                deadline = loop.time() + self._limits.message_timeout
