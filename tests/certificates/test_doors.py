"""The listener of HTTP-01: the answer to a validation, a redirect, and nothing else whatever is asked."""

from __future__ import annotations

import asyncio
import datetime as dt

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates.acme_world import HOST, MovedClock, lookup_on
from drimbox.certificates import records
from drimbox.certificates.doors import WELL_KNOWN, http_door
from drimbox.foundation.http_server import serving
from drimbox.store.database import Pool

DATABASE = (psycopg.OperationalError,)


async def talk(port: int, request: bytes) -> tuple[bytes, bytes]:
    """One request in raw octets; head and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def get(path: str, method: str = "GET", host: str = HOST) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.requirement("DB.SO.90")
async def test_only_the_validation_under_way_is_answered(pool: Pool) -> None:
    clock = MovedClock()
    async with pool.connection() as connection:
        expires = clock.now() + dt.timedelta(hours=1)
        for token, host, kind in (
            ("good", HOST, "http-01"),
            ("other", "b.example.org", "http-01"),
            ("tls", HOST, "tls-alpn-01"),
        ):
            await records.announce(connection, records.Challenge(token, host, kind, f"{token}.proof", expires))
        past = clock.now() - dt.timedelta(seconds=1)
        await records.announce(connection, records.Challenge("old", HOST, "http-01", "old.proof", past))
    door = http_door(HOST, lookup_on(pool, clock, HOST), DATABASE)
    async with serving(door, host="127.0.0.1", port=0, tls=None) as port:
        head, body = await talk(port, get(f"{WELL_KNOWN}good"))
        assert head.startswith(b"HTTP/1.1 200")
        assert b"application/octet-stream" in head
        assert body == b"good.proof"
        assert (await talk(port, get(f"{WELL_KNOWN}good", "HEAD")))[1] == b""
        for token in ("other", "tls", "old", "unknown", "", "good/", "../good", "good%00", "a" * 600, "good.proof"):
            head, body = await talk(port, get(WELL_KNOWN + token))
            assert head.startswith(b"HTTP/1.1 404"), (token, head)
            assert body == b""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            head, body = await talk(port, get("/", method))
            assert head.startswith(b"HTTP/1.1 405"), (method, head)
            assert body == b""


@pytest.mark.requirement("DB.SO.90")
async def test_everything_else_is_sent_to_https_of_our_own_name(pool: Pool) -> None:
    door = http_door(HOST, lookup_on(pool, MovedClock(), HOST), DATABASE)
    async with serving(door, host="127.0.0.1", port=0, tls=None) as port:
        for asked, place in (
            ("/", "/"),
            (
                "/IHEInvokeImageDisplay?requestType=STUDY&studyUID=1.2.3",
                "/IHEInvokeImageDisplay?requestType=STUDY&studyUID=1.2.3",
            ),
            ("//evil.example.org/x", "/evil.example.org/x"),
            ("/%5C%5Cevil.example.org", "/evil.example.org"),
            ("/a%0d%0aSet-Cookie:%20x=1", "/a%0D%0ASet-Cookie:%20x=1"),
            ("/%C3%A9", "/%C3%A9"),
        ):
            head, body = await talk(port, get(asked, host="evil.example.org"))
            assert head.startswith(b"HTTP/1.1 308"), head
            assert f"location: https://{HOST}{place}".encode() in head.split(b"\r\n"), head
            assert b"set-cookie" not in head.lower().replace(b"set-cookie:%20", b"")
            assert body == b""


async def test_a_database_that_is_away_is_said_to_be(pool: Pool) -> None:
    async def lookup(token: str) -> str | None:
        raise psycopg.OperationalError("gone")

    async with serving(http_door(HOST, lookup, DATABASE), host="127.0.0.1", port=0, tls=None) as port:
        head, _ = await talk(port, get(f"{WELL_KNOWN}good"))
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in head


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_no_path_ends_a_header_line_or_leaves_our_name(path: bytes, query: bytes) -> None:
    sent: list[dict[str, object]] = []

    async def lookup(token: str) -> str | None:
        return None

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/" + path.decode("utf-8", "surrogateescape").replace("\udc80", "").encode("utf-8", "replace").decode(),
        "query_string": query,
        "headers": [],
    }
    asyncio.run(http_door(HOST, lookup, DATABASE)(scope, None, send))  # type: ignore[arg-type]
    headers = dict(sent[0]["headers"])  # type: ignore[call-overload]
    if sent[0]["status"] == 308:
        place = headers[b"location"]
        assert place.startswith(f"https://{HOST}/".encode())
        assert not set(place) & set(b'\r\n \x00"<>')
        assert not place.startswith(f"https://{HOST}//".encode())
