"""XDS metadata read from ebRIM: tolerant of order and of additions, strict on what identifies.

One object that cannot be told is a refusal of the whole: a list with a hole would look complete.
"""

from __future__ import annotations

from collections.abc import Iterator

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, text_of
from drimbox.national.dmp.codes import REFERENCE_SLOT, RIM, EntryScheme, Node, SetScheme, Status
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm, Xcn, Xon
from drimbox.national.dmp.metadata.model import (
    Association,
    Author,
    DocumentEntry,
    RegistryObjects,
    SubmissionSet,
)
from drimbox.reports.report import Coded

MAX_OBJECTS = 50_000

_KNOWN_SLOTS = frozenset(
    {
        *("creationTime", "serviceStartTime", "serviceStopTime", "hash", "size", "languageCode", "legalAuthenticator"),
        *("sourcePatientId", "sourcePatientInfo", "repositoryUniqueId", "URI", REFERENCE_SLOT),
    }
)

_Slots = dict[str, tuple[str, ...]]


def read_objects(container: Element) -> RegistryObjects:
    """Every registry object at or below ``container``: a RegistryObjectList, a request, a whole SOAP envelope.

    Raises ``Refused`` (``metadata-identifier``) for an object without id, a document or a set without uniqueId or
    patient; (``metadata-limits``) over 50,000 objects.
    """
    entries, sets, associations, references = [], [], [], []
    for count, element in enumerate(_objects(container)):
        if count >= MAX_OBJECTS:
            raise Refused("Trop d'objets dans les métadonnées", code="metadata-limits")
        match element.tag.removeprefix(f"{{{RIM}}}"):
            case "ExtrinsicObject":
                entries.append(_entry(element))
            case "RegistryPackage" if _is_submission_set(element):
                sets.append(_submission_set(element))
            case "Association":
                associations.append(_association(element))
            case "ObjectRef":
                references.append(_id(element))
    return RegistryObjects(tuple(entries), tuple(sets), tuple(associations), tuple(references))


def _objects(container: Element) -> Iterator[Element]:
    tags = [f"{{{RIM}}}{name}" for name in ("ExtrinsicObject", "RegistryPackage", "Association", "ObjectRef")]
    yield from container.iter(*tags)


def _entry(element: Element) -> DocumentEntry:
    slots = _slots(element)
    codes = _classifications(element)
    return DocumentEntry(
        unique_id=_external(element, EntryScheme.UNIQUE_ID),
        patient_id=Cx.parse(_external(element, EntryScheme.PATIENT_ID)),
        mime_type=element.get("mimeType", "application/octet-stream"),
        entry_id=_id(element),
        logical_id=element.get("lid", ""),
        version=_version(element),
        object_type=element.get("objectType", Node.STABLE_DOCUMENT),
        status=_status(element),
        home=element.get("home", ""),
        repository_id=_one(slots, "repositoryUniqueId"),
        hash=_one(slots, "hash").lower(),
        size=_size(_one(slots, "size")),
        uri="".join(slots.get("URI", ())),
        language=_one(slots, "languageCode"),
        creation_time=Dtm.parse(_one(slots, "creationTime")),
        service_start=Dtm.parse(_one(slots, "serviceStartTime")),
        service_stop=Dtm.parse(_one(slots, "serviceStopTime")),
        title=_localized(element, "Name"),
        comments=_localized(element, "Description"),
        authors=tuple(_author(c) for c in codes.get(EntryScheme.AUTHOR, ())),
        legal_authenticator=_person(_one(slots, "legalAuthenticator")),
        source_patient_id=Cx.parse(_one(slots, "sourcePatientId")) if _one(slots, "sourcePatientId") else None,
        source_patient_info=slots.get("sourcePatientInfo", ()),
        class_code=_first(codes, EntryScheme.CLASS),
        type_code=_first(codes, EntryScheme.TYPE),
        format_code=_first(codes, EntryScheme.FORMAT),
        facility_type=_first(codes, EntryScheme.FACILITY_TYPE),
        practice_setting=_first(codes, EntryScheme.PRACTICE_SETTING),
        confidentiality=_all(codes, EntryScheme.CONFIDENTIALITY),
        event_codes=_all(codes, EntryScheme.EVENT),
        references=tuple(Cx.parse(value) for value in slots.get(REFERENCE_SLOT, ())),
        unknown_slots=tuple((name, values) for name, values in slots.items() if name not in _KNOWN_SLOTS),
    )


