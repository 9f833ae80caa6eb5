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
_GROUP = 2**19
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
    beginning: bytes

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

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        view = memoryview(self.beginning)
        for at in range(0, len(view), _CHUNK):
            yield bytes(view[at : at + _CHUNK])
        if len(self.images) == 1:
            instance, indexed = self.images[0]
            for offset in range(indexed.rest + _GROUP, indexed.size, _CHUNK):
                yield await in_thread(instance.read, offset, _CHUNK)

    def ending(self) -> bytes:
        return self.writer.delimiter() if len(self.images) == 1 else b""

    def discard(self) -> None:
        pass


async def as_stored(group: Sequence[StoredInstance], body: MultipartBody) -> StoredPart | None:
    """The images of a group as one part; None unless the caller takes each best as it is stored."""
    images: list[tuple[KeptInstance, Indexed]] = []
    for instance in group:
        if not isinstance(instance, KeptInstance):
            return None
        indexed = instance.indexed
        if indexed is None or not _best(body.asked, indexed.transfer_syntax):
            return None
        if body.asked.target.series_uid not in ("", indexed.series_uid):
            return None
        images.append((instance, indexed))
    if len({indexed.transfer_syntax for _, indexed in images}) > 1:
        return None
    return await in_thread(_part, images, body)


def _best(asked: Asked, syntax: str) -> bool:
    """Does the caller like nothing better than DICOM files of this syntax in a multipart?"""
    if asked.target.frames:
        return False
    return 0 < max(map(_quality, asked.wanted), default=0.0) <= quality_of(asked.wanted, syntax)


def _quality(wanted: Wanted) -> float:
    return wanted.quality


def _part(images: Sequence[tuple[KeptInstance, Indexed]], body: MultipartBody) -> StoredPart:
    """Blocks."""
    pieces: list[bytes] = []
    delimiter = body.writer.delimiter()
    for instance, indexed in images:
        size = indexed.head_size + indexed.size - indexed.rest
        media = f"application/dicom; transfer-syntax={indexed.transfer_syntax}"
        if pieces:
            pieces.append(delimiter)
        pieces.append(body.writer.opening({"Content-Type": media, "Content-Length": str(size)}))
        pieces.append(instance.head())
        pieces.append(instance.read(indexed.rest, _GROUP if len(images) == 1 else indexed.size))
    if len(images) > 1:
        pieces.append(delimiter)
    return StoredPart(body.writer, body.asked, images, b"".join(pieces))


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

    def chunks(self) -> AsyncGenerator[bytes, None]:
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
