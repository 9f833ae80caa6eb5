"""ebRIM metadata written by hand, from the official publication sample, in the order that the schema asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from lxml import etree

RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"

AUTHOR = "93606bcf-9494-43ec-9b4e-a7748d1a838d"
CLASS = "41a5887f-8865-4c09-adf7-e362475b143a"
TYPE = "f0306f51-975f-434e-a61c-c59651d33983"
CONFIDENTIALITY = "f4f85eac-e6cb-4883-b524-f2705394840f"
EVENT = "2c6b8cb7-8b2a-4051-b291-b1ae6a575ef4"
FORMAT = "a09d5840-386c-46f2-b5ad-9c3699a4309d"
FACILITY = "f33fb8ac-18af-42cc-ae0e-ed0b0bdb91e1"
PRACTICE = "cccf5598-8b07-4b77-a05e-ae952c785ead"
PATIENT = "58a6f841-87b3-4a3e-92fd-a8ffeff98427"
UNIQUE = "2e82c1f6-a085-4c72-9da3-8640a32e42ab"
SET_AUTHOR = "a7058bb9-b4e4-4307-ba5b-e3f0ab85e12d"
SET_CONTENT = "aa543740-bdda-424e-8c96-df4873be8500"
SET_PATIENT = "6b5aea1a-874d-4603-a4bc-96a0a7b38446"
SET_SOURCE = "554ac39e-e3fe-47fe-b233-965d2a147832"
SET_UNIQUE = "96fdda7c-d067-4183-912e-bf5ee74998a8"

HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"
SIGNS = "urn:ihe:iti:2007:AssociationType:signs"
RPLC = "urn:ihe:iti:2007:AssociationType:RPLC"
UPDATE_STATUS = "urn:ihe:iti:2010:AssociationType:UpdateAvailabilityStatus"

PERSON = "899700367909^DOC0036790^KIT^^^^^^&1.2.250.1.71.4.2.1&ISO^D^^^IDNPS"
DEVICE = "3750803447/drimbox-1^DRIMbox^drimbox^^^^^^&1.2.250.1.71.4.2.1&ISO^U^^^RI"
REFERENCES = "urn:ihe:iti:xds:2013:referenceIdList"

_count = iter(range(10**9))


def slot(name: str, *values: str) -> str:
    inner = "".join(f"<Value>{etree_text(value)}</Value>" for value in values)
    return f"<Slot name={quoteattr(name)}><ValueList>{inner}</ValueList></Slot>"


def label(text: str, tag: str = "Name") -> str:
    return f'<{tag}><LocalizedString charset="UTF-8" xml:lang="FR" value={quoteattr(text)}/></{tag}>'


def code(owner: str, axis: str, value: str, scheme: str, text: str) -> str:
    return (
        f'<Classification classificationScheme="urn:uuid:{axis}" classifiedObject="{owner}" id="cl{next(_count)}" '
        f"nodeRepresentation={quoteattr(value)}>{slot('codingScheme', scheme)}{label(text)}</Classification>"
    )


def author(owner: str, axis: str, person: str, structure: str) -> str:
    institution = f"Centre^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^{structure}"
    return (
        f'<Classification classificationScheme="urn:uuid:{axis}" classifiedObject="{owner}" id="cl{next(_count)}" '
        f'nodeRepresentation="">{slot("authorPerson", person)}{slot("authorInstitution", institution)}</Classification>'
    )


def external(owner: str, scheme: str, value: str, name: str) -> str:
    return (
        f'<ExternalIdentifier id="ei{next(_count)}" identificationScheme="urn:uuid:{scheme}" registryObject="{owner}" '
        f"value={quoteattr(value)}>{label(name)}</ExternalIdentifier>"
    )


def association(kind: str, source: str, target: str, **slots: str) -> str:
    told = "".join(slot(name, value) for name, value in slots.items())
    return (
        f'<Association associationType="{kind}" id="as{next(_count)}" sourceObject="{source}" targetObject="{target}">'
        f"{told}</Association>"
    )


def submission_set(*, uid: str, patient: str, structure: str, now: str) -> str:
    owner = "SubmissionSet01"
    return (
        f'<RegistryPackage id="{owner}">{slot("submissionTime", now)}{label("Examen")}'
        + author(owner, SET_AUTHOR, PERSON, structure)
        + code(owner, SET_CONTENT, "07", "1.2.250.1.213.2.2", "Consultation")
        + f'<Classification classificationNode="urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd" '
        f'classifiedObject="{owner}" id="cl{next(_count)}"/>'
        + external(owner, SET_PATIENT, patient, "XDSSubmissionSet.patientId")
        + external(owner, SET_SOURCE, "1.2.250.1.999.1.1.8121", "XDSSubmissionSet.sourceId")
        + external(owner, SET_UNIQUE, uid, "XDSSubmissionSet.uniqueId")
        + "</RegistryPackage>"
    )


def kos_entry(
    *, owner: str, uid: str, patient: str, structure: str, created: str, now: str, content: bytes,
    references: Sequence[str], masks: Sequence[str] = (),
) -> str:  # fmt: skip
    return (
        f'<ExtrinsicObject id="{owner}" mimeType="application/dicom" '
        'objectType="urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1">'
        + _common_slots(created, now, "fr-FR", patient.replace("^NH", "^PI"), content)
        + slot("sourcePatientInfo", "PID-5|PAT-TROIS^DOMINIQUE^^^^^L", "PID-7|19790328", "PID-8|F")
        + slot(REFERENCES, *references)
        + label("Reference d'Objets d'un Examen d'Imagerie")
        + label("KOS", "Description")
        + author(owner, AUTHOR, DEVICE, structure)
        + code(owner, CLASS, "31", "1.2.250.1.213.1.1.4.1", "Imagerie médicale")
        + code(owner, TYPE, "IMG-KOS", "1.2.250.1.213.1.1.4.12", "Référence d'objets d'un examen d'imagerie")
        + code(owner, CONFIDENTIALITY, "N", "2.16.840.1.113883.5.25", "Normal")
        + "".join(code(owner, CONFIDENTIALITY, mask, "1.2.250.1.213.1.1.4.13", mask) for mask in masks)
        + code(owner, FORMAT, "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.2.6.1", "Document de Références")
        + _places(owner)
        + code(owner, EVENT, "774007", "2.16.840.1.113883.6.96", "tête et cou")
        + code(owner, EVENT, "MR", "1.2.840.10008.2.16.4", "IRM")
        + _identifiers(owner, patient, uid)
    )


def signature_entry(*, uid: str, patient: str, structure: str, now: str, content: bytes) -> str:
    owner = "Signature01"
    return (
        f'<ExtrinsicObject id="{owner}" mimeType="text/xml" '
        'objectType="urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1">'
        + _common_slots(now, now, "art", patient, content)
        + label("Source")
        + author(owner, AUTHOR, PERSON, structure)
        + code(owner, CLASS, "urn:oid:1.3.6.1.4.1.19376.1.2.1.1.1", "URN", "Digital Signature")
        + code(owner, TYPE, "E1762", "ASTM", "Full Document")
        + code(owner, CONFIDENTIALITY, "N", "2.16.840.1.113883.5.25", "Normal")
        + code(owner, CONFIDENTIALITY, "MASQUE_PS", "1.2.250.1.213.1.1.4.13", "Masqué")
        + code(owner, CONFIDENTIALITY, "INVISIBLE_PATIENT", "1.2.250.1.213.1.1.4.13", "Non visible")
        + code(owner, FORMAT, "http://www.w3.org/2000/09/xmldsig#", "URN", "Default Signature Style")
        + _places(owner)
        + code(owner, EVENT, "1.2.840.10065.1.12.1.14", "1.2.840.10065.1.12", "Source")
        + _identifiers(owner, patient, uid)
    )


def _common_slots(created: str, now: str, language: str, source_patient: str, content: bytes) -> str:
    return (
        slot("creationTime", created)
        + slot("submissionTime", now)
        + slot("languageCode", language)
        + slot("legalAuthenticator", PERSON)
        + slot("serviceStartTime", "20210108092500")
        + slot("serviceStopTime", "20210108101700")
        + slot("sourcePatientId", source_patient)
        + slot("hash", hashlib.sha1(content).hexdigest())
        + slot("size", str(len(content)))
    )


def _places(owner: str) -> str:
    return code(owner, FACILITY, "SA08", "1.2.250.1.71.4.2.4", "Cabinet de groupe") + code(
        owner, PRACTICE, "AMBULATOIRE", "1.2.250.1.213.1.1.4.9", "Ambulatoire"
    )


def _identifiers(owner: str, patient: str, uid: str) -> str:
    return (
        external(owner, PATIENT, patient, "XDSDocumentEntry.patientId")
        + external(owner, UNIQUE, uid, "XDSDocumentEntry.uniqueId")
        + "</ExtrinsicObject>"
    )


def submit_objects(*objects: str) -> etree._Element:
    return etree.fromstring(
        f'<lcm:SubmitObjectsRequest xmlns:lcm="{LCM}" xmlns="{RIM}"><RegistryObjectList>{"".join(objects)}'
        "</RegistryObjectList></lcm:SubmitObjectsRequest>"
    )


def etree_text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;")
