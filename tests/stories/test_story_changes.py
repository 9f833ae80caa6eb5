"""What happens to a published exam afterwards, told by the PACS (IOCM) and by the information system (OMI^O23)."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages import Case, other_values
from stage import ANOTHER, Exam, Stage, instances, note_on

from drimbox.sandbox.ris import wire

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUALITY = ("113001", "Rejected for Quality Reasons")
SAFETY = ("113037", "Rejected for Patient Safety Reasons")
OF_INTEREST = ("113000", "Of Interest")


@pytest.fixture(params=["ORU, official values", "MDM, other values"])
def case(request: pytest.FixtureRequest, samples: Path) -> Case:
    if request.param.startswith("ORU"):
        return Case(samples, "ORU")
    return Case(samples, "MDM", other_values(), ANOTHER)


@pytest.fixture
def other(samples: Path) -> Case:
    return Case(samples, "MDM", other_values(), ANOTHER)


async def published(stage: Stage, case: Case, letter: str, images: int = 4) -> Exam:
    [exam] = case.exams(letter, images)
    stage.pacs["pacs"].hold(exam)
    await stage.accepted(case.head_ct(letter))
    assert stage.statuses(exam.study_uid) == ["Approved"]
    return exam


@pytest.mark.requirement("DB.SO.25", "DB.SO.26", "DB.SO.13", "exam:U")
@pytest.mark.parametrize("hides", [True, False], ids=["the PACS hides them", "the PACS still lists them"])
async def test_u_a_note_takes_images_out(stage: Stage, case: Case, hides: bool) -> None:
    exam = await published(stage, case, "U")
    [first] = await stage.archived(exam.study_uid)
    rejected = [exam.instance(1), exam.instance(3)]
    if hides:
        stage.pacs["pacs"].hidden |= set(rejected)
    note = note_on(exam, QUALITY, rejected, f"{exam.study_uid}.9.1")
    assert await stage.note(note) == 0
    assert stage.statuses(exam.study_uid) == ["Deprecated", "Approved"]
    assert instances(stage.current(exam.study_uid)[1]) == exam.instances - set(rejected)
    # The visibility is the report's still.
    assert stage.hidden_from(exam.study_uid) == {"INVISIBLE_PATIENT"}
    # Who acts is who acted for the version before (ans-faq.md 3.2).
    [_, second] = await stage.archived(exam.study_uid)
    assert second["vihf_identity"]["subject_id"] == first["vihf_identity"]["subject_id"]
    assert second["vihf_identity"]["structure_id"] == first["vihf_identity"]["structure_id"]
    # The same note again has no further effect, nor has the report again: what is rejected stays out.
    sent = stage.sent()
    assert await stage.note(note) == 0
    await stage.accepted(case.head_ct("U").identified())
    assert stage.sent() == sent
    assert instances(stage.current(exam.study_uid)[1]) == exam.instances - set(rejected)
    assert [i for i in await stage.queue() if i.severity == "error"] == []


@pytest.mark.requirement("DB.SO.26", "exam:U")
async def test_u_a_note_on_every_image_depublishes(stage: Stage, case: Case) -> None:
    exam = await published(stage, case, "U")
    note = note_on(exam, SAFETY, sorted(exam.instances), f"{exam.study_uid}.9.1")
    assert await stage.note(note) == 0
    assert stage.statuses(exam.study_uid) == ["Deleted"]
    [archived] = await stage.archived(exam.study_uid)
    assert archived["state"] == "depublished"
    assert await stage.note(note) == 0
    assert stage.statuses(exam.study_uid) == ["Deleted"]


@pytest.mark.requirement("DB.SO.26", "D7", "exam:U")
async def test_u_while_the_pacs_is_down_nothing_is_taken_out(stage: Stage, other: Case) -> None:
    exam = await published(stage, other, "U")
    stage.pacs["pacs"].stop()
    note = note_on(exam, QUALITY, [exam.instance(1)], f"{exam.study_uid}.9.1")
    assert await stage.note(note) == 0
    assert stage.statuses(exam.study_uid) == ["Approved"]
    assert "resync-waiting" in await stage.codes(exam.study_uid)
    stage.pacs["pacs"].start()


@pytest.mark.requirement("DB.SO.26", "exam:U")
async def test_u_before_its_report(stage: Stage, other: Case) -> None:
    """A note may come before the study is published: the report then publishes what is left."""
    [exam] = other.exams("U", 4)
    stage.pacs["pacs"].hold(exam)
    assert await stage.note(note_on(exam, QUALITY, [exam.instance(2)], f"{exam.study_uid}.9.1")) == 0
    assert stage.sent() == 0
    await stage.accepted(other.head_ct("U"))
    assert instances(stage.current(exam.study_uid)[1]) == exam.instances - {exam.instance(2)}


@pytest.mark.requirement("DB.SO.26")
async def test_a_note_that_rejects_nothing_takes_nothing_out(stage: Stage, other: Case) -> None:
    exam = await published(stage, other, "U")
    assert await stage.note(note_on(exam, OF_INTEREST, [exam.instance(1)], f"{exam.study_uid}.9.1")) == 0
    assert instances(stage.current(exam.study_uid)[1]) == exam.instances
    assert stage.statuses(exam.study_uid)[-1] == "Approved"


@pytest.mark.requirement("DB.SO.26", "DMP/CONF.03", "exam:W")
async def test_w_an_exam_is_declared_deleted(stage: Stage, case: Case) -> None:
    exam = await published(stage, case, "W")
    order = case.order("CR_W_Suppression-OMI.hl7")
    # The PACS is not asked: it may hold the images for a while yet, or be down.
    stage.pacs["vna"].stop()
    [answer] = await stage.send(order)
    stage.pacs["vna"].start()
    assert wire.verdict(answer) == "AA"
    assert stage.statuses(exam.study_uid) == ["Deleted"]
    [archived] = await stage.archived(exam.study_uid)
    assert archived["state"] == "depublished"
    # Told twice, it is deleted once.
    sent = stage.sent()
    for again in (order, order.with_field("MSH", 10, "002")):
        [answer] = await stage.send(again)
        assert wire.verdict(answer) == "AA"
    assert stage.sent() == sent
    # Until a report speaks of it again.
    await stage.accepted(case.head_ct("W").identified())
    assert stage.statuses(exam.study_uid) == ["Deleted", "Approved"]
    assert [i for i in await stage.queue() if i.severity == "error"] == []


@pytest.mark.requirement("DB.SO.26", "exam:W")
async def test_w_before_its_report(stage: Stage, other: Case) -> None:
    [exam] = other.exams("W")
    stage.pacs["pacs"].hold(exam)
    [answer] = await stage.send(other.order("CR_W_Suppression-OMI.hl7"))
    assert wire.verdict(answer) == "AA"
    assert stage.sent() == 0
    await stage.accepted(other.head_ct("W"))
    assert stage.statuses(exam.study_uid) == ["Approved"]


@pytest.mark.requirement("DB.SO.13", "DB.SO.26")
async def test_an_order_that_tells_of_a_change(stage: Stage, other: Case) -> None:
    exam = await published(stage, other, "W")
    order = other.order("CR_W_Suppression-OMI.hl7").with_segment("ORC", "ORC|NW|984375862|X||SC")
    sent = stage.sent()
    [answer] = await stage.send(order)
    assert wire.verdict(answer) == "AA"
    assert stage.sent() == sent
    more = Exam(exam.study_uid, exam.accession, exam.images + 2, exam.patient)
    stage.pacs["pacs"].hold(more)
    await stage.send(order.with_field("MSH", 10, "002"))
    assert stage.statuses(exam.study_uid) == ["Deprecated", "Approved"]
    assert instances(stage.current(exam.study_uid)[1]) == more.instances
