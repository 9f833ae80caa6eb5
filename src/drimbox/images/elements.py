"""Data elements as bytes (PS3.5 7): found, skipped and written without being understood.

Works on any buffer (bytes, a memory-mapped file). Every length is checked against the end of its surroundings, nesting
and the number of elements are bounded, so hostile bytes cost little and end in ``Refused``.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.errors import Refused
from drimbox.images.syntaxes import Encoding

Buffer = bytes | mmap.mmap

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
MAX_DEPTH = 32

#: Value representations with a 32-bit length (PS3.5 7.1.2).
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

_IMPLICIT_LE = Encoding(explicit=False, little=True)


@dataclass(frozen=True, slots=True)
class Element:
    """Where one element lies: ``start`` of its tag, its ``value``, its ``end`` (that of its delimiter if it has one).

    ``vr`` is empty under Implicit VR; ``length`` is the length field, possibly ``UNDEFINED``.
    """

    tag: int
    vr: str
    start: int
    value: int
    length: int
    end: int

    @property
    def content_end(self) -> int:
        """Where the value ends: before the delimiter when the length is undefined."""
        return self.end - 8 if self.length == UNDEFINED else self.end


class Budget:
    """How many elements may still be looked at: bounds the work that a file can ask for."""

    def __init__(self, elements: int) -> None:
        self._left = elements

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Refused("Image DICOM illisible : trop d'éléments", code="dicom-elements")


def elements(
    buffer: Buffer,
    start: int,
    end: int,
    encoding: Encoding,
    budget: Budget,
    *,
    depth: int = 0,
    until: int = 0xFFFFFFFF,
) -> Iterator[Element]:
    """The elements from ``start`` to ``end``, or to an item delimiter, or to a tag over ``until``; neither is yielded.

    Raises ``Refused`` (``dicom-truncated``, ``dicom-syntax``, ``dicom-elements``, ``dicom-depth``).
    """
    position, order = start, "<" if encoding.little else ">"
    while position < end:
        if _tag(buffer, position, end, order) > until:
            return
        element = element_at(buffer, position, end, encoding, budget, depth=depth)
        if element.tag == ITEM_END:
            return
        yield element
        position = element.end


def element_at(
    buffer: Buffer, position: int, limit: int, encoding: Encoding, budget: Budget, *, depth: int = 0
) -> Element:
    """The element whose tag stands at ``position``. Raises as ``elements`` does."""
    budget.spend()
    order = "<" if encoding.little else ">"
    tag = _tag(buffer, position, limit, order)
    if not encoding.explicit or tag >> 16 == 0xFFFE:
        vr, value = b"", position + 8
        length = _number(buffer, position + 4, limit, order + "I")
    else:
        vr = bytes(buffer[position + 4 : position + 6])
        if not (vr.isalpha() and vr.isupper()):
            raise Refused("Image DICOM illisible : VR absente", code="dicom-syntax")
        if vr in _LONG:
            value, length = position + 12, _number(buffer, position + 8, limit, order + "I")
        else:
            value, length = position + 8, _number(buffer, position + 6, limit, order + "H")
    if length == UNDEFINED and tag != ITEM:
        inner = _IMPLICIT_LE if vr == b"UN" else encoding
        end = _sequence_end(buffer, value, limit, inner, budget, depth + 1)
    elif length == UNDEFINED:
        end = _item_end(buffer, value, limit, encoding, budget, depth + 1)
    else:
        end = value + length
    if end > limit:
        raise _truncated()
    return Element(tag, vr.decode("ascii"), position, value, length, end)


def items(
    buffer: Buffer, sequence: Element, encoding: Encoding, budget: Budget, *, depth: int = 0
) -> Iterator[Element]:
    """The items (or fragments) of a sequence, as elements of tag ``ITEM``."""
    position, end = sequence.value, sequence.content_end
    while position < end:
        item = element_at(buffer, position, end, encoding, budget, depth=depth + 1)
        if item.tag != ITEM:
            raise Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")
        yield item
        position = item.end


def inner_encoding(element: Element, encoding: Encoding) -> Encoding:
    """How the items of a sequence are laid out: a sequence under VR UN is Implicit Little Endian (PS3.5 6.2.2)."""
    return _IMPLICIT_LE if element.vr == "UN" else encoding


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file as a read-only buffer. Raises ``Refused`` (``dicom-part10``) when it is empty."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Refused("Le fichier n'est pas une image DICOM", code="dicom-part10")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield buffer


def has_long_length(vr: str) -> bool:
    """Has this VR a 32-bit length under Explicit VR?"""
    return vr.encode("ascii") in _LONG


def text(buffer: Buffer, element: Element) -> str:
    """A value as text, without its padding; bytes outside of ASCII as Latin-1."""
    return bytes(buffer[element.value : element.content_end]).decode("latin-1").strip(" \0")


def number(buffer: Buffer, element: Element, encoding: Encoding) -> int:
    """The first value of a US, SS, UL or IS element. Raises ``Refused`` (``dicom-value``)."""
    raw = bytes(buffer[element.value : element.content_end])
    order = "<" if encoding.little else ">"
    if element.tag in _BINARY_LONG and len(raw) >= 4:
        return int(struct.unpack_from(order + "I", raw)[0])
    if element.tag in _DECIMAL:
        try:
            return int(raw.decode("latin-1").strip(" \0").split("\\")[0] or "0")
        except ValueError:
            raise Refused("Image DICOM illisible : nombre mal formé", code="dicom-value") from None
    if len(raw) < 2:
        raise Refused("Image DICOM illisible : nombre absent", code="dicom-value")
    return int(struct.unpack_from(order + "H", raw)[0])


def write(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """One element of defined length, its value padded to even length."""
    padded = value + (b"\0" if vr in ("UI", "OB", "UN") else b" ") if len(value) % 2 else value
    return head(tag, vr, len(padded), encoding) + padded


def head(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Tag, VR and length of an element or item. Raises ``Refused`` (``dicom-value``) when the length does not fit."""
    order = "<" if encoding.little else ">"
    group, number_ = tag >> 16, tag & 0xFFFF
    if not encoding.explicit or group == 0xFFFE:
        return struct.pack(order + "HHI", group, number_, length)
    raw = vr.encode("ascii")
    if raw in _LONG:
        return struct.pack(order + "HH2sHI", group, number_, raw, 0, length)
    if length > 0xFFFF:
        raise Refused("Image DICOM illisible : valeur trop longue", code="dicom-value")
    return struct.pack(order + "HH2sH", group, number_, raw, length)


