"""The local identity put into an image, as bytes: PatientID and issuer of the site, the former values kept (DB.CO.77).

What changes stands in Original Attributes Sequence (0400,0561), and the source's patient number in Other Patient IDs
Sequence (0010,1002), as IHE Import Reconciliation Workflow (IRWF) has it; every other byte, private elements and pixels
above all, stays as it lies.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_has_tag, dictionary_VR

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
    raw,
    text,
    write,
)
from drimbox.dicom.files import (
    META_ENCODING,
    META_LENGTH,
    Edit,
    Meta,
    Splice,
    longer_group,
    read_meta,
    splice,
    syntax_edits,
)
from drimbox.dicom.syntaxes import DEFLATED_LE, Encoding, encoding_of
from drimbox.foundation.errors import Refused

_MAX_ELEMENTS = 1_000_000

CHARACTER_SET = 0x00080005
SOP_INSTANCE, ACCESSION, ACCESSION_ISSUER, INSTITUTION = 0x00080018, 0x00080050, 0x00080051, 0x00080080
REFERENCED_INSTANCE = 0x00081155
PATIENT_ID, ISSUER, TYPE_OF_ID, ISSUER_QUALIFIERS = 0x00100020, 0x00100021, 0x00100022, 0x00100024
OTHER_IDS = 0x00101002
STUDY, SERIES = 0x0020000D, 0x0020000E
UNIVERSAL_ID, UNIVERSAL_ID_TYPE = 0x00400032, 0x00400033
ORIGINAL_ATTRIBUTES, MODIFIED_ATTRIBUTES = 0x04000561, 0x04000550
MODIFIED_AT, MODIFIED_BY, SOURCE_OF_VALUES, REASON = 0x04000562, 0x04000563, 0x04000564, 0x04000565
PIXELS = 0x7FE00000
_META_INSTANCE = 0x00020003
#: Elements that name objects which an import may rename, wherever they stand.
_NAMING = frozenset((SOP_INSTANCE, REFERENCED_INSTANCE, STUDY, SERIES))


@dataclass(frozen=True, slots=True)
class Renaming:
    """New UIDs for imported objects: always the same one for the same object, so that references still lead there.

    ``study`` is the Study Instance UID that the import takes, empty for one made like the others.
    """

    original_study: str
    study: str = ""

    def __call__(self, uid: str) -> str:
        if uid == self.original_study and self.study:
            return self.study
        digest = hashlib.sha256(b"drimbox import " + uid.encode("utf-8")).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclass(frozen=True, slots=True)
class Coercion:
    """What an imported image is given.

    ``issuer`` is the OID of the assigning authority of ``patient_id``, ``issuer_name`` its name; either may be empty.
    ``accession``: None leaves the number as it is, a text (perhaps empty) takes its place, with ``accession_issuer``
    (an OID). ``renaming``: None keeps the UIDs. ``modified_by`` names this box, ``at`` the moment.
    """

    patient_id: str
    issuer: str = ""
    issuer_name: str = ""
    accession: str | None = None
    accession_issuer: str = ""
    renaming: Renaming | None = None
    modified_by: str = "drimbox"
    at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    def __repr__(self) -> str:
        return "Coercion(…)"

    @property
    def plain_issuer(self) -> str:
        """The name of the issuer as it is written: without accents, 64 characters at the most."""
        return _plain(self.issuer_name).decode("ascii")

    @property
    def moment(self) -> str:
        """``at`` as a DT."""
        return self.at.strftime("%Y%m%d%H%M%S.%f%z")

    def uid(self, uid: str) -> str:
        """The name under which an object of the source is stored."""
        return self.renaming(uid) if self.renaming is not None else uid


@dataclass(frozen=True, slots=True)
class Coerced:
    """The edits of a file, where the data set of the edited file begins, and its syntax."""

    splice: Splice
    start: int
    transfer_syntax: str


def coerced(buffer: Buffer, coercion: Coercion) -> Splice:
    """``edited``, without the rest."""
    return edited(buffer, coercion).splice


def edited(buffer: Buffer, coercion: Coercion) -> Coerced:
    """The edits that give a Part 10 file the local identity; none where it has it already.

    Raises ``Refused`` for what is no readable DICOM file, is deflated, or cannot hold the local number.
    """
    meta = read_meta(buffer)
    if meta.transfer_syntax == DEFLATED_LE:
        raise Refused("Image DICOM compressée en entier (deflate)", code="dicom-deflated")
    encoding = encoding_of(meta.transfer_syntax)
    budget = Budget(_MAX_ELEMENTS)
    last = PIXELS - 1 if coercion.renaming is not None else ORIGINAL_ATTRIBUTES
    found = {e.tag: e for e in elements(buffer, meta.end, len(buffer), encoding, budget, until=last)}
    work = _Work(buffer, encoding, found, meta.end, budget)
    wanted = _wanted(work, coercion)
    changed = {tag: value for tag, value in wanted.items() if value != work.as_it_lies(tag)}
    if coercion.renaming is not None:
        changed |= _renamed_sequences(work, coercion.renaming)
    if not changed:
        return Coerced(Splice(b"", 0), meta.end, meta.transfer_syntax)
    identity = {tag for tag in changed if tag in wanted}
    if PATIENT_ID in identity:
        changed[OTHER_IDS] = _with_former_id(work, changed.get(OTHER_IDS))
    changed[ORIGINAL_ATTRIBUTES] = _with_originals(work, coercion, sorted(identity))
    renamed = list(_meta_edits(buffer, meta, coercion))
    start = meta.end + sum(len(edit.inserted) - edit.removed for edit in renamed)
    return Coerced(splice(buffer, [*renamed, *work.edits(changed)]), start, meta.transfer_syntax)


@dataclass(slots=True)
class _Work:
    """One file being edited: its elements by tag, up to the last that can change."""

    buffer: Buffer
    encoding: Encoding
    found: Mapping[int, Element]
    start: int
    budget: Budget

    def as_it_lies(self, tag: int) -> bytes | None:
        element = self.found.get(tag)
        return bytes(self.buffer[element.start : element.end]) if element is not None else None

    def text(self, tag: int) -> str:
        element = self.found.get(tag)
        return text(self.buffer, element) if element is not None else ""

    def edits(self, changed: Mapping[int, bytes | None]) -> Iterable[Edit]:
        growth: dict[int, int] = {}
        order = sorted(self.found)
        place = 0
        before = self.start
        for tag in sorted(changed):
            while place < len(order) and order[place] < tag:
                before = self.found[order[place]].end
                place += 1
            element, new = self.found.get(tag), changed[tag] or b""
            at, removed = (element.start, element.end - element.start) if element is not None else (before, 0)
            if removed or new:
                yield Edit(at, removed, new)
                growth[tag >> 16] = growth.get(tag >> 16, 0) + len(new) - removed
        for group, more in growth.items():
            yield from longer_group(self.buffer, self.found.values(), group << 16, more, self.encoding)


def _wanted(work: _Work, coercion: Coercion) -> dict[int, bytes | None]:
    """Each element that the coercion sets, whole; None for one that must not be there."""
    encoding = work.encoding
    number = _ascii(coercion.patient_id)
    name = _plain(coercion.issuer_name)
    wanted: dict[int, bytes | None] = {
        PATIENT_ID: write(PATIENT_ID, "LO", number, encoding),
        ISSUER: write(ISSUER, "LO", name, encoding) if name else None,
        ISSUER_QUALIFIERS: _issued(ISSUER_QUALIFIERS, coercion.issuer, encoding),
    }
    same_issuer = not coercion.issuer and not name
    if work.text(PATIENT_ID) == coercion.patient_id and (same_issuer or _issuer_of(work) == coercion.issuer != ""):
        # Ours already: the same number of the same authority, however it is written.
        wanted = {}
    if coercion.accession is not None:
        wanted[ACCESSION] = write(ACCESSION, "SH", _ascii(coercion.accession), encoding)
        wanted[ACCESSION_ISSUER] = _issued(ACCESSION_ISSUER, coercion.accession_issuer, encoding)
        if work.text(ACCESSION) == coercion.accession:
            del wanted[ACCESSION], wanted[ACCESSION_ISSUER]
    if coercion.renaming is not None:
        for tag in (SOP_INSTANCE, STUDY, SERIES):
            if uid := work.text(tag):
                wanted[tag] = write(tag, "UI", coercion.renaming(uid).encode("ascii"), encoding)
    return wanted


def _issued(tag: int, oid: str, encoding: Encoding) -> bytes | None:
    """A sequence with one item that names an authority by its OID (HL7v2 Hierarchic Designator macro)."""
    if not oid:
        return None
    content = write(UNIVERSAL_ID, "UT", oid.encode("ascii"), encoding) + write(
        UNIVERSAL_ID_TYPE, "CS", b"ISO", encoding
    )
    return write(tag, "SQ", head(ITEM, "", len(content), encoding) + content, encoding)


def _issuer_of(work: _Work) -> str:
    """The OID that the file gives for the issuer of its PatientID."""
    element = work.found.get(ISSUER_QUALIFIERS)
    if element is None:
        return ""
    inside = inner_encoding(element, work.encoding)
    for item in items(work.buffer, element, inside, work.budget):
        for each in elements(work.buffer, item.value, item.content_end, inside, work.budget, depth=1):
            if each.tag == UNIVERSAL_ID:
                return text(work.buffer, each)
    return ""


def _with_former_id(work: _Work, renamed: bytes | None) -> bytes | None:
    """Other Patient IDs with the number that the source gave."""
    if not work.text(PATIENT_ID):
        return renamed if renamed is not None else work.as_it_lies(OTHER_IDS)
    sequence = work.found.get(OTHER_IDS)
    inside = inner_encoding(sequence, work.encoding) if sequence is not None else work.encoding
    content = b"".join(
        copied
        for tag in (PATIENT_ID, ISSUER, TYPE_OF_ID, ISSUER_QUALIFIERS)
        if (copied := _copied(work, tag, inside)) is not None
    )
    if TYPE_OF_ID not in work.found:
        content = _inserted_type(work, inside)
    return _appended(work, OTHER_IDS, content, renamed)


def _inserted_type(work: _Work, inside: Encoding) -> bytes:
    pieces = [_copied(work, PATIENT_ID, inside), _copied(work, ISSUER, inside)]
    pieces += [write(TYPE_OF_ID, "CS", b"TEXT", inside), _copied(work, ISSUER_QUALIFIERS, inside)]
    return b"".join(piece for piece in pieces if piece is not None)


def _with_originals(work: _Work, coercion: Coercion, tags: Sequence[int]) -> bytes:
    """Original Attributes Sequence with one more item (PS3.3 C.12.1.1.9)."""
    sequence = work.found.get(ORIGINAL_ATTRIBUTES)
    inside = inner_encoding(sequence, work.encoding) if sequence is not None else work.encoding
    former = b"".join(copied for tag in tags if (copied := _copied(work, tag, inside)) is not None)
    institution = work.found.get(INSTITUTION)
    source = raw(work.buffer, institution).strip(b" \0")[:64] if institution is not None else b""
    content = (
        write(MODIFIED_ATTRIBUTES, "SQ", head(ITEM, "", len(former), inside) + former, inside)
        + write(MODIFIED_AT, "DT", coercion.moment.encode("ascii"), inside)
        + write(MODIFIED_BY, "LO", _plain(coercion.modified_by), inside)
        + write(SOURCE_OF_VALUES, "LO", source.split(b"\\")[0], inside)
        + write(REASON, "CS", b"COERCE", inside)
    )
    return _appended(work, ORIGINAL_ATTRIBUTES, content, None)


def _appended(work: _Work, tag: int, content: bytes, renamed: bytes | None) -> bytes:
    """The sequence ``tag`` with one more item of this content, of defined length throughout."""
    sequence = work.found.get(tag)
    inside = inner_encoding(sequence, work.encoding) if sequence is not None else work.encoding
    item = head(ITEM, "", len(content), inside) + content
    if sequence is None:
        return write(tag, "SQ", item, work.encoding)
    if sequence.vr not in ("SQ", "UN", ""):
        raise Refused("Image DICOM illisible : séquence mal formée", code="dicom-syntax")
    if renamed is not None:
        # Rebuilt already, its head being as long as that of the sequence it took the place of.
        former = renamed[sequence.value - sequence.start :]
    else:
        former = bytes(work.buffer[sequence.value : sequence.content_end])
    return head(tag, sequence.vr or "SQ", len(former) + len(item), work.encoding) + former + item


def _copied(work: _Work, tag: int, inside: Encoding) -> bytes | None:
    """An element of the file as it is written inside a sequence; None where there is none."""
    element = work.found.get(tag)
    if element is None:
        return None
    if inside == work.encoding:
        return bytes(work.buffer[element.start : element.end])
    vr = element.vr or _vr_of(tag)
    if vr == "SQ":
        # Inside a sequence of another encoding, only the OID of the authority is worth writing anew.
        return _issued(tag, _issuer_of(work), inside)
    return write(tag, vr, raw(work.buffer, element), inside)


# --- new UIDs, wherever objects are named


def _renamed_sequences(work: _Work, renaming: Renaming) -> dict[int, bytes | None]:
    """The sequences that name renamed objects, rebuilt."""
    changed: dict[int, bytes | None] = {}
    for tag, element in work.found.items():
        if tag in (ORIGINAL_ATTRIBUTES,) or not _is_sequence(element):
            continue
        rebuilt = _renamed(work, element, work.encoding, renaming, 0)
        if rebuilt is not None:
            changed[tag] = rebuilt
    return changed


def _renamed(work: _Work, element: Element, encoding: Encoding, renaming: Renaming, depth: int) -> bytes | None:
    """The element with new UIDs inside, of defined length; None when nothing in it changes."""
    buffer = work.buffer
    if not _is_sequence(element):
        if element.tag not in _NAMING or not (uid := text(buffer, element)):
            return None
        return write(element.tag, "UI", renaming(uid).encode("ascii"), encoding)
    inside = inner_encoding(element, encoding)
    pieces: list[bytes] = []
    changed = False
    for item in items(buffer, element, inside, work.budget, depth=depth):
        content: list[bytes] = []
        for each in elements(buffer, item.value, item.content_end, inside, work.budget, depth=depth + 1):
            new = _renamed(work, each, inside, renaming, depth + 1)
            changed = changed or new is not None
            content.append(new if new is not None else bytes(buffer[each.start : each.end]))
        joined = b"".join(content)
        pieces.append(head(ITEM, "", len(joined), inside) + joined)
    if not changed:
        return None
    value = b"".join(pieces)
    return head(element.tag, element.vr or "SQ", len(value), encoding) + value


def _is_sequence(element: Element) -> bool:
    if element.vr:
        return element.vr == "SQ" or (element.vr == "UN" and element.length == UNDEFINED)
    return element.length == UNDEFINED or _vr_of(element.tag) == "SQ"


def _vr_of(tag: int) -> str:
    return dictionary_VR(tag) if not tag >> 16 & 1 and dictionary_has_tag(tag) else "UN"


def _meta_edits(buffer: Buffer, meta: Meta, coercion: Coercion) -> Iterable[Edit]:
    """The file meta information names the object too (PS3.10 7.1)."""
    if coercion.renaming is None:
        return
    for element in meta.elements:
        if element.tag == _META_INSTANCE and (uid := text(buffer, element)):
            new = write(_META_INSTANCE, "UI", coercion.renaming(uid).encode("ascii"), META_ENCODING)
            yield Edit(element.start, element.end - element.start, new)
            growth = len(new) - (element.end - element.start)
            yield from longer_group(buffer, meta.elements, META_LENGTH, growth, META_ENCODING)


def _ascii(value: str) -> bytes:
    """A number as every character set writes it. Raises ``Refused`` (``local-id``)."""
    if not value.isascii() or "\\" in value or len(value) > 64 or not value.isprintable():
        raise Refused("L'identifiant local ne peut pas être écrit dans une image", code="local-id")
    return value.encode("ascii")


def _plain(name: str) -> bytes:
    """A name without accents, as every character set writes it."""
    bare = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").replace(b"\\", b" ")
    return bare.strip()[:64]


def to_implicit(buffer: Buffer) -> tuple[bytes, int]:
    """An Explicit VR Little Endian file as Implicit VR: for a PACS that takes nothing else (PS3.5 A.1).

    Returns the new beginning and the offset from which the file goes on as it lies: the value of its pixels. Raises
    ``Refused`` for compressed pixels.
    """
    meta = read_meta(buffer)
    if meta.transfer_syntax != "1.2.840.10008.1.2.1":
        raise Refused("Image compressée : elle ne peut pas devenir Implicit VR", code="dicom-syntax")
    explicit = encoding_of(meta.transfer_syntax)
    budget = Budget(_MAX_ELEMENTS)
    pieces = [_implicit_meta(buffer, meta)]
    rest = len(buffer)
    for element in elements(buffer, meta.end, len(buffer), explicit, budget):
        if element.tag >> 16 == 0x7FE0 and element.length != UNDEFINED:
            pieces.append(struct.pack("<HHI", element.tag >> 16, element.tag & 0xFFFF, element.length))
            rest = element.value
            if element.end < len(buffer):
                # Something follows the pixels (a trailing padding, a signature): all is taken along.
                pieces.append(bytes(buffer[element.value : element.end]))
                rest = len(buffer)
                continue
            break
        pieces.append(_implicit(buffer, element, explicit, budget, 0))
    return b"".join(pieces), rest


def _implicit(buffer: Buffer, element: Element, encoding: Encoding, budget: Budget, depth: int) -> bytes:
    group, number = element.tag >> 16, element.tag & 0xFFFF
    if element.tag & 0xFFFF == 0:
        # Group lengths are retired, and would be wrong.
        return b""
    if element.vr == "UN" or not _is_sequence(element):
        value = raw(buffer, element)
        if element.length == UNDEFINED:
            return struct.pack("<HHI", group, number, UNDEFINED) + bytes(buffer[element.value : element.end])
        return struct.pack("<HHI", group, number, len(value)) + value
    pieces: list[bytes] = []
    for item in items(buffer, element, encoding, budget, depth=depth):
        inside = b"".join(
            _implicit(buffer, each, encoding, budget, depth + 1)
            for each in elements(buffer, item.value, item.content_end, encoding, budget, depth=depth + 1)
        )
        pieces.append(struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, len(inside)) + inside)
    value = b"".join(pieces)
    return struct.pack("<HHI", group, number, len(value)) + value


def _implicit_meta(buffer: Buffer, meta: Meta) -> bytes:
    made = splice(buffer, syntax_edits(buffer, meta, "1.2.840.10008.1.2"))
    shrunk = meta.end - made.rest
    return made.head + bytes(buffer[made.rest : made.rest + shrunk])
