"""Data elements as bytes (PS3.5 7): found, skipped and written without being understood.

Works on any buffer (bytes, a memory-mapped file). Every length is checked against the end of its surroundings, tags
must rise, nesting and the number of elements are bounded: hostile bytes cost little and end in ``Refused``.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from drimbox.dicom.syntaxes import Encoding
from drimbox.foundation.errors import Refused

Buffer = bytes | bytearray | memoryview | mmap.mmap

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00008, 0x7FE00009
MAX_DEPTH = 32

#: Value representations with a 32-bit length (PS3.5 7.1.2).
_LONG_NAMES = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_SHORT_NAMES = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT"),
    *("PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
)
_LONG = frozenset(_LONG_NAMES)
#: The bytes of a VR: its name, and whether its length has 32 bits.
_VRS = {name.encode(): (name, name in _LONG) for name in (*_LONG_NAMES, *_SHORT_NAMES)}
_SHORT = {name.encode(): name for name in _SHORT_NAMES}

_IMPLICIT_LE = Encoding(explicit=False, little=True)
# Tag, VR and length as they stand in the first eight bytes of an element; tag and length where there is no VR.
_EXPLICIT_HEAD = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_IMPLICIT_HEAD = {True: struct.Struct("<HHI"), False: struct.Struct(">HHI")}
_LENGTH = {True: struct.Struct("<I"), False: struct.Struct(">I")}


class Element(NamedTuple):
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

    __slots__ = ("left",)

    def __init__(self, elements: int) -> None:
        self.left = elements

    def spend(self) -> None:
        """Count one element. Raises ``Refused`` (``dicom-elements``)."""
        self.left -= 1
        if self.left < 0:
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
    ordered: bool = True,
) -> Iterator[Element]:
    """The elements from ``start`` to ``end``, or to an item delimiter, or to a tag over ``until``; neither is yielded.

    Raises ``Refused``: ``dicom-truncated``, ``dicom-syntax``, ``dicom-elements``, ``dicom-depth``, and ``dicom-order``
    where a tag does not rise: readers differ in which of two values counts, so there must not be two. An element that
    stands twice, byte for byte the same, is let through. ``ordered`` False lets every order through.
    """
    position, last = start, -1
    before: Element | None = None
    read_head = _EXPLICIT_HEAD[encoding.little].unpack_from if encoding.explicit else None
    while position < end:
        element: Element | None = None
        if read_head is not None and position + 8 <= end:
            # The usual element, whose length has 16 bits, without a call: this loop is what serving an image costs.
            group, number_, code, length = read_head(buffer, position)
            vr, stop = _SHORT.get(code), position + 8 + length
            if vr is not None and stop <= end and group != 0xFFFE and budget.left > 0:
                tag = group << 16 | number_
                if tag > until:
                    return
                budget.left -= 1
                element = Element(tag, vr, position, position + 8, length, stop)
        if element is None:
            element = _element(buffer, position, end, encoding, budget, depth, until)
            if element is None or element.tag == ITEM_END:
                return
        tag = element[0]
        if tag <= last and ordered and not _repeated(buffer, before, element):
            raise Refused("Image DICOM illisible : éléments en désordre", code="dicom-order")
        last, before = tag, element
        yield element
        position = element[5]


def element_at(
    buffer: Buffer, position: int, limit: int, encoding: Encoding, budget: Budget, *, depth: int = 0
) -> Element:
    """The element whose tag stands at ``position``. Raises as ``elements`` does."""
    element = _element(buffer, position, limit, encoding, budget, depth, 0xFFFFFFFF)
    assert element is not None
    return element


def items(
    buffer: Buffer, sequence: Element, encoding: Encoding, budget: Budget, *, depth: int = 0
) -> Iterator[Element]:
    """The items (or fragments) of a sequence, as elements of tag ``ITEM``."""
    position, end = sequence.value, sequence.content_end
    while position < end:
        item = element_at(buffer, position, end, encoding, budget, depth=depth + 1)
        if item.tag != ITEM:
            raise _malformed()
        yield item
        position = item.end


def inner_encoding(element: Element, encoding: Encoding) -> Encoding:
    """How the items of a sequence are laid out: a sequence under VR UN is Implicit Little Endian (PS3.5 6.2.2)."""
    return _IMPLICIT_LE if element.vr == "UN" else encoding


def has_long_length(vr: str) -> bool:
    """Has this VR a 32-bit length under Explicit VR?"""
    return vr in _LONG


def raw(buffer: Buffer, element: Element) -> bytes:
    """The bytes of a value."""
    return bytes(buffer[element.value : element.content_end])


def text(buffer: Buffer, element: Element) -> str:
    """A value as text, without its padding; bytes outside of ASCII as Latin-1."""
    return raw(buffer, element).decode("latin-1").strip(" \0")


def number(buffer: Buffer, element: Element, encoding: Encoding) -> int:
    """The first value of a US, SS, UL or IS element. Raises ``Refused`` (``dicom-value``)."""
    value = raw(buffer, element)
    order = "<" if encoding.little else ">"
    if element.tag in _BINARY_LONG and len(value) >= 4:
        return int(struct.unpack_from(order + "I", value)[0])
    if element.tag in _DECIMAL:
        first = value.split(b"\\", 1)[0].strip(b" \0") or b"0"
        if not _INTEGER.fullmatch(first):
            raise Refused("Image DICOM illisible : nombre mal formé", code="dicom-value")
        return int(first)
    if len(value) < 2:
        raise Refused("Image DICOM illisible : nombre absent", code="dicom-value")
    return int(struct.unpack_from(order + "H", value)[0])


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
    name = vr.encode("ascii")
    if vr in _LONG:
        return struct.pack(order + "HH2sHI", group, number_, name, 0, length)
    if length > 0xFFFF:
        raise Refused("Image DICOM illisible : valeur trop longue", code="dicom-value")
    return struct.pack(order + "HH2sH", group, number_, name, length)


#: Elements whose ``number`` is read otherwise than as 16 bits.
_DECIMAL = frozenset((0x00280008,))
_INTEGER = re.compile(rb"[+-]?[0-9]{1,12}")
_BINARY_LONG = frozenset((0x00020000, 0x00080000, 0x00100000, 0x00200000, 0x00280000))


def _element(
    buffer: Buffer, position: int, limit: int, encoding: Encoding, budget: Budget, depth: int, until: int
) -> Element | None:
    """The element at ``position``; None when its tag is over ``until``."""
    value = position + 8
    if value > limit:
        raise _truncated()
    little = encoding.little
    if encoding.explicit:
        group, number_, code, length = _EXPLICIT_HEAD[little].unpack_from(buffer, position)
        tag: int = group << 16 | number_
        if tag > until:
            return None
        vr = ""
        if group == 0xFFFE:
            (length,) = _LENGTH[little].unpack_from(buffer, position + 4)
        else:
            vr, long = _VRS.get(code) or _unknown_vr(code)
            if long:
                if value + 4 > limit:
                    raise _truncated()
                (length,) = _LENGTH[little].unpack_from(buffer, value)
                value += 4
    else:
        vr = ""
        group, number_, length = _IMPLICIT_HEAD[little].unpack_from(buffer, position)
        tag = group << 16 | number_
        if tag > until:
            return None
    budget.left -= 1
    if budget.left < 0:
        raise Refused("Image DICOM illisible : trop d'éléments", code="dicom-elements")
    if length == UNDEFINED:
        end = _undefined_end(buffer, tag, vr, value, limit, encoding, budget, depth + 1)
    else:
        end = value + length
    if end > limit:
        raise _truncated()
    return Element(tag, vr, position, value, length, end)


def _undefined_end(
    buffer: Buffer, tag: int, vr: str, position: int, limit: int, encoding: Encoding, budget: Budget, depth: int
) -> int:
    """Where what has no length ends: an item with its delimiter, anything else as a sequence with its own."""
    if depth > MAX_DEPTH:
        raise Refused("Image DICOM illisible : trop imbriquée", code="dicom-depth")
    if tag == ITEM:
        while True:
            element = element_at(buffer, position, limit, encoding, budget, depth=depth)
            position = element.end
            if element.tag == ITEM_END:
                return position
    if vr == "UN":
        encoding = _IMPLICIT_LE
    while True:
        item = element_at(buffer, position, limit, encoding, budget, depth=depth)
        position = item.end
        if item.tag == SEQUENCE_END:
            return position
        if item.tag != ITEM:
            raise _malformed()


def _repeated(buffer: Buffer, before: Element | None, element: Element) -> bool:
    return before is not None and bytes(buffer[before.start : before.end]) == bytes(buffer[element.start : element.end])


def _unknown_vr(code: bytes) -> tuple[str, bool]:
    """A VR that is not in the list, read as one of short length: files exist with VRs of their makers' own."""
    if not (code.isalpha() and code.isupper()):
        raise Refused("Image DICOM illisible : VR absente", code="dicom-syntax")
    return code.decode("ascii"), False


def _malformed() -> Refused:
    return Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")


def _truncated() -> Refused:
    return Refused("Image DICOM tronquée", code="dicom-truncated")
