"""The HTTP server holds its bounds: size of a request's head, time to send a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from drimbox.foundation import http_server
from drimbox.foundation.http_server import MAX_HEAD_BYTES, MAX_HEADERS, serving

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = Starlette(routes=[Route("/", _answer, methods=["GET", "POST"])])
    async with serving(app, host="127.0.0.1", port=0, tls=None) as port:
        yield port


async def _told(port: int, *pieces: bytes) -> bytes:
    """What the server says to these bytes until it closes; empty when it cuts without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = b""
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while data := await reader.read(4096):
                    told += data
    finally:
        writer.close()
    return told


async def test_a_request_within_the_bounds_is_answered_body_and_all(port: int) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 500) for n in range(80))
    body = b"b" * 3_000_000
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    told = await _told(port, head + fields + b"\r\n" + body)
    assert told.startswith(b"HTTP/1.1 200")
    assert told.endswith(b"3000000")


async def test_requests_in_one_piece_are_each_counted_alone(port: int) -> None:
    one = ASK + b"X: " + b"v" * 40_000 + b"\r\n\r\n"
    last = ASK + b"Connection: close\r\n\r\n"
    assert (await _told(port, one * 4 + last)).count(b"HTTP/1.1 200") == 5


@pytest.mark.parametrize(
    "head",
    [
        ASK + b"X: " + b"v" * MAX_HEAD_BYTES + b"\r\n\r\n",
        ASK + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"GET /" + b"u" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["a long field", "many fields", "a long address"],
)
async def test_a_head_over_the_bounds_is_refused(port: int, head: bytes) -> None:
    assert (await _told(port, head)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("start", [ASK + b"X: ", ASK + b"X", b"GET /"], ids=["field", "field name", "address"])
async def test_a_head_without_end_is_cut(port: int, start: bytes) -> None:
    told = await _told(port, start, *[b"v" * 2**16] * 20)
    assert told == b"" or told.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", ASK, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
async def test_a_request_that_does_not_come_whole_is_cut(
    port: int, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.2)
    started = asyncio.get_running_loop().time()
    assert b"200 OK" not in await _told(port, said)
    assert asyncio.get_running_loop().time() - started < 5


async def test_the_time_starts_again_with_each_request(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(ASK + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"0"
        await asyncio.sleep(0.2)
    writer.close()
