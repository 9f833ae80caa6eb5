"""TD0.2: does this patient have a DMP, in what state, and may this professional consult it?

The request is HL7 v3 ``PRPA_IN201307UV02`` (standards.md D.8, demonstrator.md 7.3). The shape of the answer is not
public beyond two facts (the word ``AUTORISATION`` is followed by ``code="VALIDE"`` or ``code="INTERDIT"``); here it is
a ``PRPA_IN201308UV02`` (Get Demographics response, ITI-47 family)::

    PRPA_IN201308UV02 ITSVersion="XML_1.0"  (urn:hl7-org:v3)
      id, creationTime, interactionId, processingCode, processingModeCode, acceptAckCode, receiver, sender
      acknowledgement/typeCode code="AA", acknowledgement/targetMessage/id = id of the request
      controlActProcess classCode="CACT" moodCode="EVN"
        subject/registrationEvent/subject1/patient          only when the patient has a DMP
          id root=<INS OID> extension=<INS>
          statusCode code="active" | "terminated"           the DMP is open | closed
          patientPerson/name/{family, given}, administrativeGenderCode, birthTime
          subjectOf1/administrativeObservation              once for each of:
            code="AUTORISATION"     value code="VALIDE" | "INEXISTANTE" | "EXPIREE" | "INTERDIT"
            code="DATE_FERMETURE"   value value="YYYYMMDD"          closed DMP only
            code="MOTIF_FERMETURE"  value code=..., displayName=... closed DMP only
        queryAck/queryId = that of the request, queryAck/queryResponseCode code="OK" | "NF" (no DMP)
        queryByParameter as received

Each observation is ``administrativeObservation classCode="OBS" moodCode="EVN"`` with ``code codeSystem=OBSERVATIONS``.
A breach of a rule is answered by a SOAP fault.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
from dataclasses import dataclass

from drimbox.foundation.clock import utc_digits
from drimbox.foundation.uids import new_uid
from drimbox.foundation.xml import Builder, Element, text_of
from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.answers import Reply
from drimbox.sandbox.dmp.bench import KnownPatient, RecordStatus
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.rules import Rule, judge, rule

# The code system of the observations: this sandbox's own, since the real one is not public.
OBSERVATIONS = "2.25.308164902893418903474318734217839501237"

_DMP_DEVICE = "1.2.250.1.213.4.1.1.1"
_INTERACTIONS = "2.16.840.1.113883.1.6"
_REASONS = "1.2.250.1.213.1.1.4.11"
_ACT = "controlActProcess"
_QUERY = f"{_ACT}/queryByParameter"
_PATIENT = f"{_QUERY}/parameterList/patientIdentifier"
_RESPONSE = "PRPA_IN201308UV02"

_HL7 = Builder({"hl7": v.HL7, "xsi": v.XSI}, "hl7")


@dataclass(frozen=True, slots=True)
class ExistenceCase:
    """A PRPA_IN201307UV02 under judgement."""

    hearing: Hearing

    @property
    def request(self) -> Element:
        return self.hearing.message.body

    def at(self, path: str) -> Element | None:
        found = self.request.findall("/".join(f"{{{v.HL7}}}{step}" for step in path.split("/")))
        return found[0] if len(found) == 1 else None

    def get(self, path: str, attribute: str) -> str:
        found = self.at(path)
        return found.get(attribute, "") if found is not None else ""


@rule("EXISTENCE.INTERACTION", v.MALFORMED)
def interaction(c: ExistenceCase) -> str | None:
    """ITSVersion XML_1.0, interactionId PRPA_IN201307UV02 (standards.md D.8)."""
    told = (c.request.get("ITSVersion"), c.get("interactionId", "root"), c.get("interactionId", "extension"))
    return None if told == ("XML_1.0", _INTERACTIONS, "PRPA_IN201307UV02") else "ITSVersion ou interactionId faux"


@rule("EXISTENCE.ID", v.MALFORMED)
def message_id(c: ExistenceCase) -> str | None:
    """The message has an id under an OID, and a creationTime (standards.md D.8)."""
    named = datatypes.is_oid(c.get("id", "root")) and c.get("id", "extension")
    timed = re.fullmatch(r"\d{14}([+-]\d{4})?", c.get("creationTime", "value"))
    return None if named and timed else "id ou creationTime absent ou mal formé"


@rule("EXISTENCE.CODES", v.MALFORMED)
def codes(c: ExistenceCase) -> str | None:
    """processingCode D, P or T; processingModeCode T; acceptAckCode AL (standards.md D.8)."""
    right = (
        c.get("processingCode", "code") in ("D", "P", "T")
        and c.get("processingModeCode", "code") == "T"
        and c.get("acceptAckCode", "code") == "AL"
    )
    return None if right else "processingCode, processingModeCode ou acceptAckCode faux"


@rule("EXISTENCE.DEVICES", v.MALFORMED)
def devices(c: ExistenceCase) -> str | None:
    """The receiver is the DMP, the sender a device with an OID (standards.md D.8)."""
    right = (
        (c.get("receiver", "typeCode"), c.get("sender", "typeCode")) == ("RCV", "SND")
        and c.get("receiver/device/id", "root") == _DMP_DEVICE
        and datatypes.is_oid(c.get("sender/device/id", "root"))
    )
    return None if right else "émetteur ou destinataire faux"


@rule("EXISTENCE.REASON", v.MALFORMED)
def reason(c: ExistenceCase) -> str | None:
    """A control act CACT/EVN whose reasonCode is TEST_EXST of 1.2.250.1.213.1.1.4.11 (standards.md D.8)."""
    right = (
        (c.get(_ACT, "classCode"), c.get(_ACT, "moodCode")) == ("CACT", "EVN")
        and (c.get(f"{_ACT}/reasonCode", "code"), c.get(f"{_ACT}/reasonCode", "codeSystem")) == ("TEST_EXST", _REASONS)
    )  # fmt: skip
    return None if right else "controlActProcess ou reasonCode faux"


@rule("EXISTENCE.QUERY", v.MALFORMED)
def query(c: ExistenceCase) -> str | None:
    """A new query with its id (standards.md D.8)."""
    named = datatypes.is_oid(c.get(f"{_QUERY}/queryId", "root")) and c.get(f"{_QUERY}/queryId", "extension")
    return None if named and c.get(f"{_QUERY}/statusCode", "code") == "new" else "queryId ou statusCode faux"


@rule("EXISTENCE.PATIENT", v.NOT_ALLOWED)
def patient(c: ExistenceCase) -> str | None:
    """The patient asked for, as Patient.id, is the resource-id of the VIHF (standards.md D.8, E)."""
    told = f"{c.get(f'{_PATIENT}/value', 'extension')}^^^&{c.get(f'{_PATIENT}/value', 'root')}&ISO^NH"
    right = told == c.hearing.vihf.patient and text_of(c.at(f"{_PATIENT}/semanticsText")) == "Patient.id"
    return None if right else "patientIdentifier absent, ou différent du patient du VIHF"


EXISTENCE_RULES: tuple[Rule[ExistenceCase], ...] = (interaction, message_id, codes, devices, reason, query, patient)


def existence(hearing: Hearing) -> Reply:
    """Judge and answer. Raises ``Breach``."""
    case = ExistenceCase(hearing)
    judge(EXISTENCE_RULES, case)
    known = hearing.bench.patient(hearing.vihf.patient)
    exists = known is not None and known.status is not RecordStatus.NONE
    act = _HL7(_ACT, classCode="CACT", moodCode="EVN")
    if known is not None and exists:
        act.append(_subject(known, hearing.authorisation().value))
    query_id = copy.deepcopy(case.at(f"{_QUERY}/queryId"))
    assert query_id is not None
    act.append(_HL7("queryAck", query_id, _HL7("queryResponseCode", code="OK" if exists else "NF")))
    act.append(copy.deepcopy(case.at(_QUERY)))  # type: ignore[arg-type]
    return Reply(f"urn:hl7-org:v3:{_RESPONSE}", _wrapped(case, act, hearing.bench.now))


def _wrapped(case: ExistenceCase, act: Element, now: dt.datetime) -> Element:
    sender = case.at("sender/device")
    assert sender is not None
    dmp = _HL7(
        "device", _HL7("id", root=_DMP_DEVICE), _HL7("softwareName", "DMP"), classCode="DEV", determinerCode="INSTANCE"
    )
    request = _HL7("id", root=case.get("id", "root"), extension=case.get("id", "extension"))
    return _HL7(
        _RESPONSE,
        _HL7("id", root=new_uid()),
        _HL7("creationTime", value=utc_digits(now) + "+0000"),
        _HL7("interactionId", root=_INTERACTIONS, extension=_RESPONSE),
        _HL7("processingCode", code=case.get("processingCode", "code")),
        _HL7("processingModeCode", code="T"),
        _HL7("acceptAckCode", code="NE"),
        _HL7("receiver", copy.deepcopy(sender), typeCode="RCV"),
        _HL7("sender", dmp, typeCode="SND"),
        _HL7("acknowledgement", _HL7("typeCode", code="AA"), _HL7("targetMessage", request)),
        act,
        ITSVersion="XML_1.0",
    )


def _subject(known: KnownPatient, authorisation: str) -> Element:
    closed = known.status is RecordStatus.CLOSED
    person = _HL7("patientPerson", _HL7("name", _HL7("family", known.family), _HL7("given", known.given)))
    person.append(_HL7("administrativeGenderCode", code=known.sex))
    person.append(_HL7("birthTime", value=known.birth_date))
    told = _HL7(
        "patient",
        _HL7("id", root=known.oid, extension=known.ins),
        _HL7("statusCode", code="terminated" if closed else "active"),
        person,
        _observation("AUTORISATION", _typed("CD", code=authorisation)),
        classCode="PAT",
    )
    if closed:
        code, label = known.closing
        told.append(_observation("DATE_FERMETURE", _typed("TS", value=known.closed_on)))
        told.append(_observation("MOTIF_FERMETURE", _typed("CD", code=code, displayName=label)))
    event = _HL7("registrationEvent", _HL7("subject1", told, typeCode="SBJ"), classCode="REG", moodCode="EVN")
    return _HL7("subject", event, typeCode="SUBJ")


def _observation(code: str, value: Element) -> Element:
    observed = _HL7("administrativeObservation", _HL7("code", code=code, codeSystem=OBSERVATIONS), value)
    observed.set("classCode", "OBS")
    observed.set("moodCode", "EVN")
    return _HL7("subjectOf1", observed, typeCode="SBJ")


def _typed(kind: str, **attributes: str) -> Element:
    value = _HL7("value", **attributes)
    value.set(f"{{{v.XSI}}}type", f"hl7:{kind}")
    return value
