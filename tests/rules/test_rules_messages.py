"""What messages may look like, from variants of the official ones: each must read as the official one does, or fail."""

from __future__ import annotations

import base64
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from drimbox.identity.traits import Sex
from drimbox.publication.checks import Severity, check_identity
from drimbox.publication.ports import Site, Sites
from drimbox.reports import hl7
from drimbox.reports.hl7 import MessageError
from drimbox.reports.reading import read_report
from drimbox.reports.report import Identifier, Operation, Report, Structure, Visibility
from official_messages import Official, load, with_report, with_segments

ORU = ("CR_E-ORU.hl7", "CR_G1-ORU.hl7", "CR_G1_MAJ-ORU.hl7", "CR_I_Depublication-ORU.hl7")
CARRIERS = ("ORU", "MDM")


def read(data: bytes) -> Report:
    return read_report(hl7.parse(data))


def carried(message: Official, carrier: str) -> Official:
    return message.as_mdm() if carrier == "MDM" else message


@pytest.fixture
def exam_e(samples: Path) -> Official:
    return load(samples, "CR_E-ORU.hl7")


# --- both carriers ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.03", "exam:E")
def test_the_mdm_derived_from_the_official_oru_is_the_official_mdm(samples: Path) -> None:
    derived = load(samples, "CR_E-ORU.hl7").identified("A").as_mdm()
    assert derived == load(samples, "CR_E-MDM.hl7").identified("A")


@pytest.mark.requirement("DB.SO.03", "DB.SO.97", "exam:G1", "exam:G1_MAJ", "exam:I")
@pytest.mark.parametrize("name", ORU)
def test_each_official_oru_reads_the_same_as_an_mdm(samples: Path, name: str) -> None:
    message = load(samples, name)
    assert read(message.as_mdm().wire()) == read(message.wire())


@pytest.mark.requirement("DB.SO.03", "exam:F", "exam:G2", "exam:M")
@pytest.mark.parametrize("letter", ["B", "C", "E", "F", "G1", "G1_MAJ", "G2", "H", "I", "M"])
def test_each_official_report_reads_the_same_from_either_carrier(samples: Path, letter: str) -> None:
    message = with_report(samples, "CR_G1-ORU.hl7", f"CR_{letter}.xml")
    report = read(message.wire())
    assert report == read(message.as_mdm().wire())
    assert report.study_uids() != ()
    assert report.accession_numbers() != ()
    assert report.warnings == ()
    assert report.structure.identifier in ("1101235555", "1750803447")


# --- operation ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.97", "DMP/CONF.03")
@pytest.mark.parametrize("event", ["R01", "T02", "T10", "T04"])
@pytest.mark.parametrize(("order", "status"), list(itertools.product(["NW", "RO", "CA"], ["F", "C", "D"])))
def test_order_status_and_event_must_agree(exam_e: Official, order: str, status: str, event: str) -> None:
    said = {"NW": Operation.NEW, "RO": Operation.REPLACE, "CA": Operation.DELETE}[order]
    message = exam_e if event == "R01" else exam_e.as_mdm().with_field("MSH", 9, f"MDM^{event}^MDM_T02")
    message = message.with_field("ORC", 1, order).with_field("OBX", 11, status)
    agrees = status == {"NW": "F", "RO": "C", "CA": "D"}[order]
    agrees = agrees and event in ("R01", {"NW": "T02", "RO": "T10", "CA": "T04"}[order])
    if agrees:
        assert read(message.wire()).operation is said
        return
    with pytest.raises(MessageError) as caught:
        read(message.wire())
    assert (caught.value.code, caught.value.condition) == ("hl7-operation", "207")


@pytest.mark.parametrize("missing", [("ORC", 1), ("OBX", 11)])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_operation_half_said_is_refused(exam_e: Official, missing: tuple[str, int], carrier: str) -> None:
    with pytest.raises(MessageError, match="opération"):
        read(carried(exam_e, carrier).with_field(*missing, "").wire())


def test_orders_that_ask_for_two_things_are_refused(exam_e: Official) -> None:
    assert read(with_segments(exam_e, "ORC|NW|").wire()) == read(exam_e.wire())
    with pytest.raises(MessageError) as caught:
        read(with_segments(exam_e, "ORC|CA|").wire())
    assert caught.value.code == "hl7-operation"


