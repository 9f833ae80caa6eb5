"""DICOMDIR: the directory of portable media (PS3.3 F, PS3.10 8), written from the heads of the files that it lists."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from drimbox.dicom.elements import ITEM, Budget, Buffer, elements, head, raw, write
from drimbox.dicom.files import META_ENCODING, read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE, encoding_of
from drimbox.foundation.errors import Refused

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_MAX_ELEMENTS = 50_000

FILE_SET_ID, FIRST, LAST, CONSISTENCY, RECORDS = 0x00041130, 0x00041200, 0x00041202, 0x00041212, 0x00041220
NEXT, IN_USE, LOWER, TYPE = 0x00041400, 0x00041410, 0x00041420, 0x00041430
FILE_ID, FILE_CLASS, FILE_INSTANCE, FILE_SYNTAX = 0x00041500, 0x00041510, 0x00041511, 0x00041512
_CHARSET, _CLASS, _INSTANCE = 0x00080005, 0x00080016, 0x00080018
_STUDY_DATE, _STUDY_TIME, _ACCESSION, _MODALITY, _DESCRIPTION = (
    0x00080020,
    0x00080030,
    0x00080050,
    0x00080060,
    0x00081030,
)
_SERIES_DESCRIPTION, _NAME, _ID, _BIRTH, _SEX = 0x0008103E, 0x00100010, 0x00100020, 0x00100030, 0x00100040
_STUDY, _SERIES, _STUDY_ID, _SERIES_NUMBER, _NUMBER = 0x0020000D, 0x0020000E, 0x00200010, 0x00200011, 0x00200013
_CONTENT_DATE, _CONTENT_TIME, _CONCEPT = 0x00080023, 0x00080033, 0x0040A043
_COMPLETION, _VERIFICATION, _TITLE, _MIME = 0x0040A491, 0x0040A493, 0x00420010, 0x00420012
_LABEL, _CONTENT_DESCRIPTION, _CREATED, _CREATED_AT, _CREATOR = (
    0x00700080,
    0x00700081,
    0x00700082,
    0x00700083,
    0x00700084,
)
_ROWS, _COLUMNS, _FRAMES = 0x00280010, 0x00280011, 0x00280008

#: The keys of each kind of record: tag, VR, and what stands where the file says nothing (None: an empty value).
_Keys = tuple[tuple[int, str, bytes | None], ...]
_PATIENT: _Keys = ((_NAME, "PN", None), (_ID, "LO", b"INCONNU"), (_BIRTH, "DA", None), (_SEX, "CS", None))
_OF_STUDY: _Keys = (
    (_STUDY_DATE, "DA", b"19000101"),
    (_STUDY_TIME, "TM", b"000000"),
    (_ACCESSION, "SH", None),
    (_DESCRIPTION, "LO", None),
    (_STUDY, "UI", None),
    (_STUDY_ID, "SH", b"1"),
)
_OF_SERIES: _Keys = (
    (_MODALITY, "CS", b"OT"),
    (_SERIES_DESCRIPTION, "LO", None),
    (_SERIES, "UI", None),
    (_SERIES_NUMBER, "IS", b"0"),
)
_IMAGE: _Keys = ((_NUMBER, "IS", b"0"),)
_DOCUMENT: _Keys = (
    (_CONTENT_DATE, "DA", b"19000101"),
    (_CONTENT_TIME, "TM", b"000000"),
    (_NUMBER, "IS", b"0"),
    (_CONCEPT, "SQ", None),
)
_SR: _Keys = (*_DOCUMENT, (_COMPLETION, "CS", b"PARTIAL"), (_VERIFICATION, "CS", b"UNVERIFIED"))
_PDF: _Keys = (*_DOCUMENT, (_TITLE, "ST", None), (_MIME, "LO", b"application/pdf"))
_STATE: _Keys = (
    (_NUMBER, "IS", b"0"),
    (_LABEL, "CS", b"PRESENTATION"),
    (_CONTENT_DESCRIPTION, "LO", None),
    (_CREATED, "DA", b"19000101"),
    (_CREATED_AT, "TM", b"000000"),
    (_CREATOR, "PN", None),
)
_CURVES: _Keys = ((_CONTENT_DATE, "DA", b"19000101"), (_CONTENT_TIME, "TM", b"000000"), (_NUMBER, "IS", b"0"))
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Other records than IMAGE, by the beginning of the SOP class (PS3.3 F.5).
_KINDS: tuple[tuple[str, str, _Keys], ...] = (
    (f"{_STORAGE}88.59", "KEY OBJECT DOC", _DOCUMENT),
    (f"{_STORAGE}88.", "SR DOCUMENT", _SR),
    (f"{_STORAGE}104.", "ENCAP DOC", _PDF),
    (f"{_STORAGE}11.", "PRESENTATION", _STATE),
    (f"{_STORAGE}9.", "WAVEFORM", _CURVES),
)
_WANTED = frozenset(tag for keys in (_PATIENT, _OF_STUDY, _OF_SERIES, _SR, _PDF, _STATE) for tag, _, _ in keys) | {
    _CHARSET,
    _CLASS,
    _INSTANCE,
}
_LAST_KEY = 0x00700084


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of the media: where it is, and what the directory says of it."""

    path: tuple[str, ...]
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    values: Mapping[int, bytes]

    def __repr__(self) -> str:
        return f"Listed({'/'.join(self.path)})"

    def text(self, tag: int) -> str:
        return self.values.get(tag, b"").decode("latin-1").strip(" \0")


