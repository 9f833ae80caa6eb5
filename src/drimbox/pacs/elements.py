"""Walks the elements of a data set without decoding what nobody asks for (PS3.5 7). No I/O.

Made for two uses: the identity of a file that just landed, and the thousands of answers of a C-FIND. Every length is
checked against what is there, and nesting is limited.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.charset import convert_encodings, decode_bytes

from drimbox.pacs.dimse import uids

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_DEPTH = 16
# A French set that came late to the standard, and that pydicom does not know.
_LATIN_9 = "ISO_IR 203"
_SET = re.compile(r"ISO[ _-]?(?:2022[ _-])?(?:IR[ _-]?)?[0-9]{1,3}|(?:ISO 2022 )?GBK|GB18030")
_TEXT_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C, 0x5C, 0x5E, 0x3D}


class InvalidDataset(Exception):
    """What came is not a data set."""


class Element(NamedTuple):
    """An element; ``value`` is the raw value, for a sequence the raw items."""

    tag: int
    value: memoryview


class _Layout(NamedTuple):
    explicit: bool
    tag: struct.Struct
    long: struct.Struct
    short: struct.Struct


_IMPLICIT_LE = _Layout(False, struct.Struct("<HH"), struct.Struct("<I"), struct.Struct("<H"))
_EXPLICIT_LE = _Layout(True, struct.Struct("<HH"), struct.Struct("<I"), struct.Struct("<H"))
_EXPLICIT_BE = _Layout(True, struct.Struct(">HH"), struct.Struct(">I"), struct.Struct(">H"))


def _layout(transfer_syntax: str) -> _Layout:
    if transfer_syntax == uids.IMPLICIT_LE:
        return _IMPLICIT_LE
    return _EXPLICIT_BE if transfer_syntax == uids.EXPLICIT_BE else _EXPLICIT_LE


def inflated(data: memoryview, most: int) -> memoryview:
    """The first ``most`` bytes of a deflated data set (PS3.5 A.5). Raises ``InvalidDataset``."""
    try:
        return memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most))
    except zlib.error as error:
        raise InvalidDataset("data set cannot be inflated") from error


def elements(data: memoryview, transfer_syntax: str, *, last: int = 0xFFFFFFFF) -> Iterator[Element]:
    """The elements of a data set in order, up to tag ``last``. Raises ``InvalidDataset``.

    The transfer syntax must not be a deflated one: inflate first.
    """
    layout = _layout(transfer_syntax)
    offset, end = 0, len(data)
    while offset < end:
        tag, length, offset, inner = _header(data, offset, layout)
        if tag > last:
            return
        start = offset
        offset = _skip(data, offset, inner, 0) if length == UNDEFINED else offset + length
        if offset > end:
            raise InvalidDataset("element longer than the data set")
        yield Element(tag, data[start:offset])


def items(value: memoryview, transfer_syntax: str) -> Iterator[dict[int, memoryview]]:
    """The items of a sequence, each as its elements by tag. Raises ``InvalidDataset``."""
    layout = _layout(transfer_syntax)
    offset, end = 0, len(value)
    while offset < end:
        tag, length, offset, _ = _header(value, offset, layout)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise InvalidDataset("no item where one must be")
        start = offset
        offset = _skip_item(value, offset, layout, 0) if length == UNDEFINED else offset + length
        if offset > end:
            raise InvalidDataset("item longer than its sequence")
        body = value[start : offset - 8] if length == UNDEFINED else value[start:offset]
        yield {element.tag: element.value for element in elements(body, transfer_syntax)}


def _header(data: memoryview, offset: int, layout: _Layout) -> tuple[int, int, int, _Layout]:
    """Tag, length, where the value begins, and the layout of what lies inside."""
    try:
        group, number = layout.tag.unpack_from(data, offset)
        tag = group << 16 | number
        if not layout.explicit or group == 0xFFFE:
            return tag, layout.long.unpack_from(data, offset + 4)[0], offset + 8, layout
        vr = bytes(data[offset + 4 : offset + 6])
        if vr in _LONG_VRS:
            length = layout.long.unpack_from(data, offset + 8)[0]
            # An unknown VR of undefined length holds implicit little endian (PS3.5 6.2.2, note 4).
            return tag, length, offset + 12, _IMPLICIT_LE if vr == b"UN" and length == UNDEFINED else layout
        if not (vr.isalpha() and vr.isupper()):
            raise InvalidDataset("element without a VR")
        return tag, layout.short.unpack_from(data, offset + 6)[0], offset + 8, layout
    except struct.error as error:
        raise InvalidDataset("element cut short") from error


def _skip(data: memoryview, offset: int, layout: _Layout, depth: int) -> int:
    """Where a sequence (or encapsulated pixel data) of undefined length ends."""
    if depth > _DEPTH:
        raise InvalidDataset("sequences nested too deep")
    while True:
        tag, length, offset, _ = _header(data, offset, layout)
        if tag == _SEQUENCE_END:
            return offset
        if tag != _ITEM:
            raise InvalidDataset("no item where one must be")
        offset = _skip_item(data, offset, layout, depth) if length == UNDEFINED else offset + length


def _skip_item(data: memoryview, offset: int, layout: _Layout, depth: int) -> int:
    while True:
        tag, length, offset, inner = _header(data, offset, layout)
        if tag == _ITEM_END:
            return offset
        offset = _skip(data, offset, inner, depth + 1) if length == UNDEFINED else offset + length


def text(value: memoryview | None, charset: str = "") -> str:
    """The text of a value, its padding off; ``charset`` is the Specific Character Set (0008,0005), backslashes between.

    An unknown or missing set is read as Latin 1, and what a set cannot hold becomes U+FFFD: text is compared and shown,
    never a reason to fail.
    """
    if value is None:
        return ""
    data = bytes(value).rstrip(b"\0 ")
    if data.isascii() and b"\x1b" not in data:
        return data.decode("ascii").strip()
    if charset.strip() == _LATIN_9:
        return data.decode("iso8859_15").strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # pydicom would take any name of a Python codec, and fails on what can be none.
        names = [name if _SET.fullmatch(name := each.strip()) else "" for each in charset.split("\\")]
        encodings = convert_encodings(names)
        return str(decode_bytes(data, encodings, _TEXT_DELIMITERS)).strip()
