"""From a message and the CDA inside it to one ``Report`` (CI-SIS volet 2.1; official-data.md 4)."""

from __future__ import annotations

import binascii

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Authority, Ins
from drimbox.identity.traits import LocalId, Patient, Sex, Traits, parse_date
from drimbox.reports import cda
from drimbox.reports.hl7 import Field, Message, MessageError, Segment
from drimbox.reports.report import Operation, Person, Report, Sender, Structure, Visibility, normal_structure_id

VERSIONS = frozenset({"2.5", "2.5.1", "2.6"})
# ORC-1, OBX-11 and the MDM event must all say the same (official-data.md 4.3). An ORU has one event for all three.
_OPERATIONS = {
    ("NW", "F"): (Operation.NEW, "T02"),
    ("RO", "C"): (Operation.REPLACE, "T10"),
    ("CA", "D"): (Operation.DELETE, "T04"),
}
_EVENTS = frozenset({("ORU", "R01"), ("MDM", "T02"), ("MDM", "T10"), ("MDM", "T04")})
_FLAGS = {
    "MASQUE_PS": "masked",
    "INVISIBLE_PATIENT": "patient",
    "INVISIBLE_REP_LEGAUX": "representatives",
    "INVISIBLE_REPRESENTANTS_LEGAUX": "representatives",
    "CONNEXION_SECRETE": "secret",
    "MODIF_CONF_CODE": "change",
    "DESTDMP": "dmp",
}
# Without these the visibility of the report is not known, and nothing may be published on a guess.
_REQUIRED_FLAGS = {
    "masked": "MASQUE_PS",
    "patient": "INVISIBLE_PATIENT",
    "representatives": "INVISIBLE_REP_LEGAUX",
    "dmp": "DESTDMP",
}


def read_report(message: Message) -> Report:
    """The report that the message carries.

    Raises ``MessageError`` with the place and the condition for ERR; nothing in it repeats a value of the message.
    """
    kind, event = message.type
    if (kind, event) not in _EVENTS:
        condition = "201" if kind in ("ORU", "MDM") else "200"
        raise MessageError(
            "Type de message non pris en charge", code="hl7-type", condition=condition, location="MSH^1^9"
        )
    if message.header.value(12) not in VERSIONS:
        raise MessageError("Version HL7 non prise en charge", code="hl7-version", condition="203", location="MSH^1^12")
    if not message.control_id:
        raise _missing("Identifiant du message absent", "MSH^1^10")
    pid = message.first("PID")
    if pid is None:
        raise MessageError("Segment PID absent", code="hl7-pid", condition="100", location="PID^1")
    documents, header = _documents(message)
    operation = _operation(message, documents, kind, event)
    flags = _flags(message)
    header_patient, message_patient = _patients(pid, header)
    return Report(
        operation=operation,
        document_id=header.document_id,
        replaces=_replaced(message, header, operation),
        title=header.title,
        created=header.created,
        language=header.language or "fr-FR",
        patient=header_patient,
        message_patient=message_patient,
        orders=header.orders,
        acts=header.acts,
        author=header.author,
        signatory=header.signatory,
        structure=_structure(message, header),
        practice_setting=header.practice_setting,
        facility_type=header.facility_type,
        patient_class=_value(message, "PV1", 2),
        visibility=Visibility(flags["masked"], flags["patient"], flags["representatives"], flags.get("secret", False)),
        visibility_changed=flags.get("change", False),
        publish_to_dmp=flags["dmp"],
        sender=_sender(message),
        warnings=("Document CDA encodé deux fois, réparé",) if header.repaired else (),
    )


def document_of(message: Message) -> bytes:
    """The octets of the imaging report that the message carries. Raises ``MessageError``, ``Refused``."""
    segments, _ = _documents(message)
    return _decode(segments[0].repetitions(5), _place(segments[0]))


def _missing(reason: str, location: str) -> MessageError:
    return MessageError(reason, code="hl7-required", condition="101", location=location)


def _value(message: Message, segment: str, number: int, component: int = 1) -> str:
    found = message.first(segment)
    return found.value(number, component).strip() if found is not None else ""


