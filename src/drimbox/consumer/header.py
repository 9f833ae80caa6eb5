"""One received image, read once: its DICOM JSON header (PS3.18 F.2), and where its pixels lie in the file."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded
from drimbox.dicom.elements import UNDEFINED, Budget, Buffer, Element, elements, inner_encoding, items, raw, text
from drimbox.dicom.files import Meta, mapped, read_meta
from drimbox.dicom.pixels import SIGNED, Layout, Pixels, read_layout
from drimbox.dicom.syntaxes import DEFLATED_LE, Encoding, encoding_of
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid

# Longer binary values are fetched apart by the viewer; palettes and the like are wanted at once.
_INLINE_BYTES = 2048
_INLINE_TABLE_BYTES = 256 * 1024
_MAX_DEPTH = 16

_MAX_ELEMENTS = 1_000_000

# What values that are not what their VR says make their conversion raise.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)

_CHARACTER_SET = 0x00080005
_PIXEL_GROUP, _PADDING_GROUP = 0x7FE0, 0xFFFC
_TEXT = frozenset({"LO", "SH", "UC", "LT", "ST", "UT", "PN"})
_SINGLE = frozenset({"LT", "ST", "UT", "UR"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "UL": "I", "US": "H", "SV": "q", "UV": "Q"}


@dataclass(frozen=True, slots=True)
class Header:
    """What serving one file takes: its identifiers, its transfer syntax, its pixels if it has any that can be shown."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    pixels: Pixels | None


def read_header(path: Path) -> tuple[Header, bytes]:
    """The header of a Part 10 file, and its metadata as DICOM JSON (one object).

    Long binary values stand there as BulkDataURI relative to the series. Raises ``Refused`` (``dicom-file``) for what
    is not a DICOM file, or has no identifiers.
    """
    try:
        with mapped(path) as buffer:
            meta = read_meta(buffer)
            if meta.transfer_syntax == DEFLATED_LE:
                raise Refused("Image compressée d'un bloc (deflate) : non affichable", code="dicom-file")
            found, pixels = _look(buffer, meta)
            words = {e.tag: text(buffer, e) for e in found if e.tag in _IDENTIFIERS}
            header = Header(
                study_uid=words.get(_STUDY, ""),
                series_uid=words.get(_SERIES, ""),
                sop_class_uid=words.get(_SOP_CLASS, ""),
                sop_instance_uid=words.get(_SOP_INSTANCE, ""),
                transfer_syntax_uid=meta.transfer_syntax,
                pixels=pixels,
            )
            if not (header.study_uid and header.series_uid and is_uid(header.sop_instance_uid)):
                raise Refused("Image reçue sans identifiants", code="dicom-file")
            return header, _metadata(buffer, found, encoding_of(meta.transfer_syntax), header)
    except Refused as refused:
        if refused.code == "dicom-file":
            raise
        raise Refused("Image reçue illisible", code="dicom-file") from refused
    except _DAMAGE:
        # Not chained: the messages quote values.
        raise Refused("Image reçue illisible", code="dicom-file") from None


_STUDY, _SERIES, _SOP_CLASS, _SOP_INSTANCE = 0x0020000D, 0x0020000E, 0x00080016, 0x00080018
_IDENTIFIERS = frozenset((_STUDY, _SERIES, _SOP_CLASS, _SOP_INSTANCE))


def _look(buffer: Buffer, meta: Meta) -> tuple[Sequence[Element], Pixels | None]:
    """The elements before the pixels, and these; pixels that are cut or not described cannot be shown."""
    try:
        layout: Layout = read_layout(buffer, meta)
    except Refused as refused:
        if refused.code not in ("dicom-pixels", "dicom-truncated"):
            raise
        encoding = encoding_of(meta.transfer_syntax)
        found = elements(buffer, meta.end, len(buffer), encoding, Budget(_MAX_ELEMENTS), until=_PIXEL_GROUP << 16)
        return tuple(found), None
    return layout.elements, layout.pixels


