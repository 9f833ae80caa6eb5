"""A ZIP written straight to who reads it: entries are stored, their size and sum known before (APPNOTE 6.3.9)."""

from __future__ import annotations

import datetime as dt
import struct

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_ENTRY = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_LIMIT = 0xFFFFFFFF
_MANY = 0xFFFF
# Made on Unix, needs zip64.
_MADE_BY, _NEEDS = 3 << 8 | 45, 45
_MODE = 0o100600 << 16


class ZipStream:
    """What stands between the contents. Each ``entry`` is followed by exactly as many bytes as were announced."""

    def __init__(self, at: dt.datetime) -> None:
        year = min(max(at.year, 1980), 2107)
        self._time = at.hour << 11 | at.minute << 5 | at.second // 2
        self._day = (year - 1980) << 9 | at.month << 5 | at.day
        self._position = 0
        self._directory = bytearray()
        self._entries = 0

    def entry(self, name: str, size: int, crc: int) -> bytes:
        """The head of a file; ``name`` is ASCII, with ``/`` between folders; ``crc`` is its CRC-32."""
        encoded = name.encode("ascii")
        offset = self._position
        large = size >= _LIMIT
        shown = _LIMIT if large else size
        extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
        head = _LOCAL.pack(0x04034B50, _NEEDS, 0, 0, self._time, self._day, crc, shown, shown, len(encoded), len(extra))
        self._note(encoded, size, crc, offset)
        self._position += len(head) + len(encoded) + len(extra) + size
        return head + encoded + extra

    def end(self) -> bytes:
        """The directory, and the records that close the ZIP."""
        entries, length, start = self._entries, len(self._directory), self._position
        small = _END.pack(
            0x06054B50, 0, 0, min(entries, _MANY), min(entries, _MANY), min(length, _LIMIT), min(start, _LIMIT), 0
        )
        if entries < _MANY and length < _LIMIT and start < _LIMIT:
            return bytes(self._directory) + small
        big = _END64.pack(0x06064B50, _END64.size - 12, _MADE_BY, _NEEDS, 0, 0, entries, entries, length, start)
        return bytes(self._directory) + big + _LOCATOR64.pack(0x07064B50, 0, start + length, 1) + small

    def _note(self, name: bytes, size: int, crc: int, offset: int) -> None:
        values = [value for value in (size, size, offset) if value >= _LIMIT]
        extra = struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""
        shown, place = min(size, _LIMIT), min(offset, _LIMIT)
        self._directory += _ENTRY.pack(
            *(0x02014B50, _MADE_BY, _NEEDS, 0, 0, self._time, self._day, crc, shown, shown),
            *(len(name), len(extra), 0, 0, 0, _MODE, place),
        )
        self._directory += name + extra
        self._entries += 1
