"""The whole work on a study: a real database, a PACS that can be down, a DMP that behaves like a registry."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace

import pytest
from publication_examples import AMBROISE, CT, NOW, World, down, letter_of, study_of, world_on

from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.pacs.study import Instance
from drimbox.publication.archive import NewVersion
from drimbox.publication.kos import State
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome, publish_study
from drimbox.record.audit import Kind
from drimbox.record.audit import Outcome as AuditOutcome
from drimbox.reports.report import Visibility
from drimbox.sandbox.ris.letters import Identity
from drimbox.store.database import Pool

STUDY = "1.2.250.1.213.4.5.2.1.105"
HIDDEN = frozenset({"DESTDMP", "INVISIBLE_PATIENT"})


@pytest.mark.requirement("DB.SO.12", "DB.SO.22", "D2", "exam:E")
async def test_a_report_is_published(world: World) -> None:
    assert await world.run(letter_of()) is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    assert held.manifest.instance_count == 3
    kos = await world.current()
    assert kos is not None
    assert kos.kos == held.kos
    assert (kos.state, kos.entry_uuid, kos.pacs) == (State.CURRENT, held.entry_uuid, "pacs")
    assert kos.document_ids == ("1.2.250.1.213.4.5.4.405",)
    assert kos.signature == b"<Signature/>"
    assert kos.vihf_identity == {"subject": "801234560801", "structure": "1750803447"}
    assert await world.archive.by_kos_uid(kos.kos_uid) == kos
    assert await world.archive.current(STUDY, "other") is None
    assert await world.queue() == ()
    [traced] = await world.traced()
    assert (traced.event.kind, traced.event.outcome) == (Kind.KOS_PUBLISHED, AuditOutcome.SUCCESS)
    assert kos.kos_uid in {o.identifier for o in traced.event.objects}


@pytest.mark.requirement("DB.SO.13", "D2")
async def test_what_says_nothing_new_is_not_sent(world: World) -> None:
    await world.run(letter_of())
    assert await world.run(letter_of(control_id="M2")) is Outcome.NOTHING
    second = letter_of(control_id="M3", document_id="1.2.250.1.213.4.5.4.9001")
    assert await world.run(second) is Outcome.NOTHING
    assert len(world.dmp.provided) == 1
    kos = await world.current()
    assert kos is not None
    # The second report is behind the KOS all the same.
    assert kos.document_ids == ("1.2.250.1.213.4.5.4.405", "1.2.250.1.213.4.5.4.9001")


@pytest.mark.requirement("DB.SO.13", "DB.SO.22", "D2", "D26")
async def test_a_changed_study_is_replaced(world: World) -> None:
    await world.run(letter_of())
    first = await world.current()
    world.pacs.hold(study_of(images=5))
    assert await world.run(letter_of().corrected("1.2.250.1.213.4.5.4.4052", "M2")) is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    assert held.manifest.instance_count == 5
    current = await world.current()
    assert first is not None
    assert current is not None
    assert current.replaces == first.id
    assert current.document_ids == ("1.2.250.1.213.4.5.4.405", "1.2.250.1.213.4.5.4.4052")
    assert await world.states() == ["replaced", "current"]
    assert world.dmp.documents[first.kos_uid].status == "Deprecated"


@pytest.mark.requirement("D6", "DB.SO.97", "exam:G1", "exam:G1_MAJ")
async def test_the_visibility_follows_the_report(world: World) -> None:
    first = letter_of(flags=HIDDEN)
    await world.run(first)
    assert world.dmp.standing(STUDY)[0].visibility == Visibility(hidden_from_patient=True)
    update = replace(first.corrected("1.2.250.1.213.4.5.4.4052", "M2"), flags=frozenset({"DESTDMP", "MODIF_CONF_CODE"}))
    assert await world.run(update) is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    assert held.visibility == Visibility()
    assert await world.states() == ["replaced", "current"]
    # The same wish again, already true, is not sent again.
    assert await world.run(replace(update, control_id="M3")) is Outcome.NOTHING


@pytest.mark.requirement("D6")
async def test_a_visibility_changed_by_hand_in_the_dmp_is_kept(world: World) -> None:
    await world.run(letter_of())
    world.dmp.standing(STUDY)[0].visibility = Visibility(masked_to_professionals=True)
    world.pacs.hold(study_of(images=4))
    await world.run(letter_of(control_id="M2"))
    assert world.dmp.standing(STUDY)[0].visibility == Visibility(masked_to_professionals=True)
    # Until a report changes it.
    changing = letter_of(control_id="M3", flags=frozenset({"DESTDMP", "MODIF_CONF_CODE"}))
    assert await world.run(changing) is Outcome.PUBLISHED
    assert world.dmp.standing(STUDY)[0].visibility == Visibility()


@pytest.mark.requirement("D6")
async def test_a_report_that_changes_the_visibility_undoes_what_was_changed_by_hand(world: World) -> None:
    """Though it says what we published, it is not what the DMP shows."""
    await world.run(letter_of())
    world.dmp.standing(STUDY)[0].visibility = Visibility(masked_to_professionals=True)
    changing = letter_of(control_id="M2", flags=frozenset({"DESTDMP", "MODIF_CONF_CODE"}))
    assert await world.run(changing) is Outcome.PUBLISHED
    assert world.dmp.standing(STUDY)[0].visibility == Visibility()
    # Where the DMP does not tell, what we published is held for what it shows.
    world.dmp.tells_visibility = False
    assert await world.run(replace(changing, control_id="M3")) is Outcome.NOTHING


@pytest.mark.requirement("DMP/CONF.03", "DB.SO.97", "exam:I")
async def test_a_deletion_depublishes_and_the_archive_remembers(world: World) -> None:
    await world.run(letter_of())
    assert await world.run(letter_of(control_id="M2", operation="delete")) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    assert await world.current() is None
    [kos] = await world.archive.versions("ambroise", STUDY)
    assert kos.state == State.DEPUBLISHED
    assert kos.ended_at is not None
    # Twice changes nothing; the PACS is not asked.
    asked = world.pacs.asked
    assert await world.run(letter_of(control_id="M3", operation="delete")) is Outcome.NOTHING
    assert world.pacs.asked == asked
    # And published again, it stands once.
    assert await world.run(letter_of(control_id="M4")) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 1
    assert await world.states() == ["depublished", "current"]
    kinds = [r.event.kind for r in await world.traced()]
    assert kinds == [Kind.KOS_PUBLISHED, Kind.KOS_DEPUBLISHED, Kind.KOS_PUBLISHED]


@pytest.mark.requirement("D2", "D26")
async def test_two_reports_on_one_study(world: World) -> None:
    await world.run(letter_of())
    other = letter_of(control_id="M2", document_id="1.2.250.1.213.4.5.4.9001", flags=HIDDEN)
    assert await world.run(other) is Outcome.PUBLISHED
    assert world.dmp.standing(STUDY)[0].visibility.hidden_from_patient
    # One is withdrawn: the other still stands on the study.
    assert await world.run(letter_of(control_id="M3", operation="delete")) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1
    assert await world.run(replace(other, control_id="M4", operation="delete")) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("D26", "DMP/CONF.03")
async def test_a_report_that_was_stopped_is_deleted_without_touching_another_report_s_kos(world: World) -> None:
    await world.run(letter_of())
    [(placer, _)] = letter_of().exam.orders
    wrong = replace(letter_of().exam, orders=((placer, "ACN999"),))
    second = letter_of(control_id="M2", document_id="1.2.250.1.213.4.5.4.9001", exam=wrong)
    assert await world.run(second) is Outcome.STOPPED
    assert await world.run(replace(second, control_id="M3", operation="delete")) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1
    assert not await world.queue()
    # A report that never came is another matter.
    unknown = letter_of(control_id="M4", document_id="1.2.250.1.213.4.5.4.9002", operation="delete")
    assert await world.run(unknown) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["depublish-document"]


@pytest.mark.requirement("DB.SO.12", "D3", "exam:F")
async def test_two_studies_in_one_report(world: World) -> None:
    world.pacs.hold(study_of(106, images=2))
    world.vna.hold(study_of(107, images=4))
    report_id = await world.receive(letter_of("F"))
    for number, pacs in ((106, "pacs"), (107, "vna")):
        study_uid = f"1.2.250.1.213.4.5.2.1.{number}"
        assert await publish_study(world.services, report_id, study_uid) is Outcome.PUBLISHED
        [held] = world.dmp.standing(study_uid)
        [request] = held.manifest.requests
        assert request.accession is not None
        assert request.accession.value == f"ACN{number}"
        kos = await world.current(number)
        assert kos is not None
        assert kos.pacs == pacs


@pytest.mark.requirement("DB.SO.97")
async def test_a_study_that_the_new_version_of_a_report_no_longer_names(world: World) -> None:
    world.pacs.hold(study_of(106), study_of(107))
    first = letter_of("F")
    report_id = await world.receive(first)
    for number in (106, 107):
        await publish_study(world.services, report_id, f"1.2.250.1.213.4.5.2.1.{number}")
    exam = replace(first.exam, studies=first.exam.studies[:1])
    second = replace(first.corrected("1.2.250.1.213.4.5.4.4062", "M2"), exam=exam)
    assert await world.run(second) is Outcome.NOTHING
    async with world.pool.connection() as connection:
        rows = await (await connection.execute("SELECT args, lock FROM procrastinate_jobs")).fetchall()
    [job] = rows
    assert job["lock"] == "study:1.2.250.1.213.4.5.2.1.107"
    assert await publish_study(world.services, **job["args"]) is Outcome.DEPUBLISHED
    assert world.dmp.standing("1.2.250.1.213.4.5.2.1.107") == []
    assert len(world.dmp.standing("1.2.250.1.213.4.5.2.1.106")) == 1


@pytest.mark.requirement("D5")
async def test_a_report_not_for_the_dmp_leaves_everything_as_it_is(world: World) -> None:
    silent: frozenset[str] = frozenset()
    assert await world.run(letter_of(flags=silent)) is Outcome.NOTHING
    assert world.pacs.asked == 0
    assert world.dmp.documents == {}
    await world.run(letter_of(control_id="M2"))
    for operation in ("replace", "delete"):
        assert await world.run(letter_of(control_id=operation, operation=operation, flags=silent)) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1


@pytest.mark.requirement("DB.SO.15", "DB.SO.21", "DB.SO.45", "exam:G2")
async def test_a_study_unknown_to_the_pacs(world: World) -> None:
    letter = letter_of()
    exam = replace(letter.exam, studies=("1.2.3.4.5.6.7.8.9",))
    assert await world.run(replace(letter, exam=exam)) is Outcome.STOPPED
    assert world.dmp.provided == []
    assert (world.pacs.asked, world.vna.asked) == (1, 1)
    [incident] = await world.queue()
    assert (incident.code, incident.severity, incident.label) == (
        "study-unknown",
        "error",
        "Examen 1.2.3.4.5.6.7.8.9",
    )
    [traced] = await world.traced()
    assert traced.event.outcome is AuditOutcome.SERIOUS_FAILURE
    assert traced.event.outcome_text.startswith("study-unknown: ")


@pytest.mark.requirement("D4", "DB.SO.16", "DB.SO.21", "exam:M")
async def test_another_patient_s_report_is_stopped_and_stays_in_the_queue(world: World) -> None:
    someone = Identity(family="ANS-DRIM", given="PatientBis", birth_date="20120125", sex="M")
    wrong = letter_of(identity=someone, document_id="1.2.250.1.213.4.5.4.414")
    assert await world.run(wrong) is Outcome.STOPPED
    assert world.dmp.provided == []
    [incident] = await world.queue()
    assert incident.code == "pacs-birth-date"
    assert incident.reason.count(" ; ") == 2
    assert "ANS-DRIM" not in incident.reason
    # The right report of the study passes; the wrong one still awaits a human.
    assert await world.run(letter_of(control_id="M2")) is Outcome.PUBLISHED
    assert [i.id for i in await world.queue()] == [incident.id]
    # A corrected version of the wrong one settles it.
    assert await world.run(letter_of().corrected("1.2.250.1.213.4.5.4.9002", "M3")) is Outcome.NOTHING
    assert len(await world.queue()) == 1
    right = replace(letter_of(document_id="1.2.250.1.213.4.5.4.414"), control_id="M4")
    assert await world.run(right) is Outcome.NOTHING
    assert await world.queue() == ()


@pytest.mark.requirement("D4")
async def test_what_the_message_itself_contradicts_does_not_wait_for_the_pacs(world: World) -> None:
    world.pacs.error = down()
    assert await world.run(letter_of(identity=Identity(status="PROV"))) is Outcome.STOPPED
    assert world.pacs.asked == 0
    assert [i.code for i in await world.queue()] == ["ins-unqualified"]


@pytest.mark.requirement("D7", "DB.SO.14", "DB.SO.21")
@pytest.mark.parametrize("error", [down(), Rejected("Statut A700", code="pacs-find-rejected", peer_code="A700")])
async def test_a_pacs_that_does_not_answer_is_asked_again_and_depublishes_nothing(
    world: World, error: Unavailable
) -> None:
    await world.run(letter_of())
    world.pacs.studies.clear()
    world.pacs.error = error
    report_id = await world.receive(letter_of(control_id="M2", flags=HIDDEN))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await publish_study(world.services, report_id, STUDY)
    assert len(world.dmp.standing(STUDY)) == 1
    [incident] = await world.queue()
    assert (incident.code, incident.severity) == ("waiting", "warning")
    assert incident.reason == f"En attente : {error.reason}"
    assert incident.peer_code == error.peer_code
    assert len(incident.history) == 3
    # Back again: published, and the line closes by itself.
    world.pacs.error = None
    world.pacs.hold(study_of())
    assert await publish_study(world.services, report_id, STUDY) is Outcome.PUBLISHED
    assert await world.queue() == ()
    [closed] = await world.incidents.list(open_only=False)
    assert closed.history[-1].text == "Publié"


async def test_a_study_found_elsewhere_needs_no_answer_of_the_one_that_is_down(world: World) -> None:
    world.pacs.error = down()
    world.vna.hold(study_of())
    assert await world.run(letter_of()) is Outcome.PUBLISHED


@pytest.mark.requirement("D7")
async def test_a_dmp_that_is_down_leaves_nothing_behind(world: World) -> None:
    report_id = await world.receive(letter_of())
    for fault in (Unavailable("DMP injoignable", code="dmp-down"), Unavailable("DMP occupé", code="dmp-busy")):
        world.dmp.faults = [fault]
        with pytest.raises(Unavailable):
            await publish_study(world.services, report_id, STUDY)
    world.pacs.hold(study_of(images=6))
    assert await publish_study(world.services, report_id, STUDY) is Outcome.PUBLISHED
    # What was prepared in vain was made again from what holds now.
    assert world.dmp.standing(STUDY)[0].manifest.instance_count == 6
    assert await world.states() == ["current"]


async def test_an_answer_lost_after_the_send_is_asked_for_and_nothing_is_sent_twice(world: World) -> None:
    report_id = await world.receive(letter_of())
    world.dmp.faults = ["cut"]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    assert await world.states() == ["prepared"]
    await publish_study(world.services, report_id, STUDY)
    assert len(world.dmp.provided) == 1
    assert await world.states() == ["current"]
    assert await world.queue() == ()


async def test_a_request_lost_before_the_dmp_is_sent_again_as_it_was(world: World) -> None:
    report_id = await world.receive(letter_of())
    world.dmp.faults = [OutcomeUnknown("coupé", code="dmp-cut")]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    [pending] = await world.archive.versions("ambroise", STUDY)
    world.pacs.hold(study_of(images=6))
    await publish_study(world.services, report_id, STUDY)
    # The version that had left comes first, then the study as it is now replaces it.
    assert world.dmp.provided[0] == pending.kos_uid
    assert await world.states() == ["replaced", "current"]
    assert [h.manifest.instance_count for h in world.dmp.standing(STUDY)] == [6]


async def test_a_request_that_arrives_while_we_ask(world: World) -> None:
    report_id = await world.receive(letter_of())
    world.dmp.faults = ["cut"]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    find, hidden = world.dmp.find, dict(world.dmp.documents)

    async def not_yet(*arguments: object) -> None:
        world.dmp.documents.update(hidden)
        world.dmp.find = find  # type: ignore[method-assign]

    world.dmp.documents.clear()
    world.dmp.find = not_yet  # type: ignore[assignment, method-assign]
    await publish_study(world.services, report_id, STUDY)
    assert len(world.dmp.standing(STUDY)) == 1
    assert await world.states() == ["current"]


@pytest.mark.parametrize("reached", [True, False])
async def test_a_restart_in_the_middle(world: World, reached: bool) -> None:
    """The process dies with the request on its way: whether it arrived or not, the study ends up published once."""
    report_id = await world.receive(letter_of())
    provide = world.dmp.provide

    async def dies(*arguments: object) -> None:
        if reached:
            await provide(*arguments)  # type: ignore[arg-type]
        raise asyncio.CancelledError

    world.dmp.provide = dies  # type: ignore[assignment, method-assign]
    with pytest.raises(asyncio.CancelledError):
        await publish_study(world.services, report_id, STUDY)
    world.dmp.provide = provide  # type: ignore[method-assign]
    assert await world.states() == ["prepared"]
    await publish_study(world.services, report_id, STUDY)
    assert len(world.dmp.standing(STUDY)) == 1
    assert len(set(world.dmp.provided)) == 1
    assert await world.states() == ["current"]


async def test_a_restart_between_the_preparation_and_the_send(world: World) -> None:
    report_id = await world.receive(letter_of())
    store = world.archive.to_send

    async def dies(version: NewVersion, now: dt.datetime) -> int:
        await store(version, now)
        raise asyncio.CancelledError

    world.archive.to_send = dies  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await publish_study(world.services, report_id, STUDY)
    world.archive.to_send = store  # type: ignore[method-assign]
    assert await world.states() == ["prepared"]
    identities = len(world.dmp.identities)
    # It might have left: asked about, sent as it was stored, its entryUUID looked up; that leaves no more to do.
    assert await publish_study(world.services, report_id, STUDY) is Outcome.NOTHING
    assert len(world.dmp.identities) == identities + 3
    assert len(world.dmp.standing(STUDY)) == 1
    assert await world.states() == ["current"]


async def test_a_pending_version_of_another_report_is_brought_to_its_end_first(world: World) -> None:
    first = await world.receive(letter_of())
    world.dmp.faults = ["cut"]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, first, STUDY)
    # The older work never comes back; a deletion does.
    deletion = await world.receive(letter_of(control_id="M2", operation="delete"))
    assert await publish_study(world.services, deletion, STUDY) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []
    # And the older one, should it come back after all, undoes nothing.
    assert await publish_study(world.services, first, STUDY) is Outcome.NOTHING
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("DB.SO.21", "DB.SO.45")
async def test_a_refusal_of_the_dmp_is_for_the_operator_and_is_not_repeated(world: World) -> None:
    world.dmp.faults = [Rejected("Le DMP a refusé", code="dmp-rejected", peer_code="XDSUnknownPatientId")]
    assert await world.run(letter_of()) is Outcome.STOPPED
    assert await world.states() == ["abandoned"]
    [incident] = await world.queue()
    assert (incident.code, incident.peer_code) == ("dmp-rejected", "XDSUnknownPatientId")
    # Tried again by the operator, once the cause is gone.
    assert incident.report_id is not None
    assert await publish_study(world.services, incident.report_id, incident.study_uid) is Outcome.PUBLISHED
    assert await world.queue() == ()
    assert await world.states() == ["abandoned", "current"]


async def test_a_refused_replacement_leaves_the_current_version(world: World) -> None:
    await world.run(letter_of())
    world.pacs.hold(study_of(images=9))
    world.dmp.faults = [Rejected("Le DMP a refusé", code="dmp-rejected", peer_code="XDSReplaceFailed")]
    assert await world.run(letter_of(control_id="M2")) is Outcome.STOPPED
    assert await world.states() == ["current", "abandoned"]
    current = await world.current()
    assert current is not None
    assert [h.kos for h in world.dmp.standing(STUDY)] == [current.kos]


async def test_a_pending_replacement_whose_target_was_removed_by_hand_is_made_anew(world: World) -> None:
    await world.run(letter_of())
    world.pacs.hold(study_of(images=9))
    report_id = await world.receive(letter_of(control_id="M2"))
    world.dmp.faults = [OutcomeUnknown("coupé", code="dmp-cut")]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    world.dmp.standing(STUDY)[0].status = "Deleted"
    assert await publish_study(world.services, report_id, STUDY) is Outcome.PUBLISHED
    assert [h.manifest.instance_count for h in world.dmp.standing(STUDY)] == [9]
    assert await world.states() == ["replaced", "abandoned", "current"]
    assert [i.code for i in await world.queue()] == ["kos-gone"]


async def test_a_partial_answer_without_the_kos_is_a_refusal(world: World) -> None:
    world.dmp.faults = ["partial"]
    assert await world.run(letter_of()) is Outcome.STOPPED
    [incident] = await world.queue()
    assert (incident.code, incident.peer_code) == ("dmp-partial", "XDSRepositoryMetadataError")
    assert await world.states() == ["abandoned"]


@pytest.mark.requirement("DMP/CONF.03")
async def test_a_depublication_whose_answer_was_lost(world: World) -> None:
    await world.run(letter_of())
    report_id = await world.receive(letter_of(control_id="M2", operation="delete"))
    world.dmp.faults = ["cut"]
    with pytest.raises(OutcomeUnknown):
        await publish_study(world.services, report_id, STUDY)
    assert await world.states() == ["current"]
    assert await publish_study(world.services, report_id, STUDY) is Outcome.DEPUBLISHED
    assert len(world.dmp.deleted) == 1
    assert await world.states() == ["depublished"]


async def test_a_study_published_in_the_wrong_record_is_moved(world: World) -> None:
    wrong = Identity(ins="162018885045327")
    await world.run(letter_of(identity=wrong))
    assert world.dmp.standing(STUDY)[0].ins.matricule == "162018885045327"
    assert await world.run(letter_of().corrected("1.2.250.1.213.4.5.4.4052", "M2")) is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    assert held.ins == Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
    assert await world.states() == ["depublished", "current"]
    assert [i.code for i in await world.queue()] == ["kos-moved"]


async def test_the_move_goes_on_after_a_cut_in_its_middle(world: World) -> None:
    await world.run(letter_of(identity=Identity(ins="162018885045327")))
    report_id = await world.receive(letter_of().corrected("1.2.250.1.213.4.5.4.4052", "M2"))
    world.dmp.faults = [None, Unavailable("DMP injoignable", code="dmp-down")]
    with pytest.raises(Unavailable):
        await publish_study(world.services, report_id, STUDY)
    assert world.dmp.standing(STUDY) == []
    assert await publish_study(world.services, report_id, STUDY) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 1


@pytest.mark.requirement("D4", "exam:I")
async def test_a_warning_does_not_stop_and_is_shown(world: World) -> None:
    report_id = await world.receive(letter_of())
    load = world.services.reports.load

    class Elsewhere:
        async def load(self, report_id: int) -> object:
            report = await load(report_id)
            traits = replace(report.message_patient.traits, birth_place="63220")
            return replace(report, message_patient=replace(report.message_patient, traits=traits))

    services = replace(world.services, reports=Elsewhere())  # type: ignore[arg-type]
    assert await publish_study(services, report_id, STUDY) is Outcome.PUBLISHED
    [incident] = await world.queue()
    assert (incident.code, incident.severity) == ("birth-place-differs", "warning")


async def test_a_structure_that_is_none_of_ours(world: World) -> None:
    assert await world.run(letter_of(structure="1130000018")) is Outcome.STOPPED
    [incident] = await world.queue()
    assert incident.code == "structure-unknown"
    assert incident.report_id is not None


@pytest.mark.parametrize(("senders", "outcome"), [(("AUTRE-RIS",), Outcome.STOPPED), ((), Outcome.PUBLISHED)])
async def test_only_the_riss_of_a_structure_send_for_it(
    world: World, senders: tuple[str, ...], outcome: Outcome
) -> None:
    site = Site("ambroise", AMBROISE, (SitePacs("pacs", world.pacs),), senders)
    services = replace(world.services, sites=Sites([(site, ["1750803447"])]))
    report_id = await world.receive(letter_of())
    assert await publish_study(services, report_id, STUDY) is outcome
    assert [incident.code for incident in await world.queue()] == ["sender-unknown"][: outcome is Outcome.STOPPED]


@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
async def test_each_structure_publishes_for_itself(world: World) -> None:
    await world.run(letter_of())
    assert await world.run(letter_of(control_id="M2", structure="1690000017")) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 2
    mine, other = await world.archive.current(STUDY, "ambroise"), await world.archive.current(STUDY, "other")
    assert mine is not None
    assert other is not None
    assert mine.kos_uid != other.kos_uid
    assert world.dmp.documents[other.kos_uid].manifest.institution.endswith("^1690000017")


async def test_identifiers_that_no_kos_can_hold_are_for_the_operator(world: World) -> None:
    letter = letter_of()
    exam = replace(letter.exam, orders=(("O" * 65, "ACN105"),))
    assert await world.run(replace(letter, exam=exam)) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["manifest-value"]


@pytest.mark.parametrize("error", [Refused("x", code="vihf-speciality"), Misconfigured("y", code="structure-keys")])
async def test_an_identity_that_cannot_act_is_for_the_operator(world: World, error: Refused) -> None:
    def identity(*arguments: object) -> None:
        raise error

    world.dmp.identity = identity  # type: ignore[assignment, method-assign]
    assert await world.run(letter_of()) is Outcome.STOPPED
    [incident] = await world.queue()
    assert (incident.code, incident.structure) == (error.code, "ambroise")


async def test_the_entry_uuid_may_come_later(world: World) -> None:
    inspect, found = world.dmp.find, []

    async def lost(*arguments: object) -> None:
        found.append(arguments)
        raise Unavailable("DMP injoignable", code="dmp-down")

    world.dmp.find = lost  # type: ignore[assignment, method-assign]
    assert await world.run(letter_of()) is Outcome.PUBLISHED
    assert len(found) == 1
    kos = await world.current()
    assert kos is not None
    assert kos.entry_uuid is None
    world.dmp.find = inspect  # type: ignore[method-assign]
    world.pacs.hold(study_of(images=4))
    assert await world.run(letter_of(control_id="M2")) is Outcome.PUBLISHED
    assert len(world.dmp.standing(STUDY)) == 1


async def test_names_are_not_compared_where_the_site_says_so(pool: Pool) -> None:
    world = world_on(pool, match_patient_name=False)
    world.pacs.hold(study_of(patient_name="X^Y"))
    assert await world.run(letter_of()) is Outcome.PUBLISHED


async def test_kos_uids_are_made_under_the_root_of_the_site(pool: Pool) -> None:
    world = world_on(pool, uid_root="1.2.250.1.999.1")
    world.pacs.hold(study_of())
    await world.run(letter_of())
    kos = await world.current()
    assert kos is not None
    assert kos.kos_uid.startswith("1.2.250.1.999.1.")
    assert len(kos.kos_uid) <= 64


async def test_key_objects_and_documents_of_the_study_are_in_the_kos(world: World) -> None:
    study = study_of()
    key = replace(
        study.series[0],
        series_uid="1.2.9",
        modality="KO",
        number=99,
        instances=(Instance("1.2.840.10008.5.1.4.1.1.88.59", "1.2.9.1", 1), Instance(CT, "1.2.9.2", 2)),
    )
    world.pacs.hold(replace(study, series=(*study.series, key)))
    await world.run(letter_of())
    assert world.dmp.standing(STUDY)[0].manifest.instance_count == 5
    assert world.clock.now() > NOW
