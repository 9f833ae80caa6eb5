"""Work that is lost between the box, its database and the DMP, as the chaos run loses it: each way alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest
from publication_examples import World, down, letter_of, study_of
from test_publication_jobs import STUDY, idle, until, worker

from drimbox.foundation.errors import Unavailable
from drimbox.publication.jobs import PUBLISH_STUDY
from drimbox.publication.ports import Received
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.triggers import RESYNC_STUDY, Cause
from drimbox.reports.report import Visibility
from drimbox.sandbox.ris.letters import Letter


@pytest.mark.requirement("DB.SO.22")
async def test_a_partial_answer_that_cannot_be_asked_after_is_asked_later(world: World) -> None:
    """The DMP took the KOS and says "partial"; then it is away. Nothing is sent again before it has answered."""
    provide = world.dmp.provide

    async def partial(*arguments: object) -> Received:
        await provide(*arguments)  # type: ignore[arg-type]
        world.dmp.down = down()
        return Received(True, ("XDSRegistryMetadataError",))

    world.dmp.provide = partial  # type: ignore[assignment, method-assign]
    report_id = await world.receive(letter_of())
    with pytest.raises(Unavailable):
        await publish_study(world.services, report_id, STUDY)
    world.dmp.down = None
    world.dmp.provide = provide  # type: ignore[method-assign]
    await publish_study(world.services, report_id, STUDY)
    assert len(world.dmp.documents) == 1
    assert await world.states() == ["current"]


@pytest.mark.requirement("DB.SO.22")
async def test_a_job_that_the_queue_believes_in_our_hands_is_taken_up(world: World, dsn: str) -> None:
    """The database went away as the job was handed over, or as its end was to be written: we live, and have it not."""
    async with worker(dsn, world.services, stalled=1.5):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await until(lambda: _workers(connection))
            await connection.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, status, worker_id) "
                "SELECT 'default', %s, %s, jsonb_build_object('report_id', %s::bigint, 'study_uid', %s::text), "
                "'doing', max(id) FROM procrastinate_workers",
                (PUBLISH_STUDY, f"study:{STUDY}", await world.receive(letter_of()), STUDY),
            )
            await until(lambda: world.dmp.standing(STUDY))
        await until(idle(world))
    assert len(world.dmp.provided) == 1


async def _workers(connection: psycopg.AsyncConnection[object]) -> bool:
    return bool(await (await connection.execute("SELECT 1 FROM procrastinate_workers")).fetchall())


@pytest.mark.requirement("DB.SO.22")
async def test_a_box_that_slept_does_not_take_its_own_work_for_that_of_a_dead_one(world: World, dsn: str) -> None:
    """A virtual machine that is moved gives no sign of life for a while; what it has in hand it still has."""
    world.dmp.delay = 1.5
    async with worker(dsn, world.services, stalled=1):
        await world.receive(letter_of(), deferred=True)
        await until(lambda: world.dmp.running)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while not world.dmp.standing(STUDY):
                await connection.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
                await asyncio.sleep(0.02)
        await until(idle(world))
    assert world.dmp.most_running == 1
    assert len(world.dmp.provided) == 1


# --- reports in whose place others came -------------------------------------------------------------------------------


def unqualified(letter: Letter) -> Letter:
    """The same, with an identity that nobody has verified: it is accepted, and nothing may be published of it."""
    return replace(letter, identity=replace(letter.identity, status="PROV"))


@pytest.mark.requirement("D2", "D4")
async def test_a_chain_of_versions_with_a_stopped_one_leaves_nothing_behind(world: World) -> None:
    first = letter_of()
    second = first.corrected("1.2.250.1.213.4.5.4.9002", "M2")
    third = second.corrected("1.2.250.1.213.4.5.4.9003", "M3")
    assert await world.run(first) is Outcome.PUBLISHED
    assert await world.run(unqualified(second)) is Outcome.STOPPED
    assert len(world.dmp.standing(STUDY)) == 1
    await world.run(third)
    assert (await world.archive.history("ambroise", STUDY)).documents == (third.document_id,)
    assert await world.run(replace(third, operation="delete", control_id="M4")) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("D2")
async def test_a_stopped_version_that_is_deleted_takes_what_it_stood_for_with_it(world: World) -> None:
    second = letter_of().corrected("1.2.250.1.213.4.5.4.9002", "M2")
    await world.run(letter_of())
    await world.run(unqualified(second))
    assert await world.run(replace(second, operation="delete", control_id="M3")) is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("D2", "exam:F")
async def test_a_study_that_a_newer_version_leaves_out_before_the_older_one_got_there(world: World) -> None:
    """The work on the second study was held up; the report that named it has been replaced meanwhile."""
    world.pacs.hold(study_of(106), study_of(107))
    first = letter_of("F")
    one, two = first.exam.studies
    on_one = replace(first.exam, studies=(one,))
    second = replace(first.corrected("1.2.250.1.213.4.5.4.9006", "M2"), exam=on_one)
    old, new = await world.receive(first), await world.receive(second)
    for report_id in (old, new):
        await publish_study(world.services, report_id, one)
    async with world.pool.connection() as connection:
        rows = await (await connection.execute("SELECT args, lock FROM procrastinate_jobs")).fetchall()
    assert [(row["args"], row["lock"]) for row in rows] == [({"report_id": new, "study_uid": two}, f"study:{two}")]
    # In their order, as the lock has it.
    await publish_study(world.services, old, two)
    assert await publish_study(world.services, new, two) is Outcome.DEPUBLISHED
    assert world.dmp.standing(two) == []
    assert len(world.dmp.standing(one)) == 1


@pytest.mark.requirement("D2", "exam:F")
async def test_a_left_out_study_that_never_was_published_is_no_line_for_the_operator(world: World) -> None:
    """Another report is behind the KOS of the study; the one that was to join it never got there."""
    world.pacs.hold(study_of(106), study_of(107))
    first = letter_of("F")
    one, two = first.exam.studies
    other = replace(
        first, control_id="M0", document_id="1.2.250.1.213.4.5.4.9000", exam=replace(first.exam, studies=(two,))
    )
    assert await world.run(other) is Outcome.PUBLISHED
    second = replace(first.corrected("1.2.250.1.213.4.5.4.9006", "M2"), exam=replace(first.exam, studies=(one,)))
    await world.receive(unqualified(first))
    new = await world.receive(second)
    await publish_study(world.services, new, one)
    assert await publish_study(world.services, new, two) is Outcome.NOTHING
    assert len(world.dmp.standing(two)) == 1
    assert await world.queue() == ()


@pytest.mark.requirement("D2", "D6", "D26")
async def test_a_kos_says_what_the_newest_report_that_stands_says(world: World) -> None:
    """The newer of two reports is deleted: the study is again shown to whom the older one shows it."""
    older = letter_of()
    hidden = frozenset({"DESTDMP", "INVISIBLE_PATIENT"})
    newer = replace(older, control_id="M2", document_id="1.2.250.1.213.4.5.4.9002", flags=hidden)
    await world.run(older)
    await world.run(newer)
    assert [held.visibility.hidden_from_patient for held in world.dmp.standing(STUDY)] == [True]
    assert await world.run(replace(newer, control_id="M3", operation="delete")) is Outcome.NOTHING
    async with world.pool.connection() as connection:
        [job] = await (await connection.execute("SELECT task_name, args FROM procrastinate_jobs")).fetchall()
    assert (job["task_name"], job["args"]["cause"]) == (RESYNC_STUDY, Cause.REPORT.value)
    assert await world.resync(Cause.REPORT, structure="ambroise") is Outcome.PUBLISHED
    assert [held.visibility.hidden_from_patient for held in world.dmp.standing(STUDY)] == [False]
    # And the older one, once more: nothing that anybody would have to look at again.
    await world.run(replace(newer, control_id="M4", document_id="1.2.250.1.213.4.5.4.9003", flags=older.flags))
    assert await world.run(replace(older, control_id="M5", operation="delete")) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1


@pytest.mark.requirement("D2", "D6", "D26")
async def test_reports_taken_back_one_after_the_other_leave_the_words_of_the_one_before(world: World) -> None:
    """A version made again for an older report still lists the newer ones: the last that is listed need not speak."""
    hidden = [
        frozenset({"DESTDMP", flag}) for flag in ("MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REPRESENTANTS_LEGAUX")
    ]
    reports = [
        letter_of(control_id=f"M{n}", document_id=f"1.2.250.1.213.4.5.4.901{n}", flags=flags)
        for n, flags in enumerate(hidden)
    ]
    for report in reports:
        await world.run(report)
    for looked_at, report in enumerate(reversed(reports[1:]), 1):
        assert (
            await world.run(replace(report, control_id=f"D{report.control_id}", operation="delete")) is Outcome.NOTHING
        )
        async with world.pool.connection() as connection:
            jobs = await (await connection.execute("SELECT 1 FROM procrastinate_jobs")).fetchall()
        assert len(jobs) == looked_at
        assert await world.resync(Cause.REPORT, structure="ambroise") is Outcome.PUBLISHED
    [held] = world.dmp.standing(STUDY)
    assert held.visibility == Visibility(masked_to_professionals=True)
    current = await world.current()
    assert current is not None
    assert len(current.document_ids) == 3


@pytest.mark.requirement("D6")
async def test_a_visibility_changed_by_hand_outlives_the_report_that_it_was_changed_under(world: World) -> None:
    older = letter_of()
    newer = replace(older, control_id="M2", document_id="1.2.250.1.213.4.5.4.9002")
    await world.run(older)
    world.dmp.standing(STUDY)[0].visibility = Visibility(masked_to_professionals=True)
    world.pacs.hold(study_of(105, images=5))
    await world.run(newer)
    await world.run(replace(newer, control_id="M3", operation="delete"))
    await world.resync(Cause.REPORT, structure="ambroise")
    assert [held.visibility.masked_to_professionals for held in world.dmp.standing(STUDY)] == [True]
