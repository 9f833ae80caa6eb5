"""One received image, read once: its DICOM JSON header (PS3.18 F.2), and where its pixels lie in the file."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import charset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid

# Longer binary values are fetched apart by the viewer; palettes and the like are wanted at once.
_INLINE_BYTES = 2048
_INLINE_TABLE_BYTES = 256 * 1024
_MAX_DEPTH = 16

# All that the reader is known to raise on damaged files.
_DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_CHARACTER_SET = Tag(0x00080005)
_PIXEL_REPRESENTATION = Tag(0x00280103)
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_PIXEL_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_TEXT = frozenset({"LO", "SH", "UC", "LT", "ST", "UT", "PN"})
_SINGLE = frozenset({"LT", "ST", "UT", "UR"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "UL": "I", "US": "H", "SV": "q", "UV": "Q"}


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where the pixel data of a file lie, and how they are cut in frames.

    ``offset`` is the first byte of the value; ``length`` its bytes, None when the frames are encapsulated.
    """

    offset: int
    length: int | None
    frames: int
    bits_per_frame: int


@dataclass(frozen=True, slots=True)
class Header:
    """What serving one file takes: its identifiers, its transfer syntax, its pixels if it has any."""

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
        with path.open("rb") as file:
            dataset = dcmread(file, stop_before_pixels=True)
            syntax = dataset.file_meta.TransferSyntaxUID
            if syntax.is_deflated:
                raise Refused("Image compressée d'un bloc (deflate) : non affichable", code="dicom-file")
            # The elements as read: looking one up in the dataset converts it for good.
            elements: _Elements = dict(dataset._dict)
            header = Header(
                study_uid=_word(elements, 0x0020000D),
                series_uid=_word(elements, 0x0020000E),
                sop_class_uid=_word(elements, 0x00080016),
                sop_instance_uid=_word(elements, 0x00080018),
                transfer_syntax_uid=str(syntax),
                pixels=_pixels(file, elements, syntax),
            )
            if not (header.study_uid and header.series_uid and is_uid(header.sop_instance_uid)):
                raise Refused("Image reçue sans identifiants", code="dicom-file")
            return header, _metadata(dataset, header)
    except _DAMAGE:
        # Not chained: the reader's messages quote values.
        raise Refused("Image reçue illisible", code="dicom-file") from None


_Element = RawDataElement | DataElement
_Elements = Mapping[BaseTag, _Element]


def _pixels(file: BinaryIO, elements: _Elements, syntax: UID) -> Pixels | None:
    """The reader stops on the tag of the pixel data: what follows is the tag, its VR, its length, its value."""
    order = "<" if syntax.is_little_endian else ">"
    start = file.tell()
    head = file.read(12)
    # Files exist that say explicit and are not (as the reader found out): the VR is there or it is not.
    size = 8 if syntax.is_implicit_VR or head[4:6] not in _PIXEL_VRS else 12
    if len(head) < size:
        return None
    group, number = struct.unpack(f"{order}HH", head[:4])
    tag = group << 16 | number
    if tag not in _PIXEL_TAGS:
        return None
    (length,) = struct.unpack(f"{order}I", head[size - 4 : size])
    bits = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag) or _integer(elements, 0x00280100, 8)
    per_frame = (
        _integer(elements, 0x00280010, 0) * _integer(elements, 0x00280011, 0) * _integer(elements, 0x00280002, 1) * bits
    )
    if _word(elements, 0x00280004) == "YBR_FULL_422" and not syntax.is_encapsulated:
        per_frame = per_frame * 2 // 3
    return Pixels(
        offset=start + size,
        length=None if syntax.is_encapsulated else length,
        frames=max(1, _integer(elements, 0x00280008, 1)),
        bits_per_frame=per_frame,
    )


def _word(elements: _Elements, tag: int) -> str:
    element = elements.get(Tag(tag))
    return "" if element is None else _bytes(element).decode("ascii", "replace").strip(" \0")