def _metadata(buffer: Buffer, found: Sequence[Element], encoding: Encoding, header: Header) -> bytes:
    root = f"instances/{header.sop_instance_uid}/bulkdata"
    around = _Around(buffer, encoding, DEFAULT, False, lambda path: f"{root}/{path}", Budget(_MAX_ELEMENTS))
    described = _json_of(found, around, "")
    described["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    described["00083002"] = {"vr": "UI", "Value": [header.transfer_syntax_uid]}
    if header.pixels is not None:
        described["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{root}/7FE00010"}
    return json.dumps(dict(sorted(described.items())), ensure_ascii=False, separators=(",", ":")).encode()


_Uri = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Around:
    """What the elements of a dataset take from those around it: items say neither their charset nor their sign."""

    buffer: Buffer
    encoding: Encoding
    encodings: Sequence[str]
    signed: bool
    uri: _Uri
    budget: Budget


def _json_of(found: Sequence[Element], around: _Around, path: str, depth: int = 0) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError("sequences too deep")
    around = _within(found, around)
    described: dict[str, Any] = {}
    for element in found:
        tag = element.tag
        if tag & 0xFFFF == 0 or tag >> 16 in (0x0002, _PIXEL_GROUP, _PADDING_GROUP):
            continue
        name = f"{tag:08X}"
        vr = _vr(element, around.signed)
        if vr == "SQ":
            below = list(_items_of(element, around, f"{path}{name}", depth))
            described[name] = {"vr": "SQ", "Value": below} if below else {"vr": "SQ"}
        elif vr in _BINARY:
            described[name] = _binary(vr, raw(around.buffer, element), tag, f"{path}{name}", around.uri)
        else:
            little = around.encoding.little or element.vr == "UN"
            values = list(_values(vr, raw(around.buffer, element), around.encodings, little=little))
            described[name] = {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}
    return described


def _within(found: Sequence[Element], around: _Around) -> _Around:
    encodings, signed = around.encodings, around.signed
    for element in found:
        if element.tag == _CHARACTER_SET:
            encodings = codecs_of(raw(around.buffer, element))
        elif element.tag == SIGNED:
            signed = raw(around.buffer, element)[: 1 if around.encoding.little else 2].endswith(b"\x01")
    return _Around(around.buffer, around.encoding, encodings, signed, around.uri, around.budget)


def _items_of(sequence: Element, around: _Around, where: str, depth: int) -> Iterator[dict[str, Any]]:
    inside = inner_encoding(sequence, around.encoding)
    below = _Around(around.buffer, inside, around.encodings, around.signed, around.uri, around.budget)
    for number_, item in enumerate(items(around.buffer, sequence, inside, around.budget)):
        found = elements(around.buffer, item.value, item.content_end, inside, around.budget, depth=depth)
        yield _json_of(tuple(found), below, f"{where}.{number_}.", depth + 1)


def _vr(element: Element, signed: bool) -> str:
    vr, tag = element.vr or "UN", element.tag
    if vr != "UN":
        return vr
    private = bool(tag >> 16 & 1)
    if not private and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
    elif private and 0x10 <= tag & 0xFFFF <= 0xFF:
        return "LO"
    elif element.length == UNDEFINED:
        return "SQ"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if " or " in vr else vr


def _binary(vr: str, value: bytes, tag: int, where: str, uri: _Uri) -> dict[str, Any]:
    limit = _INLINE_TABLE_BYTES if tag >> 16 == 0x0028 else _INLINE_BYTES
    if len(value) > limit:
        return {"vr": vr, "BulkDataURI": uri(where)}
    if not value:
        return {"vr": vr}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _values(vr: str, value: bytes, encodings: Sequence[str], *, little: bool) -> Iterator[Any]:
    if vr in _NUMBERS:
        yield from _packed(_NUMBERS[vr], value, little)
    elif vr == "AT":
        yield from (f"{group:04X}{element:04X}" for group, element in _pairs(value, little))
    elif vr in ("DS", "IS"):
        yield from (_number(part, vr) for part in value.decode("ascii", "replace").split("\\"))
    elif vr == "PN":
        yield from (_person(part) for part in _text(value, encodings, "\\^=").split("\\"))
    elif vr in _SINGLE:
        text = _text(value, encodings, "") if vr in _TEXT else value.decode("ascii", "replace")
        yield text.rstrip(" \0") or None
    else:
        text = _text(value, encodings, "\\") if vr in _TEXT else value.decode("ascii", "replace")
        yield from (part.strip(" \0") or None for part in text.split("\\"))


def _text(value: bytes, encodings: Sequence[str], delimiters: str) -> str:
    return decoded(value, encodings, delimiters.encode())


def _packed(code: str, value: bytes, little: bool) -> Iterator[int | float | None]:
    size = struct.calcsize(code)
    count = len(value) // size
    for number in struct.unpack(f"{'<' if little else '>'}{count}{code}", value[: count * size]):
        yield None if isinstance(number, float) and not math.isfinite(number) else number


def _pairs(value: bytes, little: bool) -> Iterator[tuple[int, int]]:
    yield from struct.iter_unpack(f"{'<' if little else '>'}HH", value[: len(value) // 4 * 4])


def _number(text: str, vr: str) -> int | float | None:
    """A DS or IS value; what is not a number is left out, as JSON has no place for it."""
    cleaned = text.strip(" \0")
    try:
        if vr == "IS":
            return int(cleaned)
        number = float(cleaned)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _person(text: str) -> dict[str, str] | None:
    kinds = ("Alphabetic", "Ideographic", "Phonetic")
    groups = {kind: group.strip(" \0") for kind, group in zip(kinds, text.split("="), strict=False)}
    return {kind: group for kind, group in groups.items() if group} or None


def bulk_value(path: Path, where: str) -> bytes | None:
    """The bytes of a long value, by the place that its BulkDataURI names (``tag[.item.tag]*``); None: no such place."""
    steps = where.split(".")
    if len(steps) > 2 * _MAX_DEPTH or len(steps) % 2 == 0:
        return None
    try:
        tags = [int(step, 16) for step in steps[::2]]
        places = [int(step) for step in steps[1::2]]
        with mapped(path) as buffer:
            meta = read_meta(buffer)
            if meta.transfer_syntax == DEFLATED_LE:
                return None
            return _value_at(buffer, meta, tags, places)
    except (Refused, ValueError):
        return None


def _value_at(buffer: Buffer, meta: Meta, tags: Sequence[int], places: Sequence[int]) -> bytes | None:
    encoding, budget = encoding_of(meta.transfer_syntax), Budget(_MAX_ELEMENTS)
    start, end = meta.end, len(buffer)
    for depth, tag in enumerate(tags):
        among = elements(buffer, start, end, encoding, budget, depth=depth, until=tag)
        element = next((e for e in among if e.tag == tag), None)
        if element is None or (_vr(element, False) == "SQ") != (depth < len(places)):
            return None
        if depth == len(places):
            return raw(buffer, element)
        encoding = inner_encoding(element, encoding)
        item = next(islice(items(buffer, element, encoding, budget), max(places[depth], 0), None), None)
        if item is None:
            return None
        start, end = item.value, item.content_end
    return None
