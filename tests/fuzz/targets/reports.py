"""What a RIS sends: MLLP frames, HL7 v2 messages, CDA documents, and what is built from a report."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from drimbox.consumer.report_document import read_report as read_shown
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.foundation.uids import new_uid
from drimbox.manifest.build import build_manifest
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.metadata import Device, kos_entry, submission_draft
from drimbox.pacs.study import Instance, Series, Study
from drimbox.publication.checks import orders_of
from drimbox.reports import ack, cda, hl7
from drimbox.reports.mllp import Framer
from drimbox.reports.orders import ORDER, read_order
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam
from drimbox.sandbox.ris.letters import Letter
from fuzz.grammars import hl7 as hl7_grammar
from fuzz.grammars import xml
from fuzz.target import Broken, Target, pieces, pure

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
_CT = "1.2.840.10008.5.1.4.1.1.2"


def messages() -> Iterator[bytes]:
    """Reports of the official exams' form, made by the simulated RIS: every operation, both kinds, other encodings."""
    for letter in "EGMW":
        first = Letter(exam(letter), f"F{letter}1", document_id=f"1.2.3.{ord(letter)}")
        yield letters.oru(first, NOW)
        yield letters.mdm(first, NOW)
        yield letters.oru(first.corrected("1.2.3.4.5", f"F{letter}2"), NOW)
        yield letters.mdm(replace(first, operation="delete", control_id=f"F{letter}3"), NOW)
    one = letters.oru(Letter(exam("E"), "FX"), NOW)
    yield one.replace(b"\r", b"\r\n")
    yield one.decode("utf-8").replace("UNICODE UTF-8", "8859/15").encode("iso8859-15", "replace")
    # The French standard form of an order message (volet OMI), a deletion and a change.
    for order in ("CA", "XO"):
        yield (
            f"MSH|^~\\&|RIS-A|AMBROISE|DRIMBOX|DRIMBOX|20260504120000||OMI^O23^OMI_O23|O{order}|P|2.5"
            "|||||FRA|UNICODE UTF-8\r"
            "PID|||279035121518989^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.10&ISO^INS~IPP101^^^&1.2.250.1.213.4.5.2.4&ISO^PI"
            "||PAT-TROIS^DOMINIQUE^^^^^L||19790328|F\r"
            f"PV1||N\rORC|{order}|OPN105^^1.2.250.1.748.12345678.12^ISO\rTQ1|||||||20210108|20210108|R\r"
            "OBR|1|OPN105^^1.2.250.1.748.12345678.12^ISO||X^Scanner^L\r"
            "IPC|ACN105^^1.2.250.1.925.994044.27^ISO|RP105|1.2.250.1.213.4.5.2.1.105|SP105|CT\r"
        ).encode()


def _documents() -> Iterator[bytes]:
    for letter in "EGM":
        yield letters.clinical_document(Letter(exam(letter), "D1"))
    yield letters.clinical_document(replace(Letter(exam("E"), "D2").corrected("1.2.3.9", "D3")))
    # A narrative, shown by the consumer.
    level_three = letters.clinical_document(Letter(exam("E"), "D4")).decode("utf-8")
    body = (
        "<component><structuredBody><component><section><title>Résultats</title><text><paragraph>a<br/>b</paragraph>"
        "<list><item>c</item></list><table><thead><tr><th>d</th></tr></thead><tbody><tr><td>e</td></tr></tbody></table>"
        "</text></section></component></structuredBody></component>"
    )
    start, end = level_three.rindex("<component>"), level_three.rindex("</component>") + len("</component>")
    yield (level_three[:start] + body + level_three[end:]).encode()


def _answer_of(message: hl7.Message | None, error: hl7.MessageError | None) -> None:
    """The acknowledgement must itself be a message, and of the message."""
    code = ack.Code.ERROR if error else ack.Code.ACCEPTED
    raw = ack.answer(message, code, NOW, error)
    try:
        read = hl7.parse(raw)
    except hl7.MessageError as wrong:
        raise Broken("the acknowledgement is no message") from wrong
    if [segment.name for segment in read.segments] != ["MSH", "MSA", "ERR"][: 3 if error else 2]:
        raise Broken("the acknowledgement has other segments")
    asked = message.control_id if message else ""
    told = read.segments[1].value(2)
    if re.sub(r"\s+", " ", told) != re.sub(r"\s+", " ", asked):
        raise Broken("the acknowledgement is of another message")
    if error and not re.fullmatch(r"([A-Z][A-Z0-9]{2}(\^[0-9]{1,3}){0,3})?", read.segments[2].field(2)):
        raise Broken("ERR-2 is no place in a message")


