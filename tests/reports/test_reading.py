"""From messages to reports: the official samples, their variants, and bad input."""

import base64
import contextlib
import datetime as dt
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Sex
from drimbox.reports import cda, hl7
from drimbox.reports.hl7 import MessageError
from drimbox.reports.reading import read_report
from drimbox.reports.report import Identifier, Operation, Report
from drimbox.sandbox.ris import exams, letters

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
LETTER = letters.Letter(exams.exam("E"), "MSG-1")


def read(message: bytes) -> Report:
    return read_report(hl7.parse(message))


def with_document(message: bytes, change: bytes | None) -> bytes:
    """The message with its embedded document replaced."""
    encoded = base64.b64encode(change or b"")
    return re.sub(rb"\^Base64\^[A-Za-z0-9+/=\s]*", lambda _: b"^Base64^" + encoded, message, count=1)


@pytest.mark.requirement("DB.SO.03", "DB.SO.11", "exam:E")
@pytest.mark.parametrize("carrier", ["CR_E-ORU.hl7", "CR_E-MDM.hl7"])
def test_exam_e_is_read_from_either_carrier(samples: Path, carrier: str) -> None:
    report = read((samples / "hl7v2" / carrier).read_bytes())
    assert report.operation is Operation.NEW
    assert report.document_id == "1.2.250.1.213.4.5.4.405"
    assert report.study_uids() == ("1.2.250.1.213.4.5.2.1.105",)
    assert [a.value for a in report.accession_numbers()] == ["ACN105"]
    assert report.patient.ins.matricule == report.message_patient.ins.matricule == "279035121518989"
    assert report.patient.qualified
    assert report.patient.traits.sex is Sex.FEMALE
    assert report.patient.traits.birth_date == dt.date(1979, 3, 28)
    assert [(i.value, i.issuer) for i in report.patient.local_ids] == [("IPP101", "1.2.250.1.213.4.5.2.4")]
    assert report.structure.identifier == "1101235555"
    assert report.signatory.identifier == "801234560801"
    assert report.sender.person is not None
    assert report.sender.person.identifier == "801234564895"
    assert report.visibility.hidden_from_patient
    assert report.visibility.hidden_from_representatives
    assert not report.visibility.masked_to_professionals
    assert report.publish_to_dmp
    assert report.acts[0].modalities[0].code == "NM"
    assert report.acts[0].regions[0].code == "774007"


@pytest.mark.requirement("exam:G", "DB.SO.97")
def test_a_replacement_names_what_it_replaces(samples: Path) -> None:
    report = read((samples / "hl7v2" / "CR_G1_MAJ-ORU.hl7").read_bytes())
    assert report.operation is Operation.REPLACE
    assert (report.document_id, report.replaces) == ("1.2.250.1.213.4.5.4.4072", "1.2.250.1.213.4.5.4.407")
    assert report.visibility_changed
    assert not report.visibility.hidden_from_patient


@pytest.mark.requirement("exam:I")
def test_a_depublication_is_a_deletion(samples: Path) -> None:
    assert read((samples / "hl7v2" / "CR_I_Depublication-ORU.hl7").read_bytes()).operation is Operation.DELETE


@pytest.mark.requirement("exam:K")
def test_a_message_with_the_ins_alone_in_pid_3(samples: Path) -> None:
    report = read((samples / "hl7v2" / "PFI_ORU_R01_K.hl7").read_bytes())
    assert report.message_patient.local_ids == ()
    assert report.patient.local_ids != ()


@pytest.mark.requirement("DB.SO.12", "exam:F")
def test_several_studies_and_orders_are_all_kept(samples: Path) -> None:
    header = cda.read_header((samples / "cda" / "CR_F.xml").read_bytes())
    assert header.acts[0].study_uids == ("1.2.250.1.213.4.5.2.1.106", "1.2.250.1.213.4.5.2.1.107")
    assert [o.accession for o in header.orders] == [
        Identifier("ACN106", "1.2.250.1.213.4.5.2.5"),
        Identifier("ACN107", "1.2.250.1.213.4.5.2.5"),
    ]


@pytest.mark.requirement("D3")
def test_service_events_without_a_study_are_no_acts(samples: Path) -> None:
    header = cda.read_header((samples / "cda" / "IMG_CR_IMG_2024.01_CDA-R2-Niveau-1.xml").read_bytes())
    assert [len(act.study_uids) for act in header.acts] == [1, 1, 1]


