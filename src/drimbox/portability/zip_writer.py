"""Writes a zip of any size in constant memory, which can be cut at any point and gone on with (APPNOTE 6.3.9).

The standard library keeps the directory of the zip in memory and cannot take up an unfinished file: here the directory
grows in a file beside it, and joins it at the end.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drimbox.portability.layout import refused

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_ENTRY = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_EXTRA64 = struct.Struct("<HHQ")
_LIMIT: Final = 0xFFFFFFFF
_MADE_BY: Final = (3 << 8) | 45  # Unix, zip64
_DEFLATED: Final = 8
_MODE: Final = 0o100600 << 16


@dataclass(frozen=True, slots=True)
class ZipState:
    """How far a zip was written: octets of its data, octets and number of the entries of its directory."""

    size: int = 0
    directory: int = 0
    entries: int = 0


def directory_path(path: Path) -> Path:
    """Where the directory of a zip grows."""
    return path.with_name(path.name + ".dir")


class ZipWriter:
    """Writes ``path``, and its directory in a file beside it. Not to be shared between threads."""

    def __init__(self, path: Path, state: ZipState) -> None:
        """Go on from ``state``. Raises ``Refused`` (``archive-damaged``) when the files hold less; ``OSError``."""
        self._directory_path = directory_path(path)
        self._entries = state.entries
        self._file = _opened(path)
        try:
            self._directory = _opened(self._directory_path)
            for file, size in ((self._file, state.size), (self._directory, state.directory)):
                if file.seek(0, os.SEEK_END) < size:
                    raise refused("L'export interrompu est abîmé : supprimez-le et recommencez", "damaged")
                file.truncate(size)
                file.seek(size)
        except BaseException:
            self._file.close()
            raise

    def add(self, name: str, content: bytes, at: dt.datetime) -> None:
        """Add one file; ``name`` is ASCII, with ``/`` between folders. Raises ``OSError``."""
        encoded = name.encode("ascii")
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(content) + packer.flush()
        time, day = _dos(at)
        offset = self._file.tell()
        sizes = (zlib.crc32(content), len(packed), len(content))
        self._file.write(_LOCAL.pack(0x04034B50, 20, 0, _DEFLATED, time, day, *sizes, len(encoded), 0))
        self._file.write(encoded)
        self._file.write(packed)
        extra = _EXTRA64.pack(1, 8, offset) if offset >= _LIMIT else b""
        head = (0x02014B50, _MADE_BY, 45 if extra else 20, 0, _DEFLATED, time, day, *sizes)
        tail = (len(encoded), len(extra), 0, 0, 0, _MODE, min(offset, _LIMIT))
        self._directory.write(_ENTRY.pack(*head, *tail) + encoded + extra)
        self._entries += 1

    def checkpoint(self) -> ZipState:
        """Everything so far is on disk: where to go on from. Raises ``OSError``."""
        for file in (self._file, self._directory):
            file.flush()
            os.fsync(file.fileno())
        return ZipState(self._file.tell(), self._directory.tell(), self._entries)

    def finish(self) -> None:
        """Put the directory at the end of the zip. Raises ``OSError``."""
        state = self.checkpoint()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file, 2**20)
        self._file.write(_end(state))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Let go of the files, whatever is left to write in memory is lost. Never raises."""
        for file in (self._file, self._directory):
            try:
                file.close()
            except OSError:  # a full disk, once more
                continue


def _opened(path: Path):  # type: ignore[no-untyped-def]
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=2**18)


def _end(state: ZipState) -> bytes:
    """The records that close a zip; those of zip64 only where they are needed."""
    size, directory, entries = state.size, state.directory, state.entries
    small = _END.pack(
        0x06054B50, 0, 0, min(entries, 0xFFFF), min(entries, 0xFFFF), min(directory, _LIMIT), min(size, _LIMIT), 0
    )
    if entries < 0xFFFF and directory < _LIMIT and size < _LIMIT:
        return small
    big = _END64.pack(0x06064B50, _END64.size - 12, _MADE_BY, 45, 0, 0, entries, entries, directory, size)
    return big + _LOCATOR64.pack(0x07064B50, 0, size + directory, 1) + small


def _dos(at: dt.datetime) -> tuple[int, int]:
    year = min(max(at.year, 1980), 2107)
    return at.hour << 11 | at.minute << 5 | at.second // 2, (year - 1980) << 9 | at.month << 5 | at.day
