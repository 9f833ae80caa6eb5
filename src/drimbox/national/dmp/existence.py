"""TD0.2: has this patient a DMP, is it open, and may this professional consult it? (HL7 v3 PRPA_IN201307UV02)

The request is the form that is known to be accepted (standards.md D.8, demonstrator.md 7.3). Of the answer public text
tells a few facts: acknowledgement, queryResponseCode, statusCode, and observations named by a code, such as
``AUTORISATION``; those are looked for by their names, wherever they stand.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum

from drimbox.foundation.clock import Clock, hl7_timestamp
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.foundation.xml import Builder, Element, text_of
from drimbox.identity.ins import Authority, Ins
from drimbox.national.dmp import soap
from drimbox.national.dmp.actor import Software
from drimbox.national.dmp.codes import ACTION_EXISTENCE, HL7, QUERY_REASONS, XSI
from drimbox.national.dmp.errors import DmpRejected, RegistryError, safe_word
from drimbox.national.dmp.transport import Request

_DMP_DEVICE = "1.2.250.1.213.4.1.1.1"
_INTERACTIONS = "2.16.840.1.113883.1.6"
_HL7 = Builder({"": HL7, "xsi": XSI}, "")


class RecordStatus(StrEnum):
    """The state of a patient's DMP."""

    ACTIVE = "active"
    CLOSED = "closed"
    NONE = "none"
    UNKNOWN = "unknown"


class Authorisation(StrEnum):
    """May this professional consult? Anything not understood is ``UNKNOWN``, which is not a yes."""

    VALID = "VALIDE"
    ABSENT = "INEXISTANTE"
    EXPIRED = "EXPIREE"
    FORBIDDEN = "INTERDIT"
    UNKNOWN = "INCONNUE"


@dataclass(frozen=True, slots=True)
class Existence:
    """The answer to TD0.2. ``closed_on`` is ``YYYYMMDD`` and ``closing_reason`` a French label, for a closed DMP."""

    status: RecordStatus
    authorisation: Authorisation
    closed_on: str = ""
    closing_reason: str = ""

    @property
    def may_feed(self) -> bool:
        """An open DMP can be fed; no authorisation is asked for that (DMP/CONF.05)."""
        return self.status is RecordStatus.ACTIVE

    @property
    def may_consult(self) -> bool:
        return self.status is RecordStatus.ACTIVE and self.authorisation is Authorisation.VALID


def request(url: str, patient: Ins, *, source_id: str, software: Software, clock: Clock, test: bool) -> Request:
    """What is sent; ``source_id`` is the OID of this installation, under which the message ids are unique."""
    body = _HL7(
        "PRPA_IN201307UV02",
        _identifier("id", source_id),
        _HL7("creationTime", value=hl7_timestamp(clock.now())[:14]),
        _HL7("interactionId", root=_INTERACTIONS, extension="PRPA_IN201307UV02"),
        _HL7("processingCode", code="D" if test else "P"),
        _HL7("processingModeCode", code="T"),
        _HL7("acceptAckCode", code="AL"),
        _HL7("receiver", _device(_DMP_DEVICE, "DMP"), typeCode="RCV"),
        _HL7("sender", _device(source_id, software.name), typeCode="SND"),
        _control_act(patient, source_id),
        ITSVersion="XML_1.0",
    )
    return Request(url, ACTION_EXISTENCE, body, changes=False)


def result(answer: soap.Answer, patient: Ins) -> Existence:
    """Read the answer.

    Raises ``IdentityMismatch`` (``answer-patient``) when it is about another patient, ``DmpRejected`` when the DMP
    refused the question, ``Refused`` (``answer-existence``) when it cannot be told what it says.
    """
    body = soap.expect(answer, HL7, "PRPA_IN201308UV02")
    _check_acknowledgement(body)
    response = _code(body.find(f".//{{{HL7}}}queryAck/{{{HL7}}}queryResponseCode"))
    if response == "NF":
        return Existence(RecordStatus.NONE, Authorisation.ABSENT)
    registered = body.find(f".//{{{HL7}}}registrationEvent")
    if response != "OK" or registered is None:
        raise Refused("Réponse du DMP au test d'existence non comprise", code="answer-existence")
    person = registered.find(f".//{{{HL7}}}patient")
    if person is None:
        raise Refused("Réponse du DMP au test d'existence sans patient", code="answer-existence")
    _check_patient(person, patient)
    told = _observations(registered)
    reason_code, reason_label = told.get("MOTIF_FERMETURE", ("", ""))
    return Existence(
        status=_status(registered, person),
        authorisation=_authorisation(told.get("AUTORISATION", ("", ""))[0]),
        closed_on=told.get("DATE_FERMETURE", ("", ""))[0],
        closing_reason=reason_label or reason_code,
    )


