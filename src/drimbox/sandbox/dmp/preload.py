"""Documents that others have published: the RIS sends its reports to the DMP itself (decision 1)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from lxml import etree

from drimbox.foundation.clock import utc_digits
from drimbox.foundation.uids import new_uid, new_uuid_urn
from drimbox.foundation.xml import Builder, Element
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.ebrim import Submission, read_object
from drimbox.sandbox.dmp.registering import new_identifiers, stored_entry, stored_submission
from drimbox.sandbox.dmp.store import Store, StoredAssociation, is_current

_RIM = Builder({"rim": v.RIM}, "rim")
_DEFAULT_FORMAT = (
    "urn:ihe:iti:xds-sd:pdf:2008",
    "1.3.6.1.4.1.19376.1.2.3",
    "Document à corps non structuré en Pdf/A-1",
)


@dataclass(frozen=True, slots=True)
class Published:
    """A document of a patient's DMP that this sandbox did not receive by ITI-41; by default an imaging report.

    Codes are ``(code, system, label)``. ``author`` is ``(PS_IdNat, family, given)``, ``structure`` is
    ``(Struct_IdNat, name)``; ``references`` are whole CXi values; ``masks`` are MASQUE_PS and the like.
    """

    patient: str
    unique_id: str
    content: bytes
    author: tuple[str, str, str]
    structure: tuple[str, str]
    created: dt.datetime
    started: dt.datetime
    stopped: dt.datetime
    references: Sequence[str] = ()
    title: str = "Compte rendu d'imagerie médicale"
    class_code: tuple[str, str, str] = ("10", v.CLASSES, "Compte rendu")
    type_code: tuple[str, str, str] = ("18748-4", v.LOINC, "CR d'imagerie médicale")
    format_code: tuple[str, str, str] = _DEFAULT_FORMAT
    facility: tuple[str, str, str] = ("SA01", v.FACILITIES, "Etablissement public de santé")
    practice: tuple[str, str, str] = ("AMBULATOIRE", v.PRACTICES, "Ambulatoire")
    events: Sequence[tuple[str, str, str]] = ()
    masks: Sequence[str] = ()
    mime: str = "text/xml"
    patient_info: Sequence[str] = field(default=())

    def __repr__(self) -> str:
        return f"Published({self.unique_id})"


def preload(store: Store, published: Published, *, repository: str, now: dt.datetime) -> str:
    """Register as Approved and return the entryUUID; a document that is there already keeps its own."""
    with store.transaction():
        known = store.entry(unique_id=published.unique_id)
        if known is not None and is_current(known):
            return known.uuid
        entry = read_object(_entry(published), v.ENTRY_AUTHOR)
        package = read_object(_package(published, now), v.SET_AUTHOR)
        ids = new_identifiers(Submission((package,), (entry,), (), ()))
        lot = stored_submission(package, ids, kind="preload", now=now)
        stored = stored_entry(entry, published.content, ids, lot.uuid, repository=repository, now=now)
        store.register(lot, [(stored, published.content)], [_member(lot.uuid, stored.uuid)])
        return stored.uuid


def _member(submission: str, entry: str) -> StoredAssociation:
    """The link by which a submission set is said to hold the entry."""
    link = _RIM(
        "Association",
        _slot("SubmissionSetStatus", "Original"),
        id=new_uuid_urn(),
        associationType=v.HAS_MEMBER,
        sourceObject=submission,
        targetObject=entry,
    )
    return StoredAssociation(link.get("id", ""), v.HAS_MEMBER, submission, entry, etree.tostring(link))


def _entry(p: Published) -> Element:
    times = {"creationTime": p.created, "serviceStartTime": p.started, "serviceStopTime": p.stopped}
    codes = [
        (v.ENTRY_CLASS, p.class_code),
        (v.ENTRY_TYPE, p.type_code),
        (v.ENTRY_FORMAT, p.format_code),
        (v.ENTRY_FACILITY, p.facility),
        (v.ENTRY_PRACTICE, p.practice),
        (v.ENTRY_CONFIDENTIALITY, ("N", v.CONFIDENTIALITY, "Normal")),
        *((v.ENTRY_CONFIDENTIALITY, (mask, v.MASKS, mask)) for mask in p.masks),
        *((v.ENTRY_EVENT, event) for event in p.events),
    ]
    entry = _RIM(
        "ExtrinsicObject",
        *(_slot(name, utc_digits(when)) for name, when in times.items()),
        _slot("languageCode", "fr-FR"),
        _slot("legalAuthenticator", _person(p)),
        _slot("sourcePatientId", p.patient),
        _slot("hash", hashlib.sha1(p.content).hexdigest()),
        _slot("size", str(len(p.content))),
        id="entry",
        mimeType=p.mime,
        objectType=v.STABLE_DOCUMENT,
    )
    for name, values in (("sourcePatientInfo", p.patient_info), (v.REFERENCES_SLOT, p.references)):
        if values:
            entry.append(_slot(name, *values))
    entry.append(_RIM("Name", _label(p.title)))
    entry.append(_author(p, v.ENTRY_AUTHOR, "entry"))
    for axis, (code, system, label) in codes:
        entry.append(_classification(axis, "entry", code, system, label))
    entry.append(_identifier(v.ENTRY_PATIENT, "entry", p.patient, "XDSDocumentEntry.patientId"))
    entry.append(_identifier(v.ENTRY_UNIQUE, "entry", p.unique_id, "XDSDocumentEntry.uniqueId"))
    return entry


def _package(p: Published, now: dt.datetime) -> Element:
    package = _RIM("RegistryPackage", _slot("submissionTime", utc_digits(now)), id="set")
    package.append(_RIM("Name", _label(p.title)))
    package.append(_author(p, v.SET_AUTHOR, "set"))
    package.append(_classification(v.SET_CONTENT_TYPE, "set", "07", v.CONTENT_TYPES, "Consultation"))
    package.append(
        _RIM("Classification", id=new_uuid_urn(), classificationNode=v.SUBMISSION_SET, classifiedObject="set")
    )
    package.append(_identifier(v.SET_PATIENT, "set", p.patient, "XDSSubmissionSet.patientId"))
    package.append(_identifier(v.SET_SOURCE, "set", new_uid(), "XDSSubmissionSet.sourceId"))
    package.append(_identifier(v.SET_UNIQUE, "set", new_uid(), "XDSSubmissionSet.uniqueId"))
    return package


def _person(p: Published) -> str:
    identifier, family, given = p.author
    return f"{identifier}^{family}^{given}^^^^^^&{v.PERSONS}&ISO^D^^^IDNPS"


def _author(p: Published, scheme: str, owner: str) -> Element:
    identifier, name = p.structure
    institution = f"{name}^^^^^&{v.STRUCTURES}&ISO^IDNST^^^{identifier}"
    slots = (_slot("authorPerson", _person(p)), _slot("authorInstitution", institution))
    return _RIM(
        "Classification",
        *slots,
        id=new_uuid_urn(),
        classificationScheme=scheme,
        classifiedObject=owner,
        nodeRepresentation="",
    )


def _classification(axis: str, owner: str, code: str, system: str, label: str) -> Element:
    return _RIM(
        "Classification",
        _slot("codingScheme", system),
        _RIM("Name", _label(label)),
        id=new_uuid_urn(),
        classificationScheme=axis,
        classifiedObject=owner,
        nodeRepresentation=code,
    )


def _identifier(scheme: str, owner: str, value: str, name: str) -> Element:
    return _RIM(
        "ExternalIdentifier",
        _RIM("Name", _label(name)),
        id=new_uuid_urn(),
        identificationScheme=scheme,
        registryObject=owner,
        value=value,
    )


def _slot(name: str, *values: str) -> Element:
    return _RIM("Slot", _RIM("ValueList", *(_RIM("Value", value) for value in values)), name=name)


def _label(text: str) -> Element:
    return _RIM("LocalizedString", charset="UTF-8", value=text)
