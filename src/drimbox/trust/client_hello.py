"""What a TLS client asks for in its first message: the host name (SNI) and the protocols (ALPN), read and no more.

Nothing is decided on trust here: OpenSSL reads the same bytes again and does the handshake. Layouts: RFC 8446 4.1.2 and
5.1, RFC 6066 3, RFC 7301 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

MAX_HELLO = 64 * 2**10

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_HEAD = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """``host`` in lower case, empty when none is named; ``protocols`` in the client's order."""

    host: str
    protocols: tuple[str, ...]


class Unread(Enum):
    """Why there is no ``Hello``: more must come, or it is none and OpenSSL shall say so."""

    INCOMPLETE = 0
    NONE = 1


INCOMPLETE, NONE = Unread.INCOMPLETE, Unread.NONE


def read(data: bytes | bytearray) -> Hello | Unread:
    """The ClientHello at the beginning of what a client sent. Never raises."""
    message = bytearray()
    place = 0
    while True:
        if place < len(data) and data[place] != _HANDSHAKE:
            return NONE
        if len(data) - place < _HEAD:
            return INCOMPLETE if len(data) <= MAX_HELLO else NONE
        length = int.from_bytes(data[place + 3 : place + 5], "big")
        if length == 0:
            return NONE
        message += data[place + _HEAD : place + _HEAD + length]
        if message and message[0] != _CLIENT_HELLO:
            return NONE
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
            break
        if len(message) > MAX_HELLO or (len(message) >= 4 and int.from_bytes(message[1:4], "big") > MAX_HELLO):
            return NONE
        place += _HEAD + length
    try:
        return _hello(bytes(message[4 : 4 + int.from_bytes(message[1:4], "big")]))
    except (ValueError, IndexError):
        return NONE


def _hello(body: bytes) -> Hello:
    reader = _Reader(body)
    reader.take(2 + 32)
    reader.block(1)
    reader.block(2)
    reader.block(1)
    host, protocols = "", tuple[str, ...]()
    for kind, value in _extensions(reader):
        if kind == _SERVER_NAME:
            names = _Reader(_Reader(value).block(2))
            if names.number(1) == 0:
                host = names.block(2).decode("ascii").lower()
        elif kind == _ALPN:
            offered = _Reader(_Reader(value).block(2))
            found = []
            while offered.left:
                found.append(offered.block(1).decode("latin-1"))
            protocols = tuple(found)
    return Hello(host, protocols)


def _extensions(reader: _Reader) -> Iterator[tuple[int, bytes]]:
    if not reader.left:
        return
    inner = _Reader(reader.block(2))
    while inner.left:
        yield inner.number(2), inner.block(2)


class _Reader:
    """Reads vectors of TLS. Raises ``ValueError`` beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("beyond the end")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> bytes:
        return self.take(self.number(size))
