"""The header of an imaging report in CDA R2 (official-data.md 5; standards.md H.3). The body is not read."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import cache

from lxml import etree

from drimbox.foundation import xml
from drimbox.foundation.clock import PARIS, has_neighbours
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Authority, Ins
from drimbox.identity.traits import LocalId, Patient, Sex, Traits, parse_date
from drimbox.reports.report import Act, Coded, Identifier, Order, Person, Structure, normal_structure_id

_NS = {"h": "urn:hl7-org:v3", "d": "urn:dicom-org:ps3-20"}
IMAGING_REPORT = "18748-4"
_PROFESSIONALS = "1.2.250.1.71.4.2.1"
_STRUCTURES = "1.2.250.1.71.4.2.2"
# Both OIDs stand for CCAM in official files (official-data.md 2.2).
_CCAM = frozenset({"1.2.250.1.213.2.5", "1.2.250.1.215.300.1"})
_MODALITY_QUALIFIER = "121139"
_REGION_QUALIFIER = "39111-0"
_PROFESSION = re.compile(r"(?:G15_)?(\d{2})(?:/(S[A-Z]\d+|[A-Z]+\d*))?$")
_PROFESSIONS = "1.2.250.1.71.1.2.7"
_SPECIALITIES = "1.2.250.1.71.4.2.5"
# What cp1252 writes and latin-1 cannot: the euro sign, curly quotes, dashes...
_CP1252_ALONE = {c: chr(octet) for octet in range(0x80, 0xA0) if (c := bytes([octet]).decode("cp1252", "ignore"))}
_NOT_LATIN_1 = re.compile(r"[^\x00-\xff]")
_TIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(?:\.\d+)?([+-]\d{4})?$")


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says, before the message around it is considered."""

    code: str
    document_id: str
    replaces: str | None
    title: str
    created: dt.datetime | None
    language: str
    patient: Patient
    orders: tuple[Order, ...]
    acts: tuple[Act, ...]
    author: Person | None
    signatory: Person
    structure: Structure
    practice_setting: Coded | None
    facility_type: Coded | None
    repaired: bool


def read_header(data: bytes) -> Header:
    """Read a ClinicalDocument.

    Raises ``Refused``; codes ``xml-…`` (not safe XML), ``cda-root``, ``cda-id``, ``cda-patient``, ``cda-signatory``,
    ``cda-structure``, ``cda-study``, ``ins-…``, ``trait-…``.
    """
    repaired = _undo_double_encoding(data)
    root = xml.parse(repaired if repaired is not None else data)
    if root.tag != f"{{{_NS['h']}}}ClinicalDocument":
        raise Refused("Le document n'est pas un CDA", code="cda-root")
    signatory, structure = _legal_authenticator(root)
    return Header(
        code=_attribute(root, "h:code/@code"),
        document_id=_document_id(root),
        replaces=_replaced(root),
        title=xml.text_of(_one(root, "h:title")),
        created=_instant(_attribute(root, "h:effectiveTime/@value")),
        language=_attribute(root, "h:languageCode/@code"),
        patient=_patient(root),
        orders=_orders(root),
        acts=_acts(root),
        author=_person(_one(root, "h:author/h:assignedAuthor")),
        signatory=signatory,
        structure=structure,
        practice_setting=_coded(_practice_setting(root)),
        facility_type=_coded(
            _one(root, "h:componentOf/h:encompassingEncounter/h:location/h:healthCareFacility/h:code")
        ),
        repaired=repaired is not None,
    )


def document_root(data: bytes) -> xml.Element:
    """The ClinicalDocument element of any CDA, to be shown. Raises ``Refused`` (``xml-…``, ``cda-root``)."""
    repaired = _undo_double_encoding(data)
    root = xml.parse(repaired if repaired is not None else data)
    if root.tag != f"{{{_NS['h']}}}ClinicalDocument":
        raise Refused("Le document n'est pas un CDA", code="cda-root")
    return root


def patient_of(root: xml.Element) -> Patient:
    """The patient of any CDA, whatever else its header lacks.

    Raises ``Refused``: ``cda-patient``, ``ins-…``, ``trait-…``.
    """
    return _patient(root)


def instant_of(text: str) -> dt.datetime | None:
    """A CDA TS: aware; without an offset it is Paris time. None when absent or unreadable."""
    return _instant(text)


def _undo_double_encoding(data: bytes) -> bytes | None:
    """Some senders read UTF-8 as cp1252 and write it as UTF-8 again (``Ã©`` for ``é``): give the first text back.

    None when that is not so: text that was encoded once does not survive the way back.
    """
    if b"\xc3\x83" not in data and b"\xc3\x82" not in data:
        return None
    try:
        # A byte order mark may have been put before it since.
        text = data.decode("utf-8-sig")
        # cp1252 has five holes, which senders fill as latin-1 does.
        once = _NOT_LATIN_1.sub(lambda found: _CP1252_ALONE[found[0]], text).encode("latin-1")
        once.decode("utf-8")
    except (UnicodeError, KeyError):
        return None
    return once