#: Elements whose ``number`` is read otherwise than as 16 bits.
_DECIMAL = frozenset((0x00280008,))
_BINARY_LONG = frozenset((0x00020000, 0x00100000))


def _sequence_end(buffer: Buffer, position: int, limit: int, encoding: Encoding, budget: Budget, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise Refused("Image DICOM illisible : trop imbriquée", code="dicom-depth")
    while True:
        item = element_at(buffer, position, limit, encoding, budget, depth=depth)
        position = item.end
        if item.tag == SEQUENCE_END:
            return position
        if item.tag != ITEM:
            raise Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")


def _item_end(buffer: Buffer, position: int, limit: int, encoding: Encoding, budget: Budget, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise Refused("Image DICOM illisible : trop imbriquée", code="dicom-depth")
    while True:
        element = element_at(buffer, position, limit, encoding, budget, depth=depth)
        position = element.end
        if element.tag == ITEM_END:
            return position


def _tag(buffer: Buffer, position: int, limit: int, order: str) -> int:
    if position + 8 > limit:
        raise _truncated()
    group, number_ = struct.unpack_from(order + "HH", buffer, position)
    return int(group) << 16 | int(number_)


def _number(buffer: Buffer, position: int, limit: int, form: str) -> int:
    if position + struct.calcsize(form) > limit:
        raise _truncated()
    return int(struct.unpack_from(form, buffer, position)[0])


def _truncated() -> Refused:
    return Refused("Image DICOM tronquée", code="dicom-truncated")