def listed(buffer: Buffer, path: Sequence[str]) -> Listed:
    """What the directory says of a file. Raises ``Refused`` for what is no readable DICOM file, or not explicit LE."""
    meta = read_meta(buffer)
    encoding = encoding_of(meta.transfer_syntax)
    if not (encoding.explicit and encoding.little) or meta.transfer_syntax == DEFLATED_LE:
        raise Refused("Image dans une forme que les supports n'admettent pas", code="dicom-syntax")
    found = {
        e.tag: raw(buffer, e) if e.vr != "SQ" or e.length != 0xFFFFFFFF else b""
        for e in elements(buffer, meta.end, len(buffer), encoding, Budget(_MAX_ELEMENTS), until=_LAST_KEY)
        if e.tag in _WANTED
    }

    def word(tag: int) -> str:
        return found.get(tag, b"").decode("ascii", "replace").strip(" \0")

    return Listed(tuple(path), word(_CLASS), word(_INSTANCE), meta.transfer_syntax, found)


def study_of(one: Listed) -> str:
    """Its Study Instance UID."""
    return one.text(_STUDY)


@dataclass(slots=True)
class _Record:
    """A record of the directory; ``content`` is its item without the head, ``start`` where the item begins."""

    content: bytes
    below: list[_Record] = field(default_factory=list)
    start: int = 0