@cache
def _compiled(path: str) -> etree.XPath:
    """A path of this module, made ready once: it takes longer to read than to follow."""
    return etree.XPath(path, namespaces=_NS)


def _all(element: xml.Element, path: str) -> list[xml.Element]:
    found = _compiled(path)(element)
    return [e for e in found if isinstance(e, etree._Element)] if isinstance(found, list) else []


def _one(element: xml.Element, path: str) -> xml.Element | None:
    found = _all(element, path)
    return found[0] if found else None


def _attribute(element: xml.Element, path: str) -> str:
    found = _compiled(path)(element)
    return str(found[0]).strip() if isinstance(found, list) and found else ""


def _identifier(element: xml.Element | None) -> str:
    """``root``, or ``root^extension``: how XDS and TXA-12 name a document."""
    if element is None:
        return ""
    root, extension = (element.get("root") or "").strip(), (element.get("extension") or "").strip()
    return f"{root}^{extension}" if extension else root


def _document_id(root: xml.Element) -> str:
    identifier = _identifier(_one(root, "h:id"))
    if not identifier or not is_uid(identifier.split("^")[0]):
        raise Refused("Identifiant du document CDA absent ou mal formé", code="cda-id")
    return identifier


def _replaced(root: xml.Element) -> str | None:
    return _identifier(_one(root, "h:relatedDocument[@typeCode='RPLC']/h:parentDocument/h:id")) or None


def _patient(root: xml.Element) -> Patient:
    role = _one(root, "h:recordTarget/h:patientRole")
    person = _one(role, "h:patient") if role is not None else None
    if role is None or person is None:
        raise Refused("Patient absent de l'en-tête du CDA", code="cda-patient")
    ids = [(e.get("root") or "", e.get("extension") or "") for e in _all(role, "h:id")]
    national = [(oid, value) for oid, value in ids if Authority.of(oid) is not None]
    if not national:
        raise Refused("INS absente de l'en-tête du CDA", code="ins-missing")
    if len(set(national)) > 1:
        raise Refused("Plusieurs INS dans l'en-tête du CDA", code="ins-several")
    oid, value = national[0]
    local = tuple(LocalId(v.strip(), o) for o, v in ids if v and Authority.of(o) is None)
    # The header does not say whether the INS is qualified; the message does (PID-32).
    return Patient(Ins.of(value, oid), False, _traits(person), local)


def _traits(person: xml.Element) -> Traits:
    name = _one(person, "h:name")
    if name is None:
        raise Refused("Nom du patient absent de l'en-tête du CDA", code="cda-patient")

    def part(tag: str, qualifier: str) -> str:
        return xml.text_of(_one(name, f"h:{tag}[@qualifier='{qualifier}']"))

    plain = [text for e in _all(name, "h:given[not(@qualifier)]") if (text := xml.text_of(e))]
    family = part("family", "BR") or xml.text_of(_one(name, "h:family[not(@qualifier)]"))
    first = part("given", "BR") or (plain[0] if plain else "")
    if not family or not first:
        raise Refused("Nom ou premier prénom de naissance absent de l'en-tête du CDA", code="cda-patient")
    return Traits(
        birth_family=family,
        first_given=first,
        birth_date=parse_date(_attribute(person, "h:birthTime/@value")),
        sex=Sex.of(_attribute(person, "h:administrativeGenderCode/@code")),
        birth_place=xml.text_of(_one(person, "h:birthplace/h:place/h:addr/h:county")),
        given_names=tuple(word for text in plain for word in text.split()) or (first,),
        used_family=part("family", "CL"),
        used_given=part("given", "CL"),
    )


def _orders(root: xml.Element) -> tuple[Order, ...]:
    orders: list[Order] = []
    for order in _all(root, "h:inFulfillmentOf/h:order"):
        placers = _identifiers(_all(order, "h:id"))
        accessions = _identifiers(_all(order, "d:accessionNumber"))
        for accession in accessions or (None,):
            orders += [Order(placer, accession) for placer in placers or (None,)]
    return tuple(o for o in dict.fromkeys(orders) if o.placer or o.accession)


def _identifiers(elements: list[xml.Element]) -> tuple[Identifier, ...]:
    return tuple(
        Identifier(value.strip(), (e.get("root") or "").strip()) for e in elements if (value := e.get("extension"))
    )


