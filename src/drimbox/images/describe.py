"""The header of an image as DICOM JSON (PS3.18 annex F), written from its bytes.

For many images of one series, which say mostly the same: what was written once is not understood again.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Sequence

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import PersonName

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded
from drimbox.dicom.elements import Budget, Buffer, Element, element_at, elements, inner_encoding, items
from drimbox.dicom.files import read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE, NEVER_SENT, Encoding, encoding_of
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Ins
from drimbox.images.header import OTHER_IDS, with_ins

#: A longer binary value is left out: there is no bulk data resource to point to.
MAX_INLINE = 1024
_REMEMBERED_BYTES = 2**16
_CONTEXTS = 8
_AVAILABLE_SYNTAX = 0x00083002
_CHARACTER_SET = 0x00080005
_REPRESENTATION = 0x00280103
_PIXELS = 0x7FE00000

_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_BINARY = {"OB": 1, "UN": 1, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_SINGLE = frozenset(("LT", "ST", "UT", "UR"))
_IN_CHARACTER_SET = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TEXT_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C}
_IMPLICIT_LE = Encoding(explicit=False, little=True)


class Describer:
    """Writes the descriptions of images, best those of one series one after the other. For one thread at a time."""

    def __init__(self, max_elements: int = 50_000) -> None:
        self._max_elements = max_elements
        # For each way to understand text and numbers: an element's bytes, and what was written for them, by its tag.
        self._known: dict[object, dict[bytes, tuple[bytes, bytes]]] = {}

    def describe(self, buffer: Buffer, ins: Ins) -> bytes:
        """The header of a Part 10 file, with the INS of its patient, as one JSON object without its pixels.

        Raises ``IdentityMismatch`` when the image names another INS, ``Refused`` when it cannot be read, is deflated
        (``dicom-deflated``) or has very many elements (``dicom-elements``).
        """
        change = with_ins(buffer, ins)
        meta = read_meta(buffer)
        if meta.transfer_syntax == DEFLATED_LE:
            raise Refused("Image DICOM compressée en entier (deflate)", code="dicom-deflated")
        if not is_uid(meta.transfer_syntax):
            raise Refused("Image DICOM sans syntaxe de transfert", code="dicom-part10")
        available = EXPLICIT_LE if meta.transfer_syntax in NEVER_SENT else meta.transfer_syntax
        try:
            written = self._fragments(buffer, meta.end, encoding_of(meta.transfer_syntax), bool(change.head), ins)
        except (ValueError, LookupError, struct.error, AttributeError, TypeError) as error:
            raise Refused("Image DICOM illisible : en-tête mal formé", code="dicom-syntax") from error
        written[_AVAILABLE_SYNTAX] = b'"00083002":{"vr":"UI","Value":["%s"]}' % available.encode("ascii")
        return b"{" + b",".join(written[tag] for tag in sorted(written) if written[tag]) + b"}"

    def _fragments(
        self, buffer: Buffer, position: int, encoding: Encoding, adds_ins: bool, ins: Ins
    ) -> dict[int, bytes]:
        reader = _Reader(buffer, encoding, self._max_elements)
        memory = self._memory(reader)
        written: dict[int, bytes] = {}
        order, size, last = struct.Struct("<HH" if encoding.little else ">HH"), len(buffer), -1
        while position + 8 <= size:
            tag_bytes = bytes(buffer[position : position + 4])
            group, number = order.unpack(tag_bytes)
            tag = group << 16 | number
            if tag >= _PIXELS:
                break
            if tag <= last:
                raise Refused("Image DICOM illisible : éléments en désordre", code="dicom-order")
            last = tag
            known = memory.get(tag_bytes)
            if known is not None and buffer[position : position + len(known[0])] == known[0]:
                written[tag] = known[1]
                position += len(known[0])
                continue
            element = element_at(buffer, position, size, encoding, reader.budget)
            position = element.end
            if tag == OTHER_IDS:
                written[tag] = reader.sequence(element, (_ins_item(ins),) if adds_ins else ())
                continue
            written[tag] = reader.fragment(element)
            # Those that change what others mean are understood each time.
            if tag in (_CHARACTER_SET, _REPRESENTATION):
                memory = self._memory(reader)
            elif element.end - element.start <= _REMEMBERED_BYTES:
                memory[tag_bytes] = bytes(buffer[element.start : element.end]), written[tag]
        if adds_ins and OTHER_IDS not in written:
            written[OTHER_IDS] = b'"00101002":{"vr":"SQ","Value":[%s]}' % _ins_item(ins)
        return written

    def _memory(self, reader: _Reader) -> dict[bytes, tuple[bytes, bytes]]:
        if len(self._known) > _CONTEXTS:
            self._known.clear()
        return self._known.setdefault(reader.context, {})


class _Reader:
    """Writes the elements of one image."""

    def __init__(self, buffer: Buffer, encoding: Encoding, max_elements: int) -> None:
        self.buffer = buffer
        self.budget = Budget(max_elements)
        self._encoding = encoding
        self._charsets: Sequence[str] = DEFAULT
        self._signed = False

    @property
    def context(self) -> tuple[object, ...]:
        return self._encoding, tuple(self._charsets), self._signed

    def fragment(self, element: Element) -> bytes:
        """``"GGGGEEEE":{...}``; empty for what is left out."""
        return self._fragment(element, self._encoding, 0)

    def sequence(self, element: Element, more: Sequence[bytes] = ()) -> bytes:
        """A sequence, with further items at its end."""
        return self._sequence(element, self._encoding, 0, more)

    def _fragment(self, element: Element, encoding: Encoding, depth: int) -> bytes:
        tag = element.tag
        if tag & 0xFFFF == 0:
            return b""
        vr = self._vr(element)
        if vr == "SQ":
            return self._sequence(element, encoding, depth, ())
        if element.vr == "UN":
            # What was written by somebody who did not know it, is Implicit Little Endian (PS3.5 6.2.2).
            encoding = _IMPLICIT_LE
        raw = bytes(self.buffer[element.value : element.content_end])
        if vr in _BINARY:
            if len(raw) > MAX_INLINE:
                return b""
            value = _binary(raw, vr, encoding)
            return b'"%08X":{"vr":"%s"%s}' % (tag, vr.encode(), value)
        values = self._values(vr, raw, encoding)
        if tag == _CHARACTER_SET:
            self._charsets = codecs_of(raw) if raw else DEFAULT
        elif tag == _REPRESENTATION:
            self._signed = values == [1]
        if not values:
            return b'"%08X":{"vr":"%s"}' % (tag, vr.encode())
        return b'"%08X":{"vr":"%s","Value":%s}' % (tag, vr.encode(), _dumped(values))

    def _sequence(self, element: Element, encoding: Encoding, depth: int, more: Sequence[bytes]) -> bytes:
        inside = inner_encoding(element, encoding)
        charsets, signed = self._charsets, self._signed
        written = []
        for item in items(self.buffer, element, inside, self.budget, depth=depth):
            inner = elements(self.buffer, item.value, item.content_end, inside, self.budget, depth=depth + 1)
            fragments = [self._fragment(each, inside, depth + 1) for each in inner]
            # What an item says of its own text holds for it alone.
            self._charsets, self._signed = charsets, signed
            written.append(b"{" + b",".join(filter(None, fragments)) + b"}")
        written += more
        if not written:
            return b'"%08X":{"vr":"SQ"}' % element.tag
        return b'"%08X":{"vr":"SQ","Value":[%s]}' % (element.tag, b",".join(written))

    def _vr(self, element: Element) -> str:
        if element.vr and element.vr != "UN":
            return element.vr
        tag = element.tag
        if tag >> 16 & 1:
            return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return "UN"
        if vr == "US or SS":
            return "SS" if self._signed else "US"
        return {"OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}.get(vr, vr)

    def _values(self, vr: str, raw: bytes, encoding: Encoding) -> list[object]:
        if vr in _NUMBERS or vr == "AT":
            return _numbers(raw, vr, encoding)
        if vr == "PN":
            return self._names(raw)
        if vr in _IN_CHARACTER_SET:
            text = decoded(raw, self._charsets, _TEXT_DELIMITERS | ({0x5C} if vr not in _SINGLE else set()))
        else:
            text = raw.decode("latin-1")
        if vr in _SINGLE:
            return [text.rstrip(" \0")] if text.rstrip(" \0") else []
        values = _split(text)
        if vr in ("DS", "IS"):
            return [_number(value) if value else None for value in values]
        return [value or None for value in values]

    def _names(self, raw: bytes) -> list[object]:
        names: list[object] = []
        for one in raw.rstrip(b" \0").split(b"\\") if raw.strip(b" \0") else ():
            name = PersonName(one, list(self._charsets))
            parts = {"Alphabetic": name.alphabetic, "Ideographic": name.ideographic, "Phonetic": name.phonetic}
            names.append({key: value for key, value in parts.items() if value} or None)
        return names


def _split(text: str) -> list[str]:
    """The values of a text; none at all for an empty one."""
    stripped = text.rstrip(" \0")
    return [value.strip(" \0") for value in stripped.split("\\")] if stripped else []


def _number(text: str) -> object:
    if _JSON_NUMBER.fullmatch(text):
        return _Exact(text)
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


class _Exact(str):
    """A number as it was written."""

    __slots__ = ()


def _numbers(raw: bytes, vr: str, encoding: Encoding) -> list[object]:
    order = "<" if encoding.little else ">"
    if vr == "AT":
        count = len(raw) // 4
        pairs = struct.unpack(f"{order}{2 * count}H", raw[: 4 * count])
        return [f"{group:04X}{number:04X}" for group, number in zip(pairs[::2], pairs[1::2], strict=True)]
    code = _NUMBERS[vr]
    count = len(raw) // struct.calcsize(order + code)
    values = struct.unpack(f"{order}{count}{code}", raw[: count * struct.calcsize(order + code)])
    return [v if math.isfinite(v) else _NOT_FINITE[str(v)] for v in values]


_NOT_FINITE = {"nan": "NaN", "inf": "inf", "-inf": "-inf"}


def _binary(raw: bytes, vr: str, encoding: Encoding) -> bytes:
    if not raw:
        return b""
    width = _BINARY[vr]
    if not encoding.little and width > 1:
        # Bulk data in JSON is little endian (PS3.18 F.2.7).
        raw = b"".join(raw[at : at + width][::-1] for at in range(0, len(raw), width))
    return b',"InlineBinary":"%s"' % base64.b64encode(raw)


def _dumped(values: list[object]) -> bytes:
    if any(isinstance(value, _Exact) for value in values):
        return b"[" + b",".join(_dump(value) for value in values) + b"]"
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _dump(value: object) -> bytes:
    if isinstance(value, _Exact):
        return value.encode("ascii")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _ins_item(ins: Ins) -> bytes:
    """The item of ``header.with_ins``."""
    issuer = {"00400032": {"vr": "UT", "Value": [ins.oid]}, "00400033": {"vr": "CS", "Value": ["ISO"]}}
    item = {
        "00100020": {"vr": "LO", "Value": [ins.matricule]},
        "00100021": {"vr": "LO", "Value": [ins.authority.namespace]},
        "00100022": {"vr": "CS", "Value": ["TEXT"]},
        "00100024": {"vr": "SQ", "Value": [issuer]},
    }
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