@pytest.mark.requirement("DB.SO.97", "exam:G1_MAJ")
def test_what_is_replaced_is_said_by_the_cda_else_by_txa_13(samples: Path) -> None:
    update = load(samples, "CR_G1_MAJ-ORU.hl7").as_mdm()
    assert read(update.wire()).replaces == "1.2.250.1.213.4.5.4.407"
    silent = re.sub(rb"<relatedDocument.*?</relatedDocument>", b"", update.document, flags=re.DOTALL)
    assert silent != update.document
    assert read(update.with_document(silent).wire()).replaces == "1.2.250.1.213.4.5.4.407"
    bare = update.with_document(silent).with_field("TXA", 13, "")
    assert read(bare.wire()).replaces is None
    other = update.with_document(silent).with_field("TXA", 13, "CR-407^^1.2.3^ISO")
    assert read(other.wire()).replaces == "1.2.3^CR-407"


@pytest.mark.requirement("DMP/CONF.03", "exam:I")
def test_a_deletion_names_its_document_once(samples: Path) -> None:
    """TXA-13 and the replaced document of what is deleted do not count; another TXA-12 does (official-data.md 4.3)."""
    deletion = load(samples, "CR_I_Depublication-ORU.hl7").as_mdm()
    assert read(deletion.wire()).document_id == "1.2.250.1.213.4.5.4.410"
    second = load(samples, "CR_G1_MAJ-ORU.hl7").doing("delete").as_mdm().with_field("TXA", 13, "1.2.3.4")
    report = read(second.wire())
    assert (report.operation, report.document_id) == (Operation.DELETE, "1.2.250.1.213.4.5.4.4072")
    with pytest.raises(MessageError) as caught:
        read(deletion.with_field("TXA", 12, "1.2.250.1.213.4.5.4.411").wire())
    assert (caught.value.code, caught.value.location) == ("hl7-document-id", "TXA^1^12")
    # A number of the RIS's own is no document id.
    assert read(deletion.with_field("TXA", 12, "CR-0815").wire()).operation is Operation.DELETE


@pytest.mark.parametrize("txa", ["CR-1^^1.2.250.1.213.4.5.4^ISO", "1.2.250.1.213.4.5.4", ""])
def test_a_document_id_with_an_extension(exam_e: Official, txa: str) -> None:
    document = exam_e.document.replace(
        b'root="1.2.250.1.213.4.5.4.405"', b'root="1.2.250.1.213.4.5.4.405" extension="x"'
    )
    assert read(exam_e.with_document(document).wire()).document_id == "1.2.250.1.213.4.5.4.405^x"
    document = exam_e.document.replace(
        b'root="1.2.250.1.213.4.5.4.405"', b'root="1.2.250.1.213.4.5.4" extension="CR-1"'
    )
    message = exam_e.as_mdm().with_document(document).doing("delete").with_field("TXA", 12, txa)
    if txa == "1.2.250.1.213.4.5.4":
        with pytest.raises(MessageError, match="document à supprimer"):
            read(message.wire())
    else:
        assert read(message.wire()).document_id == "1.2.250.1.213.4.5.4^CR-1"


