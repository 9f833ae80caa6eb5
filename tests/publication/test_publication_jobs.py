"""The durable work: order on one study, many studies at once, retries, dead workers, and what the logs say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
from procrastinate import App, PsycopgConnector
from publication_examples import World, down, letter_of, study_of

from drimbox.foundation.errors import Busy, OutcomeUnknown
from drimbox.publication.jobs import PUBLISH_STUDY, Pauses, register, work, working
from drimbox.publication.services import Services
from drimbox.publication.triggers import Cause, defer_resync
from drimbox.reports.report import Report

STUDY = "1.2.250.1.213.4.5.2.1.105"
QUICK = Pauses(first=0.05, longest=0.2)


@asynccontextmanager
async def worker(dsn: str, services: Services, *, concurrency: int = 4, stalled: float = 30) -> AsyncIterator[App]:
    """A worker that looks often, on its own pool."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=3))
    register(app, services, pauses=QUICK)
    async with app.open_async():
        task = asyncio.create_task(work(app, concurrency=concurrency, poll=0.05, stalled_after=stalled, stop_within=1))
        try:
            yield app
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(true: Callable[[], object], seconds: float = 15) -> None:
    """Wait for something, asking often."""
    async with asyncio.timeout(seconds):
        while True:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


async def jobs(world: World) -> list[str]:
    async with world.pool.connection() as connection:
        rows = await (await connection.execute("SELECT status FROM procrastinate_jobs ORDER BY id")).fetchall()
    return [row["status"] for row in rows]


def idle(world: World) -> Callable[[], object]:
    async def ask() -> bool:
        return await jobs(world) == []

    return ask


@pytest.mark.requirement("D7", "exam:E")
async def test_a_deferred_report_is_published_and_its_job_leaves(world: World, dsn: str) -> None:
    async with worker(dsn, world.services):
        await world.receive(letter_of(), deferred=True)
        await until(idle(world))
    assert len(world.dmp.standing(STUDY)) == 1


async def test_the_box_carries_out_the_work_while_it_runs(world: World, dsn: str) -> None:
    await world.receive(letter_of(), deferred=True)
    async with working(dsn, world.services):
        await until(lambda: world.dmp.standing(STUDY))


@pytest.mark.requirement("D7")
async def test_work_waits_for_the_pacs_and_keeps_its_place(world: World, dsn: str) -> None:
    """A newer report on the study, even one that needs no PACS, does not overtake the one that waits."""
    world.pacs.error = down()
    await world.receive(letter_of(), deferred=True)
    async with worker(dsn, world.services):
        await until(lambda: world.pacs.asked >= 3)
        await world.receive(letter_of(control_id="M2", operation="delete"), deferred=True)
        await asyncio.sleep(0.3)
        assert await jobs(world) != []
        assert world.dmp.provided == []
        [incident] = await world.queue()
        assert incident.code == "waiting"
        world.pacs.error = None
        await until(idle(world))
    # Published, then taken out again: in the order of arrival.
    assert len(world.dmp.provided) == 1
    assert world.dmp.standing(STUDY) == []
    assert await world.states() == ["depublished"]
    assert await world.queue() == ()


