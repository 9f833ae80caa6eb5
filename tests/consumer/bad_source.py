"""A source that does to each series what its address is told to suffer, by hand on the wire."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BOUNDARY = b"limite"
_HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: multipart/related; type="application/dicom"; boundary=limite\r\n'
_PART = b"\r\n--limite\r\nContent-Type: application/dicom\r\n\r\n"
_ENDLESS = 2000


@dataclass
class BadSource:
    """``files`` are the images of each series by its path, ``ways`` how it misbehaves for it."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    alive: bool = True
    sent: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._answer(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    def close(self) -> None:
        """Let go of whoever still waits."""
        for writer in self._open:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        if method == "OPTIONS":
            status = "200 OK" if self.alive else "503 Service Unavailable"
            await self._send(writer, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        way = self.ways.get(path, "good")
        self.asked.append((path, way, headers.get("authorization", "")))
        if way.isdecimal():
            answer = f"HTTP/1.1 {way} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            await self._send(writer, answer.encode())
            return
        await _WAYS[way](self, writer, [p.read_bytes() for p in self.files.get(path, [])])

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()
        self.sent += len(data)

    async def good(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n")
        for image in images:
            await self._send(writer, _PART + image)
        await self._send(writer, b"\r\n--limite--\r\n")

    async def slow(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        """The first image, then nothing until the test lets it go on."""
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n" + _PART + images[0] + _PART)
        await self.gate.wait()
        for number, image in enumerate(images[1:]):
            await self._send(writer, (_PART if number else b"") + image)
        await self._send(writer, b"\r\n--limite--\r\n")

    async def silent(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n" + _PART + images[0][:100])
        await asyncio.Event().wait()

    async def truncated(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n" + _PART + images[0] + _PART + images[1][:200])

    async def short(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        """A clean end, one image too early."""
        await self.good(writer, images[:-1])

    async def endless(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        """One image that never ends."""
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n" + _PART + images[0])
        for _ in range(_ENDLESS):
            await self._send(writer, bytes(2**16))

    async def multiplying(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        """Images without end."""
        await self._send(writer, _HEAD + b"Connection: close\r\n\r\n")
        for _ in range(_ENDLESS):
            await self._send(writer, _PART + images[0])

    async def enormous(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        """Announces 10 GB, and begins."""
        await self._send(writer, _HEAD + b"Content-Length: 10000000000\r\n\r\n" + _PART + images[0])
        for _ in range(_ENDLESS):
            await self._send(writer, bytes(2**16))

    async def page(self, writer: asyncio.StreamWriter, images: list[bytes]) -> None:
        body = b"<html><body>Maintenance en cours</body></html>"
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + length + body)


_Way = Callable[[BadSource, asyncio.StreamWriter, list[bytes]], Awaitable[None]]
_WAYS: dict[str, _Way] = {
    "good": BadSource.good,
    "slow": BadSource.slow,
    "silent": BadSource.silent,
    "truncated": BadSource.truncated,
    "short": BadSource.short,
    "endless": BadSource.endless,
    "multiplying": BadSource.multiplying,
    "enormous": BadSource.enormous,
    "page": BadSource.page,
}
