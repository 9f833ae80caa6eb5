"""A DICOM file as bytes: its file meta information (PS3.10 7.1), and edits that leave the rest as it lies.

An edit gives a new head and the offset from which the file goes on, so an image streams from the disk however big it
is, and every byte that is not meant to change stays.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.elements import Budget, Buffer, Element, element_at, number, text, write
from drimbox.dicom.syntaxes import Encoding
from drimbox.foundation.errors import Refused

META_LENGTH, TRANSFER_SYNTAX = 0x00020000, 0x00020010

#: How the file meta information is laid out, whatever the data set is.
META_ENCODING = Encoding(explicit=True, little=True)

_PREAMBLE = 132
_MAX_META_ELEMENTS = 64
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Meta:
    """The file meta information: its syntax, its elements, and where the data set begins."""

    transfer_syntax: str
    elements: tuple[Element, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``removed`` bytes at offset ``at`` by ``inserted``."""

    at: int
    removed: int
    inserted: bytes


@dataclass(frozen=True, slots=True)
class Splice:
    """An edited file: ``head``, then the original from offset ``rest`` to its end."""

    head: bytes
    rest: int

    def size(self, original: int) -> int:
        """Size of the edited file."""
        return len(self.head) + original - self.rest


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file as a read-only buffer. Raises ``Refused`` (``dicom-part10``) when it is empty."""
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Refused("Le fichier n'est pas une image DICOM", code="dicom-part10")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield buffer


def read_meta(buffer: Buffer) -> Meta:
    """The file meta information (PS3.10 7.1): the elements of group 0002 that stand together at the beginning.

    Where its group length says otherwise, the elements are believed. Raises ``Refused`` (``dicom-part10`` when it is no
    DICOM file).
    """
    if bytes(buffer[128:_PREAMBLE]) != b"DICM":
        raise Refused("Le fichier n'est pas une image DICOM", code="dicom-part10")
    position, size, budget = _PREAMBLE, len(buffer), Budget(_MAX_META_ELEMENTS)
    found: list[Element] = []
    syntax = ""
    while position + 8 <= size and buffer[position] == 2 and buffer[position + 1] == 0:
        element = element_at(buffer, position, size, META_ENCODING, budget)
        if element.tag == TRANSFER_SYNTAX:
            if syntax:
                raise Refused("Image DICOM illisible : deux syntaxes de transfert", code="dicom-order")
            syntax = text(buffer, element)
        found.append(element)
        position = element.end
    # It goes out in headers: nothing but a UID may stand there.
    if not _UID.fullmatch(syntax):
        raise Refused("Image DICOM sans syntaxe de transfert", code="dicom-part10")
    return Meta(syntax, tuple(found), position)


def splice(buffer: Buffer, edits: Iterable[Edit]) -> Splice:
    """Apply edits that do not overlap. None at all gives an empty head."""
    pieces: list[bytes] = []
    position = 0
    for edit in sorted(edits, key=lambda e: e.at):
        pieces += (bytes(buffer[position : edit.at]), edit.inserted)
        position = edit.at + edit.removed
    return Splice(b"".join(pieces), position)


def syntax_edits(buffer: Buffer, meta: Meta, transfer_syntax: str) -> list[Edit]:
    """The edits that put another transfer syntax into the file meta information."""
    old = next(e for e in meta.elements if e.tag == TRANSFER_SYNTAX)
    new = write(TRANSFER_SYNTAX, "UI", transfer_syntax.encode("ascii"), META_ENCODING)
    growth = len(new) - (old.end - old.start)
    return [
        Edit(old.start, old.end - old.start, new),
        *longer_group(buffer, meta.elements, META_LENGTH, growth, META_ENCODING),
    ]


def longer_group(buffer: Buffer, among: Iterable[Element], tag: int, growth: int, encoding: Encoding) -> list[Edit]:
    """The edit of a group length, where there is one."""
    return [
        Edit(e.value, 4, (number(buffer, e, encoding) + growth).to_bytes(4, "little" if encoding.little else "big"))
        for e in among
        if e.tag == tag and e.length == 4
    ]
