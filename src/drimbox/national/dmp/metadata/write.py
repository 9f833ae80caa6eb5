"""XDS metadata written as ebRIM 3.0 (ITI TF-3 4.2.3), in the order that its schema demands.

Slots, Name, Description, Classifications, ExternalIdentifiers: the official samples put a Slot among the
Classifications, which is not valid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Builder, Element
from drimbox.national.dmp.codes import (
    LCM,
    REFERENCE_SLOT,
    RIM,
    RS,
    XML_LANG,
    EntryScheme,
    Node,
    SetScheme,
)
from drimbox.national.dmp.metadata.datatypes import MAX_VALUE, clean
from drimbox.national.dmp.metadata.model import Association, Author, DocumentEntry, SubmissionSet
from drimbox.reports.report import Coded

MAX_TITLE = 128
MAX_COMMENTS = 1024

_RIM = Builder({"rim": RIM}, "rim")
_LCM = Builder({"lcm": LCM, "rs": RS, "rim": RIM}, "lcm")


def submit_objects_request(
    submission_set: SubmissionSet, entries: Sequence[DocumentEntry], associations: Sequence[Association]
) -> Element:
    """``lcm:SubmitObjectsRequest``, what ITI-41 and ITI-57 carry and what an XDM archive holds.

    Every object must have its ``entry_id``. Raises ``Refused`` (``metadata-length``) when a code or an identifier is
    longer than the registry takes.
    """
    ids = _Ids()
    objects = [
        _package(submission_set, ids),
        *(_extrinsic_object(entry, ids) for entry in entries),
        *(_association(association, ids) for association in associations),
    ]
    return _LCM("SubmitObjectsRequest", _RIM("RegistryObjectList", *objects))


class _Ids:
    """Ids of classifications and external identifiers: unique within one message."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"


def _package(submission_set: SubmissionSet, ids: _Ids) -> Element:
    owner = submission_set.entry_id
    time = submission_set.submission_time
    return _RIM(
        "RegistryPackage",
        *_slots(("submissionTime", (time.digits,) if time else ())),
        *_names(submission_set.title, submission_set.comments),
        *(_author(author, SetScheme.AUTHOR, owner, ids) for author in submission_set.authors),
        *_codes(((SetScheme.CONTENT_TYPE, submission_set.content_type),), owner, ids),
        _RIM(
            "Classification",
            id=ids.next("cla"),
            classifiedObject=owner,
            classificationNode=Node.SUBMISSION_SET,
        ),
        _identifier(SetScheme.PATIENT_ID, "XDSSubmissionSet.patientId", submission_set.patient_id.encode(), owner, ids),
        _identifier(SetScheme.SOURCE_ID, "XDSSubmissionSet.sourceId", submission_set.source_id, owner, ids),
        _identifier(SetScheme.UNIQUE_ID, "XDSSubmissionSet.uniqueId", submission_set.unique_id, owner, ids),
        id=owner,
    )


def _extrinsic_object(entry: DocumentEntry, ids: _Ids) -> Element:
    owner = entry.entry_id
    attributes = {"id": owner, "mimeType": entry.mime_type, "objectType": entry.object_type}
    optional = {"lid": entry.logical_id, "home": entry.home, "status": entry.status}
    attributes.update({name: value for name, value in optional.items() if value})
    return _RIM(
        "ExtrinsicObject",
        *_slots(*_entry_slots(entry)),
        *_names(entry.title, entry.comments),
        *([_RIM("VersionInfo", versionName=entry.version)] if entry.version else []),
        *(_author(author, EntryScheme.AUTHOR, owner, ids) for author in entry.authors),
        *_codes(_entry_codes(entry), owner, ids),
        _identifier(EntryScheme.PATIENT_ID, "XDSDocumentEntry.patientId", entry.patient_id.encode(), owner, ids),
        _identifier(EntryScheme.UNIQUE_ID, "XDSDocumentEntry.uniqueId", entry.unique_id, owner, ids),
        **attributes,
    )


