"""What readers are given: one image of a volume, or one that the cache could not take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from drimbox.cache.sealing import Damaged
from drimbox.cache.volume import Row, Shelf
from drimbox.foundation.errors import Unavailable
from drimbox.images.ports import Indexed, KeptInstance

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """An image where the receiver put it: there is no room for it in the cache."""

    sop_instance_uid: str
    path: Path
    size: int


class CachedInstance(KeptInstance):
    """An image in the cache."""

    __slots__ = ("_clear", "_head", "_row", "_shelf")

    def __init__(self, shelf: Shelf, row: Row, *, at_hand: bool, head: bytes | None = None) -> None:
        """``head`` is its beginning where that was read already."""
        self._shelf = shelf
        self._row = row
        self._head = head
        self._clear: int | None = None
        self.at_hand = at_hand

    @property
    def sop_instance_uid(self) -> str:
        return self._row.sop_instance_uid

    @property
    def size(self) -> int:
        return self._row.size

    @property
    def path(self) -> Path:
        if not self._shelf.key.sealed:
            return self._shelf.path_of(self._row)
        assert self._clear is not None
        return Path(f"/proc/{os.getpid()}/fd/{self._clear}")

    @property
    def indexed(self) -> Indexed | None:
        row = self._row
        if not row.head_length:
            return None
        return Indexed(row.series_uid, row.transfer_syntax, row.head_size, row.rest, row.size)

    def head(self, *, wait: bool) -> bytes | None:
        """Raises ``Unavailable`` (``cache-damaged``) when the disk no longer gives what was written."""
        if self._head is not None:
            return self._head
        try:
            return self._shelf.head(self._row, wait=wait)
        except (OSError, Damaged) as error:
            raise _damaged() from error

    def read_into(self, offset: int, target: memoryview, *, wait: bool) -> bool:
        """Raises as ``head``."""
        try:
            return self._shelf.read_into(self._row, offset, target, wait=wait)
        except (OSError, Damaged) as error:
            raise _damaged() from error

    @property
    def in_clear(self) -> bool:
        return not self._shelf.key.sealed

    def acquire(self) -> Path:
        """A whole file in clear, in memory where the cache is sealed. Raises as ``head``. Blocks."""
        if self._shelf.key.sealed and self._clear is None:
            clear = os.memfd_create("image", os.MFD_CLOEXEC)
            try:
                for offset in range(0, self._row.size, _CHUNK):
                    view = memoryview(self._shelf.read(self._row, offset, _CHUNK))
                    while view:
                        view = view[os.write(clear, view) :]
            except (OSError, Damaged) as error:
                os.close(clear)
                raise _damaged() from error
            self._clear = clear
        return self.path

    def release(self) -> None:
        """``path`` is not needed any more."""
        if self._clear is not None:
            clear, self._clear = self._clear, None
            os.close(clear)


def _damaged() -> Unavailable:
    return Unavailable("Une image du cache est abîmée", code="cache-damaged")
