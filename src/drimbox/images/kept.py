"""Images of the cache that leave as they are stored: several at once, without a look into their files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from drimbox.images.accept import Wanted, quality_of
from drimbox.images.bodies import Asked, Part
from drimbox.images.multipart import Writer
from drimbox.images.ports import Indexed, KeptInstance, StoredInstance
from drimbox.images.threads import in_thread

_AT_ONCE = 16
#: Images prepared together, and what is handed to the server at once: slow callers cost some of each.
_GROUP = 2**20
_CHUNK = 2**18


@runtime_checkable
class MultipartBody(Protocol):
    """A body of whole DICOM files (``bodies.DicomBody``)."""

    @property
    def asked(self) -> Asked: ...
    @property
    def writer(self) -> Writer: ...


async def grouped(instances: AsyncIterator[StoredInstance]) -> AsyncGenerator[Sequence[StoredInstance], None]:
    """In order; small ones that are at hand together."""
    async for instance in instances:
        group, size = [instance], instance.size
        while isinstance(instance, KeptInstance) and instance.at_hand and size < _GROUP and len(group) < _AT_ONCE:
            following = await anext(instances, None)
            if following is None:
                break
            instance = following
            group.append(instance)
            size += instance.size
        yield group


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One or more files of a multipart body, with all that stands between them; the last delimiter included."""

    writer: Writer
    asked: Asked
    images: Sequence[tuple[KeptInstance, Indexed]]
    beginning: bytearray

    @property
    def count(self) -> int:
        return len(self.images)

    @property
    def syntax(self) -> str:
        return self.images[0][1].transfer_syntax

    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.writer.content_type(self.syntax if self.asked.one else "")}

    def opening(self, *, first: bool) -> bytes:
        return self.writer.delimiter() if first else b""

    async def chunks(self) -> AsyncGenerator[bytes | bytearray, None]:
        yield self.beginning
        if len(self.images) == 1:
            instance, indexed = self.images[0]
            for offset in range(indexed.rest + _GROUP, indexed.size, _GROUP):
                data = bytearray(min(_GROUP, indexed.size - offset))
                if not instance.read_into(offset, memoryview(data), wait=False):
                    await in_thread(instance.read_into, offset, memoryview(data), wait=True)
                yield data

    def ending(self) -> bytes:
        return self.writer.delimiter() if len(self.images) == 1 else b""

    def discard(self) -> None:
        pass


def stored_at_once(group: Sequence[StoredInstance], body: MultipartBody) -> StoredPart | None:
    """What ``as_stored`` gives, where that takes no waiting for the disk."""
    images = _as_they_are(group, body.asked)
    return _gathered(images, body, wait=False) if images else None


async def as_stored(group: Sequence[StoredInstance], body: MultipartBody) -> StoredPart | None:
    """The images of a group as one part; None unless the caller takes each best as it is stored."""
    images = _as_they_are(group, body.asked)
    return await in_thread(_gathered, images, body, wait=True) if images else None


def _as_they_are(group: Sequence[StoredInstance], asked: Asked) -> Sequence[tuple[KeptInstance, Indexed]]:
    """The images of a group, if all can leave as they are stored; else none."""
    images: list[tuple[KeptInstance, Indexed]] = []
    for instance in group:
        indexed = instance.indexed if isinstance(instance, KeptInstance) else None
        if indexed is None or asked.target.series_uid not in ("", indexed.series_uid):
            return ()
        assert isinstance(instance, KeptInstance)
        images.append((instance, indexed))
    syntaxes = {indexed.transfer_syntax for _, indexed in images}
    return images if len(syntaxes) == 1 and _best(asked, syntaxes.pop()) else ()


def _best(asked: Asked, syntax: str) -> bool:
    """Does the caller like nothing better than DICOM files of this syntax in a multipart?"""
    if asked.target.frames:
        return False
    return 0 < max(map(_quality, asked.wanted), default=0.0) <= quality_of(asked.wanted, syntax)


def _quality(wanted: Wanted) -> float:
    return wanted.quality


def _gathered(images: Sequence[tuple[KeptInstance, Indexed]], body: MultipartBody, *, wait: bool) -> StoredPart | None:
    """Read into one buffer, as it will leave. Blocks with ``wait``; without, None where it would."""
    delimiter = body.writer.delimiter()
    openings: list[bytes] = []
    lengths: list[int] = []
    for instance, indexed in images:
        head = instance.head(wait=wait)
        if head is None:
            return None
        openings.append((delimiter if openings else b"") + _opening(body.writer, indexed) + head)
        rest = indexed.size - indexed.rest
        lengths.append(rest if len(images) > 1 else min(rest, _GROUP))
    ending = delimiter if len(images) > 1 else b""
    data = bytearray(sum(map(len, openings)) + sum(lengths) + len(ending))
    at, view = 0, memoryview(data)
    for (instance, indexed), opening, length in zip(images, openings, lengths, strict=True):
        pixels = at + len(opening)
        view[at:pixels] = opening
        at = pixels + length
        if not instance.read_into(indexed.rest, view[pixels:at], wait=wait):
            return None
    view[at:] = ending
    return StoredPart(body.writer, body.asked, images, data)


def _opening(writer: Writer, indexed: Indexed) -> bytes:
    size = indexed.head_size + indexed.size - indexed.rest
    media = f"application/dicom; transfer-syntax={indexed.transfer_syntax}"
    return writer.opening({"Content-Type": media, "Content-Length": str(size)})


class HeldPart:
    """A part made from an image of the cache, whose file is held for as long as the part."""

    count = 1

    def __init__(self, part: Part, instance: KeptInstance) -> None:
        self.part = part
        self._instance = instance

    @property
    def syntax(self) -> str:
        return self.part.syntax

    def opening(self, *, first: bool) -> bytes:
        return self.part.opening(first=first)

    def chunks(self) -> AsyncGenerator[bytes | bytearray, None]:
        return self.part.chunks()

    def ending(self) -> bytes:
        return self.part.ending()

    def discard(self) -> None:
        self.part.discard()
        self._instance.release()


class DescribedPart:
    """The headers of several images, as a piece of an array of DICOM JSON."""

    def __init__(self, pieces: Sequence[bytes], count: int) -> None:
        self._pieces = pieces
        self.count = count

    @property
    def syntax(self) -> str:
        return ""

    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/dicom+json"}

    def opening(self, *, first: bool) -> bytes:
        return b"["

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for index, piece in enumerate(self._pieces):
            view = memoryview(piece)
            for at in range(0, len(piece), _CHUNK):
                yield (b"," if index and not at else b"") + view[at : at + _CHUNK]

    def ending(self) -> bytes:
        return b""

    def discard(self) -> None:
        pass