def _operation(message: Message, documents: list[Segment], kind: str, event: str) -> Operation:
    """What every order and every copy of the report in the message asks for."""
    orders = {segment.value(1).strip() for segment in message.all("ORC")} or {""}
    said = {_OPERATIONS.get((order, document.value(11))) for order in orders for document in documents}
    found = said.pop()
    if found is None or said or (kind == "MDM" and event != found[1]):
        raise MessageError(
            "ORC-1, OBX-11 et l'événement du message ne disent pas la même opération",
            code="hl7-operation",
            condition="207",
            location="ORC^1^1",
        )
    return found[0]


def _replaced(message: Message, header: cda.Header, operation: Operation) -> str | None:
    """The document that this one replaces; TXA-13 where the CDA does not say it (CI-SIS volet 11.2).

    Raises ``MessageError`` when TXA-12 and the CDA name two documents to delete.
    """
    if operation is Operation.DELETE and _entity(message, 12) not in ("", header.document_id):
        raise MessageError(
            "TXA-12 et le CDA ne nomment pas le même document à supprimer",
            code="hl7-document-id",
            condition="207",
            location="TXA^1^12",
        )
    if operation is Operation.REPLACE:
        return header.replaces or _entity(message, 13) or None
    return header.replaces


def _entity(message: Message, number: int) -> str:
    """A document named in TXA: ``oid``, or ``extension^^root^ISO`` given as ``root^extension``; else empty."""
    value, root = _value(message, "TXA", number), _value(message, "TXA", number, 3)
    if root:
        return f"{root}^{value}" if is_uid(root) and value else ""
    return value if is_uid(value) else ""


def _documents(message: Message) -> tuple[list[Segment], cda.Header]:
    """The imaging report among the documents of the message: by its CDA code, not by its place.

    It may be there twice, plain and structured (level 1 and 3, same content): the first is read.
    """
    carriers = [s for s in message.all("OBX") if s.value(2) == "ED" and not s.value(3).startswith("CORPSMAIL")]
    if not carriers:
        raise MessageError("Aucun document (OBX de type ED)", code="hl7-document", condition="101", location="OBX^1^5")
    # The segment that calls itself an imaging report first; any other that turns out to be one otherwise.
    for segment in sorted(carriers, key=lambda s: s.value(3) != cda.IMAGING_REPORT):
        header = _header(segment)
        if header.code == cda.IMAGING_REPORT:
            copies = [s for s in carriers if s is not segment and s.value(3) == cda.IMAGING_REPORT]
            for copy in copies:
                _check_copy(header, _header(copy), copy)
            return [segment, *copies], header
    raise MessageError("Aucun compte rendu d'imagerie (18748-4)", code="cda-code", condition="103", location="OBX^1^3")


def _check_copy(header: cda.Header, other: cda.Header, segment: Segment) -> None:
    """Two reports in one message would be one that is lost: only the first is read."""
    if (other.patient.ins, _studies(other)) != (header.patient.ins, _studies(header)):
        raise MessageError(
            "Deux comptes rendus différents dans un message : un message par compte rendu",
            code="hl7-documents",
            condition="207",
            location=_place(segment),
        )


def _studies(header: cda.Header) -> frozenset[str]:
    return frozenset(uid for act in header.acts for uid in act.study_uids)


def _place(segment: Segment) -> str:
    """OBX-5 for ERR-2, by the OBX's own number; what is no number is not repeated."""
    number = segment.value(1).strip()
    return f"OBX^{number if number.isascii() and number.isdigit() and len(number) < 4 else 1}^5"


def _header(segment: Segment) -> cda.Header:
    place = _place(segment)
    data = _decode(segment.repetitions(5), place)
    try:
        return cda.read_header(data)
    except Refused as error:
        condition = "101" if error.code.endswith("missing") else "102"
        raise MessageError(error.reason, code=error.code, condition=condition, location=place) from error


def _decode(repetitions: tuple[Field, ...], place: str) -> bytes:
    """OBX-5 ``^TEXT^XML^Base64^<data>``; the data may be broken over lines."""
    raw = repetitions[0].value(5).strip() if repetitions else ""
    if not raw:
        raise MessageError("Document absent d'OBX-5.5", code="hl7-document", condition="101", location=place)
    if repetitions[0].value(4).strip().upper() != "BASE64":
        raise MessageError(
            "Document d'OBX-5 qui n'est pas en base64", code="hl7-base64", condition="102", location=place
        )
    try:
        return _from_base64(raw)
    except ValueError as error:
        # Not ASCII, not of the alphabet, cut short.
        raise MessageError(
            "Base64 incorrect ou incomplet en OBX-5", code="hl7-base64", condition="102", location=place
        ) from error


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)


