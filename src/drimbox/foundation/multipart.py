"""multipart/related, read as it flows (RFC 2046 5.1, RFC 2387, PS3.18 8.6; standards.md C.4).

No I/O here: the reader turns chunks of any size into events, and never holds a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from drimbox.foundation.errors import Refused, Unavailable

MAX_PART_HEADER_BYTES = 16 * 1024
MAX_PREAMBLE_BYTES = 64 * 1024
_MAX_PADDING = 256


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part begins; names of ``headers`` in lower case."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the current part."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The current part is whole."""


Event = PartStart | PartData | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEADER = auto()
    BODY = auto()
    AFTER = auto()
    DONE = auto()


class Reader:
    """Turns the chunks of a multipart body into events. ``close`` says whether the body was whole.

    Tolerant where peers are careless: no line end before the first delimiter, LF alone as line end (told by the part's
    own header), blanks after a delimiter, nothing after the last one. Strict where it matters: the closing delimiter
    must come, headers are bounded, and the Content-Length of a part, where it has one, must be true: a part then ends
    without waiting for what follows it.
    """

    def __init__(self, boundary: str) -> None:
        if not boundary or len(boundary) > 200 or not boundary.isascii():
            raise Refused("Délimiteur multipart absent ou illisible", code="multipart-boundary")
        self._mark = b"--" + boundary.encode("ascii")
        self._state = _State.PREAMBLE
        self._pending = bytearray()
        self._delimiter = b"\r\n" + self._mark
        self._left: int | None = None

    @property
    def whole(self) -> bool:
        """Has the closing delimiter come? What follows it is ignored."""
        return self._state is _State.DONE

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` completes; to be run to its end before the next chunk is given.

        Raises ``Refused``: ``multipart-preamble`` and ``multipart-header`` for what is too long or malformed,
        ``multipart-length`` for a Content-Length that is not that of its part.
        """
        if not self.whole:
            self._pending += chunk
        while True:
            if self._state is _State.PREAMBLE:
                found = self._skip_preamble()
            elif self._state is _State.HEADER:
                start = self._take_header()
                found = start is not None
                if start is not None:
                    yield start
            elif self._state is _State.BODY:
                data, found = self._take_body() if self._left is None else self._take_announced(self._left)
                if data:
                    yield PartData(data)
                if found:
                    yield PartEnd()
            elif self._state is _State.AFTER:
                found = self._skip_delimiter()
            else:
                self._pending.clear()
                return
            if not found:
                return

    def close(self) -> None:
        """To be called when the stream has ended. Raises ``Unavailable`` (``answer-cut``) unless the body was whole."""
        if not self.whole:
            raise Unavailable("Réponse interrompue : le délimiteur final manque", code="answer-cut")

    def _skip_preamble(self) -> bool:
        position = 0
        while (position := self._pending.find(self._mark, position)) >= 0:
            if position == 0 or self._pending[position - 1] == 0x0A:
                after = self._after_mark(position + len(self._mark))
                if after is None:
                    return False
                if after >= 0:
                    del self._pending[:after]
                    return True
            position += 1
        if len(self._pending) > MAX_PREAMBLE_BYTES:
            raise Refused("Réponse multipart sans délimiteur", code="multipart-preamble")
        return False

    def _take_header(self) -> PartStart | None:
        for blank, line_end in ((b"\r\n", b"\r\n"), (b"\n", b"\n")):
            if self._pending.startswith(blank):
                del self._pending[: len(blank)]
                return self._begin({}, line_end)
        ends = [(p, e) for e in (b"\r\n", b"\n") if (p := self._pending.find(e + e)) >= 0]
        if not ends or min(ends)[0] > MAX_PART_HEADER_BYTES:
            if len(self._pending) > MAX_PART_HEADER_BYTES:
                raise Refused("En-tête de partie multipart trop long", code="multipart-header")
            return None
        position, line_end = min(ends)
        block = bytes(self._pending[:position])
        del self._pending[: position + 2 * len(line_end)]
        return self._begin(_parse_headers(block), line_end)

    def _begin(self, headers: Mapping[str, str], line_end: bytes) -> PartStart:
        self._delimiter = line_end + self._mark
        self._state = _State.BODY
        announced = headers.get("content-length", "")
        self._left = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 16 else None
        return PartStart(headers)

    def _take_body(self) -> tuple[bytes, bool]:
        position = self._pending.find(self._delimiter)
        while position >= 0:
            after = self._after_mark(position + len(self._delimiter))
            if after is None:
                return self._release(position), False
            if after >= 0:
                data = bytes(self._pending[:position])
                del self._pending[:after]
                return data, True
            position = self._pending.find(self._delimiter, position + 1)
        # The last bytes may be the beginning of a delimiter.
        return self._release(max(0, len(self._pending) - len(self._delimiter) + 1)), False

    def _take_announced(self, left: int) -> tuple[bytes, bool]:
        data = self._release(min(left, len(self._pending)))
        self._left = left - len(data)
        if self._left:
            return data, False
        self._state = _State.AFTER
        return data, True

    def _skip_delimiter(self) -> bool:
        if len(self._pending) < len(self._delimiter) and self._delimiter.startswith(self._pending):
            return False
        after = self._after_mark(len(self._delimiter)) if self._pending.startswith(self._delimiter) else -1
        if after is None:
            return False
        if after < 0:
            raise Refused("Longueur de partie multipart fausse", code="multipart-length")
        del self._pending[:after]
        return True

    def _release(self, count: int) -> bytes:
        data = bytes(self._pending[:count])
        del self._pending[:count]
        return data

    def _after_mark(self, position: int) -> int | None:
        """Where the line of a delimiter ends; None when more bytes are needed; -1 when it is no delimiter after all.

        Sets the state that follows.
        """
        rest = self._pending[position : position + _MAX_PADDING + 2]
        if rest.startswith(b"--"):
            self._state = _State.DONE
            return position + 2
        if rest == b"-":
            return None
        bare = rest.lstrip(b" \t")
        if not bare or bare == b"\r":
            return None if len(rest) < _MAX_PADDING else -1
        for line_end in (b"\r\n", b"\n"):
            if bare.startswith(line_end):
                self._state = _State.HEADER
                return position + len(rest) - len(bare) + len(line_end)
        return -1


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", block)
    for line in unfolded.splitlines():
        name, colon, value = line.partition(b":")
        if not colon:
            raise Refused("En-tête de partie multipart mal formé", code="multipart-header")
        headers.setdefault(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
    return headers
