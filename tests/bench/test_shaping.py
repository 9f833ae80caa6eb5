"""The line that stands in for a network: as thin, and as long, as it says."""

from __future__ import annotations

import asyncio
import socket
import time

from drimbox.bench.consumer.shaping import NEAR, Line, shaped


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_line_is_as_thin_and_as_long_as_it_says() -> None:
    content = bytes(range(256)) * 4096

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(content)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def fetched(port: int) -> tuple[float, float]:
        """Seconds to the first octet, and to the last."""
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"give")
        received = await reader.read(1024)
        first = time.monotonic() - begun
        while more := await reader.read(2**16):
            received += more
        writer.close()
        await writer.wait_closed()
        assert received == content
        return first, time.monotonic() - begun

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    async with server, shaped(free_port(), target) as line:
        line.line = NEAR
        await fetched(line.port)
        line.line = Line(rate=10e6, round_trip=0.04)
        first, whole = await fetched(line.port)
        # Two round trips: the handshake, and the question with its answer.
        assert first >= 0.08
        assert whole >= len(content) / 10e6
        # Two at once share it.
        begun = time.monotonic()
        await asyncio.gather(fetched(line.port), fetched(line.port))
        assert time.monotonic() - begun >= 2 * len(content) / 10e6
