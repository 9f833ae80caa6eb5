"""Reads a zip that nobody vouches for, of any size, in constant memory (APPNOTE 6.3.9).

Every length is checked against the end of the file, what is unpacked is bounded by its reader, and no name of the zip
ever becomes a path on this machine. The directory is kept in a temporary database of its own, not in memory.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from drimbox.foundation.errors import Refused
from drimbox.portability.layout import METADATA, ROOT, hidden, path_parts, refused

MAX_ENTRIES: Final = 20_000_000
MAX_DIRECTORY: Final = 8 * 2**30

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_ENTRY = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x2041  # bits 0, 6, 13
_LIMIT = 0xFFFFFFFF
_MAX_COMMENT = 65535

# Between folders in the index: comes before all that a name may hold, so that the index has the order of keys, in which
# a folder comes before what begins with its name ("A/B" before "A'/B").
_BETWEEN = "\x01"

_TABLE = """
CREATE TABLE entry (folder TEXT, parent TEXT, name TEXT, method INTEGER, flags INTEGER, crc INTEGER, packed INTEGER,
                    size INTEGER, place INTEGER)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a zip: how it is packed, its sizes in octets, where its local header begins."""

    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    place: int


class ZipReader:
    """A zip, open. ``ignored`` counts the entries whose path leads outside, or is none."""

    def __init__(self, path: Path) -> None:
        """Raises ``Refused`` (``archive-zip``, ``archive-limits``) and ``OSError``."""
        self.ignored = 0
        # An unnamed database lives in a file that has no name, and spills what does not fit in its small memory.
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file: BinaryIO = path.open("rb")
        try:
            self._length = self._file.seek(0, os.SEEK_END)
            self._index.execute("PRAGMA cache_size = -4096")
            self._index.execute(_TABLE)
            self._read_directory()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()
        self._index.close()

    def folders(self, after: str | None = None) -> Iterator[str]:
        """The folders of submission sets, in the order of their names from the root on, those after ``after``."""
        start = None if after is None else after.replace("/", _BETWEEN)
        query = (
            "SELECT folder FROM entry WHERE ? IS NULL OR folder > ? GROUP BY folder "
            "HAVING max(upper(parent) = ?) OR max(upper(name) = ?) ORDER BY folder"
        )
        for row in self._index.execute(query, (start, start, ROOT, METADATA)):
            yield row[0].replace(_BETWEEN, "/")

    def count(self) -> int:
        """How many folders there are."""
        query = (
            "SELECT count(*) FROM (SELECT 1 FROM entry GROUP BY folder "
            "HAVING max(upper(parent) = ?) OR max(upper(name) = ?))"
        )
        return int(self._index.execute(query, (ROOT, METADATA)).fetchone()[0])

    def files(self, folder: str, most: int) -> tuple[Entry, ...]:
        """The files of a folder, ``most`` + 1 at the most."""
        query = "SELECT name, method, flags, crc, packed, size, place FROM entry WHERE folder = ? LIMIT ?"
        return tuple(Entry(*row) for row in self._index.execute(query, (folder.replace("/", _BETWEEN), most + 1)))

    def named(self, name: str) -> Iterator[tuple[str, Entry]]:
        """Every file of that name, with its folder."""
        query = "SELECT folder, name, method, flags, crc, packed, size, place FROM entry WHERE upper(name) = ?"
        for folder, *values in self._index.execute(query, (name.upper(),)):
            yield folder.replace(_BETWEEN, "/"), Entry(*values)

    def read(self, entry: Entry, limit: int) -> bytes:
        """The octets of a file, ``limit`` at the most. Raises ``Refused`` (``archive-zip``, ``archive-limits``)."""
        if entry.flags & _ENCRYPTED or entry.method not in (_STORED, _DEFLATED):
            raise refused("Fichier du zip chiffré ou compressé par une méthode inconnue", "zip")
        if entry.packed > limit + 2**16 or entry.size > limit:
            raise refused("Fichier de l'archive trop volumineux", "limits")
        packed = self._packed(entry)
        content = packed if entry.method == _STORED else _unpacked(packed, limit)
        if len(content) != entry.size or zlib.crc32(content) != entry.crc:
            raise _damaged()
        return content

    # --- the wire ---

    def _packed(self, entry: Entry) -> bytes:
        header = self._at(entry.place, _LOCAL.size)
        signature, *_, names, extra = _LOCAL.unpack(header)
        if signature != 0x04034B50:
            raise _damaged()
        return self._at(entry.place + _LOCAL.size + names + extra, entry.packed)

    def _at(self, place: int, size: int) -> bytes:
        if place < 0 or size < 0 or place + size > self._length:
            raise _damaged()
        self._file.seek(place)
        found = self._file.read(size)
        if len(found) != size:
            raise _damaged()
        return found

    def _read_directory(self) -> None:
        place, size, entries = self._end()
        if entries > MAX_ENTRIES or size > MAX_DIRECTORY:
            raise refused("Archive de trop de fichiers", "limits")
        if place < 0 or size < 0 or place + size > self._length:
            raise _damaged()
        self._index.execute("BEGIN")
        self._index.executemany(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._rows(place, place + size, entries)
        )
        self._index.execute("CREATE INDEX entry_folder ON entry (folder)")
        self._index.execute("COMMIT")

    def _rows(self, place: int, end: int, entries: int) -> Iterator[tuple[object, ...]]:
        """The entries of the directory that are files with a harmless path."""
        for _ in range(entries):
            head = self._record(place, end, _ENTRY.size)
            (signature, _, _, flags, method, _, _, crc, packed, size, names, extras, comments, *_, offset) = (
                _ENTRY.unpack(head)
            )
            if signature != 0x02014B50:
                raise _damaged()
            rest = self._record(place + _ENTRY.size, end, names + extras)
            place += _ENTRY.size + names + extras + comments
            name = rest[:names].decode("utf-8" if flags & 0x800 else "cp437", "replace")
            if name.endswith(("/", "\\")):
                continue
            parts = path_parts(name)
            if parts is None:
                self.ignored += 1
                continue
            if any(hidden(part) for part in parts):
                continue
            size, packed, offset = _wide(rest[names:], size, packed, offset)
            if max(size, packed, offset) >= 2**62:
                raise _damaged()
            parent = parts[-3] if len(parts) > 2 else ""
            folder = _BETWEEN.join(parts[:-1])
            yield folder, parent, parts[-1], method, flags, crc, packed, size, offset
        if place > end:
            raise _damaged()

    def _record(self, place: int, end: int, size: int) -> bytes:
        if place + size > end:
            raise _damaged()
        return self._at(place, size)

    def _end(self) -> tuple[int, int, int]:
        """Place, size and number of entries of the directory."""
        start = max(0, self._length - _END.size - _MAX_COMMENT)
        tail = self._at(start, self._length - start)
        found = tail.rfind(b"PK\x05\x06")
        if found < 0 or len(tail) - found < _END.size:
            raise refused("Ce fichier n'est pas un zip, ou il est incomplet", "zip")
        _, disk, _, _, entries, size, place, _ = _END.unpack_from(tail, found)
        at = start + found
        if at >= _LOCATOR64.size and (entries == 0xFFFF or _LIMIT in (size, place)):
            signature, _, end64, _ = _LOCATOR64.unpack(self._at(at - _LOCATOR64.size, _LOCATOR64.size))
            if signature == 0x07064B50:
                return self._end64(end64)
        if disk:
            raise refused("Zip en plusieurs morceaux : rassemblez-le d'abord", "zip")
        return place, size, entries

    def _end64(self, at: int) -> tuple[int, int, int]:
        signature, *_, entries, size, place = _END64.unpack(self._at(at, _END64.size))
        if signature != 0x06064B50:
            raise _damaged()
        return place, size, entries


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and place from the zip64 field, where the plain ones are full."""
    values = [size, packed, offset]
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        place += 4 + length
        if kind != 1:
            continue
        for n, value in enumerate(values):
            if value == _LIMIT and len(field) >= 8:
                values[n], field = int.from_bytes(field[:8], "little"), field[8:]
    return values[0], values[1], values[2]


def _unpacked(packed: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        raise _damaged() from error
    if len(content) > limit:
        raise refused("Fichier de l'archive trop volumineux", "limits")
    if not unpacker.eof:
        raise _damaged()
    return content


def _damaged() -> Refused:
    return refused("Zip abîmé ou incomplet", "zip")