def _entry_slots(entry: DocumentEntry) -> Iterator[tuple[str, Sequence[str]]]:
    for name, time in (
        ("creationTime", entry.creation_time),
        ("serviceStartTime", entry.service_start),
        ("serviceStopTime", entry.service_stop),
    ):
        yield name, (time.digits,) if time else ()
    yield "hash", _present(entry.hash)
    yield "size", (str(entry.size),) if entry.size is not None else ()
    yield "languageCode", _present(entry.language)
    yield "legalAuthenticator", (entry.legal_authenticator.encode(),) if entry.legal_authenticator else ()
    yield "sourcePatientId", (entry.source_patient_id.encode(),) if entry.source_patient_id else ()
    yield "sourcePatientInfo", entry.source_patient_info
    yield "repositoryUniqueId", _present(entry.repository_id)
    yield "URI", _present(entry.uri)
    yield REFERENCE_SLOT, [reference.encode() for reference in entry.references]
    yield from entry.unknown_slots


def _entry_codes(entry: DocumentEntry) -> Iterator[tuple[str, Coded | None]]:
    yield EntryScheme.CLASS, entry.class_code
    yield EntryScheme.TYPE, entry.type_code
    yield EntryScheme.FORMAT, entry.format_code
    yield EntryScheme.FACILITY_TYPE, entry.facility_type
    yield EntryScheme.PRACTICE_SETTING, entry.practice_setting
    for confidentiality in entry.confidentiality:
        yield EntryScheme.CONFIDENTIALITY, confidentiality
    for event in entry.event_codes:
        yield EntryScheme.EVENT, event


def _association(association: Association, ids: _Ids) -> Element:
    return _RIM(
        "Association",
        *_slots(*association.slots),
        id=association.entry_id or ids.next("as"),
        associationType=association.kind,
        sourceObject=association.source,
        targetObject=association.target,
    )


def _author(author: Author, scheme: str, owner: str, ids: _Ids) -> Element:
    return _RIM(
        "Classification",
        *_slots(
            ("authorPerson", (author.person.encode(),) if author.person else ()),
            ("authorInstitution", [institution.encode() for institution in author.institutions]),
            ("authorRole", author.roles),
            ("authorSpecialty", author.specialities),
        ),
        id=ids.next("cla"),
        classificationScheme=scheme,
        classifiedObject=owner,
        nodeRepresentation="",
    )


def _codes(codes: Iterable[tuple[str, Coded | None]], owner: str, ids: _Ids) -> Iterator[Element]:
    for scheme, code in codes:
        if code is None:
            continue
        yield _RIM(
            "Classification",
            *_slots(("codingScheme", (code.system,))),
            *_names(code.label or code.code, ""),
            id=ids.next("cla"),
            classificationScheme=scheme,
            classifiedObject=owner,
            nodeRepresentation=_short(code.code),
        )


def _identifier(scheme: str, name: str, value: str, owner: str, ids: _Ids) -> Element:
    return _RIM(
        "ExternalIdentifier",
        *_names(name, ""),
        id=ids.next("ei"),
        registryObject=owner,
        identificationScheme=scheme,
        value=_short(value),
    )


def _slots(*slots: tuple[str, Sequence[str]]) -> Iterator[Element]:
    for name, values in slots:
        if values:
            yield _RIM("Slot", _RIM("ValueList", *(_RIM("Value", _short(v)) for v in values)), name=name)


def _names(name: str, description: str) -> Iterator[Element]:
    if name:
        yield _RIM("Name", _localized(name[:MAX_TITLE]))
    if description:
        yield _RIM("Description", _localized(description[:MAX_COMMENTS]))


def _localized(text: str) -> Element:
    element = _RIM("LocalizedString", charset="UTF-8", value=clean(text))
    element.set(XML_LANG, "fr-FR")
    return element


def _present(value: str) -> Sequence[str]:
    return (value,) if value else ()


def _short(value: str) -> str:
    if len(value) > MAX_VALUE:
        raise Refused("Valeur trop longue pour les métadonnées du DMP", code="metadata-length")
    return clean(value)