def _flags(message: Message) -> dict[str, bool]:
    flags: dict[str, bool] = {}
    for segment in message.all("OBX"):
        name = _FLAGS.get(segment.value(3).strip())
        if name is None or segment.value(2) == "ED":
            continue
        value = segment.value(5).strip().upper()
        if value not in ("Y", "N"):
            raise MessageError("Drapeau DMP ni Y ni N", code="hl7-flag", condition="103", location=_place(segment))
        if flags.setdefault(name, value == "Y") is not (value == "Y"):
            raise MessageError(
                "Drapeau DMP dit deux fois, autrement",
                code="hl7-flag",
                condition="207",
                location=_place(segment),
            )
    for name, code in _REQUIRED_FLAGS.items():
        if name not in flags:
            raise _missing(f"Drapeau {code} absent", "OBX")
    return flags


def _patients(pid: Segment, header: cda.Header) -> tuple[Patient, Patient]:
    """The CDA's patient (qualified as PID-32 says) and the message's."""
    try:
        qualified = any(r.value() == "VALI" for r in pid.repetitions(32))
        national = [r for r in pid.repetitions(3) if Authority.of(r.value(4, 2)) is not None or r.value(5) == "INS"]
        if not national:
            raise _missing("INS absente de PID-3", "PID^1^3")
        if len({(r.value(), r.value(4, 2)) for r in national}) > 1:
            raise MessageError("Plusieurs INS en PID-3", code="ins-several", condition="102", location="PID^1^3")
        ins = Ins.of(national[0].value(), national[0].value(4, 2))
        others = [r for r in pid.repetitions(3) if r not in national and r.value() and r.value(5) in ("PI", "")]
        local = tuple(LocalId(r.value().strip(), r.value(4, 2)) for r in others)
        message_patient = Patient(ins, qualified, _traits(pid), local)
    except MessageError:
        raise
    except Refused as error:
        place = "PID^1^3" if error.code.startswith("ins") else "PID^1"
        raise MessageError(error.reason, code=error.code, condition="102", location=place) from error
    stated = header.patient
    return Patient(stated.ins, qualified, stated.traits, stated.local_ids), message_patient


def _traits(pid: Segment) -> Traits:
    names = pid.repetitions(5)
    birth = next((n for n in names if n.value(7) == "L"), names[0] if names else None)
    used = next((n for n in names if n.value(7) == "D"), None)
    if birth is None or not birth.value(1) or not birth.value(2):
        raise _missing("Nom ou premier prénom de naissance absent de PID-5", "PID^1^5")
    place = next((a.value(9) for a in pid.repetitions(11) if a.value(7) == "BDL"), "")
    return Traits(
        birth_family=birth.value(1).strip(),
        first_given=birth.value(2).strip(),
        birth_date=parse_date(pid.value(7)),
        sex=Sex.of(pid.value(8)),
        birth_place=place.strip(),
        given_names=tuple(birth.value(3).split()),
        used_family=used.value(1).strip() if used else "",
        used_given=used.value(2).strip() if used else "",
    )


def _structure(message: Message, header: cda.Header) -> Structure:
    """The legal authenticator's organisation, else PRT-8 (ans-faq.md 3.1)."""
    if header.structure.identifier:
        return header.structure
    sender = _sender(message).structure
    if sender is None:
        raise MessageError(
            "Structure absente du signataire du CDA et de PRT-8",
            code="cda-structure",
            condition="101",
            location="PRT^1^8",
        )
    return sender


def _sender(message: Message) -> Sender:
    application, facility = message.header.value(3), message.header.value(4)
    prt = next((s for s in message.all("PRT") if s.value(4).strip() == "SB"), None)
    if prt is None:
        return Sender(application, facility)
    person = Person(prt.value(5), prt.value(5, 2), prt.value(5, 3)) if prt.value(5) else None
    identifier = prt.value(8, 10)
    structure = Structure(normal_structure_id(identifier, prt.value(8, 7)), prt.value(8)) if identifier else None
    return Sender(application, facility, person, structure)
