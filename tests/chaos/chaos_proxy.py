"""A TCP relay of the harness's own, between the box and a peer: it refuses, stalls, and cuts in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_ABORT = struct.pack("ii", 1, 0)


class Relay:
    """Passes bytes on, until told to misbehave."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut_after: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def refuse(self) -> None:
        """Whoever connects is turned away, and what is open is cut."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Nothing passes, nobody is told."""
        self._flowing.clear()

    def cut(self) -> None:
        """Every connection breaks (RST)."""
        for writer in tuple(self._open):
            _abort(writer)

    def cut_answer(self, after: int) -> None:
        """The next answer breaks off once ``after`` more bytes of it have passed; 0: the peer did it, nobody knows."""
        self._cut_after = after

    def heal(self) -> None:
        self._refusing = False
        self._cut_after = None
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _abort(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _abort(writer)
            return
        pair = (writer, far_writer)
        self._open.update(pair)
        tasks = [
            asyncio.create_task(self._up(reader, far_writer)),
            asyncio.create_task(self._down(far_reader, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # The other direction may still have an end to bring.
            await asyncio.wait(tasks, timeout=1)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in pair:
                self._open.discard(one)
                one.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            if self._cut_after is not None:
                if len(data) > self._cut_after:
                    writer.write(data[: self._cut_after])
                    self._cut_after = None
                    self.cuts += 1
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    _abort(writer)
                    return
                self._cut_after -= len(data)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            data = await reader.read(65536)
        except OSError:
            return b""
        await self._flowing.wait()
        return data


@asynccontextmanager
async def relaying(port: int, target: int) -> AsyncIterator[Relay]:
    """A relay from ``port`` to ``target``, both on this machine, until the block ends."""
    relay = Relay(port, target)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await relay.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield relay
    finally:
        relay.heal()
        server.close()
        relay.cut()


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
