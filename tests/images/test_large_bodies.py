"""Bodies in large pieces, as images leave: whole and in order, bounded by what the client reads."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from drimbox.foundation.http_server import serving
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

PIECE = 700_000


class App:
    """Sends ``pieces``; counts those that were taken from it."""

    def __init__(self, pieces: list[bytes], *, length: bool = False) -> None:
        self.pieces = pieces
        self.length = length
        self.taken = 0
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = str(sum(map(len, self.pieces))).encode()
        headers = [(b"content-length", size)] if self.length else []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for piece in self.pieces:
                # A buffer of its own, as where images are read into.
                await send({"type": "http.response.body", "body": bytearray(piece), "more_body": True})
                self.taken += 1
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.over.set()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = TestAuthority(tmp_path_factory.mktemp("pki"))
    names = {"unit": "1", "organisation": "X"}
    server = authority.issue(Profile.SSL_SERV, "server", common_name="localhost", hosts=("localhost",), **names)
    peer = authority.issue(Profile.ORG_AUTH_CLI, "peer", common_name="peer", **names)
    trust = load_trust([authority.roots], authority.revocation_lists)
    listener = server_context(load_credential(server.certificate, server.key), trust)
    return listener, client_context(trust, load_credential(peer.certificate, peer.key))


@asynccontextmanager
async def asked(
    app: App, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None, method: str = "GET"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listener, caller = tls or (None, None)
    async with serving(app, host="127.0.0.1", port=0, tls=listener) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=caller, server_hostname="localhost" if caller else None
        )
        writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def whole(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" not in head:
        return head, await reader.read()
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.read() == b"\r\n"
    return head, bytes(body)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_a_body_arrives_as_it_was_sent(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool, length: bool, seed: int
) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 16_383, 16_384, 16_385, 262_144, 262_145, PIECE)) for _ in range(12)]
    pieces = [rng.randbytes(size) for size in sizes]
    app = App(pieces, length=length)
    async with asked(app, contexts if secure else None) as (reader, _):
        head, body = await whole(reader)
    assert body == b"".join(pieces)
    assert (b"chunked" in head) is not length


@pytest.mark.parametrize("secure", [False, True])
async def test_a_head_has_no_body(contexts: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool) -> None:
    async with asked(App([b"x" * PIECE]), contexts if secure else None, "HEAD") as (reader, _):
        head, rest = await whole(reader)
    assert head.startswith(b"HTTP/1.1 200")
    assert rest == b""


@pytest.mark.parametrize("secure", [False, True])
async def test_what_nobody_reads_is_not_asked_for(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool
) -> None:
    app = App([bytes([number % 251]) * PIECE for number in range(60)])
    async with asked(app, contexts if secure else None) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        taken = -1
        while taken != app.taken:
            taken = app.taken
            await asyncio.sleep(0.2)
        # The sockets of both sides take some megabytes; memory takes no more than a few pieces.
        assert taken < 40
        size = int(await reader.readline(), 16)
        assert await reader.readexactly(size) == app.pieces[0]
    # The client has left in the middle: whoever sends is not left waiting.
    await asyncio.wait_for(app.over.wait(), 10)
