"""The header of a DICOM file read and edited as bytes; pixels are never decoded or even read (decision 23; DB.SO.39).

An edit gives a new head and the offset from which the file goes on as it lies, so an image streams from the disk
however big it is, and every byte that is not meant to change stays.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Authority, Ins
from drimbox.images.elements import (
    ITEM,
    PIXEL_DATA,
    UNDEFINED,
    Budget,
    Buffer,
    Element,
    element_at,
    elements,
    head,
    inner_encoding,
    items,
    number,
    text,
    write,
)
from drimbox.images.syntaxes import DEFLATED_LE, Encoding, encoding_of

_META = Encoding(explicit=True, little=True)
_MAX_META_ELEMENTS = 64
_MAX_HEADER_ELEMENTS = 20_000
_MAX_INFLATED_HEADER = 8 * 2**20

META_LENGTH, TRANSFER_SYNTAX = 0x00020000, 0x00020010
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


def read_meta(buffer: Buffer) -> Meta:
    """The file meta information (PS3.10 7.1). Raises ``Refused`` (``dicom-part10`` when it is no DICOM file)."""
    if bytes(buffer[128:132]) != b"DICM":
        raise Refused("Le fichier n'est pas une image DICOM", code="dicom-part10")
    position, size, budget, found = 132, len(buffer), Budget(_MAX_META_ELEMENTS), []
    while position + 8 <= size and buffer[position] == 2 and buffer[position + 1] == 0:
        element = element_at(buffer, position, size, _META, budget)
        found.append(element)
        position = element.end
    syntax = next((text(buffer, e) for e in found if e.tag == TRANSFER_SYNTAX), "")
    if not syntax:
        raise Refused("Image DICOM sans syntaxe de transfert", code="dicom-part10")
    return Meta(syntax, tuple(found), position)


def read_header(buffer: Buffer) -> Header:
    """The identifiers of a file, whatever its syntax. Raises ``Refused`` for what is no readable DICOM file."""
    meta = read_meta(buffer)
    data, start = _data_set(buffer, meta)
    encoding = encoding_of(meta.transfer_syntax)
    budget = Budget(_MAX_HEADER_ELEMENTS)
    texts: dict[int, str] = {}
    other_ids: tuple[OtherId, ...] = ()
    for element in elements(data, start, len(data), encoding, budget, until=SERIES):
        if element.tag == OTHER_IDS:
            other_ids = tuple(_other_ids(data, element, encoding, budget))
        elif element.tag in _IDENTIFIERS:
            texts[element.tag] = text(data, element)
    return Header(
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


def with_ins(buffer: Buffer, ins: Ins, *, transfer_syntax: str = "") -> Splice:
    """The file with ``ins`` in its Other Patient IDs Sequence (0010,1002), all else byte for byte as it was.

    An existing sequence keeps its items; a file that holds the INS already does not change. ``transfer_syntax`` puts
    another label on the file, for a stored syntax that is also another one.

    Raises ``IdentityMismatch`` (``ins-differs``) when the file names another INS of the same authority, ``Refused`` for
    what is no readable DICOM file or is deflated (``dicom-deflated``): the caller inflates it first.
    """
    meta = read_meta(buffer)
    if meta.transfer_syntax == DEFLATED_LE:
        raise Refused("Image DICOM compressée en entier (deflate)", code="dicom-deflated")
    edits = list(_ins_edits(buffer, meta, ins))
    if transfer_syntax and transfer_syntax != meta.transfer_syntax:
        edits += syntax_edits(buffer, meta, transfer_syntax)
    return splice(buffer, edits)


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


def splice(buffer: Buffer, edits: Iterable[Edit]) -> Splice:
    """Apply edits that do not overlap. None at all gives an empty head."""
    ordered = sorted(edits, key=lambda e: e.at)
    pieces: list[bytes] = []
    position = 0
    for edit in ordered:
        pieces += (bytes(buffer[position : edit.at]), edit.inserted)
        position = edit.at + edit.removed
    return Splice(b"".join(pieces), position)


def syntax_edits(buffer: Buffer, meta: Meta, transfer_syntax: str) -> list[Edit]:
    """The edits that put another transfer syntax into the file meta information."""
    old = next(e for e in meta.elements if e.tag == TRANSFER_SYNTAX)
    new = write(TRANSFER_SYNTAX, "UI", transfer_syntax.encode("ascii"), _META)
    growth = len(new) - (old.end - old.start)
    return [
        Edit(old.start, old.end - old.start, new),
        *_longer_group(buffer, meta.elements, META_LENGTH, growth, _META),
    ]


def is_pixel_data(tag: int) -> bool:
    """Pixel Data, Float Pixel Data or Double Float Pixel Data."""
    return tag in (PIXEL_DATA, 0x7FE00008, 0x7FE00009)


_CHARACTER_SET = 0x00080005
_IDENTIFIERS = frozenset((_CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, PATIENT_ID, OTHER_IDS_RETIRED, STUDY, SERIES))


def _data_set(buffer: Buffer, meta: Meta) -> tuple[Buffer, int]:
    if meta.transfer_syntax != DEFLATED_LE:
        return buffer, meta.end
    try:
        # The beginning is enough: the identifiers stand before the pixels.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(bytes(buffer[meta.end :]), _MAX_INFLATED_HEADER), 0
    except zlib.error as error:
        raise Refused("Image DICOM illisible : compression deflate fausse", code="dicom-syntax") from error


def _ins_edits(buffer: Buffer, meta: Meta, ins: Ins) -> Iterator[Edit]:
    encoding = encoding_of(meta.transfer_syntax)
    budget = Budget(_MAX_HEADER_ELEMENTS)
    group: list[Element] = []
    position = meta.end
    sequence: Element | None = None
    for element in elements(buffer, meta.end, len(buffer), encoding, budget, until=OTHER_IDS):
        position = element.end
        if element.tag == OTHER_IDS:
            sequence = element
        elif element.tag == PATIENT_GROUP_LENGTH:
            group.append(element)
    if sequence is None:
        inserted = _sequence_of(_ins_item(ins, encoding), encoding)
        yield Edit(position, 0, inserted)
        yield from _longer_group(buffer, group, PATIENT_GROUP_LENGTH, len(inserted), encoding)
        return
    if sequence.vr not in ("SQ", "UN", ""):
        raise Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")
    present = tuple(_other_ids(buffer, sequence, encoding, budget))
    _refuse_other_ins(present, ins)
    if _carries(present, ins):
        return
    item = _ins_item(ins, inner_encoding(sequence, encoding))
    yield Edit(sequence.content_end, 0, item)
    if sequence.length != UNDEFINED:
        # The length field is the last four bytes before the value, under any VR that a sequence comes with.
        longer = (sequence.length + len(item)).to_bytes(4, "little" if encoding.little else "big")
        yield Edit(sequence.value - 4, 4, longer)
    yield from _longer_group(buffer, group, PATIENT_GROUP_LENGTH, len(item), encoding)


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


def _longer_group(buffer: Buffer, among: Sequence[Element], tag: int, growth: int, encoding: Encoding) -> list[Edit]:
    """The edit of a group length, where there is one."""
    return [
        Edit(e.value, 4, (number(buffer, e, encoding) + growth).to_bytes(4, "little" if encoding.little else "big"))
        for e in among
        if e.tag == tag and e.length == 4
    ]


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