# --- octets -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.03")
@pytest.mark.parametrize("wrap", [0, 60, 76])
@pytest.mark.parametrize("line_end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_any_line_end_and_any_wrapping(exam_e: Official, carrier: str, line_end: str, wrap: int) -> None:
    message = carried(exam_e, carrier)
    assert read(message.wire(line_end=line_end, wrap=wrap)) == read(message.wire())


@pytest.mark.requirement("DB.SO.03")
@pytest.mark.parametrize("carrier", CARRIERS)
def test_latin_9(samples: Path, carrier: str) -> None:
    document = (samples / "cda" / "CR_I.xml").read_bytes().replace(b">DOMINIQUE<", ">ANAËL-ŒNONE<".encode())
    message = load(samples, "CR_G1-ORU.hl7").with_document(document)
    pid = message.segment("PID").replace("^DOMINIQUE^DOMINIQUE^", "^ANAËL-ŒNONE^ANAËL-ŒNONE^")
    message = carried(message.with_segment("PID", pid), carrier)
    data = message.wire(charset="iso8859-15")
    # In latin-1 this octet would be another character.
    assert b"\xbcNONE" in data
    report = read(data)
    assert report.message_patient.traits.first_given == "ANAËL-ŒNONE"
    assert report == read(message.wire())
    assert not [f for f in check_identity(report, ins_range="test") if f.severity is Severity.BLOCKING]


@pytest.mark.requirement("D4", "exam:E")
def test_official_text_encoded_twice_is_the_text(samples: Path, exam_e: Official) -> None:
    """The documents inside the older official messages were read as cp1252 and written again."""
    assert "Ã©".encode() in exam_e.document
    report = read(exam_e.wire())
    plain = read(exam_e.with_document((samples / "cda" / "CR_E.xml").read_bytes()).wire())
    assert report.title == plain.title == "CR d’imagerie médicale"
    assert report.warnings != ()
    assert replace(report, warnings=()) == plain


@pytest.mark.parametrize("marker", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_before_the_document(exam_e: Official, marker: bytes) -> None:
    assert read(exam_e.with_document(marker + exam_e.document).wire()) == read(exam_e.wire())


def test_a_time_that_is_none_is_no_reason(exam_e: Official) -> None:
    """Official runs put the message's identifier in MSH-7 (official-data.md 3.1)."""
    assert read(exam_e.with_field("MSH", 7, "not a time").wire()) == read(exam_e.wire())


# --- documents ----------------------------------------------------------------------------------------------------


def second(message: Official, document: bytes, code: str = "18748-4", status: str = "F") -> Official:
    encoded = base64.b64encode(document).decode()
    return with_segments(message, f"OBX|12|ED|{code}^x^LN||^TEXT^XML^Base64^{encoded}||||||{status}|")


@pytest.mark.requirement("DB.SO.03")
def test_two_documents(exam_e: Official, samples: Path) -> None:
    report = read(exam_e.wire())
    assert read(second(exam_e, exam_e.document).wire()) == report
    assert read(second(exam_e, b"<html/>", code="11502-2").wire()) == report
    # The dummy before the report.
    first = f"OBX|1|ED|11502-2^x^LN||^TEXT^XML^Base64^{base64.b64encode(b'<html/>').decode()}||||||F|"
    index = exam_e.segments.index(exam_e.segment("OBX"))
    assert read(Official((*exam_e.segments[:index], first, *exam_e.segments[index:])).wire()) == report
    # Two reports are two messages: the second must not be lost.
    with pytest.raises(MessageError) as caught:
        read(second(exam_e, (samples / "cda" / "CR_H.xml").read_bytes()).wire())
    assert (caught.value.code, caught.value.location) == ("hl7-documents", "OBX^12^5")
    # Nor may one be deleted while the other is new.
    with pytest.raises(MessageError) as caught:
        read(second(exam_e, exam_e.document, status="D").wire())
    assert caught.value.code == "hl7-operation"


@pytest.mark.parametrize("body", ["CORPSMAIL_PS", "CORPSMAIL_PATIENT"])
def test_the_text_of_a_mail_is_no_document(exam_e: Official, body: str) -> None:
    mail = f"OBX|12|ED|{body}^Corps^MetaDMPMSS||^TEXT^^Base64^{base64.b64encode(b'Bonjour').decode()}||||||F|"
    assert read(with_segments(exam_e, mail).wire()) == read(exam_e.wire())


# --- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.97", "D5", "D6")
@pytest.mark.parametrize("system", ["expandedYes-NoIndicator", "HL70136", "", "autre"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_flags_by_any_coding_system(samples: Path, carrier: str, system: str) -> None:
    message = carried(load(samples, "CR_G1-ORU.hl7"), carrier)
    for masked, patient, representatives in itertools.product("YN", repeat=3):
        flagged = message.with_flags(
            MASQUE_PS=masked, INVISIBLE_PATIENT=patient, INVISIBLE_REP_LEGAUX=representatives, CONNEXION_SECRETE="Y"
        )
        data = flagged.wire().replace(b"expandedYes-NoIndicator", system.encode())
        assert read(data).visibility == Visibility(masked == "Y", patient == "Y", representatives == "Y", True)


@pytest.mark.requirement("D6", "DB.SO.97", "exam:G1_MAJ")
def test_a_change_of_visibility(samples: Path) -> None:
    update = load(samples, "CR_G1_MAJ-ORU.hl7")
    assert read(update.wire()).visibility_changed
    assert not read(update.with_flags(MODIF_CONF_CODE="N").wire()).visibility_changed
    assert not read(update.with_flags(MODIF_CONF_CODE="").wire()).visibility_changed


@pytest.mark.requirement("D5")
@pytest.mark.parametrize("operation", ["new", "replace", "delete"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_not_for_the_dmp_in_each_operation(exam_e: Official, carrier: str, operation: str) -> None:
    message = carried(exam_e.doing(operation), carrier)
    assert read(message.wire()).publish_to_dmp
    assert not read(message.with_flags(DESTDMP="N").wire()).publish_to_dmp


@pytest.mark.requirement("D5", "D6")
@pytest.mark.parametrize("code", ["MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REP_LEGAUX", "DESTDMP"])
def test_a_visibility_that_is_not_said_or_said_twice_is_not_guessed(exam_e: Official, code: str) -> None:
    with pytest.raises(MessageError) as caught:
        read(exam_e.with_flags(**{code: ""}).wire())
    assert (caught.value.code, caught.value.condition) == ("hl7-required", "101")
    other = {"Y": "N", "N": "Y"}[exam_e.flag(code)]
    again = f"OBX|13|CE|{code}^x^MetaDMPMSS||{{}}^^HL70136||||||F|"
    assert read(with_segments(exam_e, again.format(exam_e.flag(code))).wire()) == read(exam_e.wire())
    with pytest.raises(MessageError) as caught:
        read(with_segments(exam_e, again.format(other)).wire())
    assert (caught.value.code, caught.value.location) == ("hl7-flag", "OBX^13^5")


# --- identity -----------------------------------------------------------------------------------------------------


def findings(message: Official) -> dict[str, Severity]:
    return {f.code: f.severity for f in check_identity(read(message.wire()), ins_range="test")}


@pytest.mark.requirement("D4", "exam:I")
@pytest.mark.parametrize("carrier", CARRIERS)
def test_the_birth_place_of_the_official_deletion_is_a_warning(samples: Path, carrier: str) -> None:
    message = carried(load(samples, "CR_I_Depublication-ORU.hl7"), carrier)
    assert findings(message) == {"birth-place-differs": Severity.WARNING}


@pytest.mark.requirement("D4", "DB.SO.11")
@pytest.mark.parametrize("status", ["", "PROV", "VIDE", "QUAL", "DOUB~PROV"])
def test_an_ins_that_is_not_qualified_blocks(exam_e: Official, status: str) -> None:
    assert findings(exam_e) == {}
    assert findings(exam_e.with_field("PID", 32, status)) == {"ins-unqualified": Severity.BLOCKING}
    assert findings(exam_e.with_field("PID", 32, "DOUB~VALI")) == {}


@pytest.mark.requirement("D4", "exam:M")
@pytest.mark.parametrize(
    ("number", "value", "code"),
    [
        (5, "AUTRE^DOMINIQUE^DOMINIQUE^^^^L", "birth-name-differs"),
        (5, "PAT-TROIS^CLAUDE^CLAUDE^^^^L", "given-name-differs"),
        (7, "19790329", "birth-date-differs"),
        (8, "M", "sex-differs"),
    ],
)
def test_each_strict_trait_blocks(exam_e: Official, number: int, value: str, code: str) -> None:
    assert findings(exam_e.with_field("PID", number, value)) == {code: Severity.BLOCKING}


@pytest.mark.requirement("D4")
@pytest.mark.parametrize("name", ["Pat-Trois^Dominique^", "PAT TROIS^DOMINIQUE^", "pat-trois^dominique^X Y"])
def test_spelling_is_no_other_person(exam_e: Official, name: str) -> None:
    assert findings(exam_e.with_field("PID", 5, f"{name}^^^^L")) == {}


def test_the_birth_name_is_found_among_all_names(exam_e: Official) -> None:
    names = "DUPONT^^^^^^D~PAT-TROIS^DOMINIQUE^DOMINIQUE CLAUDE^^^^L"
    report = read(exam_e.with_field("PID", 5, names).wire())
    assert (report.message_patient.traits.birth_family, report.message_patient.traits.used_family) == (
        "PAT-TROIS",
        "DUPONT",
    )
    assert report.message_patient.traits.sex is Sex.FEMALE


@pytest.mark.requirement("D4", "DB.SO.11")
def test_another_ins_in_the_report_blocks(exam_e: Official) -> None:
    document = exam_e.document.replace(b"279035121518989", b"162018885045327")
    assert findings(exam_e.with_document(document)) == {"ins-differs": Severity.BLOCKING}


# --- studies, orders, acts ----------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.12", "D3", "exam:F")
@pytest.mark.parametrize("carrier", CARRIERS)
def test_several_studies_and_orders(samples: Path, carrier: str) -> None:
    report = read(carried(with_report(samples, "CR_E-ORU.hl7", "CR_F.xml"), carrier).wire())
    assert report.study_uids() == ("1.2.250.1.213.4.5.2.1.106", "1.2.250.1.213.4.5.2.1.107")
    assert report.accession_numbers() == (
        Identifier("ACN106", "1.2.250.1.213.4.5.2.5"),
        Identifier("ACN107", "1.2.250.1.213.4.5.2.5"),
    )
    assert {o.placer for o in report.orders} == {Identifier("OPN107", "1.2.250.1.213.4.5.2.6")}


@pytest.mark.requirement("DB.SO.12")
def test_studies_in_several_acts_and_named_twice(samples: Path) -> None:
    """ANS' example of 2024 has one act per study; nothing forbids to name one of them again."""
    message = with_report(samples, "CR_E-ORU.hl7", "CR_E.xml")
    text = message.document.decode("utf-8")
    act = re.search(r"<documentationOf>.*?</documentationOf>", text, re.DOTALL)
    assert act is not None
    others = [act[0].replace("2.1.105", f"2.1.{n}") for n in (905, 105, 906)]
    document = text.replace(act[0], "".join([act[0], *others])).encode()
    report = read(message.with_document(document).wire())
    assert [uid.rpartition(".")[2] for uid in report.study_uids()] == ["105", "905", "906"]


@pytest.mark.requirement("exam:F")
def test_an_unknown_modality_is_kept_as_it_is(samples: Path) -> None:
    report = read(with_report(samples, "CR_E-ORU.hl7", "CR_F.xml").wire())
    assert {m.code for act in report.acts for m in act.modalities} == {"RM"}


@pytest.mark.parametrize("oid", ["1.2.250.1.213.2.5", "1.2.250.1.215.300.1"])
def test_both_oids_of_ccam(exam_e: Official, oid: str) -> None:
    document = re.sub(
        rb'codeSystem="1\.2\.250\.1\.(213\.2\.5|215\.300\.1)"', f'codeSystem="{oid}"'.encode(), exam_e.document
    )
    [act] = read(exam_e.with_document(document).wire()).acts
    assert act.procedure is not None
    assert (act.procedure.code, act.procedure.system) == ("KCQL003", oid)


# --- structures ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
@pytest.mark.parametrize("written", ["750803447", "1750803447", " 750803447 "])
@pytest.mark.parametrize("configured", ["1750803447", "750803447"])
def test_a_finess_with_and_without_its_leading_digit(samples: Path, written: str, configured: str) -> None:
    site = Site("a", Structure("1750803447", "A"), ())
    sites = Sites([(site, [configured]), (Site("b", Structure("1690000017", "B"), ()), ["1690000017"])])
    message = load(samples, "CR_G1-ORU.hl7")
    by_cda = message.with_document(message.document.replace(b'"1750803447"', f'"{written}"'.encode()))
    assert sites.of(read(by_cda.wire())) is site
    silent = re.sub(rb'(<id root="1\.2\.250\.1\.71\.4\.2\.2" extension=)"[^"]*"', rb'\1""', message.document)
    prt = message.segment("PRT").replace("^750803447", f"^{written.strip()}")
    by_prt = message.with_document(silent).with_segment("PRT", prt)
    assert read(by_prt.wire()).structure.identifier == "1750803447"
    assert sites.of(read(by_prt.wire())) is site
