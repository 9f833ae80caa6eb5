"""Bad input at the HL7 port of site A: a clear answer, a line for the operator, nothing published, and life goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mesh_world import NOW, World, control, document_of, official, with_document

from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import exam

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

STUDY = "1.2.250.1.213.4.5.2.1."
# Exam S: sent by no other test, so that whatever is published of it was published by mistake.
UNTOUCHED = f"{STUDY}120"


def form(letter: str = "S", **changes: object) -> bytes:
    return letters.oru(replace(letters.Letter(exam(letter), control()), **changes), NOW)  # type: ignore[arg-type]


def without(segment: bytes) -> bytes:
    return b"\r".join(s for s in form().split(b"\r") if not s.startswith(segment))


def with_doctype() -> bytes:
    message = form()
    return with_document(message, document_of(message).replace(b"?>", b"?><!DOCTYPE ClinicalDocument>", 1))


def with_entity_bomb() -> bytes:
    entities = b'<!ENTITY a "lol">' + b"".join(
        b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(ord("b"), ord("k"))
    )
    message = form()
    document = document_of(message).replace(b"?>", b"?><!DOCTYPE ClinicalDocument [" + entities + b"]>", 1)
    return with_document(message, document.replace(b"<title>", b"<title>&j;", 1))


def with_external_entity() -> bytes:
    message = form()
    doctype = b'?><!DOCTYPE ClinicalDocument [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    document = document_of(message).replace(b"?>", doctype, 1)
    return with_document(message, document.replace(b"<title>", b"<title>&file;", 1))


def with_wrong_key() -> bytes:
    return form(identity=letters.Identity(ins="279035121518988"))


def with_wrong_base64() -> bytes:
    return re.sub(rb"(\^Base64\^[A-Za-z0-9+/]{40})", rb"\1*", form(), count=1)


def cut_base64() -> bytes:
    return re.sub(rb"(\^Base64\^[A-Za-z0-9+/]{41})[^|]*", rb"\1", form(), count=1)


@dataclass(frozen=True)
class Refusal:
    """What a message must be answered: the condition of ERR-3, and the code in the operator's queue."""

    message: Callable[[], bytes]
    condition: str
    code: str


REFUSALS = {
    "not HL7": Refusal(lambda: b"GET / HTTP/1.1\r\nHost: drimbox\r\n\r\n", "100", "hl7-msh"),
    "random bytes": Refusal(lambda: bytes(range(32, 256)) * 40, "100", "hl7-msh"),
    "empty": Refusal(lambda: b"", "100", "hl7-msh"),
    "no PID": Refusal(lambda: without(b"PID"), "100", "hl7-pid"),
    "no document": Refusal(lambda: without(b"OBX|1|"), "101", "hl7-document"),
    "wrong base64": Refusal(with_wrong_base64, "102", "hl7-base64"),
    "base64 cut short": Refusal(cut_base64, "102", "hl7-base64"),
    "DTD": Refusal(with_doctype, "102", "xml-dtd"),
    # The parser stops at the first entity that grows too much, before it has seen the whole declaration.
    "entity bomb": Refusal(with_entity_bomb, "102", "xml-(syntax|dtd)"),
    "external entity": Refusal(with_external_entity, "102", "xml-dtd"),
    "wrong INS key": Refusal(with_wrong_key, "102", "ins-key"),
    "no INS": Refusal(lambda: form(identity=letters.Identity(ins_oid="1.2.250.1.213.1.4.99")), "101", "ins-missing"),
    "other type": Refusal(lambda: form().replace(b"ORU^R01^ORU_R01", b"ADT^A01^ADT_A01"), "200", "hl7-type"),
    "other version": Refusal(lambda: form().replace(b"|P|2.5|", b"|P|2.3.1|"), "203", "hl7-version"),
    "flag neither Y nor N": Refusal(
        lambda: form().replace(b"^MetaDMPMSS||N^", b"^MetaDMPMSS||P^", 1), "103", "hl7-flag"
    ),
}


