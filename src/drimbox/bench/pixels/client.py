"""The least that a client of WADO-RS can do: ask, count the octets, keep none. The same for every server."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from ssl import SSLContext

from drimbox.bench.pixels.secured import Secured
from drimbox.foundation.errors import Unavailable

_BUFFER = 1 << 18
_SMALL = 1 << 16
_PATIENCE = 900.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is; ``headers`` are what it wants to be told (who asks, for which KOS)."""

    port: int
    base: str
    headers: tuple[tuple[str, str], ...] = ()
    tls: SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """Seconds to the first octet of the body and to the last, and how many there were."""

    first: float
    seconds: float
    bytes: int

    @property
    def rate(self) -> float:
        """MB a second."""
        return self.bytes / 1e6 / self.seconds


def as_stored(syntax: str = "*") -> str:
    """An Accept for DICOM files in a syntax."""
    return f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'


def fetch(address: Address, path: str, accept: str, *, pace: float = 0.0) -> Fetched:
    """One answer, to its end; at ``pace`` octets a second where that is given.

    The connection stands before the clock runs, as it does between two boxes. Raises ``Unavailable`` for any other
    answer than a whole 200.
    """
    with _connected(address, small=bool(pace)) as connection:
        begun = time.monotonic()
        connection.sendall(_request(address, path, accept))
        buffer = memoryview(bytearray(_SMALL if pace else _BUFFER))
        head, body = _head(connection, buffer)
        length = _length(head)
        count, tail, at = len(body), bytes(body[-8:]), time.monotonic() if body else 0.0
        ended = at
        # An answer of a known length ends with it: some servers keep the connection for a while.
        while count != length and (got := connection.recv_into(buffer)):
            ended = time.monotonic()
            at = at or ended
            count += got
            tail = (tail + bytes(buffer[max(got - 8, 0) : got]))[-8:]
            if pace:
                time.sleep(max(begun + count / pace - time.monotonic(), 0.0))
    if count != length and not (length is None and _is_whole(head, tail)):
        raise Unavailable("Le serveur mesuré n'a pas tout envoyé.", code="bench-cut")
    return Fetched(at - begun, ended - begun, count)


def _connected(address: Address, *, small: bool) -> socket.socket | Secured:
    plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    plain.settimeout(_PATIENCE)
    if small:
        # A slow client must not hide the answer in its own buffers.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    plain.connect(("127.0.0.1", address.port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain if address.tls is None else Secured(plain, address.tls, "localhost", _SMALL if small else _BUFFER)


def _request(address: Address, path: str, accept: str) -> bytes:
    fields = (("Host", "localhost"), ("Accept", accept), ("Connection", "close"), *address.headers)
    return "".join(
        [f"GET {address.base}{path} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n"]
    ).encode()


def _head(connection: socket.socket | Secured, buffer: memoryview) -> tuple[bytes, memoryview]:
    """The head of the answer, and what came of the body with it."""
    filled = 0
    while got := connection.recv_into(buffer[filled:]):
        filled += got
        end = bytes(buffer[:filled]).find(b"\r\n\r\n")
        if end >= 0:
            return bytes(buffer[:end]), buffer[end + 4 : filled]
    raise Unavailable("Le serveur mesuré a rompu la connexion.", code="bench-broken")


def _length(head: bytes) -> int | None:
    """How long the body is, where the head tells. Raises ``Unavailable`` for another status than 200."""
    status = head.split(b" ", 2)[1].decode("latin-1")
    if status != "200":
        raise Unavailable(f"Le serveur mesuré répond {status}.", code="bench-refused", peer_code=status)
    length = _fields(head).get(b"content-length")
    return None if length is None else int(length)


def _is_whole(head: bytes, tail: bytes) -> bool:
    """Does a body without a length end as it must: with its last chunk, or else as a multipart does?"""
    if b"chunked" in _fields(head).get(b"transfer-encoding", b""):
        return tail.endswith(b"0\r\n\r\n")
    return tail.rstrip().endswith(b"--")


def _fields(head: bytes) -> dict[bytes, bytes]:
    return dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