def _acts(root: xml.Element) -> tuple[Act, ...]:
    """The service events that name a study; others (a diagnosis, say) are no act of imaging."""
    acts = []
    for event in _all(root, "h:documentationOf/h:serviceEvent"):
        uids = tuple(dict.fromkeys(uid for e in _all(event, "h:id") if (uid := (e.get("root") or "").strip())))
        if not uids:
            continue
        if not all(is_uid(uid) for uid in uids):
            raise Refused("Study Instance UID mal formé dans l'en-tête du CDA", code="cda-study")
        acts.append(_act(event, uids))
    if not acts:
        raise Refused("Aucun Study Instance UID dans l'en-tête du CDA", code="cda-study")
    return tuple(acts)


def _act(event: xml.Element, uids: tuple[str, ...]) -> Act:
    translations = _all(event, "h:code/h:translation")

    def qualified(code: str) -> tuple[Coded, ...]:
        chosen = [t for t in translations if _attribute(t, "h:qualifier/h:name/@code") == code]
        return tuple(c for t in chosen if (c := _coded(t)) is not None)

    ccam = next(
        (t for t in translations if t.get("codeSystem") in _CCAM and t.find(f"{{{_NS['h']}}}qualifier") is None), None
    )
    return Act(
        study_uids=uids,
        code=_coded(_one(event, "h:code")),
        procedure=_coded(ccam),
        modalities=qualified(_MODALITY_QUALIFIER),
        regions=qualified(_REGION_QUALIFIER),
        start=_instant(
            _attribute(event, "h:effectiveTime/h:low/@value") or _attribute(event, "h:effectiveTime/@value")
        ),
        stop=_instant(_attribute(event, "h:effectiveTime/h:high/@value")),
    )


def _practice_setting(root: xml.Element) -> xml.Element | None:
    """The performer's, else the signatory's."""
    found = _one(root, "h:documentationOf/h:serviceEvent/h:performer//h:standardIndustryClassCode")
    return found if found is not None else _one(root, "h:legalAuthenticator//h:standardIndustryClassCode")


def _legal_authenticator(root: xml.Element) -> tuple[Person, Structure]:
    entity = _one(root, "h:legalAuthenticator/h:assignedEntity")
    person = _person(entity)
    if entity is None or person is None:
        raise Refused("Signataire (legalAuthenticator) absent de l'en-tête du CDA", code="cda-signatory")
    organisation = _one(entity, "h:representedOrganization")
    identifier = _attribute(entity, f"h:representedOrganization/h:id[@root='{_STRUCTURES}']/@extension")
    # An absent structure is no error here: PRT-8 of the message may still name it.
    name = xml.text_of(_one(organisation, "h:name")) if organisation is not None else ""
    return person, Structure(normal_structure_id(identifier) if identifier else "", name)


def _person(entity: xml.Element | None) -> Person | None:
    if entity is None:
        return None
    identifier = _attribute(entity, f"h:id[@root='{_PROFESSIONALS}']/@extension")
    name = _one(entity, "h:assignedPerson/h:name")
    if not identifier or name is None:
        return None
    profession, speciality = _profession(_coded(_one(entity, "h:code")))
    return Person(
        identifier, xml.text_of(_one(name, "h:family")), xml.text_of(_one(name, "h:given")), profession, speciality
    )


def _profession(code: Coded | None) -> tuple[Coded | None, Coded | None]:
    """``G15_10/SM44`` holds profession 10 and speciality SM44 (TRE G15, CI-SIS)."""
    match = _PROFESSION.match(code.code) if code is not None else None
    if code is None or match is None:
        return None, None
    label, _, detail = code.label.partition(" - ")
    profession = Coded(match[1], _PROFESSIONS, label or code.label)
    return profession, Coded(match[2], _SPECIALITIES, detail) if match[2] else None


def _coded(element: xml.Element | None) -> Coded | None:
    if element is None or not element.get("code"):
        return None
    return Coded(
        (element.get("code") or "").strip(), (element.get("codeSystem") or "").strip(), element.get("displayName") or ""
    )


def _instant(text: str) -> dt.datetime | None:
    """A CDA TS: aware; without an offset it is Paris time. None when absent or unreadable: nothing is decided on it."""
    match = _TIME.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(g) if g else None for g in match.groups()[:6])
    try:
        naive = dt.datetime(year or 1, month or 1, day or 1, hour or 0, minute or 0, min(second or 0, 59))  # noqa: DTZ001
        if not has_neighbours(naive):
            return None
        if match[7]:
            sign = -1 if match[7][0] == "-" else 1
            offset = dt.timedelta(hours=int(match[7][1:3]), minutes=int(match[7][3:5])) * sign
            return naive.replace(tzinfo=dt.timezone(offset))
        return naive.replace(tzinfo=PARIS)
    except ValueError:
        return None