def write_dicomdir(files: Iterable[Listed], *, file_set_id: str = "DRIMBOX", instance_uid: str) -> bytes:
    """The DICOMDIR of these files, as one Part 10 file in Explicit VR Little Endian."""
    patients: dict[bytes, _Record] = {}
    studies: dict[str, _Record] = {}
    series: dict[str, _Record] = {}
    for one in files:
        patient = patients.setdefault(one.values.get(_ID, b""), _Record(_record("PATIENT", one, _PATIENT)))
        study = studies.get(one.text(_STUDY))
        if study is None:
            study = studies[one.text(_STUDY)] = _Record(_record("STUDY", one, _OF_STUDY))
            patient.below.append(study)
        group = series.get(one.text(_SERIES))
        if group is None:
            group = series[one.text(_SERIES)] = _Record(_record("SERIES", one, _OF_SERIES))
            study.below.append(group)
        kind, keys = _kind(one.sop_class_uid)
        group.below.append(_Record(_record(kind, one, keys, leaf=True)))
    meta = _meta(instance_uid)
    top = list(patients.values())
    order = list(_flat(top))
    before = write(FILE_SET_ID, "CS", file_set_id.encode("ascii"), META_ENCODING)
    after = write(CONSISTENCY, "US", struct.pack("<H", 0), META_ENCODING)
    length = sum(8 + len(r.content) for r in order)
    first = len(meta) + len(before) + 2 * 12 + len(after) + 12
    position = first
    for record in order:
        record.start = position
        position += 8 + len(record.content)
    pieces = [
        meta,
        before,
        _offset(FIRST, top[0].start if top else 0),
        _offset(LAST, top[-1].start if top else 0),
        after,
    ]
    pieces.append(head(RECORDS, "SQ", length, META_ENCODING))
    following = dict(_following(top))
    for record in order:
        lower = record.below[0].start if record.below else 0
        content = (
            _offset(NEXT, following.get(id(record), 0))
            + write(IN_USE, "US", struct.pack("<H", 0xFFFF), META_ENCODING)
            + _offset(LOWER, lower)
            + record.content[_LINKS:]
        )
        pieces.append(head(ITEM, "", len(content), META_ENCODING) + content)
    return b"".join(pieces)


#: Bytes of the three links that every record begins with.
_LINKS = 12 + 10 + 12


def _kind(sop_class_uid: str) -> tuple[str, _Keys]:
    return next(((kind, keys) for start, kind, keys in _KINDS if sop_class_uid.startswith(start)), ("IMAGE", _IMAGE))


def _record(kind: str, one: Listed, keys: _Keys, *, leaf: bool = False) -> bytes:
    content = b"\0" * _LINKS + write(TYPE, "CS", kind.encode("ascii"), META_ENCODING)
    if leaf:
        content += write(FILE_ID, "CS", "\\".join(one.path).encode("ascii"), META_ENCODING)
        for tag, uid in (
            (FILE_CLASS, one.sop_class_uid),
            (FILE_INSTANCE, one.sop_instance_uid),
            (FILE_SYNTAX, one.transfer_syntax_uid),
        ):
            content += write(tag, "UI", uid.encode("ascii"), META_ENCODING)
    if charset := one.values.get(_CHARSET, b""):
        content += write(_CHARSET, "CS", charset, META_ENCODING)
    for tag, vr, default in sorted(keys):
        value = one.values.get(tag, b"").rstrip(b" \0") if vr != "SQ" else one.values.get(tag, b"")
        content += write(tag, vr, value or default or b"", META_ENCODING)
    return content


def _offset(tag: int, value: int) -> bytes:
    return write(tag, "UL", struct.pack("<I", value), META_ENCODING)


def _flat(records: Iterable[_Record]) -> Iterable[_Record]:
    for record in records:
        yield record
        yield from _flat(record.below)


def _following(records: Sequence[_Record]) -> Iterable[tuple[int, int]]:
    for record, successor in pairwise(records):
        yield id(record), successor.start
    for record in records:
        yield from _following(record.below)


_IMPLEMENTATION_CLASS, _IMPLEMENTATION_VERSION = "2.25.35029912218910616928316378089086711194", "DRIMBOX"


def _meta(instance_uid: str) -> bytes:
    content = (
        write(0x00020001, "OB", b"\x00\x01", META_ENCODING)
        + write(0x00020002, "UI", MEDIA_DIRECTORY.encode("ascii"), META_ENCODING)
        + write(0x00020003, "UI", instance_uid.encode("ascii"), META_ENCODING)
        + write(0x00020010, "UI", EXPLICIT_LE.encode("ascii"), META_ENCODING)
        + write(0x00020012, "UI", _IMPLEMENTATION_CLASS.encode("ascii"), META_ENCODING)
        + write(0x00020013, "SH", _IMPLEMENTATION_VERSION.encode("ascii"), META_ENCODING)
    )
    return bytes(128) + b"DICM" + write(0x00020000, "UL", struct.pack("<I", len(content)), META_ENCODING) + content