@pytest.mark.requirement("DB.SO.15", "INS/va1.36")
@pytest.mark.parametrize("name", REFUSALS)
async def test_what_cannot_be_read_is_refused_and_told(world: World, name: str) -> None:
    refusal = REFUSALS[name]
    documents = len(await world.documents())
    [answer] = await world.send(refusal.message())
    text = answer.decode("utf-8")
    [error] = [segment for segment in text.split("\r") if segment.startswith("ERR|")]
    stored = await world.last_message()
    assert (wire.verdict(answer), error.split("|")[3].split("^")[0]) == ("AE", refusal.condition)
    assert re.fullmatch(refusal.code, stored["code"])
    assert stored["answer"] == answer
    assert not stored["accepted"]
    # Neither the answer nor the queue repeats who the patient is.
    for word in ("PAT-TROIS", "DOMINIQUE", "27903512151898", "19790328", "IPP101"):
        assert word not in text + stored["reason"]
    assert len(await world.documents()) == documents


@pytest.mark.requirement("DB.SO.15")
async def test_the_demonstrator_s_message_is_refused(world: World, samples: Path) -> None:
    """No PID, bare base64, version 2.3.1: each of its faults would do."""
    [answer] = await world.send((samples / "hl7v2" / "demonstrator_bare_oru.hl7").read_bytes())
    assert wire.verdict(answer) == "AE"
    stored = await world.last_message()
    assert (stored["accepted"], stored["control_id"]) == (False, "104")
    assert stored["code"] in ("hl7-version", "hl7-pid", "hl7-base64")


@pytest.mark.requirement("DB.SO.15")
async def test_a_message_of_100_mb(world: World) -> None:
    """It is answered, not kept whole, and takes no memory; another sender is served meanwhile."""
    site_a = world.mesh.processes[1]
    before = site_a.memory()
    message = with_document(form(), b"\x00" * 75_000_000)
    assert len(message) > 100_000_000
    sending = asyncio.create_task(world.send(message))
    [other] = await world.send(form("S", flags=frozenset()))
    [answer] = await sending
    assert (wire.verdict(other), wire.verdict(answer)) == ("AA", "AE")
    [stored] = await world.sql("SELECT raw, code FROM incident JOIN message ON message.id = message_id "
                               "WHERE code = 'hl7-size' ORDER BY incident.id DESC LIMIT 1")  # fmt: skip
    assert len(stored["raw"]) < 10_000
    assert site_a.memory() - before < 80_000_000


@pytest.mark.requirement("DB.SO.15", "exam:G")
async def test_a_study_that_the_pacs_does_not_know(world: World, samples: Path) -> None:
    carrier = official(samples / "hl7v2" / "CR_E-ORU.hl7")
    await world.accepted(with_document(carrier, (samples / "cda" / "CR_G2.xml").read_bytes()))
    await world.at_rest("1.2.3.4.5.6.7.8.9")
    [incident] = await world.incidents("1.2.3.4.5.6.7.8.9")
    assert (incident["code"], incident["severity"]) == ("study-unknown", "error")
    assert await world.kos("1.2.3.4.5.6.7.8.9", current=False) == []


@pytest.mark.requirement("DB.SO.16", "DB.SO.17", "D4", "exam:M")
@pytest.mark.parametrize("told_by", ["both", "report alone"])
async def test_a_report_about_somebody_else(world: World, samples: Path, told_by: str) -> None:
    """Exam M: the same INS, another name, sex and birth date than the PACS's patient."""
    carrier = official(samples / "hl7v2" / "CR_E-ORU.hl7")
    if told_by == "both":
        names = (rb"PAT-TROIS^DOMINIQUE^DOMINIQUE^^^^L~PAT-TROIS", rb"ANS-DRIM^PatientBis^PatientBis^^^^L~ANS-DRIM")
        carrier = carrier.replace(*names).replace(b"||19790328|F|", b"||20120125|M|")
    await world.accepted(with_document(carrier, (samples / "cda" / "CR_M.xml").read_bytes()))
    study = f"{STUDY}114"
    await world.at_rest(study)
    [incident] = await world.incidents(study)
    reasons = {
        "both": ("date de naissance au PACS", "sexe au PACS", "nom du patient au PACS"),
        "report alone": ("nom de naissance", "premier prénom de naissance", "date de naissance", "sexe"),
    }
    for reason in reasons[told_by]:
        assert reason in incident["reason"]
    for value in ("ANS-DRIM", "PatientBis", "20120125", "279035121518989"):
        assert value not in str(incident)
    assert await world.kos(study, current=False) == []


