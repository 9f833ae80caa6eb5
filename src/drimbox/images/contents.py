"""Bytes to be sent, wherever they are: in memory, or pieces of a file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drimbox.dicom.frames import Spans
from drimbox.foundation.errors import Unavailable
from drimbox.images.threads import in_thread

_CHUNK = 2**20


class Content(Protocol):
    """Bytes to be sent."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """About a mebibyte at a time."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes that are there."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.content), _CHUNK):
            yield self.content if len(self.content) <= _CHUNK else self.content[start : start + _CHUNK]


@dataclass(frozen=True, slots=True)
class InFile:
    """``head``, then pieces of ``path``, each from its first byte to its end."""

    path: Path
    pieces: Spans
    head: bytes = b""

    @property
    def size(self) -> int:
        return len(self.head) + sum(end - start for start, end in self.pieces)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        pending = self.head
        # Unbuffered: the chunks are large.
        with self.path.open("rb", buffering=0) as file:
            for start, end in self.pieces:
                for at in range(start, end, _CHUNK):
                    wanted = min(_CHUNK, end - at)
                    read = await in_thread(os.pread, file.fileno(), wanted, at)
                    if len(read) != wanted:
                        raise Unavailable("Une image a disparu pendant son envoi", code="image-cut")
                    yield pending + read if pending else read
                    pending = b""
        if pending:
            yield pending
