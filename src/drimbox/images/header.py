"""The header of a DICOM file read and edited as bytes; pixels are never decoded or even read (decision 23; DB.SO.39).

An edit gives a new head and the offset from which the file goes on as it lies, so an image streams from the disk
however big it is, and every byte that is not meant to change stays.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drimbox.dicom.elements import (
    ITEM,
    UNDEFINED,
    Budget,
    Buffer,
    Element,
    elements,
    head,
    inner_encoding,
    items,
    text,
    write,
)
from drimbox.dicom.files import Edit, Meta, Splice, longer_group, read_meta, splice, syntax_edits
from drimbox.dicom.syntaxes import DEFLATED_LE, Encoding, encoding_of
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Authority, Ins

_MAX_HEADER_ELEMENTS = 20_000
_MAX_INFLATED_HEADER = 8 * 2**20

SOP_CLASS, SOP_INSTANCE = 0x00080016, 0x00080018
PATIENT_GROUP_LENGTH, PATIENT_ID, ISSUER_OF_PATIENT_ID, TYPE_OF_PATIENT_ID = (
    0x00100000,
    0x00100020,
    0x00100021,
    0x00100022,
)
ISSUER_QUALIFIERS, OTHER_IDS_RETIRED, OTHER_IDS = 0x00100024, 0x00101000, 0x00101002
STUDY, SERIES = 0x0020000D, 0x0020000E
UNIVERSAL_ID, UNIVERSAL_ID_TYPE = 0x00400032, 0x00400033


@dataclass(frozen=True, slots=True)
class OtherId:
    """One item of Other Patient IDs; ``universal_id`` is the OID of the issuer."""

    value: str
    issuer: str
    universal_id: str

    def __repr__(self) -> str:
        return f"OtherId(…, {self.universal_id})"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself and of its patient. ``retired_ids`` is Other Patient IDs (0010,1000)."""

    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    other_ids: tuple[OtherId, ...]
    retired_ids: tuple[str, ...]
    character_sets: tuple[str, ...]

    def __repr__(self) -> str:
        # Health data: a stray log line or traceback must not show it.
        return f"Header({self.transfer_syntax}, {self.sop_instance_uid})"


def read_header(buffer: Buffer) -> Header:
    """The identifiers of a file, whatever its syntax. Raises ``Refused`` for what is no readable DICOM file."""
    return _survey(buffer, read_meta(buffer)).header


def with_ins(buffer: Buffer, ins: Ins, *, transfer_syntax: str = "") -> Splice:
    """The file with ``ins`` in its Other Patient IDs Sequence (0010,1002), all else byte for byte as it was.

    An existing sequence keeps its items; a file that holds the INS already does not change. ``transfer_syntax`` puts
    another label on the file, for a stored syntax that is also another one.

    Raises ``IdentityMismatch`` (``ins-differs``) when the file names another INS of the same authority, ``Refused`` for
    what is no readable DICOM file or is deflated (``dicom-deflated``): the caller inflates it first.
    """
    return header_and_splice(buffer, ins, transfer_syntax=transfer_syntax)[1]


def header_and_splice(
    buffer: Buffer,
    ins: Ins,
    *,
    transfer_syntax: str = "",
    also: Iterable[Edit] = (),
    meta: Meta | None = None,
    walked: Iterable[Element] | None = None,
) -> tuple[Header, Splice]:
    """``read_header`` and ``with_ins`` in one walk; ``also`` are further edits of the same file.

    ``meta`` and ``walked`` (the elements of the data set, from the first one on) spare what the caller did already.
    """
    meta = meta or read_meta(buffer)
    if meta.transfer_syntax == DEFLATED_LE:
        raise Refused("Image DICOM compressée en entier (deflate)", code="dicom-deflated")
    found = _survey(buffer, meta, walked)
    edits = [*_ins_edits(buffer, found, ins), *also]
    if transfer_syntax and transfer_syntax != meta.transfer_syntax:
        edits += syntax_edits(buffer, meta, transfer_syntax)
    return found.header, splice(buffer, edits)


def refuse_other_ins(header: Header, ins: Ins) -> None:
    """Raises ``IdentityMismatch`` (``ins-differs``) when an image names another INS of the same authority."""
    _refuse_other_ins(header.other_ids, ins)


def check_ins(header: Header, ins: Ins) -> None:
    """Raises ``IdentityMismatch`` unless the image carries ``ins`` and no other of its authority (DB.CO.68).

    Codes ``ins-differs`` and ``ins-absent``. An item without the OID of its issuer counts by its matricule alone, as
    does the retired Other Patient IDs (0010,1000).
    """
    _refuse_other_ins(header.other_ids, ins)
    if _carries(header.other_ids, ins) or ins.matricule in header.retired_ids:
        return
    if any(o.value == ins.matricule and not o.universal_id for o in header.other_ids):
        return
    raise IdentityMismatch("L'image reçue ne porte pas l'INS du patient", code="ins-absent")


_CHARACTER_SET = 0x00080005
_IDENTIFIERS = frozenset((_CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, PATIENT_ID, OTHER_IDS_RETIRED, STUDY, SERIES))


@dataclass(frozen=True, slots=True)
class _Survey:
    """What one walk over the head of a file found.

    ``place`` is where Other Patient IDs belongs, ``sequence`` it when it is there, ``group`` the length of its group.
    """

    header: Header
    encoding: Encoding
    place: int
    sequence: Element | None
    group: tuple[Element, ...]