def _submission_set(element: Element) -> SubmissionSet:
    slots = _slots(element)
    codes = _classifications(element)
    return SubmissionSet(
        unique_id=_external(element, SetScheme.UNIQUE_ID),
        source_id=_external(element, SetScheme.SOURCE_ID),
        patient_id=Cx.parse(_external(element, SetScheme.PATIENT_ID)),
        submission_time=Dtm.parse(_one(slots, "submissionTime")),
        content_type=_first(codes, SetScheme.CONTENT_TYPE),
        authors=tuple(_author(c) for c in codes.get(SetScheme.AUTHOR, ())),
        title=_localized(element, "Name"),
        comments=_localized(element, "Description"),
        entry_id=_id(element),
        status=element.get("status", ""),
    )


def _association(element: Element) -> Association:
    return Association(
        kind=element.get("associationType", ""),
        source=element.get("sourceObject", ""),
        target=element.get("targetObject", ""),
        slots=tuple(_slots(element).items()),
        entry_id=_id(element),
    )


def _is_submission_set(element: Element) -> bool:
    nodes = (c.get("classificationNode") for c in element.iterfind(f"{{{RIM}}}Classification"))
    return Node.SUBMISSION_SET in nodes or _find_external(element, SetScheme.UNIQUE_ID) is not None


def _status(element: Element) -> str:
    """The availability status; some write the French ones in the namespace of OASIS (standards.md L.8)."""
    told = element.get("status", "").strip()
    return next((known.value for known in Status if known.rpartition(":")[2] == told.rpartition(":")[2]), told)


def _id(element: Element) -> str:
    found = element.get("id", "").strip()
    if not found:
        raise Refused("Objet sans identifiant dans les métadonnées", code="metadata-identifier")
    return found


def _external(element: Element, scheme: str) -> str:
    found = (_find_external(element, scheme) or "").strip()
    if not found:
        raise Refused("Document sans identifiant ou sans patient dans les métadonnées", code="metadata-identifier")
    return found


def _find_external(element: Element, scheme: str) -> str | None:
    for identifier in element.iterfind(f"{{{RIM}}}ExternalIdentifier"):
        if identifier.get("identificationScheme") == scheme:
            return identifier.get("value")
    return None


def _slots(element: Element) -> _Slots:
    found: _Slots = {}
    for slot in element.iterfind(f"{{{RIM}}}Slot"):
        values = tuple(text_of(v) for v in slot.iterfind(f"{{{RIM}}}ValueList/{{{RIM}}}Value"))
        name = slot.get("name", "")
        found[name] = found.get(name, ()) + tuple(v for v in values if v)
    return found


def _one(slots: _Slots, name: str) -> str:
    return next(iter(slots.get(name, ())), "")


def _classifications(element: Element) -> dict[str, list[Element]]:
    found: dict[str, list[Element]] = {}
    for classification in element.iterfind(f"{{{RIM}}}Classification"):
        found.setdefault(classification.get("classificationScheme", ""), []).append(classification)
    return found


def _all(classifications: dict[str, list[Element]], scheme: str) -> tuple[Coded, ...]:
    return tuple(
        Coded(c.get("nodeRepresentation", "").strip(), _one(_slots(c), "codingScheme"), _localized(c, "Name"))
        for c in classifications.get(scheme, ())
    )


def _first(classifications: dict[str, list[Element]], scheme: str) -> Coded | None:
    return next(iter(_all(classifications, scheme)), None)


def _author(classification: Element) -> Author:
    slots = _slots(classification)
    return Author(
        person=_person(_one(slots, "authorPerson")),
        institutions=tuple(Xon.parse(value) for value in slots.get("authorInstitution", ())),
        roles=slots.get("authorRole", ()),
        specialities=slots.get("authorSpecialty", ()),
    )


def _person(value: str) -> Xcn | None:
    return Xcn.parse(value) if value else None


def _localized(element: Element, name: str) -> str:
    strings = element.iterfind(f"{{{RIM}}}{name}/{{{RIM}}}LocalizedString")
    return next((s.get("value", "") for s in strings), "")


def _version(element: Element) -> str:
    info = element.find(f"{{{RIM}}}VersionInfo")
    return info.get("versionName", "") if info is not None else ""


def _size(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