def _control_act(patient: Ins, source_id: str) -> Element:
    reason = _HL7("reasonCode", code="TEST_EXST", codeSystem=QUERY_REASONS, displayName="Test d'existence de dossier")
    source = _HL7("dataSource")
    source.set(f"{{{XSI}}}nil", "true")
    wanted = _HL7(
        "patientIdentifier",
        _HL7("value", root=patient.oid, extension=patient.matricule),
        _HL7("semanticsText", "Patient.id"),
    )
    query = _HL7(
        "queryByParameter",
        _identifier("queryId", source_id),
        _HL7("statusCode", code="new"),
        _HL7("parameterList", source, wanted),
    )
    return _HL7("controlActProcess", reason, query, classCode="CACT", moodCode="EVN")


def _device(root: str, name: str) -> Element:
    return _HL7(
        "device",
        _HL7("id", root=root),
        _HL7("softwareName", name),
        classCode="DEV",
        determinerCode="INSTANCE",
    )


def _identifier(tag: str, root: str) -> Element:
    return _HL7(tag, root=root, extension=str(uuid.uuid4()))


def _check_acknowledgement(body: Element) -> None:
    acknowledgement = body.find(f"{{{HL7}}}acknowledgement")
    kind = ""
    if acknowledgement is not None:
        # An attribute in the schema of 2008, an element in that of 2009.
        kind = acknowledgement.get("typeCode", "") or _code(acknowledgement.find(f"{{{HL7}}}typeCode"))
    if kind in ("AA", "CA"):
        return
    if acknowledgement is None or kind not in ("AE", "AR", "CE", "CR"):
        raise Refused("Réponse du DMP au test d'existence sans acquittement", code="answer-existence")
    detail = acknowledgement.find(f"{{{HL7}}}acknowledgementDetail")
    code = _code(detail.find(f"{{{HL7}}}code")) if detail is not None else ""
    context = text_of(detail.find(f"{{{HL7}}}text")) if detail is not None else ""
    raise DmpRejected(
        f"Le DMP a refusé le test d'existence (code {safe_word(code)})",
        code="dmp-rejected",
        peer_code=safe_word(code),
        errors=(RegistryError(code, context),),
    )


def _check_patient(person: Element, patient: Ins) -> None:
    """The INS asked for must be among the ids, and no other INS beside it."""
    told = {
        (found.get("root", ""), found.get("extension", "").strip())
        for found in person.iterfind(f"{{{HL7}}}id")
        if Authority.of(found.get("root", "")) is not None
    }
    others = {(root, value) for root, value in told if root == patient.oid and value != patient.matricule}
    if (patient.oid, patient.matricule) not in told or others:
        raise IdentityMismatch("Le DMP a répondu pour un autre patient", code="answer-patient")


def _status(registered: Element, person: Element) -> RecordStatus:
    told = {_code(found) for found in (_status_code(registered), _status_code(person))} - {""}
    if told == {"active"}:
        return RecordStatus.ACTIVE
    if told & {"terminated", "obsolete", "suspended", "cancelled", "nullified"}:
        return RecordStatus.CLOSED
    return RecordStatus.UNKNOWN


def _status_code(element: Element) -> Element | None:
    return element.find(f"{{{HL7}}}statusCode")


def _authorisation(code: str) -> Authorisation:
    return next((known for known in Authorisation if known.value == code.upper()), Authorisation.UNKNOWN)


def _observations(registered: Element) -> dict[str, tuple[str, str]]:
    """Code of each observation, with the code (or the plain value) and the label that it gives."""
    found: dict[str, tuple[str, str]] = {}
    for code in registered.iter(f"{{{HL7}}}code"):
        parent = code.getparent()
        value = parent.find(f"{{{HL7}}}value") if parent is not None else None
        name = _code(code)
        if value is None or not name:
            continue
        if name in found:
            raise Refused("Réponse du DMP au test d'existence contradictoire", code="answer-existence")
        found[name] = (_code(value) or value.get("value", "") or text_of(value), value.get("displayName", ""))
    return found


def _code(element: Element | None) -> str:
    return element.get("code", "").strip() if element is not None else ""