async def test_one_study_is_worked_on_by_one_and_many_studies_at_once(world: World, dsn: str) -> None:
    numbers = (104, 105, 112)
    world.pacs.hold(*(study_of(n) for n in numbers))
    world.dmp.delay = 0.03
    seen: list[str] = []
    provide = world.dmp.provide
    busy: set[str] = set()

    async def watched(site: object, ins: object, kos: bytes, submission: object) -> object:
        study = next(s for s in (f"1.2.250.1.213.4.5.2.1.{n}" for n in numbers) if s.encode() in kos)
        assert study not in busy
        busy.add(study)
        try:
            seen.append(study)
            return await provide(site, ins, kos, submission)  # type: ignore[arg-type]
        finally:
            busy.remove(study)

    world.dmp.provide = watched  # type: ignore[assignment, method-assign]
    async with worker(dsn, world.services, concurrency=6), worker(dsn, world.services, concurrency=6):
        for turn in range(4):
            flags = frozenset({"DESTDMP", "MODIF_CONF_CODE"} | ({"INVISIBLE_PATIENT"} if turn % 2 else set()))
            for letter in ("D", "E", "K"):
                await world.receive(letter_of(letter, control_id=f"{letter}{turn}", flags=flags), deferred=True)
        await until(idle(world))
    assert world.dmp.most_running > 1
    for number in numbers:
        study_uid = f"1.2.250.1.213.4.5.2.1.{number}"
        [held] = world.dmp.standing(study_uid)
        # The last message had its way.
        assert held.visibility.hidden_from_patient
        assert seen.count(study_uid) == 4


async def test_a_cut_and_a_busy_dmp_are_tried_again_without_doubles(world: World, dsn: str) -> None:
    world.dmp.faults = [
        Busy("DMP occupé", code="dmp-busy", retry_after=0.1),
        "cut",
        OutcomeUnknown("coupé", code="dmp-cut"),
    ]
    async with worker(dsn, world.services):
        await world.receive(letter_of(), deferred=True)
        await until(idle(world))
    assert len(world.dmp.standing(STUDY)) == 1
    assert len(world.dmp.provided) == 1
    assert await world.queue() == ()


async def test_a_stop_lets_work_begun_be_taken_up_again(world: World, dsn: str) -> None:
    world.dmp.delay = 60
    await world.receive(letter_of(), deferred=True)
    async with worker(dsn, world.services):
        await until(lambda: world.dmp.running)
    assert await jobs(world) == ["todo"]
    assert await world.states() == ["prepared"]
    world.dmp.delay = 0
    async with worker(dsn, world.services):
        await until(idle(world))
    assert len(world.dmp.standing(STUDY)) == 1
    assert await world.states() == ["current"]


async def test_the_jobs_of_a_dead_worker_are_taken_up_again(world: World, dsn: str) -> None:
    """A worker that was killed has left its job "doing" and its heartbeat to age."""
    await world.receive(letter_of(), deferred=True)
    async with world.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')"
        )
        await connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM procrastinate_workers)"
        )
    async with worker(dsn, world.services, stalled=0.5):
        await until(idle(world))
    assert len(world.dmp.standing(STUDY)) == 1