def _run_hl7(data: bytes) -> object:
    message = None
    try:
        message = hl7.parse(data)
        if message.type[0] == ORDER:
            order = read_order(message)
            _answer_of(message, None)
            return len(order.studies), order.ins is None, {study.deleted for study in order.studies}
        report = read_report(message)
    except hl7.MessageError as error:
        _answer_of(message, error)
        raise
    _answer_of(message, None)
    return report.operation, len(report.acts), len(report.orders), report.publish_to_dmp, report.warnings


def _run_mllp(data: bytes) -> object:
    whole = Framer(6000).feed(data)
    cut = Framer(6000)
    found = [frame for piece in pieces(data) for frame in cut.feed(piece)]
    if found != whole:
        raise Broken("frames depend on how the stream was cut")
    return len(whole), sum(frame.whole for frame in whole)


def _run_cda(data: bytes) -> object:
    told = []
    for read in (cda.read_header, read_shown):
        try:
            read(data)
            told.append("")
        except Refused as refused:
            told.append(refused.code)
    return told


def _study(report: Report, study_uid: str) -> Study:
    """What a PACS would hold of it."""
    patient, order = report.patient, report.orders[0] if report.orders else None
    return Study(
        study_uid=study_uid,
        patient_id=patient.local_ids[0].value if patient.local_ids else "IPP101",
        patient_id_issuer=patient.local_ids[0].issuer if patient.local_ids else "",
        patient_name=f"{patient.traits.birth_family}^{patient.traits.first_given}",
        birth_date=f"{patient.traits.birth_date:%Y%m%d}",
        sex=patient.traits.sex.value,
        accession_number=order.accession.value if order and order.accession else "",
        accession_issuer="",
        study_id="EX105",
        study_date="20210108",
        study_time="102500",
        description=report.title,
        referring_physician="",
        series=(Series("1.2.3.4", "CT", 1, report.title, "HEAD", (Instance(_CT, "1.2.3.4.5", 1),)),),
    )


def _run_publication(data: bytes) -> object:
    """Whatever a report says, the KOS made from it reads as a KOS, and its entry as metadata."""
    try:
        report = read_report(hl7.parse(data))
    except hl7.MessageError:
        return None
    study_uid = report.study_uids()[0]
    study = _study(report, study_uid)
    orders = orders_of(report, study)
    kos_uid = new_uid()
    kos = build_manifest(
        report,
        study,
        orders=orders,
        retrieve_base="https://db1.example/dicom-web-rs",
        kos_uid=kos_uid,
        series_uid=new_uid(),
        created=NOW,
        manufacturer="drimbox",
        structure=report.structure,
    )
    read = read_manifest(kos)
    if read.study_uid != study_uid or read.kos_uid != kos_uid or read.ins != report.patient.ins:
        raise Broken("the KOS says something else than what it was made from")
    entry = kos_entry(
        report=report,
        study=study,
        orders=orders,
        kos_uid=kos_uid,
        kos_bytes=kos,
        created=NOW,
        device=Device("31750803447/drimbox-1", "drimbox"),
        structure=report.structure,
    )
    submission_draft(report, structure=report.structure)
    return entry.mime_type, len(entry.event_codes), len(orders)


def _streams() -> Iterator[bytes]:
    found = list(itertools.islice(messages(), 3))
    yield b"".join(b"\x0b" + message + b"\x1c\r" for message in found)
    yield b"noise" + b"\x0b" + b"MSH|^~\\&|A" + b"\x1c\r" + b"\x0b\x0b\x1c\x1c\r\r" + b"\x0b" + found[0][:900]
    yield b"\x0b" + b"A" * 7000 + b"\x1c\r" + b"\x0bB\x1c\r"
    yield b"\x0bA\x1cB\rC\x1c\r"


TARGETS = (
    Target("hl7", pure(_run_hl7), messages, (hl7.MessageError,), hl7_grammar.MUTATORS, ("hl7v2/*",), largest=64 * 1024),
    Target(
        "publication",
        pure(_run_publication),
        messages,
        (DrimboxError,),
        hl7_grammar.MUTATORS,
        ("hl7v2/*",),
        largest=64 * 1024,
    ),
    Target("mllp", pure(_run_mllp), _streams, (), largest=24 * 1024),
    Target("cda", pure(_run_cda), _documents, (Refused,), xml.MUTATORS, ("cda/*.xml",), largest=64 * 1024),
)
