"""A study compared with PACS and DMP because something else than a report spoke of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from publication_examples import (
    AMBROISE,
    BASE,
    CT,
    STUDY,
    World,
    down,
    letter_of,
    study_of,
    world_on,
)

from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Rejected, Unavailable
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION
from drimbox.pacs.study import Instance, Series, Study
from drimbox.publication.kos import State
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.triggers import Cause
from drimbox.record.audit import Kind
from drimbox.reports.report import Visibility
from drimbox.sandbox.ris.letters import Identity
from drimbox.store.database import Pool

HIDDEN = frozenset({"DESTDMP", "INVISIBLE_PATIENT"})
DOCUMENT = "1.2.250.1.213.4.5.4.405"
FIRST, SECOND, THIRD = (f"1.2.250.1.213.4.5.2.3.105.201.3{n}" for n in range(3))
NOTE = "1.2.9.113001"


def with_note(study: Study, *notes: str) -> Study:
    """The study with Key Object Selections that the PACS lists in it."""
    listed = tuple(Instance(KEY_OBJECT_SELECTION, uid, n) for n, uid in enumerate(notes, 1))
    return replace(study, series=(*study.series, Series("1.2.9.99", "KO", 99, "", "", listed)))


async def shown(world: World) -> list[int]:
    """How many images each KOS in the DMP lists."""
    return [held.manifest.instance_count for held in world.dmp.standing(STUDY)]


# --- what the PACS changed --------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.13", "DB.SO.26", "DB.SO.27", "exam:U")
async def test_images_that_came_or_went_make_a_new_version(world: World) -> None:
    await world.run(letter_of())
    first = await world.current()
    for number, images in enumerate((5, 2)):
        world.pacs.hold(study_of(images=images))
        assert await world.resync(Cause.ORDER_CHANGED) is Outcome.PUBLISHED
        assert await shown(world) == [images]
        assert await world.states() == ["replaced"] * (number + 1) + ["current"]
    current = await world.current()
    assert first is not None
    assert current is not None
    assert (current.cause, current.report_id) == ("order-changed", first.report_id)
    assert current.document_ids == first.document_ids == (DOCUMENT,)
    assert await world.queue() == ()
    told = (await world.traced())[-1].event
    assert (told.kind, told.objects[0].detail) == (Kind.KOS_PUBLISHED, "resync: order-changed")


@pytest.mark.requirement("DB.SO.13")
async def test_what_changed_nothing_is_not_sent(world: World) -> None:
    await world.run(letter_of())
    for cause in Cause:
        asked = len(world.dmp.identities)
        for _ in range(2):
            assert await world.resync(cause) is Outcome.NOTHING
        # The DMP is asked for people and walks alone.
        assert (len(world.dmp.identities) > asked) is (cause in (Cause.OPERATOR, Cause.RECONCILIATION))
    assert len(world.dmp.provided) == 1
    assert await world.queue() == ()


@pytest.mark.requirement("DB.SO.26")
async def test_who_acts_is_told_by_the_archived_submission(world: World) -> None:
    await world.run(letter_of())
    current = await world.current()
    assert current is not None
    world.dmp.identities.clear()
    world.pacs.hold(study_of(images=4))
    await world.resync()
    assert {i["subject"] for i in world.dmp.identities} == {current.vihf_identity["subject"]}
    renewed = await world.current()
    assert renewed is not None
    assert renewed.vihf_identity == current.vihf_identity
    assert renewed.metadata != current.metadata


@pytest.mark.requirement("D6", "DB.SO.97")
async def test_the_visibility_stays_what_it_is_in_the_dmp(world: World) -> None:
    await world.run(letter_of(flags=HIDDEN))
    world.pacs.hold(study_of(images=4))
    await world.resync()
    assert world.dmp.standing(STUDY)[0].visibility == Visibility(hidden_from_patient=True)
    # What somebody changed there by hand is kept, and alone is nothing to send.
    world.dmp.standing(STUDY)[0].visibility = Visibility(masked_to_professionals=True)
    assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING
    world.pacs.hold(study_of(images=5))
    await world.resync()
    assert world.dmp.standing(STUDY)[0].visibility == Visibility(masked_to_professionals=True)


@pytest.mark.requirement("DB.SO.31")
async def test_another_address_of_the_source_is_published(world: World) -> None:
    await world.run(letter_of())
    moved = BASE.replace("db1", "db2")
    world.services = replace(world.services, rules=replace(world.services.rules, retrieve_base=moved))
    assert await world.resync(Cause.ADDRESS) is Outcome.PUBLISHED
    assert world.dmp.standing(STUDY)[0].manifest.series[0].retrieve_url.startswith(moved)
    assert await world.resync(Cause.ADDRESS) is Outcome.NOTHING


# --- what left the PACS -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.26", "DB.SO.28", "D7")
@pytest.mark.parametrize("empty", [False, True])
async def test_a_study_that_the_pacs_has_no_more_leaves_the_dmp_and_comes_back_with_its_images(
    world: World, empty: bool
) -> None:
    await world.run(letter_of(flags=HIDDEN))
    world.dmp.standing(STUDY)[0].visibility = Visibility(masked_to_professionals=True)
    world.pacs.studies.clear()
    if empty:
        world.pacs.hold(study_of(images=0))
    assert await world.resync(Cause.RECONCILIATION) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    assert await world.states() == ["depublished"]
    [told] = await world.queue()
    assert (told.code, told.severity) == ("resync-study-gone", "warning")
    # Once more changes nothing, and the line stays.
    assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING
    assert [i.id for i in await world.queue()] == [told.id]
    # Its report stands: back again, it is published again, shown to whom it was shown at the end.
    world.pacs.hold(study_of(images=4))
    assert await world.resync(Cause.NOTE) is Outcome.PUBLISHED
    assert await shown(world) == [4]
    assert world.dmp.standing(STUDY)[0].visibility == Visibility(masked_to_professionals=True)
    assert await world.states() == ["depublished", "current"]
    assert await world.queue() == ()


@pytest.mark.requirement("D7", "DB.SO.28")
@pytest.mark.parametrize("error", [down(), Rejected("Statut A700", code="pacs-find-rejected", peer_code="A700")])
async def test_a_pacs_that_does_not_answer_depublishes_nothing(world: World, error: Unavailable) -> None:
    await world.run(letter_of())
    world.pacs.studies.clear()
    world.vna.error = error
    for _ in range(2):
        with pytest.raises(Unavailable):
            await world.resync()
    assert len(world.dmp.standing(STUDY)) == 1
    [waiting] = await world.queue()
    assert (waiting.code, waiting.severity, waiting.peer_code) == ("resync-waiting", "warning", error.peer_code)
    assert waiting.structure == "ambroise"
    world.vna.error = None
    world.pacs.hold(study_of())
    assert await world.resync() is Outcome.NOTHING
    assert await world.queue() == ()


@pytest.mark.requirement("DB.SO.26")
async def test_the_pacs_that_held_it_last_is_asked_first(world: World) -> None:
    world.vna.hold(study_of())
    world.pacs.studies.clear()
    await world.run(letter_of())
    world.pacs.asked = 0
    assert await world.resync() is Outcome.NOTHING
    assert world.pacs.asked == 0


# --- rejection notes --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.25", "DB.SO.26", "exam:W")
@pytest.mark.parametrize("title", ["113001", "113037", "113038", "113039"])
async def test_rejected_images_and_their_note_are_in_no_kos(world: World, title: str) -> None:
    await world.run(letter_of())
    await world.note(NOTE, title, SECOND)
    world.pacs.hold(with_note(study_of(), NOTE, "1.2.9.113000"))
    assert await world.resync() is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    listed = {i.sop_instance_uid for s in held.manifest.series for i in s.instances}
    # The key-object note that rejects nothing is an object of the study like any other.
    assert listed == {FIRST, THIRD, "1.2.9.113000"}
    # A report does not bring them back.
    assert await world.run(letter_of().corrected("1.2.250.1.213.4.5.4.4052", "M2")) is Outcome.NOTHING
    assert await world.resync() is Outcome.NOTHING


@pytest.mark.requirement("DB.SO.26", "exam:W")
async def test_a_study_whose_images_are_all_rejected_leaves_the_dmp(world: World) -> None:
    await world.run(letter_of())
    await world.note(NOTE, "113037", FIRST, SECOND, THIRD)
    world.pacs.hold(with_note(study_of(), NOTE, "1.2.9.113000"))
    assert await world.resync() is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    assert await world.queue() == ()
    # A report on it is stopped in plain words, and taken up when there are images.
    report = letter_of().corrected("1.2.250.1.213.4.5.4.4052", "M2")
    assert await world.run(report) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["study-rejected"]
    world.pacs.hold(study_of(images=5))
    assert await world.resync() is Outcome.PUBLISHED
    assert await shown(world) == [2]
    assert await world.queue() == ()


@pytest.mark.requirement("DB.SO.26")
async def test_expired_images_are_out_until_the_pacs_has_deleted_them(world: World) -> None:
    await world.run(letter_of())
    await world.note(NOTE, "113039", THIRD)
    await world.note("1.2.9.2", "113001", SECOND)
    assert await world.resync() is Outcome.PUBLISHED
    assert await shown(world) == [1]
    # The PACS deletes it: it is released, and may come back. What was rejected for its quality may not.
    world.pacs.hold(study_of(images=2))
    assert await world.resync() is Outcome.NOTHING
    world.pacs.hold(study_of(images=3))
    assert await world.resync() is Outcome.PUBLISHED
    assert await shown(world) == [2]
    # A PACS that does not answer releases nothing.
    await world.note("1.2.9.3", "113039", FIRST)
    world.pacs.error = down()
    with pytest.raises(Unavailable):
        await world.resync()
    world.pacs.error = None
    await world.resync()
    assert await shown(world) == [1]


@pytest.mark.requirement("DB.SO.26")
async def test_a_note_before_its_study_holds_when_the_study_comes(world: World) -> None:
    await world.note(NOTE, "113001", FIRST)
    assert await world.resync() is Outcome.NOTHING
    assert world.pacs.asked == 0
    assert await world.run(letter_of()) is Outcome.PUBLISHED
    assert await shown(world) == [2]


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.26", "DB.SO.27")
async def test_a_study_declared_deleted_leaves_the_dmp_without_the_pacs(world: World) -> None:
    await world.run(letter_of())
    await world.order("CA")
    world.pacs.error = world.vna.error = down()
    asked = world.pacs.asked
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.DEPUBLISHED
    assert world.pacs.asked == asked
    assert await world.queue() == ()
    world.pacs.error = world.vna.error = None
    for cause in Cause:
        assert await world.resync(cause) is Outcome.NOTHING
    assert world.dmp.standing(STUDY) == []
    # Another order on it: the PACS decides again.
    await world.order("XO")
    assert await world.resync(Cause.ORDER_CHANGED) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 1


@pytest.mark.requirement("DB.SO.26")
async def test_a_report_that_comes_after_the_deletion_publishes_again_and_one_before_does_not(world: World) -> None:
    await world.run(letter_of())
    before = await world.receive(letter_of().corrected("1.2.9.8", "M2"))
    await world.order("CA")
    await world.resync(Cause.ORDER_DELETED)
    assert await publish_study(world.services, before, STUDY) is Outcome.NOTHING
    assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING
    assert world.dmp.standing(STUDY) == []
    assert await world.run(letter_of().corrected("1.2.9.9", "M3")) is Outcome.PUBLISHED
    # And the deletion is over for whatever looks later.
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1


async def test_what_a_report_said_before_the_deletion_holds_when_the_study_comes_back(world: World) -> None:
    """It was never published: there is no version to start from."""
    first = await world.receive(letter_of(flags=HIDDEN))
    await world.order("CA")
    assert await publish_study(world.services, first, STUDY) is Outcome.NOTHING
    await world.order("SC")
    assert await world.resync(Cause.ORDER_CHANGED) is Outcome.PUBLISHED
    assert world.dmp.standing(STUDY)[0].visibility.hidden_from_patient
    kos = await world.current()
    assert kos is not None
    assert kos.report_id == first


@pytest.mark.requirement("D4")
async def test_a_deletion_that_names_another_patient_takes_nothing_out(world: World) -> None:
    await world.run(letter_of())
    await world.order("CA", identity=Identity(ins="162018885045327"))
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["resync-order-patient"]
    assert len(world.dmp.standing(STUDY)) == 1
    # For everything else it is as if it had not come.
    world.pacs.hold(study_of(images=4))
    assert await world.resync() is Outcome.PUBLISHED
    # A message without a patient goes by the study alone.
    await world.order("CA", identity=None)
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.DEPUBLISHED


async def test_an_order_before_its_study_or_about_nothing_of_ours(world: World) -> None:
    await world.order("XO")
    assert await world.resync(Cause.ORDER_CHANGED) is Outcome.NOTHING
    await world.order("CA")
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.NOTHING
    assert (world.pacs.asked, world.dmp.identities) == (0, [])
    assert await world.run(letter_of()) is Outcome.PUBLISHED


# --- the right patient ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D4", "DB.SO.16", "DB.SO.17")
@pytest.mark.parametrize(
    "change", [{"patient_id": "IPP999"}, {"accession_number": "ACN999"}, {"birth_date": "19500101"}, {"sex": "M"}]
)
async def test_a_study_that_now_is_of_someone_else_stops_and_its_kos_is_left(
    world: World, change: dict[str, str]
) -> None:
    await world.run(letter_of())
    before = [held.kos for held in world.dmp.standing(STUDY)]
    world.pacs.hold(study_of(images=5, **change))
    assert await world.resync() is Outcome.STOPPED
    assert [held.kos for held in world.dmp.standing(STUDY)] == before
    [incident] = await world.queue()
    assert (incident.code, incident.severity) == ("resync-identity", "error")
    assert "laissé tel quel au DMP" in incident.reason
    assert not any(value in incident.reason for value in change.values() if len(value) > 1)
    # The PACS is corrected.
    world.pacs.hold(study_of(images=5))
    assert await world.resync() is Outcome.PUBLISHED
    assert await world.queue() == ()


@pytest.mark.requirement("D2", "D26", "DB.SO.97")
async def test_two_reports_that_are_stopped_alike_are_both_taken_up(world: World) -> None:
    """The first replaces one that stands: were it forgotten, a deletion of all would leave the KOS there."""
    await world.run(letter_of())
    world.pacs.hold(study_of(patient_id="IPP999"))
    replacing = letter_of().corrected("1.2.9.2", "M2")
    assert await world.run(replacing) is Outcome.STOPPED
    other = letter_of(control_id="M3", document_id="1.2.9.3")
    assert await world.run(other) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["pacs-ipp", "pacs-ipp"]
    world.pacs.hold(study_of())
    await world.resync(Cause.OPERATOR)
    assert await world.queue() == ()
    assert (await world.archive.history("ambroise", STUDY)).documents == ("1.2.9.2", "1.2.9.3")
    for number, document in enumerate(("1.2.9.2", "1.2.9.3")):
        await world.run(letter_of(control_id=f"D{number}", document_id=document, operation="delete"))
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("D26")
async def test_a_stopped_report_that_is_tried_again_after_a_newer_one_stands_and_undoes_nothing(world: World) -> None:
    world.pacs.studies.clear()
    first = await world.receive(letter_of())
    assert await publish_study(world.services, first, STUDY) is Outcome.STOPPED
    world.pacs.hold(study_of())
    newer = letter_of(control_id="M2", document_id="1.2.9.2", flags=HIDDEN)
    assert await world.run(newer) is Outcome.PUBLISHED
    assert await publish_study(world.services, first, STUDY) is Outcome.NOTHING
    assert world.dmp.standing(STUDY)[0].visibility.hidden_from_patient
    assert await world.queue() == ()
    # The newer one is withdrawn: the first still stands.
    assert await world.run(replace(newer, control_id="M3", operation="delete")) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1


async def test_a_report_settles_what_a_comparison_stopped(world: World) -> None:
    await world.run(letter_of())
    world.pacs.hold(study_of(patient_id="IPP999"))
    await world.resync()
    assert await world.run(letter_of(control_id="M2")) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["resync-identity", "pacs-ipp"]
    world.pacs.hold(study_of())
    assert await world.run(letter_of(control_id="M3")) is Outcome.NOTHING
    assert await world.queue() == ()


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.15", "exam:G2")
async def test_a_report_that_came_before_its_images_is_taken_up(world: World) -> None:
    world.pacs.studies.clear()
    assert await world.run(letter_of()) is Outcome.STOPPED
    world.pacs.hold(study_of())
    assert await world.resync(Cause.ADDRESS) is Outcome.NOTHING
    assert await world.resync(Cause.ORDER_CHANGED) is Outcome.PUBLISHED
    assert await world.queue() == ()
    kos = await world.current()
    assert kos is not None
    assert kos.cause == ""


@pytest.mark.requirement("D2", "D26")
async def test_the_newest_report_that_stands_is_what_the_kos_says(world: World) -> None:
    await world.run(letter_of())
    second = letter_of(control_id="M2", document_id="1.2.9.2")
    second = replace(second, exam=replace(second.exam, orders=(("PLACER2", "ACN105"),)))
    assert await world.run(second) is Outcome.PUBLISHED
    assert await world.run(replace(second, control_id="M3", operation="delete")) is Outcome.NOTHING
    # The first one alone stands now.
    assert await world.resync(Cause.RECONCILIATION) is Outcome.PUBLISHED
    [order] = world.dmp.standing(STUDY)[0].manifest.requests
    assert order.placer is not None
    assert order.placer.value != "PLACER2"
    assert (await world.archive.history("ambroise", STUDY)).documents == (DOCUMENT,)


async def test_a_comparison_makes_no_report_stand_or_fall(world: World) -> None:
    first = letter_of()
    await world.run(first)
    await world.run(letter_of(control_id="M2", document_id="1.2.9.2"))
    history = await world.archive.history("ambroise", STUDY)
    for images in (4, 0, 5):
        world.pacs.hold(study_of(images=images))
        await world.resync()
    assert await world.archive.history("ambroise", STUDY) == history
    # Both are withdrawn: nothing brings the study back.
    await world.run(replace(first, control_id="M4", operation="delete"))
    last = letter_of(control_id="M5", document_id="1.2.9.2", operation="delete")
    assert await world.run(last) is Outcome.DEPUBLISHED
    assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING
    assert world.dmp.standing(STUDY) == []


async def test_a_kos_removed_by_hand_is_published_again_when_someone_looks(world: World) -> None:
    await world.run(letter_of())
    world.dmp.standing(STUDY)[0].status = "Deleted"
    assert await world.resync(Cause.NOTE) is Outcome.NOTHING
    assert await world.resync(Cause.RECONCILIATION) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 1
    assert [i.code for i in await world.queue()] == ["kos-gone"]


async def test_a_study_published_in_the_wrong_record_is_moved(world: World) -> None:
    """Two reports; the later one, of the wrong INS, was withdrawn: the first one stands, in another record."""
    await world.run(letter_of())
    wrong = letter_of(control_id="M2", document_id="1.2.9.2", identity=Identity(ins="162018885045327"))
    await world.run(wrong)
    await world.run(replace(wrong, control_id="M3", operation="delete"))
    assert world.dmp.standing(STUDY)[0].ins.matricule == "162018885045327"
    assert await world.resync(Cause.OPERATOR) is Outcome.PUBLISHED
    assert [held.ins.matricule for held in world.dmp.standing(STUDY)] == ["279035121518989"]
    assert [i.code for i in await world.queue()] == ["kos-moved"]


# --- structures -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.13", "DB.SO.89")
async def test_each_structure_that_published_the_study_is_looked_after(world: World) -> None:
    await world.run(letter_of())
    await world.run(letter_of(control_id="M2", structure="1690000017"))
    world.pacs.hold(study_of(images=4))
    assert await world.resync(structure="other") is Outcome.PUBLISHED
    assert sorted(await shown(world)) == [3, 4]
    assert await world.resync() is Outcome.PUBLISHED
    assert await shown(world) == [4, 4]


async def test_one_structure_that_cannot_does_not_hold_up_another(world: World) -> None:
    await world.run(letter_of())
    await world.run(letter_of(control_id="M2", structure="1690000017"))
    mine = world.services.sites.named("ambroise")
    assert mine is not None
    world.services = replace(world.services, sites=Sites([(mine, ["1750803447"])]))
    world.pacs.hold(study_of(images=4))
    assert await world.resync() is Outcome.STOPPED
    assert sorted(await shown(world)) == [3, 4]
    assert [(i.code, i.structure) for i in await world.queue()] == [("resync-structure-unknown", "other")]
    # Nor does one that has to wait.
    far = Site("other", AMBROISE, (SitePacs("far", world.vna),))
    world.vna.error = down()
    world.services = replace(world.services, sites=Sites([(far, ["x"]), (mine, ["1750803447"])]))
    world.pacs.hold(study_of(images=5))
    with pytest.raises(Unavailable):
        await world.resync()
    assert sorted(await shown(world)) == [3, 5]


@pytest.mark.parametrize("error", [Misconfigured("x", code="structure-keys"), Rejected("y", code="dmp-rejected")])
async def test_what_cannot_be_done_is_for_the_operator_beside_the_lines_of_reports(
    world: World, error: Rejected
) -> None:
    await world.run(letter_of())
    world.pacs.hold(study_of(images=4))
    world.dmp.faults = [error]
    assert await world.run(letter_of(control_id="M2")) is Outcome.STOPPED
    world.dmp.faults = [error, error]
    # The report that was stopped is taken up first.
    assert await world.resync() is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == [error.code, f"resync-{error.code}"]
    current = await world.current()
    assert [held.kos for held in world.dmp.standing(STUDY)] == [current.kos if current else b""]
    assert await world.resync() is not Outcome.STOPPED
    assert await world.queue() == ()


# --- cut anywhere -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D7")
@pytest.mark.parametrize("fault", ["cut", OutcomeUnknown("coupé", code="dmp-cut"), down("dmp-down")])
@pytest.mark.parametrize("then", ["resync", "report"])
async def test_a_cut_replacement_is_brought_to_its_end_once(world: World, fault: str | Unavailable, then: str) -> None:
    await world.run(letter_of())
    history = await world.archive.history("ambroise", STUDY)
    world.pacs.hold(study_of(images=4))
    world.dmp.faults = [fault]
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await world.resync()
    if then == "resync":
        await world.resync()
        assert await world.archive.history("ambroise", STUDY) == history
    else:
        assert await world.run(letter_of(control_id="M2")) in (Outcome.NOTHING, Outcome.PUBLISHED)
    assert await shown(world) == [4]
    assert len(set(world.dmp.provided)) == len(world.dmp.provided) == 2
    assert await world.queue() == ()
    assert (await world.archive.history("ambroise", STUDY)).documents == (DOCUMENT,)


@pytest.mark.parametrize("fault", ["cut", down("dmp-down")])
async def test_a_cut_depublication_is_brought_to_its_end(world: World, fault: str | Unavailable) -> None:
    await world.run(letter_of())
    world.pacs.studies.clear()
    world.dmp.faults = [fault]
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await world.resync()
    assert await world.states() == ["current"]
    assert await world.resync() is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    assert len(world.dmp.deleted) == 1


STEPS = (
    *(("identity_again", False, 0), ("prepare", False, 5), ("provide", False, 5), ("provide", True, 5)),
    *(("find", False, 5), ("find", True, 5), ("inspect", False, 0), ("inspect", True, 5)),
    *(("delete", False, 0), ("delete", True, 0)),
)


@pytest.mark.parametrize(("step", "after", "images"), STEPS)
async def test_a_process_that_dies_at_any_step_leaves_nothing_half_done(
    world: World, step: str, after: bool, images: int
) -> None:
    await world.run(letter_of())
    world.pacs.hold(study_of(images=images))
    whole = getattr(world.dmp, step)

    if asyncio.iscoroutinefunction(whole):

        async def dies(*arguments: object) -> object:
            if after:
                await whole(*arguments)
            raise asyncio.CancelledError

    else:

        def dies(*arguments: object) -> object:
            raise asyncio.CancelledError

    setattr(world.dmp, step, dies)
    with suppress(asyncio.CancelledError):
        await world.resync()
    setattr(world.dmp, step, whole)
    await world.resync()
    assert await shown(world) == [images] * bool(images)
    assert (await world.current() is not None) is bool(images)
    assert len(set(world.dmp.provided)) == len(world.dmp.provided)
    assert await world.queue() == ()
    assert (await world.archive.history("ambroise", STUDY)).documents == (DOCUMENT,)


async def test_a_version_cut_short_before_the_deletion_is_taken_out(world: World) -> None:
    report_id = await world.receive(letter_of())
    world.dmp.faults = ["cut"]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    await world.order("CA")
    assert await world.resync(Cause.ORDER_DELETED) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    assert await world.states() == [State.DEPUBLISHED]


async def test_ct_is_what_the_examples_hold(pool: Pool) -> None:
    """The rejected UIDs of these tests are those of the study."""
    study = study_of()
    assert [i.sop_instance_uid for i in study.series[0].instances] == [FIRST, SECOND, THIRD]
    assert study.series[0].instances[0].sop_class_uid == CT
    assert world_on(pool).pacs.asked == 0