async def test_a_defect_is_shown_and_says_nothing_of_the_patient(
    world: World, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def load(self, report_id: int) -> Report:
            raise LookupError("PAT-TROIS 279035121518989")

    with caplog.at_level(logging.DEBUG):
        async with worker(dsn, replace(world.services, reports=Broken())):
            await world.receive(letter_of(), deferred=True)
            await until(lambda: failed(world))
    [incident] = await world.queue()
    assert incident.code == "defect"
    assert "LookupError, test_publication_jobs.py:" in incident.reason
    logged = caplog.text + "".join(str(record.exc_info) for record in caplog.records)
    assert "LookupError" in logged
    assert "PAT-TROIS" not in logged
    assert "279035121518989" not in logged


async def failed(world: World) -> bool:
    return await jobs(world) == ["failed"]


async def test_what_the_queue_logs_of_a_whole_story_names_no_one(
    world: World, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.dmp.faults = ["cut"]
    world.pacs.error = down()
    with caplog.at_level(logging.DEBUG):
        async with worker(dsn, world.services):
            await world.receive(letter_of(), deferred=True)
            await until(lambda: world.pacs.asked >= 2)
            world.pacs.error = None
            await until(idle(world))
    assert PUBLISH_STUDY in caplog.text
    for secret in ("PAT-TROIS", "DOMINIQUE", "279035121518989", "IPP101", "19790328"):
        assert secret not in caplog.text


def test_pauses_grow_to_their_longest_and_listen_to_the_peer() -> None:
    pauses = Pauses(first=5, longest=900, factor=2)
    for attempts, expected in ((0, 5), (1, 10), (3, 40), (8, 900), (10_000, 900)):
        assert all(expected * 0.8 <= pauses.after(attempts) <= expected * 1.2 for _ in range(50))
    assert len({pauses.after(3) for _ in range(50)}) > 10
    assert all(pauses.after(0, retry_after=60) >= 60 for _ in range(50))
    assert pauses.after(0, retry_after=10**9) <= 900


async def test_the_loss_of_the_database_stops_nothing_for_long(world: World, dsn: str) -> None:
    async with worker(dsn, world.services):
        await world.receive(letter_of(), deferred=True)
        await until(idle(world))
        async with world.pool.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        world.pacs.hold(study_of(images=7))
        # The sender's message meets dead connections too, and comes again.
        for _ in range(10):
            with suppress(psycopg.OperationalError):
                await world.receive(letter_of(control_id="M2"), deferred=True)
                break
        await until(lambda: [h.manifest.instance_count for h in world.dmp.standing(STUDY)] == [7])


async def resync(world: World, cause: Cause = Cause.NOTE, study_uid: str = STUDY) -> None:
    async with world.pool.connection() as connection, connection.transaction():
        await defer_resync(connection, study_uid, cause)


@pytest.mark.requirement("DB.SO.26", "D7")
async def test_a_deferred_comparison_waits_for_the_pacs_and_keeps_its_place(world: World, dsn: str) -> None:
    await world.run(letter_of())
    world.pacs.error = down()
    world.pacs.asked = 0
    async with worker(dsn, world.services):
        await resync(world)
        await until(lambda: world.pacs.asked >= 2)
        # A report that comes meanwhile is carried through after it, and a walk after both.
        await resync(world, Cause.RECONCILIATION)
        await world.receive(letter_of(control_id="M2", operation="delete"), deferred=True)
        await asyncio.sleep(0.2)
        assert [i.code for i in await world.queue()] == ["resync-waiting"]
        assert len(world.dmp.standing(STUDY)) == 1
        world.pacs.hold(study_of(images=5))
        world.pacs.error = None
        await until(idle(world))
    assert len(world.dmp.provided) == 2
    assert world.dmp.standing(STUDY) == []
    assert await world.states() == ["replaced", "depublished"]
    assert await world.queue() == ()


async def test_reports_and_comparisons_of_many_at_once_leave_one_truth(world: World, dsn: str) -> None:
    numbers = (104, 105, 112)
    world.pacs.hold(*(study_of(n) for n in numbers))
    world.dmp.delay = 0.005
    async with worker(dsn, world.services, concurrency=6), worker(dsn, world.services, concurrency=6):
        for turn in range(4):
            world.pacs.hold(*(study_of(n, images=3 + turn) for n in numbers))
            for letter, number in zip("DEK", numbers, strict=True):
                await world.receive(letter_of(letter, control_id=f"{letter}{turn}"), deferred=True)
                for cause in (Cause.NOTE, Cause.RECONCILIATION):
                    await resync(world, cause, f"1.2.250.1.213.4.5.2.1.{number}")
        await until(idle(world))
    for number in numbers:
        [held] = world.dmp.standing(f"1.2.250.1.213.4.5.2.1.{number}")
        assert held.manifest.instance_count == 6
    assert len(set(world.dmp.provided)) == len(world.dmp.provided)
    assert await world.queue() == ()


async def test_a_defect_in_a_comparison_is_shown(world: World, dsn: str) -> None:
    class Broken:
        async def load(self, report_id: int) -> Report:
            raise LookupError("PAT-TROIS 279035121518989")

    await world.run(letter_of())
    async with worker(dsn, replace(world.services, reports=Broken())):
        await resync(world)
        await until(lambda: failed(world))
    [incident] = await world.queue()
    assert incident.code == "resync-defect"
    assert "PAT-TROIS" not in incident.reason
