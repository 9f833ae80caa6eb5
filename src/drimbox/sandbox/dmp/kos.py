"""What stands in a KOS, read with pydicom, whatever its faults: the rules come after (standards.md A)."""

from __future__ import annotations

import datetime as dt
import re
import struct
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from drimbox.foundation.clock import PARIS

_UNREADABLE = (
    BytesLengthException,
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class Unreadable(Exception):
    """The octets are not a DICOM file that can be read to its end."""


@dataclass(frozen=True, slots=True)
class KosNote:
    """What stands under the reference to an instance that a key-image note flags.

    ``titles`` are the (code, coding scheme) of its concept name, ``texts`` one for each content item.
    """

    instance: str
    note: str
    series: str
    titles: tuple[tuple[str, str], ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KosSeries:
    """A referenced series: its UID, RetrieveURL, (SOP class, SOP instance) of its instances, notes on them."""

    uid: str
    url: str
    instances: tuple[tuple[str, str], ...]
    notes: tuple[KosNote, ...] = ()


@dataclass(frozen=True, slots=True)
class Kos:
    """A KOS. Numbers are ``(value, OID of the issuer)``."""

    transfer_syntax: str
    sop_class: str
    sop_uid: str
    meta_class: str
    meta_uid: str
    modality: str
    value_type: str
    title: tuple[str, str]
    patient_id: str
    patient_issuer: str
    patient_name: str
    birth_date: str
    sex: str
    created: dt.datetime | None
    study_uid: str
    evidence_studies: tuple[str, ...]
    series: tuple[KosSeries, ...]
    content: tuple[tuple[str, str], ...]
    accessions: frozenset[tuple[str, str]]
    orders: frozenset[tuple[str, str]]
    request_studies: frozenset[str]
    value_types: tuple[tuple[str, str], ...]
    """(SOP class, value type) of each reference in the content tree."""

    @property
    def evidence(self) -> frozenset[tuple[str, str]]:
        return frozenset(i for s in self.series for i in s.instances)

    def __repr__(self) -> str:
        return f"Kos({self.sop_uid})"


def read_kos(octets: bytes) -> Kos:
    """Read a Part 10 file as a KOS. Raises ``Unreadable``."""
    try:
        return _kos(pydicom.dcmread(BytesIO(octets)))
    except _UNREADABLE as error:
        raise Unreadable(type(error).__name__) from error


def _kos(ds: pydicom.FileDataset) -> Kos:
    studies = _items(ds, "CurrentRequestedProcedureEvidenceSequence")
    titles = _items(ds, "ConceptNameCodeSequence")
    requests = _items(ds, "ReferencedRequestSequence")
    return Kos(
        transfer_syntax=str(ds.file_meta.get("TransferSyntaxUID", "")),
        sop_class=_text(ds, "SOPClassUID"),
        sop_uid=_text(ds, "SOPInstanceUID"),
        meta_class=str(ds.file_meta.get("MediaStorageSOPClassUID", "")),
        meta_uid=str(ds.file_meta.get("MediaStorageSOPInstanceUID", "")),
        modality=_text(ds, "Modality"),
        value_type=_text(ds, "ValueType"),
        title=(_text(titles[0], "CodeValue"), _text(titles[0], "CodingSchemeDesignator")) if titles else ("", ""),
        patient_id=_text(ds, "PatientID"),
        patient_issuer=_issuer(ds, "IssuerOfPatientIDQualifiersSequence"),
        patient_name=_text(ds, "PatientName"),
        birth_date=_text(ds, "PatientBirthDate"),
        sex=_text(ds, "PatientSex"),
        created=_created(ds),
        study_uid=_text(ds, "StudyInstanceUID"),
        evidence_studies=tuple(_text(s, "StudyInstanceUID") for s in studies),
        series=tuple(_series(s) for study in studies for s in _items(study, "ReferencedSeriesSequence")),
        content=tuple(
            _instance(reference)
            for item in _items(ds, "ContentSequence")
            if _text(item, "ValueType") in ("IMAGE", "COMPOSITE", "WAVEFORM")
            for reference in _items(item, "ReferencedSOPSequence")
        ),
        accessions=_numbers(requests, "AccessionNumber", "IssuerOfAccessionNumberSequence"),
        orders=_numbers(requests, "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence"),
        request_studies=frozenset(_text(r, "StudyInstanceUID") for r in requests),
        value_types=tuple(
            (_text(reference, "ReferencedSOPClassUID"), _text(item, "ValueType"))
            for item in _items(ds, "ContentSequence")
            for reference in _items(item, "ReferencedSOPSequence")
        ),
    )


def _series(item: Dataset) -> KosSeries:
    references = _items(item, "ReferencedSOPSequence")
    instances = tuple(_instance(i) for i in references)
    notes = tuple(_note(i, note) for i in references for note in _items(i, "ReferencedSOPSequence"))
    return KosSeries(_text(item, "SeriesInstanceUID"), _text(item, "RetrieveURL"), instances, notes)


def _note(instance: Dataset, note: Dataset) -> KosNote:
    return KosNote(
        _text(instance, "ReferencedSOPInstanceUID"),
        _text(note, "ReferencedSOPInstanceUID"),
        _text(note, "SeriesInstanceUID"),
        tuple(
            (_text(c, "CodeValue"), _text(c, "CodingSchemeDesignator")) for c in _items(note, "ConceptNameCodeSequence")
        ),
        tuple(_text(c, "TextValue") for c in _items(note, "ContentSequence")),
    )


def _instance(item: Dataset) -> tuple[str, str]:
    return _text(item, "ReferencedSOPClassUID"), _text(item, "ReferencedSOPInstanceUID")


def _numbers(requests: list[Dataset], number: str, issuer: str) -> frozenset[tuple[str, str]]:
    return frozenset((_text(r, number), _issuer(r, issuer)) for r in requests if _text(r, number))


def _issuer(item: Dataset, sequence: str) -> str:
    found = _items(item, sequence)
    return _text(found[0], "UniversalEntityID") if found else ""


def _created(ds: Dataset) -> dt.datetime | None:
    day, time = _text(ds, "InstanceCreationDate"), _text(ds, "InstanceCreationTime")
    if not re.fullmatch(r"\d{8}", day) or not re.fullmatch(r"\d{6}(\.\d{1,6})?", time):
        return None
    local = dt.datetime.strptime(day + time[:6], "%Y%m%d%H%M%S")  # noqa: DTZ007 - the zone is told apart
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", _text(ds, "TimezoneOffsetFromUTC"))
    if offset is None:
        return local.replace(tzinfo=PARIS).astimezone(dt.UTC)
    shift = dt.timedelta(hours=int(offset.group(2)), minutes=int(offset.group(3)))
    zone = dt.timezone(shift if offset.group(1) == "+" else -shift)
    return local.replace(tzinfo=zone).astimezone(dt.UTC)


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    return list(ds.get(keyword) or ())


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "" if value is None else str(value).strip()
