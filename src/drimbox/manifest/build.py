"""Makes the KOS of a study: first what it says, then its octets (DB.SO.18; decision 8; standards.md A.2 to A.5).

Explicit VR Little Endian, Part 10. The patient is named as the national network wants it: PatientID is the INS.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Sex
from drimbox.manifest.description import write_description
from drimbox.manifest.encoding import (
    EXPLICIT_LE,
    PREAMBLE,
    TextEncoder,
    encode_element,
    integer,
    one_line,
    person_name,
    sequence,
    uid,
)
from drimbox.manifest.manifest import KeyMark, Manifest, ManifestSeries
from drimbox.manifest.marks import key_marks
from drimbox.manifest.sop_classes import KEY_OBJECT_SELECTION, value_type
from drimbox.pacs.dimse.uids import IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION
from drimbox.pacs.keynotes import Concept, KeyNote
from drimbox.pacs.study import Instance, Series, Study
from drimbox.reports.report import Act, Identifier, Order, Report, Structure

# The series number of every official sample (official-data.md 9.1).
SERIES_NUMBER = 59
_INSTITUTION_ROOM = 64
_DCM_MANIFEST = Concept("113030", "DCM", "Manifest")
_DCM_DESCRIPTION = Concept("113012", "DCM", "Key Object Description")


def build_manifest(
    report: Report,
    study: Study,
    *,
    orders: Sequence[Order],
    retrieve_base: str,
    kos_uid: str,
    series_uid: str,
    created: dt.datetime,
    manufacturer: str,
    structure: Structure | None = None,
    notes: Sequence[KeyNote] = (),
    zone: ZoneInfo = PARIS,
) -> bytes:
    """The KOS of a study, a whole Part 10 file. Arguments and errors of ``describe`` and ``encode``."""
    manifest = describe(
        report,
        study,
        orders=orders,
        retrieve_base=retrieve_base,
        kos_uid=kos_uid,
        series_uid=series_uid,
        created=created,
        manufacturer=manufacturer,
        structure=structure,
        notes=notes,
    )
    return encode(manifest, zone=zone)


def describe(
    report: Report,
    study: Study,
    *,
    orders: Sequence[Order],
    retrieve_base: str,
    kos_uid: str,
    series_uid: str,
    created: dt.datetime,
    manufacturer: str,
    structure: Structure | None = None,
    notes: Sequence[KeyNote] = (),
) -> Manifest:
    """What the KOS of a study says.

    ``orders`` are those that belong to this study (decision 3); ``retrieve_base`` is the WADO-RS address of this
    source, before ``/studies``; ``created`` an aware instant; ``structure`` the publishing structure when it is not the
    report's. Images come from the study alone: a series without images is left out. ``notes`` are the study's own
    key-image notes. Raises ``Refused`` (``manifest-empty``) when no image is left.
    """
    traits = report.patient.traits
    acts = [act for act in report.acts if study.study_uid in act.study_uids]
    base = f"{retrieve_base.rstrip('/')}/studies/{study.study_uid}/series/"
    series = tuple(
        _series(s, base + s.series_uid, acts) for s in sorted(study.series, key=_series_order) if s.instances
    )
    if not series:
        raise Refused("Examen sans image : pas de KOS possible", code="manifest-empty")
    return Manifest(
        kos_uid=kos_uid,
        study_uid=study.study_uid,
        study_date=_date(study.study_date),
        study_time=_time(study.study_time),
        study_id=study.study_id,
        description=study.description,
        act=" ; ".join(dict.fromkeys(label for act in acts if (label := _act_label(act)))),
        ins=report.patient.ins,
        patient_name=person_name(traits.birth_family, traits.first_given),
        other_names=_other_names(report),
        birth_date=f"{traits.birth_date:%Y%m%d}",
        # PS3.3 C.7.1.1 knows M, F and O; unknown is empty.
        sex="" if traits.sex is Sex.UNKNOWN else traits.sex.value,
        birth_place=traits.birth_place,
        institution=_institution(structure or report.structure),
        manufacturer=manufacturer,
        requests=tuple(orders),
        series=series,
        series_uid=series_uid,
        created=created,
        marks=key_marks((i.sop_instance_uid for s in series for i in s.instances), notes),
    )


def encode(manifest: Manifest, *, zone: ZoneInfo = PARIS) -> bytes:
    """The octets of a manifest. ``zone`` is where the study was made: all times are written in its offset.

    Raises ``Refused`` (``manifest-value``) when an identifier does not fit DICOM, ``manifest-empty`` without images or
    INS, ``manifest-uid`` when a UID is none.
    """
    if manifest.ins is None or manifest.created is None or not manifest.instance_count:
        raise Refused("KOS sans patient, sans date ou sans image", code="manifest-empty")
    if not all(map(_plausible_uid, _uids(manifest))):
        raise Refused("Identifiant DICOM mal formé dans l'examen", code="manifest-uid")
    try:
        data = _data_set(manifest, manifest.ins, manifest.created, TextEncoder("latin-1"), zone)
    except UnicodeEncodeError:
        data = _data_set(manifest, manifest.ins, manifest.created, TextEncoder("utf-8"), zone)
    return PREAMBLE + _file_meta(manifest.kos_uid) + data


# --- what it says -----------------------------------------------------------------------------------------------------


def _series(series: Series, url: str, acts: Sequence[Act]) -> ManifestSeries:
    regions = dict.fromkeys(r.label or r.code for act in acts for r in act.regions)
    return ManifestSeries(
        series_uid=series.series_uid,
        retrieve_url=url,
        modality=series.modality,
        number=series.number,
        description=series.description,
        instances=tuple(sorted(series.instances, key=_instance_order)),
        region=series.body_part or " + ".join(regions),
    )


def _series_order(series: Series) -> tuple[bool, int, str]:
    return series.number is None, series.number or 0, series.series_uid


def _instance_order(instance: Instance) -> tuple[bool, int, str]:
    return instance.number is None, instance.number or 0, instance.sop_instance_uid


def _act_label(act: Act) -> str:
    """The act in words: the LOINC act's label, else the CCAM one's, else a code."""
    codes = [code for code in (act.code, act.procedure) if code is not None]
    return next((c.label for c in codes if c.label), next((c.code for c in codes if c.code), ""))


def _other_names(report: Report) -> tuple[str, ...]:
    """``^<birth given names>``, then ``<used name>^<used given name>`` where there is one (standards.md A.5)."""
    traits = report.patient.traits
    names = [person_name("", " ".join(traits.given_names) or traits.first_given)]
    if traits.used_family or traits.used_given:
        names.append(person_name(traits.used_family or traits.birth_family, traits.used_given or traits.first_given))
    return tuple(name for name in names if name)


def _institution(structure: Structure) -> str:
    """XON-like: the name in component 1, the identifier in component 10; LO holds 64 characters, the name is cut."""
    tail = f"^^^^^^^^^{one_line(structure.identifier)}"
    return one_line(structure.name).replace("^", " ")[: _INSTITUTION_ROOM - len(tail)].strip() + tail


def _date(text: str) -> str:
    """A DA; empty when it is none. ACR-NEMA wrote ``YYYY.MM.DD``."""
    cleaned = text.strip().replace(".", "")
    return cleaned if re.fullmatch(r"[0-9]{8}", cleaned) else ""


def _time(text: str) -> str:
    """A TM; empty when it is none. ACR-NEMA wrote ``HH:MM:SS``."""
    cleaned = text.strip().replace(":", "")
    return cleaned if re.fullmatch(r"(?:[0-9]{2}){1,3}(?:\.[0-9]{1,6})?", cleaned) else ""


# --- its octets -------------------------------------------------------------------------------------------------------


def _uids(manifest: Manifest) -> Iterator[str]:
    yield from (manifest.kos_uid, manifest.series_uid, manifest.study_uid)
    for series in manifest.series:
        yield series.series_uid
        for instance in series.instances:
            yield instance.sop_class_uid
            yield instance.sop_instance_uid
    for mark in manifest.marks:
        yield mark.note_uid
        yield mark.note_series_uid


def _plausible_uid(value: str) -> bool:
    """Real modalities make UIDs with leading zeros: they name real images and must be kept."""
    return 0 < len(value) <= 64 and value.isascii() and value.replace(".", "").isdigit()


def _file_meta(kos_uid: str) -> bytes:
    """Group 0002 (PS3.10 7.1)."""
    content = b"".join(
        (
            encode_element(0x00020001, "OB", b"\0\1"),
            uid(0x00020002, KEY_OBJECT_SELECTION),
            uid(0x00020003, kos_uid),
            uid(0x00020010, EXPLICIT_LE),
            uid(0x00020012, IMPLEMENTATION_CLASS),
            encode_element(0x00020013, "SH", IMPLEMENTATION_VERSION.encode("ascii")),
        )
    )
    return encode_element(0x00020000, "UL", len(content).to_bytes(4, "little")) + content


def _data_set(m: Manifest, ins: Ins, created: dt.datetime, to: TextEncoder, zone: ZoneInfo) -> bytes:
    """All elements, by tag."""
    local = created.astimezone(_offset_of(m, created, zone))
    date, time = f"{local:%Y%m%d}", f"{local:%H%M%S}"
    return b"".join(
        (
            to.text(0x00080005, "CS", to.character_set),
            to.text(0x00080012, "DA", date),
            to.text(0x00080013, "TM", time),
            uid(0x00080016, KEY_OBJECT_SELECTION),
            uid(0x00080018, m.kos_uid),
            to.text(0x00080020, "DA", m.study_date),
            to.text(0x00080021, "DA", date),
            to.text(0x00080023, "DA", date),
            to.text(0x00080030, "TM", m.study_time),
            to.text(0x00080031, "TM", time),
            to.text(0x00080033, "TM", time),
            # Empty as in the samples: the numbers stand in the Referenced Request Sequence, each with its issuer.
            to.text(0x00080050, "SH", ""),
            to.text(0x00080060, "CS", "KO"),
            to.text(0x00080070, "LO", m.manufacturer),
            to.text(0x00080080, "LO", m.institution),
            to.names(0x00080090, ""),
            to.text(0x00080201, "SH", f"{local:%z}"),
            to.text(0x00081030, "LO", m.description),
            sequence(0x00081111, ()),
            _patient(m, ins, to),
            uid(0x0020000D, m.study_uid),
            uid(0x0020000E, m.series_uid),
            to.text(0x00200010, "SH", m.study_id),
            integer(0x00200011, SERIES_NUMBER),
            integer(0x00200013, 1),
            to.text(0x0040A040, "CS", "CONTAINER"),
            _concept(_DCM_MANIFEST, to),
            to.text(0x0040A050, "CS", "SEPARATE"),
            # Type 1C: present when the study answers at least one request.
            sequence(0x0040A370, (_request(o, m.study_uid, to) for o in m.requests)) if m.requests else b"",
            sequence(0x0040A375, [_evidence(m, to)]),
            sequence(0x0040A504, [to.text(0x00080105, "CS", "DCMR") + to.text(0x0040DB00, "CS", "2010")]),
            sequence(0x0040A730, _content(m, to)),
        )
    )


def _offset_of(m: Manifest, created: dt.datetime, zone: ZoneInfo) -> dt.timezone:
    """The one offset of the object: that of the study's own local time, so that its date and time mean what they meant.

    Timezone Offset From UTC holds for every time of the object (PS3.3 C.12.1.1.8): a winter study described in summer
    would otherwise be moved by an hour.
    """
    moment = created.astimezone(zone)
    if m.study_date:
        try:
            moment = dt.datetime.strptime(f"{m.study_date}{m.study_time[:6]:0<6}", "%Y%m%d%H%M%S").replace(tzinfo=zone)
        except ValueError:
            moment = created.astimezone(zone)
    offset = moment.utcoffset() or dt.timedelta()
    # Before 1911 the offset of Paris had minutes and seconds, which +HHMM cannot say.
    return dt.timezone(dt.timedelta(minutes=offset // dt.timedelta(minutes=1)))


def _patient(m: Manifest, ins: Ins, to: TextEncoder) -> bytes:
    qualifiers = sequence(0x00100024, [to.text(0x00400032, "UT", ins.oid) + to.text(0x00400033, "CS", "ISO")])
    number = to.identifier(0x00100020, "LO", ins.matricule) + to.text(0x00100021, "LO", ins.authority.namespace)
    return b"".join(
        (
            to.names(0x00100010, m.patient_name),
            number,
            qualifiers,
            to.text(0x00100030, "DA", m.birth_date),
            to.text(0x00100040, "CS", m.sex),
            to.names(0x00101001, *m.other_names) if m.other_names else b"",
            sequence(0x00101002, [number + to.text(0x00100022, "CS", "TEXT") + qualifiers]),
            to.text(0x00104000, "LT", m.birth_place) if m.birth_place else b"",
        )
    )


def _concept(concept: Concept, to: TextEncoder) -> bytes:
    item = (
        to.identifier(0x00080100, "SH", concept.code),
        to.identifier(0x00080102, "SH", concept.scheme),
        to.text(0x00080104, "LO", concept.meaning),
    )
    return sequence(0x0040A043, [b"".join(item)])


def _request(order: Order, study_uid: str, to: TextEncoder) -> bytes:
    """One item of the Referenced Request Sequence: accession and placer numbers, each with its issuer."""
    accession, placer = order.accession, order.placer
    return b"".join(
        (
            to.identifier(0x00080050, "SH", accession.value if accession else ""),
            _issuer(0x00080051, accession, to),
            sequence(0x00081110, ()),
            uid(0x0020000D, study_uid),
            to.text(0x00321060, "LO", ""),
            sequence(0x00321064, ()),
            _issuer(0x00400026, placer, to),
            to.text(0x00401001, "SH", ""),
            to.identifier(0x00402016, "LO", placer.value if placer else ""),
            to.text(0x00402017, "LO", ""),
        )
    )


def _issuer(tag: int, identifier: Identifier | None, to: TextEncoder) -> bytes:
    """The issuer of a number, left out when it is not known; an issuer that is no OID is a local namespace."""
    if identifier is None or not identifier.issuer:
        return b""
    if is_uid(identifier.issuer):
        item = to.text(0x00400032, "UT", identifier.issuer) + to.text(0x00400033, "CS", "ISO")
    else:
        item = to.text(0x00400031, "UT", identifier.issuer)
    return sequence(tag, [item])


def _evidence(m: Manifest, to: TextEncoder) -> bytes:
    """The study item of the Current Requested Procedure Evidence Sequence: every series with its address."""
    marks = m.key_images
    series = (
        b"".join(
            (
                to.text(0x00081190, "UR", s.retrieve_url) if s.retrieve_url else b"",
                sequence(0x00081199, (_marked(i, marks, to) for i in s.instances)),
                uid(0x0020000E, s.series_uid),
                integer(0x00200011, s.number) if s.number is not None else b"",
            )
        )
        for s in m.series
    )
    return sequence(0x00081115, series) + uid(0x0020000D, m.study_uid)


def _reference(instance: Instance, nested: bytes = b"") -> bytes:
    number = integer(0x00200013, instance.number) if instance.number is not None else b""
    return uid(0x00081150, instance.sop_class_uid) + uid(0x00081155, instance.sop_instance_uid) + nested + number


def _marked(instance: Instance, marks: Mapping[str, Sequence[KeyMark]], to: TextEncoder) -> bytes:
    """A reference in the evidence, with the notes that flag the instance inside, as the official sample has it."""
    own = marks.get(instance.sop_instance_uid)
    return _reference(instance, sequence(0x00081199, (_mark(m, to) for m in own)) if own else b"")


def _mark(mark: KeyMark, to: TextEncoder) -> bytes:
    text = sequence(0x0040A730, [to.lines(0x0040A160, mark.text)]) if mark.text else b""
    return b"".join(
        (
            uid(0x00081155, mark.note_uid),
            uid(0x0020000E, mark.note_series_uid),
            _concept(mark.title, to) if mark.title else b"",
            text,
        )
    )


def _content(m: Manifest, to: TextEncoder) -> Iterable[bytes]:
    """The content tree (TID 2010): a reference to each object, then the text."""
    contains = to.text(0x0040A010, "CS", "CONTAINS")
    for series in m.series:
        for instance in series.instances:
            kind = to.text(0x0040A040, "CS", value_type(instance.sop_class_uid))
            yield sequence(0x00081199, [_reference(instance)]) + contains + kind
    text = write_description(m.description, m.act, m.series)
    kind = to.text(0x0040A040, "CS", "TEXT")
    yield contains + kind + _concept(_DCM_DESCRIPTION, to) + to.lines(0x0040A160, text)