@pytest.mark.parametrize("exam", list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_each_exam_reads_the_same_from_both_carriers(exam: str) -> None:
    letter = replace(LETTER, exam=exams.exam(exam))
    first, second = read(letters.oru(letter, NOW)), read(letters.mdm(letter, NOW))
    assert replace(first, sender=second.sender) == second


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_any_line_end_will_do(line_end: bytes) -> None:
    message = letters.oru(LETTER, NOW)
    assert read(message.replace(b"\r", line_end)) == read(message)


def test_base64_broken_over_lines_is_whole_again() -> None:
    message = letters.oru(LETTER, NOW)
    encoded = re.search(rb"Base64\^([A-Za-z0-9+/=]+)", message)
    assert encoded is not None
    broken = b"\r\n".join(encoded[1][i : i + 76] for i in range(0, len(encoded[1]), 76))
    assert read(message.replace(encoded[1], broken)) == read(message)


def test_text_encoded_twice_is_repaired() -> None:
    letter = replace(LETTER, identity=replace(LETTER.identity, family="PAT-ÉTÉ", given="ANAËL"))
    document = letters.clinical_document(letter)
    twice = document.decode("cp1252", "surrogateescape").encode("utf-8", "surrogateescape")
    # A document with every byte defined in cp1252 makes the trip; this one has.
    report = read(with_document(letters.oru(letter, NOW), twice))
    assert report.patient.traits.birth_family == "PAT-ÉTÉ"
    assert report.warnings != ()
    assert read(letters.oru(letter, NOW)).warnings == ()


def test_latin_9_is_read_as_declared() -> None:
    letter = replace(LETTER, identity=replace(LETTER.identity, given="ANAËL"))
    text = letters.oru(letter, NOW).decode("utf-8").replace("UNICODE UTF-8", "8859/15")
    assert read(text.encode("iso8859-15")).message_patient.traits.first_given == "ANAËL"


def test_the_imaging_report_is_found_wherever_it_stands() -> None:
    message = letters.oru(LETTER, NOW)
    other = letters.clinical_document(LETTER).replace(b'code code="18748-4"', b'code code="11502-2"')
    segment = b"OBX|1|ED|11502-2^Biologie^LN||^TEXT^XML^Base64^" + base64.b64encode(other) + b"||||||F|\r"
    assert read(message.replace(b"OBX|1|ED|18748-4", segment + b"OBX|1|ED|18748-4")) == read(message)


@pytest.mark.requirement("D6")
@pytest.mark.parametrize("system", ["expandedYes-NoIndicator", "HL70136", ""])
def test_flags_are_read_whatever_their_coding_system(system: str) -> None:
    letter = replace(LETTER, flags=frozenset({"DESTDMP", "MASQUE_PS", "INVISIBLE_REP_LEGAUX"}))
    message = letters.oru(letter, NOW).replace(b"expandedYes-NoIndicator", system.encode())
    visibility = read(message).visibility
    assert visibility.masked_to_professionals
    assert visibility.hidden_from_representatives
    assert not visibility.hidden_from_patient


@pytest.mark.requirement("DB.SO.97", "DMP/CONF.03")
@pytest.mark.parametrize("order", ["NW", "RO", "CA", "XX"])
@pytest.mark.parametrize("status", ["F", "C", "D", "X"])
@pytest.mark.parametrize("event", ["R01", "T02", "T10", "T04"])
def test_operation_codes_must_agree(order: str, status: str, event: str) -> None:
    message = (letters.oru if event == "R01" else letters.mdm)(LETTER, NOW)
    message = message.replace(b"MDM^T02^", f"MDM^{event}^".encode()).replace(b"ORC|NW", f"ORC|{order}".encode())
    message = message.replace(b"||||||F|\rPRT", f"||||||{status}|\rPRT".encode())
    agreeing = {("NW", "F", "T02"), ("RO", "C", "T10"), ("CA", "D", "T04")}
    if (order, status, event) in agreeing or (event == "R01" and (order, status) in {t[:2] for t in agreeing}):
        read(message)
    else:
        with pytest.raises(MessageError) as caught:
            read(message)
        assert caught.value.code == "hl7-operation"


BAD = {
    "no PID": (lambda m: re.sub(rb"PID\|.*?\r", b"", m), "hl7-pid"),
    "no INS": (
        lambda m: m.replace(b"279035121518989^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.10&ISO^INS^^~", b""),
        "hl7-required",
    ),
    "wrong INS key": (lambda m: m.replace(b"279035121518989^^^", b"279035121518988^^^"), "ins-key"),
    "INS of an unknown authority": (
        lambda m: m.replace(b"1.2.250.1.213.1.4.10&ISO^INS", b"1.2.3.4&ISO^INS"),
        "ins-oid",
    ),
    "impossible birth date": (lambda m: m.replace(b"||19790328|", b"||19791345|"), "trait-birth-date"),
    "wrong base64": (lambda m: m.replace(b"^Base64^", b"^Base64^!"), "hl7-base64"),
    "base64 cut short": (lambda m: re.sub(rb"(\^Base64\^\w{401})[^|]*", rb"\1", m), "hl7-base64"),
    "no document": (lambda m: re.sub(rb"OBX\|1\|ED.*?\r", b"", m), "hl7-document"),
    "empty document": (lambda m: with_document(m, None), "hl7-document"),
    "not a CDA": (lambda m: with_document(m, b"<html/>"), "cda-root"),
    "CDA with a DTD": (lambda m: with_document(m, b"<!DOCTYPE a [<!ELEMENT a ANY>]><a/>"), "xml-dtd"),
    "entity bomb": (
        lambda m: with_document(
            m, b'<!DOCTYPE a [<!ENTITY b "lol"><!ENTITY c "&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;">]><a>&d;</a>'
        ),
        "xml-dtd",
    ),
    "external entity": (
        lambda m: with_document(m, b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        "xml-dtd",
    ),
    "deep nesting": (lambda m: with_document(m, b"<a>" * 1000 + b"</a>" * 1000), "xml-depth"),
    "cut XML": (lambda m: with_document(m, b"<ClinicalDocument xmlns='urn:hl7-org:v3'><id"), "xml-syntax"),
    "missing flag": (lambda m: re.sub(rb"OBX\|7\|.*?\r", b"", m), "hl7-required"),
    "flag neither Y nor N": (lambda m: m.replace(b"MetaDMPMSS||Y^", b"MetaDMPMSS||maybe^"), "hl7-flag"),
    "unknown type": (lambda m: m.replace(b"ORU^R01^ORU_R01", b"ADT^A01^ADT_A01"), "hl7-type"),
    "old version": (lambda m: m.replace(b"|P|2.5|", b"|P|2.3.1|"), "hl7-version"),
    "unknown charset": (lambda m: m.replace(b"UNICODE UTF-8", b"KLINGON"), "hl7-charset"),
    "not in its charset": (lambda m: m.replace(b"Ambroise", b"Ambro\xefse"), "hl7-charset"),
    "no control id": (lambda m: m.replace(b"|MSG-1|", b"||"), "hl7-required"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_its_reason(name: str) -> None:
    change, code = BAD[name]
    with pytest.raises(MessageError) as caught:
        read(change(letters.oru(LETTER, NOW)))
    assert caught.value.code == code
    assert "279035121518989" not in str(caught.value)
    assert "PAT-TROIS" not in str(caught.value)


def test_the_demonstrator_s_own_sample_is_refused(samples: Path) -> None:
    with pytest.raises(MessageError):
        read((samples / "hl7v2" / "demonstrator_bare_oru.hl7").read_bytes())


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for candidate in (data, b"MSH|^~\\&|" + data):
        with contextlib.suppress(Refused):
            read(candidate)


@given(st.integers(0, 4000), st.integers(0, 255))
def test_one_changed_byte_never_breaks_the_reader(position: int, value: int) -> None:
    message = bytearray(letters.oru(LETTER, NOW))
    message[position % len(message)] = value
    with contextlib.suppress(Refused):
        read(bytes(message))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x1c\x0b"), max_size=80))
def test_escaping_is_undone(text: str) -> None:
    delimiters = hl7.Delimiters("|", "^", "~", "\\", "&")
    segment = hl7.Segment("NTE", ("NTE", "1", hl7.escape(text, delimiters)), delimiters)
    assert segment.value(2) == re.sub(r"\r\n|\r", "\n", text)