def _integer(elements: _Elements, tag: int, default: int) -> int:
    element = elements.get(Tag(tag))
    if element is None:
        return default
    if element.VR == "IS" or tag == 0x00280008:
        return int(_word(elements, tag) or default)
    return int.from_bytes(_bytes(element)[:2], "little" if getattr(element, "is_little_endian", True) else "big")


def _metadata(dataset: Dataset, header: Header) -> bytes:
    root = f"instances/{header.sop_instance_uid}/bulkdata"
    found = _json_of(dataset, _Around(["iso8859"], False, lambda path: f"{root}/{path}"), "")
    found["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    found["00083002"] = {"vr": "UI", "Value": [header.transfer_syntax_uid]}
    if header.pixels is not None:
        found["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{root}/7FE00010"}
    return json.dumps(dict(sorted(found.items())), ensure_ascii=False, separators=(",", ":")).encode()


_Uri = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Around:
    """What the elements of a dataset take from those around it: items say neither their charset nor their sign."""

    encodings: list[str]
    signed: bool
    uri: _Uri


def _json_of(dataset: Dataset, around: _Around, path: str, depth: int = 0) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError("sequences too deep")
    elements: _Elements = dict(dataset._dict)
    around = _Around(
        _encodings(elements, around.encodings), _signed(elements.get(_PIXEL_REPRESENTATION), around.signed), around.uri
    )
    found: dict[str, Any] = {}
    for tag, element in elements.items():
        if tag.element == 0 or tag.group in (0x0002, 0x7FE0, 0xFFFC):
            continue
        name = f"{tag:08X}"
        where = f"{path}{name}"
        vr = _vr(tag, element, around.signed)
        if vr == "SQ":
            items = dataset[tag].value or []
            below = [_json_of(item, around, f"{where}.{n}.", depth + 1) for n, item in enumerate(items)]
            found[name] = {"vr": "SQ", "Value": below} if below else {"vr": "SQ"}
        elif vr in _BINARY:
            found[name] = _binary(vr, _bytes(element), tag, where, around.uri)
        else:
            little = getattr(element, "is_little_endian", True)
            values = list(_values(vr, _bytes(element), around.encodings, little=little))
            found[name] = {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}
    return found


def _encodings(elements: _Elements, inherited: list[str]) -> list[str]:
    element = elements.get(_CHARACTER_SET)
    if element is None:
        return inherited
    names = [name.strip() for name in _bytes(element).decode("ascii", "replace").split("\\")]
    return charset.convert_encodings(names)


def _signed(element: _Element | None, inherited: bool) -> bool:
    return inherited if element is None else _bytes(element)[:1] == b"\x01"


def _bytes(element: _Element) -> bytes:
    return element.value if isinstance(element.value, bytes) else b""


def _vr(tag: BaseTag, element: _Element, signed: bool) -> str:
    vr = element.VR
    if vr in (None, "UN") and not tag.is_private and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
    if vr in (None, "UN") and tag.is_private_creator:
        return "LO"
    if vr is None:
        return "UN"
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if " or " in vr else str(vr)


def _binary(vr: str, value: bytes, tag: BaseTag, where: str, uri: _Uri) -> dict[str, Any]:
    limit = _INLINE_TABLE_BYTES if tag.group == 0x0028 else _INLINE_BYTES
    if len(value) > limit:
        return {"vr": vr, "BulkDataURI": uri(where)}
    if not value:
        return {"vr": vr}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _values(vr: str, value: bytes, encodings: list[str], *, little: bool) -> Iterator[Any]:
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


def _text(value: bytes, encodings: list[str], delimiters: str) -> str:
    return charset.decode_bytes(value, encodings, set(delimiters.encode()))


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
        dataset: Dataset = dcmread(path, stop_before_pixels=True)
        for tag, index in zip(steps[:-1:2], steps[1::2], strict=True):
            dataset = dataset[Tag(int(tag, 16))].value[int(index)]
        element = dataset.get_item(Tag(int(steps[-1], 16)))
    except _DAMAGE:
        return None
    return None if element is None or _vr(element.tag, element, False) == "SQ" else _bytes(element)