@pytest.mark.requirement("DB.SO.15", "DB.SO.16", "D4")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"identity": letters.Identity(status="PROV")}, "ins-unqualified", id="INS not qualified"),
        pytest.param({"identity": letters.Identity(ipp="IPP999")}, "pacs-ipp", id="other patient number"),
        pytest.param(
            {"identity": letters.Identity(ins_oid="1.2.250.1.213.1.4.8")},
            "ins-range",
            id="production INS on a test box",
        ),
        pytest.param(
            {"exam": replace(exam("S"), orders=(("OPN120", "ACN999"),))},
            "accession-differs",
            id="other accession number",
        ),
        pytest.param(
            {"exam": replace(exam("S"), studies=(f"{STUDY}902",), orders=(("OPN902", "ACN902"),))},
            "pacs-ipp",
            id="another patient's study",
        ),
    ],
)
async def test_what_contradicts_the_pacs_is_not_published(world: World, changes: dict[str, object], code: str) -> None:
    message = form(**changes)
    study = f"{STUDY}902" if "studies" not in changes and b"902" in document_of(message) else UNTOUCHED
    await world.accepted(message)
    await world.at_rest(study)
    assert code in {i["code"] for i in await world.incidents(study)}
    assert await world.kos(study, current=False) == []


@pytest.mark.requirement("DB.SO.15")
async def test_a_report_of_a_structure_that_the_box_does_not_serve(world: World) -> None:
    await world.accepted(form(structure="1990000001", structure_name="CENTRE INCONNU"))
    await world.at_rest(UNTOUCHED)
    assert "structure-unknown" in {i["code"] for i in await world.incidents(UNTOUCHED)}
    assert await world.kos(UNTOUCHED, current=False) == []


@pytest.mark.requirement("D5")
async def test_a_report_that_is_not_for_the_dmp(world: World) -> None:
    await world.accepted(form(flags=frozenset()))
    await world.at_rest(UNTOUCHED)
    assert await world.kos(UNTOUCHED, current=False) == []
    # What was published stays.
    await world.publish("E")
    before = await world.published(f"{STUDY}105")
    await world.accepted(form("E", flags=frozenset()))
    await world.at_rest(f"{STUDY}105")
    assert (await world.published(f"{STUDY}105"))["unique_id"] == before["unique_id"]


@pytest.mark.requirement("DB.SO.03")
async def test_a_message_sent_again_has_one_effect(world: World) -> None:
    """The same answer octet for octet, on the same connection, on others, and on several at once; no second version."""
    message = form("X")
    answers = await world.send(message, message)
    for [answer] in await asyncio.gather(*(world.send(message) for _ in range(5))):
        answers.append(answer)
    assert len(set(answers)) == 1
    assert wire.verdict(answers[0]) == "AA"
    await world.published(f"{STUDY}125")
    assert len(await world.kos(f"{STUDY}125", current=False)) == 1
    number = wire_control(message)
    assert await world.sql("SELECT count(*) AS n FROM message WHERE control_id = %s", number) == [{"n": 1}]


@pytest.mark.requirement("DB.SO.15")
async def test_a_used_message_identifier_with_other_content(world: World) -> None:
    message = form("S", flags=frozenset())
    await world.accepted(message)
    other = letters.oru(letters.Letter(exam("S"), wire_control(message)), NOW)
    [answer] = await world.send(other)
    assert wire.verdict(answer) == "AE"
    assert (await world.last_message())["code"] == "hl7-duplicate"
    await world.at_rest(UNTOUCHED)
    assert await world.kos(UNTOUCHED, current=False) == []


async def test_good_and_bad_on_one_connection(world: World) -> None:
    """A refusal ends neither the connection nor the service."""
    good = form("X", flags=frozenset())
    answers = await world.send(b"rubbish", good, without(b"PID"), form("X", flags=frozenset()), good)
    assert [wire.verdict(answer) for answer in answers] == ["AE", "AA", "AE", "AA", "AA"]


async def test_a_frame_that_never_ends_harms_nobody(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.mesh.ports.mllp_a)
    writer.write(b"\x0b" + form()[:2000])
    await writer.drain()
    assert wire.verdict((await world.send(form("X", flags=frozenset())))[0]) == "AA"
    writer.close()
    assert await reader.read() == b""


def wire_control(message: bytes) -> str:
    """MSH-10."""
    return message.split(b"\r", 1)[0].split(b"|")[9].decode()