def _survey(buffer: Buffer, meta: Meta, walked: Iterable[Element] | None = None) -> _Survey:
    data, start = data_set_of(buffer, meta)
    encoding = encoding_of(meta.transfer_syntax)
    budget = Budget(_MAX_HEADER_ELEMENTS)
    texts: dict[int, str] = {}
    other_ids: tuple[OtherId, ...] = ()
    sequence: Element | None = None
    group: tuple[Element, ...] = ()
    place = start
    for element in walked or elements(data, start, len(data), encoding, budget, until=SERIES):
        tag = element.tag
        if tag <= OTHER_IDS:
            place = element.end
        elif tag > SERIES:
            break
        if tag in _IDENTIFIERS:
            texts[tag] = text(data, element)
        elif tag == OTHER_IDS:
            sequence = element
            other_ids = tuple(_other_ids(data, element, encoding, budget))
        elif tag == PATIENT_GROUP_LENGTH:
            group = (element,)
    header = Header(
        transfer_syntax=meta.transfer_syntax,
        sop_class_uid=texts.get(SOP_CLASS, ""),
        sop_instance_uid=texts.get(SOP_INSTANCE, ""),
        study_uid=texts.get(STUDY, ""),
        series_uid=texts.get(SERIES, ""),
        patient_id=texts.get(PATIENT_ID, ""),
        other_ids=other_ids,
        retired_ids=_values(texts.get(OTHER_IDS_RETIRED, "")),
        character_sets=_values(texts.get(_CHARACTER_SET, "")),
    )
    return _Survey(header, encoding, place, sequence, group)


def data_set_of(buffer: Buffer, meta: Meta) -> tuple[Buffer, int]:
    """Where the data set begins; of a deflated one its first mebibytes, inflated."""
    if meta.transfer_syntax != DEFLATED_LE:
        return buffer, meta.end
    try:
        # The beginning is enough: the identifiers stand before the pixels.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(bytes(buffer[meta.end :]), _MAX_INFLATED_HEADER), 0
    except zlib.error as error:
        raise Refused("Image DICOM illisible : compression deflate fausse", code="dicom-syntax") from error


def _ins_edits(buffer: Buffer, found: _Survey, ins: Ins) -> Iterator[Edit]:
    encoding, sequence = found.encoding, found.sequence
    if sequence is None:
        inserted = _sequence_of(_ins_item(ins, encoding), encoding)
        yield Edit(found.place, 0, inserted)
        yield from longer_group(buffer, found.group, PATIENT_GROUP_LENGTH, len(inserted), encoding)
        return
    if sequence.vr not in ("SQ", "UN", ""):
        raise Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")
    present = found.header.other_ids
    _refuse_other_ins(present, ins)
    if _carries(present, ins):
        return
    item = _ins_item(ins, inner_encoding(sequence, encoding))
    yield Edit(sequence.content_end, 0, item)
    if sequence.length != UNDEFINED:
        # The length field is the last four bytes before the value, under any VR that a sequence comes with.
        longer = (sequence.length + len(item)).to_bytes(4, "little" if encoding.little else "big")
        yield Edit(sequence.value - 4, 4, longer)
    yield from longer_group(buffer, found.group, PATIENT_GROUP_LENGTH, len(item), encoding)


def _ins_item(ins: Ins, encoding: Encoding) -> bytes:
    """The item that the network expects (official-data.md 9.1, (0010,1002))."""
    issuer = write(UNIVERSAL_ID, "UT", ins.oid.encode("ascii"), encoding) + write(
        UNIVERSAL_ID_TYPE, "CS", b"ISO", encoding
    )
    qualifiers = head(ITEM, "", len(issuer), encoding) + issuer
    content = (
        write(PATIENT_ID, "LO", ins.matricule.encode("ascii"), encoding)
        + write(ISSUER_OF_PATIENT_ID, "LO", ins.authority.namespace.encode("ascii"), encoding)
        + write(TYPE_OF_PATIENT_ID, "CS", b"TEXT", encoding)
        + write(ISSUER_QUALIFIERS, "SQ", qualifiers, encoding)
    )
    return head(ITEM, "", len(content), encoding) + content


def _sequence_of(content: bytes, encoding: Encoding) -> bytes:
    return head(OTHER_IDS, "SQ", len(content), encoding) + content


def _other_ids(buffer: Buffer, sequence: Element, encoding: Encoding, budget: Budget) -> Iterator[OtherId]:
    inside = inner_encoding(sequence, encoding)
    for item in items(buffer, sequence, inside, budget):
        found: dict[int, str] = {}
        for element in elements(buffer, item.value, item.content_end, inside, budget, depth=1):
            if element.tag == ISSUER_QUALIFIERS:
                for qualifier in items(buffer, element, inside, budget, depth=2):
                    for each in elements(buffer, qualifier.value, qualifier.content_end, inside, budget, depth=3):
                        found[each.tag] = text(buffer, each)
            elif element.tag in (PATIENT_ID, ISSUER_OF_PATIENT_ID):
                found[element.tag] = text(buffer, element)
        yield OtherId(found.get(PATIENT_ID, ""), found.get(ISSUER_OF_PATIENT_ID, ""), found.get(UNIVERSAL_ID, ""))


def _carries(present: Sequence[OtherId], ins: Ins) -> bool:
    return any(o.value.upper() == ins.matricule and o.universal_id == ins.oid for o in present)


def _refuse_other_ins(present: Sequence[OtherId], ins: Ins) -> None:
    """A file that names two persons by the same authority belongs to nobody."""
    for other in present:
        same_authority = Authority.of(other.universal_id) is ins.authority
        if same_authority and other.value and other.value.upper() != ins.matricule:
            raise IdentityMismatch("L'image porte un autre INS que celui du patient", code="ins-differs")


def _values(joined: str) -> tuple[str, ...]:
    return tuple(v.strip() for v in joined.split("\\") if v.strip())
