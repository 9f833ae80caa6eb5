"""DICOM: elements of data sets and files, PDUs and command sets."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from fuzz.mutate import odd_number, odd_text

_TAGS = (
    0x00020000,
    0x00020010,
    0x00080005,
    0x00080016,
    0x00080018,
    0x00080050,
    0x00081115,
    0x00081199,
    0x00081155,
    0x00081150,
    0x00100010,
    0x00100020,
    0x00100024,
    0x00101002,
    0x0020000D,
    0x0020000E,
    0x00280008,
    0x00280010,
    0x00280011,
    0x00280100,
    0x0040A043,
    0x0040A160,
    0x0040A370,
    0x0040A375,
    0x0040A730,
    0x00400032,
    0x7FE00010,
    0xFFFEE000,
    0xFFFEE00D,
    0xFFFEE0DD,
)
_VRS = (
    b"UI",
    b"SQ",
    b"UN",
    b"LO",
    b"PN",
    b"OB",
    b"OW",
    b"US",
    b"UL",
    b"IS",
    b"CS",
    b"DA",
    b"UT",
    b"AT",
    b"??",
    b"\x00\x00",
    b"ui",
)
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SYNTAXES = (
    b"1.2.840.10008.1.2\x00",
    b"1.2.840.10008.1.2.1\x00",
    b"1.2.840.10008.1.2.2\x00",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.50",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.5\x00",
)
_CHARSETS = (
    b"ISO_IR 100",
    b"ISO_IR 192",
    b"ISO_IR 203",
    b"ISO 2022 IR 87",
    b"\\ISO 2022 IR 149",
    b"GB18030 ",
    b"nothing ",
    b"\\" * 30,
    b"ISO_IR 13",
)


def _element(random: Random, value: bytes) -> bytes:
    tag, vr = random.choice(_TAGS), random.choice(_VRS)
    length = random.choice((len(value), len(value), 0xFFFFFFFF, odd_number(random) & 0xFFFFFFFF))
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if random.random() < 0.2 or tag >> 16 == 0xFFFE:
        return head + struct.pack("<I", length) + value
    if vr in _LONG:
        return head + vr + b"\0\0" + struct.pack("<I", length) + value
    return head + vr + struct.pack("<H", length & 0xFFFF) + value


def _places(data: bytes) -> list[int]:
    """Where known tags stand, in little endian."""
    found = []
    for tag in _TAGS:
        mark, at = struct.pack("<HH", tag >> 16, tag & 0xFFFF), -1
        while (at := data.find(mark, at + 1)) >= 0 and len(found) < 400:
            found.append(at)
    return found


def put_element(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """An element that was not there, before one that was."""
    at = random.choice(_places(data) or [len(data)])
    value = random.choice((b"", odd_text(random), _element(random, b"x"), random.choice(_CHARSETS)))
    return data[:at] + _element(random, value) * random.choice((1, 1, 1, 30)) + data[at:]


def change_length(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """The length of an element says something else."""
    at = random.choice(_places(data) or [0])
    long = data[at + 4 : at + 6] in _LONG
    offset, form, mask = random.choice(
        ((8, "<I", 0xFFFFFFFF), (6, "<H", 0xFFFF), (4, "<I", 0xFFFFFFFF))[0 if long else 1 :]
    )
    number = random.choice((odd_number(random), 0xFFFFFFFF, len(data) - at)) & mask
    return data[: at + offset] + struct.pack(form, number) + data[at + offset + struct.calcsize(form) :]


def change_tag(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """An element gets another tag, or another VR."""
    at = random.choice(_places(data) or [0])
    if random.random() < 0.5:
        tag = random.choice(_TAGS)
        return data[:at] + struct.pack("<HH", tag >> 16, tag & 0xFFFF) + data[at + 4 :]
    return data[: at + 4] + random.choice(_VRS) + data[at + 6 :]


def nest(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Sequences in sequences, closed or not."""
    at = random.choice(_places(data) or [len(data)])
    depth = random.choice((2, 15, 16, 17, 31, 33, 2000))
    opening = struct.pack("<HH2sHIHHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return data[:at] + opening * depth + closing * random.choice((depth, depth - 1, 0)) + data[at:]


def syntax(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """The file says that it is in another transfer syntax, or another character set."""
    mark = struct.pack("<HH2sH", 2, 0x10, b"UI", 20)[:6]
    at = data.find(mark)
    if at < 0:
        return put_element(random, data, ())
    length = struct.unpack_from("<H", data, at + 6)[0] if len(data) > at + 8 else 0
    value = random.choice(_SYNTAXES)
    return data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


FILE = (put_element, change_length, change_length, change_tag, nest, syntax)


def change_pdu(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """PDUs are left out, doubled, moved, cut up anew; their type or length is changed."""
    units = _pdus(data)
    at = random.randrange(len(units))
    kind, body = units[at]
    match random.randrange(8):
        case 0:
            del units[at]
        case 1:
            units[at:at] = [units[at]] * random.choice((1, 3, 60))
        case 2:
            units.insert(random.randrange(len(units)), units.pop(at))
        case 3:
            units[at] = (random.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 255)), body)
        case 4:
            other = _pdus(random.choice(corpus)) if corpus else units
            units.insert(at, random.choice(other))
        case 5 if kind == 4:
            units[at : at + 1] = _fragments(random, body)
        case 6:
            raw = b"".join(_pdu(k, b) for k, b in units[:at])
            wrong = struct.pack(">BxI", kind, odd_number(random) & 0xFFFFFFFF) + body
            return raw + wrong + b"".join(_pdu(k, b) for k, b in units[at + 1 :])
        case _:
            units[at] = (kind, _item(random, body))
    return b"".join(_pdu(k, b) for k, b in units)


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _pdus(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + 6 <= len(data) and len(found) < 200:
        kind, length = struct.unpack_from(">BxI", data, at)
        found.append((kind, data[at + 6 : at + 6 + length]))
        at += 6 + length
    return found or [(1, data)]


def _fragments(random: Random, body: bytes) -> list[tuple[int, bytes]]:
    """A presentation data value in pieces, with flags that may lie."""
    if len(body) < 6:
        return [(4, body)]
    context, flags, data = body[4], body[5], body[6:]
    size = random.choice((1, 2, 7, 100))
    pieces = [data[i : i + size] for i in range(0, min(len(data), 4000), size)] or [b""]
    made = []
    for number, piece in enumerate(pieces):
        last = flags if number == len(pieces) - 1 else flags & ~2
        last = random.choice((0, 1, 2, 3)) if random.random() < 0.02 else last
        made.append(struct.pack(">IBB", len(piece) + 2, context, last) + piece)
    if random.random() < 0.5:
        return [(4, b"".join(made))]
    return [(4, one) for one in made]


def _item(random: Random, body: bytes) -> bytes:
    """A 16-bit number somewhere in the PDU changes, as the lengths of items and elements are."""
    if len(body) < 4:
        return body + b"\0"
    at = random.randrange(len(body) - 1)
    return body[:at] + struct.pack(random.choice((">H", "<H")), odd_number(random) & 0xFFFF) + body[at + 2 :]


PDU = (change_pdu, change_pdu, change_pdu)
