"""Single frames of an image that lies encrypted in the cache: no more of it is decrypted than they need.

What is handed on is a file in memory of the image's size, in which only the header, the frames and what tells where
they lie have been filled in; the rest takes no memory. It is for who reads those frames and nothing else.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from drimbox.dicom.elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, Budget, elements
from drimbox.dicom.files import Meta, read_meta
from drimbox.dicom.frames import all_spans
from drimbox.dicom.pixels import Pixels, read_description, read_layout
from drimbox.dicom.syntaxes import DEFLATED_LE, NATIVE, encoding_of
from drimbox.foundation.errors import Refused
from drimbox.images.ports import Indexed, KeptInstance, SeriesSource, StoredInstance

_BLOCK = 2**18
_MAX_ELEMENTS = 100_000
# How a fragment begins tells to which frame it belongs (``dicom.frames``).
_BEGINNING = 12
_ITEM_HEAD = struct.Struct("<HHI")


class PartlyKept(KeptInstance):
    """An image of the cache for who reads the frames ``numbers`` (from 1) of it, and nothing else of its pixels."""

    __slots__ = ("_clear", "_kept", "_numbers")

    def __init__(self, kept: KeptInstance, numbers: Collection[int]) -> None:
        self._kept = kept
        self._numbers = numbers
        self._clear: int | None = None
        self.at_hand = kept.at_hand

    @property
    def sop_instance_uid(self) -> str:
        return self._kept.sop_instance_uid

    @property
    def path(self) -> Path:
        return self._kept.path if self._clear is None else Path(f"/proc/{os.getpid()}/fd/{self._clear}")

    @property
    def size(self) -> int:
        return self._kept.size

    @property
    def indexed(self) -> Indexed | None:
        return self._kept.indexed

    def head(self, *, wait: bool) -> bytes | None:
        return self._kept.head(wait=wait)

    def read_into(self, offset: int, target: memoryview, *, wait: bool) -> bool:
        return self._kept.read_into(offset, target, wait=wait)

    def acquire(self) -> Path:
        """A file in which these frames can be read. Raises as ``KeptInstance.acquire``. Blocks."""
        if self._clear is None and not self._kept.in_clear:
            self._clear = _filled(self._kept, self._numbers)
        return self._kept.acquire() if self._clear is None else self.path

    def release(self) -> None:
        if self._clear is not None:
            clear, self._clear = self._clear, None
            os.close(clear)
        self._kept.release()


def _filled(kept: KeptInstance, numbers: Collection[int]) -> int | None:
    """The file; None where it takes all of the image to find the frames, or to tell why not."""
    clear = os.memfd_create("frames", os.MFD_CLOEXEC)
    try:
        os.ftruncate(clear, kept.size)
        _Filling(kept, memoryview(mmap.mmap(clear, kept.size))).frames(numbers)
    except Refused:
        os.close(clear)
        return None
    except BaseException:
        os.close(clear)
        raise
    return clear


class FramesSource:
    """``SeriesSource`` for a caller who takes nothing but frames."""

    def __init__(self, source: SeriesSource, numbers: Collection[int]) -> None:
        self._source = source
        self._numbers = numbers

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        async with self._source.retrieve(study_uid, series_uid, expected) as instances:
            yield self._partly(instances)

    async def _partly(self, instances: AsyncIterator[StoredInstance]) -> AsyncIterator[StoredInstance]:
        async for instance in instances:
            yield PartlyKept(instance, self._numbers) if isinstance(instance, KeptInstance) else instance


class _Filling:
    """Brings blocks of an image into memory, each at most once."""

    def __init__(self, kept: KeptInstance, view: memoryview) -> None:
        self._kept = kept
        self._view = view
        self._there: set[int] = set()

    def frames(self, numbers: Collection[int]) -> None:
        """Raises ``Refused`` where it cannot be done."""
        meta, pixels, data = self._header()
        encoding = encoding_of(meta.transfer_syntax)
        self._touch(data, data + 12)
        value, length = data + 8, int.from_bytes(self._view[data + 4 : data + 8], "little")
        if encoding.explicit:
            order = "little" if encoding.little else "big"
            value, length = data + 12, int.from_bytes(self._view[data + 8 : data + 12], order)  # type: ignore[arg-type]
        wanted = [number for number in numbers if 0 < number <= pixels.frames]
        if meta.transfer_syntax in NATIVE and length != UNDEFINED:
            for number in wanted:
                first = pixels.frame_bits * (number - 1)
                self._touch(value + first // 8, value + (first + pixels.frame_bits + 7) // 8)
            return
        self._walk(value)
        spans = all_spans(self._view, read_layout(self._view, meta), meta.transfer_syntax)
        for number in wanted:
            for start, end in spans[number - 1]:
                self._touch(start, end)

    def _header(self) -> tuple[Meta, Pixels, int]:
        """The header, and where the element of the pixels begins."""
        known = 0
        while known < len(self._view):
            known = min(max(4 * known, _BLOCK), len(self._view))
            self._touch(0, known)
            seen = self._view[:known]
            try:
                meta = read_meta(seen)
                if meta.transfer_syntax == DEFLATED_LE:
                    break
                encoding = encoding_of(meta.transfer_syntax)
                end = meta.end
                for element in elements(seen, end, known, encoding, Budget(_MAX_ELEMENTS), until=PIXEL_DATA - 1):
                    end = element.end
                pixels = read_description(seen, meta.end, encoding)
            except Refused:
                # It may only go on behind what is known.
                continue
            if pixels is None or end + 12 > known:
                continue
            group, number = struct.unpack_from("<HH" if encoding.little else ">HH", self._view, end)
            if group << 16 | number == PIXEL_DATA:
                return meta, pixels, end
        raise Refused("Trames introuvables sans l'image entière", code="dicom-frame")

    def _walk(self, at: int) -> None:
        """The heads of all fragments, how each begins, and the offset table, which is the first of them."""
        first = True
        while True:
            self._touch(at, at + _ITEM_HEAD.size)
            group, number, length = _ITEM_HEAD.unpack_from(self._view, at)
            tag, value = group << 16 | number, at + _ITEM_HEAD.size
            if tag == SEQUENCE_END:
                return
            if tag != ITEM or value + length + _ITEM_HEAD.size > len(self._view):
                raise Refused("Trames introuvables sans l'image entière", code="dicom-frame")
            self._touch(value, value + (length if first else min(length, _BEGINNING)))
            first, at = False, value + length

    def _touch(self, start: int, end: int) -> None:
        """Have these bytes there. Raises ``Refused`` where the image has none."""
        if not 0 <= start <= end <= len(self._view):
            raise Refused("Image DICOM tronquée", code="dicom-truncated")
        for block in range(start // _BLOCK, -(-end // _BLOCK)):
            if block not in self._there:
                at = block * _BLOCK
                self._kept.read_into(at, self._view[at : at + _BLOCK], wait=True)
                self._there.add(block)
