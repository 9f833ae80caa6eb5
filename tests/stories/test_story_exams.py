"""Each official exam's story, told to a whole box: by ORU and by MDM, with the official values and with others, and
each message twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from messages import Case, other_values
from stage import ANOTHER, Stage, instances

from drimbox.sandbox.ris import wire
from official_messages import Official

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(params=["ORU, official values", "MDM, other values"])
def case(request: pytest.FixtureRequest, samples: Path) -> Case:
    if request.param.startswith("ORU"):
        return Case(samples, "ORU")
    return Case(samples, "MDM", other_values(), ANOTHER)


@pytest.fixture
def other(samples: Path) -> Case:
    return Case(samples, "MDM", other_values(), ANOTHER)


async def tell(stage: Stage, message: Official) -> None:
    """Send a message; the same again and the same under another identifier then change nothing."""
    await stage.accepted(message)
    before = (stage.sent(), await stage.codes())
    await stage.accepted(message, message.identified())
    assert (stage.sent(), await stage.codes()) == before


@pytest.mark.requirement("DB.SO.03", "DB.SO.11", "DB.SO.12", "DB.SO.22", "DB.SO.44", "exam:E")
async def test_e_a_report_publishes_its_study(stage: Stage, case: Case) -> None:
    [exam] = case.exams("E")
    stage.pacs["pacs"].hold(exam)
    await tell(stage, case.of("CR_E-ORU.hl7"))
    entry, manifest = stage.current(exam.study_uid)
    assert stage.statuses(exam.study_uid) == ["Approved"]
    assert instances(manifest) == exam.instances
    assert stage.hidden_from(exam.study_uid) == {"INVISIBLE_PATIENT", "INVISIBLE_REPRESENTANTS_LEGAUX"}
    [archived] = await stage.archived(exam.study_uid)
    assert (archived["kos_uid"], archived["entry_uuid"]) == (entry.unique_id, entry.uuid)
    assert (archived["state"], archived["pacs"], archived["ins"]) == ("current", "pacs", case.patient.ins)
    assert archived["document_ids"] == [case.value("1.2.250.1.213.4.5.4.405")]
    assert await stage.queue() == []


@pytest.mark.requirement("DB.SO.04", "DB.SO.12", "D2", "D3", "exam:F")
async def test_f_two_studies_two_kos_each_with_its_own_order(stage: Stage, case: Case) -> None:
    first, second = case.exams("F")
    # One is with the RIS's own PACS, the other was moved to the archive.
    stage.pacs["pacs"].hold(first)
    stage.pacs["vna"].hold(second)
    await tell(stage, case.report("CR_F.xml"))
    for exam, pacs in ((first, "pacs"), (second, "vna")):
        _, manifest = stage.current(exam.study_uid)
        assert instances(manifest) == exam.instances
        assert {r.accession.value for r in manifest.requests if r.accession} == {exam.accession}
        assert {r.placer.value for r in manifest.requests if r.placer} == {case.value("OPN107")}
        [archived] = await stage.archived(exam.study_uid)
        assert (archived["state"], archived["pacs"]) == ("current", pacs)
        assert len(stage.entries(exam.study_uid)) == 1
    assert await stage.queue() == []


@pytest.mark.requirement("DB.SO.13", "DB.SO.97", "D6", "exam:G1", "exam:G1_MAJ")
async def test_g_a_hidden_report_becomes_visible(stage: Stage, case: Case) -> None:
    [exam] = case.exams("G")
    stage.pacs["pacs"].hold(exam)
    await tell(stage, case.of("CR_G1-ORU.hl7"))
    first, _ = stage.current(exam.study_uid)
    assert stage.hidden_from(exam.study_uid) == {"INVISIBLE_PATIENT"}
    await tell(stage, case.of("CR_G1_MAJ-ORU.hl7"))
    second, manifest = stage.current(exam.study_uid)
    assert stage.hidden_from(exam.study_uid) == set()
    assert instances(manifest) == exam.instances
    assert stage.statuses(exam.study_uid) == ["Deprecated", "Approved"]
    assert [a["state"] for a in await stage.archived(exam.study_uid)] == ["replaced", "current"]
    assert second.unique_id != first.unique_id
    # The first report once more changes nothing: what replaced it stands.
    assert await stage.codes() == []


@pytest.mark.requirement("DB.SO.15", "DB.SO.21", "DB.SO.45", "exam:G2")
async def test_g2_a_study_that_no_pacs_knows(stage: Stage, case: Case) -> None:
    [exam] = case.exams("G")
    stage.pacs["pacs"].hold(exam)
    unknown = case.value("1.2.3.4.5.6.7.8.9")
    await tell(stage, case.report("CR_G2.xml"))
    assert stage.sent() == 0
    [incident] = await stage.queue()
    assert (incident.code, incident.severity, incident.study_uid) == ("study-unknown", "error", unknown)
    # The study comes in late: the operator tries again.
    stage.pacs["pacs"].hold(replace(exam, study_uid=unknown))
    await stage.retry(incident)
    assert stage.statuses(unknown) == ["Approved"]
    # The official document gives another birth place than its message: a warning.
    assert [(i.code, i.severity) for i in await stage.queue()] == [("birth-place-differs", "warning")]


@pytest.mark.requirement("DB.SO.15", "D7", "exam:G2")
async def test_g2_while_one_pacs_is_down(stage: Stage, samples: Path) -> None:
    """Nobody can say that the study is nowhere: it waits, and is no error yet."""
    stage.pacs["vna"].stop()
    await stage.accepted(Case(samples, "ORU").report("CR_G2.xml"))
    assert [(i.code, i.severity) for i in await stage.queue()] == [("waiting", "warning")]
    stage.pacs["vna"].start()
    [waiting] = await stage.queue()
    await stage.retry(waiting)
    assert await stage.codes() == ["study-unknown"]


@pytest.mark.requirement("DB.SO.97", "DMP/CONF.03", "D4", "exam:I")
async def test_i_a_report_is_taken_back(stage: Stage, case: Case) -> None:
    [exam] = case.exams("I")
    stage.pacs["pacs"].hold(exam)
    await tell(stage, case.report("CR_I.xml"))
    assert stage.statuses(exam.study_uid) == ["Approved"]
    await tell(stage, case.of("CR_I_Depublication-ORU.hl7"))
    assert stage.statuses(exam.study_uid) == ["Deleted"]
    [archived] = await stage.archived(exam.study_uid)
    assert archived["state"] == "depublished"
    # It never stops a deletion that the PACS is down, nor that the study is gone from it.
    await stage.accepted(case.report("CR_I.xml").identified())
    assert stage.statuses(exam.study_uid) == ["Deleted", "Approved"]
    stage.pacs["pacs"].forget(exam)
    stage.pacs["vna"].stop()
    await stage.accepted(case.of("CR_I_Depublication-ORU.hl7").identified())
    stage.pacs["vna"].start()
    assert stage.statuses(exam.study_uid) == ["Deleted", "Deleted"]
    assert [i for i in await stage.queue() if i.severity == "error"] == []


@pytest.mark.requirement("D4", "DB.SO.16", "DB.SO.21", "exam:M")
async def test_m_another_person_under_the_same_ins(stage: Stage, case: Case) -> None:
    [exam] = case.exams("M")
    stage.pacs["pacs"].hold(exam)
    message = case.report("CR_M.xml")
    pid = {5: "ANS-DRIM^PatientBis^PatientBis^^^^L~ANS-DRIM^^^^^^D", 7: "20120125", 8: "M"}
    for number, value in pid.items():
        message = message.with_field("PID", number, value)
    await tell(stage, message)
    assert stage.sent() == 0
    [incident] = await stage.queue(exam.study_uid)
    assert incident.severity == "error"
    assert incident.code.startswith("pacs-")
    assert "ANS-DRIM" not in incident.reason
    # Nor may the document say otherwise than its message.
    told = message.with_field("PID", 7, case.patient.birth_date).identified()
    await stage.accepted(told)
    assert stage.sent() == 0
    assert "birth-date-differs" in await stage.codes(exam.study_uid)


@pytest.mark.requirement("DB.SO.97", "D5", "exam:E")
async def test_what_is_not_for_the_dmp_stays_as_it_is(stage: Stage, other: Case) -> None:
    [exam] = other.exams("I")
    stage.pacs["pacs"].hold(exam)
    report, deletion = other.report("CR_I.xml"), other.of("CR_I_Depublication-ORU.hl7")
    await tell(stage, report.with_flags(DESTDMP="N"))
    assert stage.entries(exam.study_uid) == []
    await tell(stage, report.identified())
    await tell(stage, deletion.with_flags(DESTDMP="N"))
    assert stage.statuses(exam.study_uid) == ["Approved"]
    assert await stage.queue() == []


@pytest.mark.requirement("DB.SO.03", "DB.SO.97")
async def test_what_contradicts_itself_is_answered_and_changes_nothing(stage: Stage, other: Case) -> None:
    [exam] = other.exams("I")
    stage.pacs["pacs"].hold(exam)
    report = other.report("CR_I.xml")
    await stage.accepted(report)
    sent = stage.sent()
    [answer] = await stage.send(report.with_field("ORC", 1, "CA").identified())
    assert wire.verdict(answer) == "AE"
    assert b"\rERR|" in answer
    assert stage.statuses(exam.study_uid) == ["Approved"]
    assert stage.sent() == sent
    assert await stage.codes() == ["hl7-operation"]
