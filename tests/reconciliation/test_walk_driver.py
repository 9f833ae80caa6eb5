"""Walks go on study by study: cut, resumed, held back, at their rate, one driver at a time; on a real database."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools

import psycopg
import pytest
from walk_world import ADMINISTRATOR, Site, led

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.repairs import DIFFERENCE
from drimbox.reconciliation.walk import Finding, Kind, Mode, State, WalkRefused
from drimbox.reconciliation.walks import begin

DOWN = Unavailable("Le PACS pacs-a est injoignable.", code="pacs-unreachable")


def studies(*numbers: int) -> list[str]:
    return [f"1.2.3.{n}" for n in numbers]


@pytest.mark.requirement("DB.SO.28")
async def test_a_walk_sees_every_current_kos_once_in_a_stable_order(site: Site) -> None:
    await site.stock(3)
    await site.stock(2, state="replaced", first=10)
    await site.stock(2, structure="other", first=2)
    walk = await site.start()
    assert (walk.total, walk.state, walk.started_by) == (5, State.RUNNING, "Admin Essai")
    # What is published after its start is not its concern: it was just compared.
    await site.stock(1, first=20)
    async with led(site.driver()) as connection:
        ended = await site.go(site.driver(), connection)
    assert site.compare.seen == studies(1, 2, 3, 2, 3)
    assert (ended.state, ended.done, ended.findings) == (State.DONE, 5, {})
    assert await site.audited() == ["start", "done"]


@pytest.mark.requirement("DB.SO.28")
async def test_studies_that_may_come_back_are_looked_at_too(site: Site) -> None:
    """Taken out of the DMP while a report still stands; not where no report is left, nor those declared deleted."""
    await site.stock(5, state="depublished")
    for n in (1, 2, 3, 5):
        await site.report_stands(f"1.2.3.{n}")
    await site.stock(1, state="depublished", first=2)  # an older version is not looked at beside the newer one
    await site.rows("INSERT INTO withdrawn_study (study_uid) VALUES ('1.2.3.3')")
    await site.stock(1, first=5)  # stands again
    assert (await site.start()).total == 3
    async with led(site.driver()) as connection:
        await site.go(site.driver(), connection)
    assert site.compare.seen == studies(1, 2, 5)


@pytest.mark.requirement("DB.SO.28", "DB.SO.88")
async def test_what_is_found_is_listed_counted_and_told_to_the_operator(site: Site) -> None:
    await site.stock(5)
    site.compare.findings = {
        "1.2.3.2": {Finding.GONE: ""},
        "1.2.3.4": {Finding.CONTENT: "images (+2, -0)", Finding.SEVERAL: ""},
    }
    site.compare.errors["1.2.3.5"] = Rejected("refus", code="pacs-association-rejected")
    await site.start()
    async with led(site.driver()) as connection:
        walk = await site.go(site.driver(), connection)
    assert walk.findings == {"gone": 1, "content": 1, "several": 1, "unusable": 1}
    expected = [("1.2.3.2", "gone"), ("1.2.3.4", "content"), ("1.2.3.4", "several"), ("1.2.3.5", "unusable")]
    assert await site.found(walk) == expected
    queue = await site.incidents.list()
    assert [(i.study_uid, i.code, i.severity) for i in reversed(queue)] == [
        (uid, DIFFERENCE, "warning") for uid in studies(2, 4, 5)
    ]
    assert queue[1].reason == (
        "Le KOS ne dit pas ce que le PACS contient (images (+2, -0)) ; Une version antérieure du KOS est encore au DMP"
    )
    # The next walk finds one of them settled.
    del site.compare.findings["1.2.3.2"]
    site.clock.advance(60)
    await site.start()
    async with led(site.driver()) as connection:
        await site.go(site.driver(), connection)
    assert [i.study_uid for i in reversed(await site.incidents.list())] == studies(4, 5)


async def test_the_queue_is_not_flooded(site: Site) -> None:
    await site.stock(8)
    site.compare.findings = {uid: {Finding.GONE: ""} for uid in studies(*range(1, 9))}
    await site.start()
    driver = site.driver(incidents=3)
    async with led(driver) as connection:
        walk = await site.go(driver, connection)
    assert len(await site.incidents.list()) == 3
    assert len(await site.found(walk)) == walk.findings["gone"] == 8


# --- rate, hours, pauses ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.28")
@pytest.mark.parametrize("takes", [0.0, 0.7, 5.0])
async def test_the_rate_is_kept(site: Site, takes: float) -> None:
    await site.stock(31)
    site.compare.takes = takes
    await site.start(rate=30)
    driver = site.driver()
    async with led(driver) as connection:
        await site.go(driver, connection)
    times = [at for at, _ in site.compare.tried]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert min(gaps) >= max(2.0, takes) - 0.01
    assert max(gaps) < max(2.0, takes) + 0.1


async def test_the_rate_is_kept_over_a_restart(site: Site) -> None:
    await site.stock(3)
    await site.start(rate=1)
    for _ in range(5):
        driver = site.driver()
        async with led(driver) as connection:
            await driver.round(connection)
        site.clock.advance(10)
    assert site.compare.seen == studies(1)
    # A clock that is put back stops nothing.
    site.clock = FixedClock(site.clock.now() - dt.timedelta(days=1))
    driver = site.driver()
    async with led(driver) as connection:
        await site.go(driver, connection, seconds=61, until=lambda w: w.done == 2)
    assert site.compare.seen == studies(1, 2)


@pytest.mark.requirement("DB.SO.28")
async def test_it_suspends_itself_in_the_hours_configured(site: Site) -> None:
    """08:00 UTC is 10:00 in Paris."""
    await site.stock(3)
    await site.start(rate=1)
    driver = site.driver(hours=parse_ranges(["lun-ven 10:01-19:00"]), poll=60)
    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=3600)
        assert site.compare.seen == studies(1)
        assert walk.note == "Suspendue jusqu'au 14/07 à 19:00 (plage horaire)"
        walk = await site.go(driver, connection)
    assert site.compare.seen == studies(1, 2, 3)
    assert [round(at) for at, _ in site.compare.tried] == [0, 9 * 3600, 9 * 3600 + 60]
    assert (walk.note, walk.state) == ("", State.DONE)


@pytest.mark.requirement("DB.SO.28")
async def test_the_administrator_pauses_resumes_and_stops(site: Site) -> None:
    await site.stock(9)
    await site.start()
    driver = site.driver()
    async with led(driver) as connection:
        await site.go(driver, connection, until=lambda w: w.done == 3)
        assert await site.acts.pause(Kind.RECONCILIATION, ADMINISTRATOR) == "Réconciliation mise en pause."
        paused = await site.go(driver, connection, seconds=3600)
        assert (paused.state, paused.done) == (State.PAUSED, 3)
        for act in (site.acts.pause, lambda k, b: site.acts.start(k, Mode.REPORT, 30, b)):
            with pytest.raises(WalkRefused):
                await act(Kind.RECONCILIATION, ADMINISTRATOR)
        await site.acts.resume(Kind.RECONCILIATION, ADMINISTRATOR)
        await site.go(driver, connection, until=lambda w: w.done == 5)
        assert "après 5 examens" in await site.acts.stop(Kind.RECONCILIATION, ADMINISTRATOR)
        stopped = await site.go(driver, connection)
        assert (stopped.state, stopped.done, stopped.ended_at) == (State.STOPPED, 5, site.clock.now())
        with pytest.raises(WalkRefused):
            await site.acts.resume(Kind.RECONCILIATION, ADMINISTRATOR)
    assert site.compare.seen == studies(1, 2, 3, 4, 5)
    assert await site.audited() == ["start", "pause", "resume", "stop"]


async def test_a_stop_between_question_and_answer_counts_nothing(site: Site) -> None:
    await site.stock(2)
    walk = await site.start()
    driver = site.driver()
    async with led(driver) as connection:
        compare = site.compare

        async def stopped_meanwhile(target: object) -> dict[Finding, str]:
            await site.acts.stop(Kind.RECONCILIATION, ADMINISTRATOR)
            return {Finding.GONE: ""}

        driver.examine = stopped_meanwhile
        walk = await site.go(driver, connection)
    assert (walk.state, walk.done, walk.findings) == (State.STOPPED, 0, {})
    assert await site.incidents.list() == ()
    assert compare.seen == []


async def test_a_rate_that_makes_no_sense(site: Site) -> None:
    for rate in (0, -1, 6001):
        with pytest.raises(WalkRefused):
            await site.acts.start(Kind.RECONCILIATION, Mode.REPORT, rate, ADMINISTRATOR)
    with pytest.raises(WalkRefused):
        await site.acts.start(Kind.ADDRESS, Mode.REPORT, 30, ADMINISTRATOR)


@pytest.mark.requirement("DB.SO.28")
async def test_it_begins_by_itself_every_so_many_days(site: Site) -> None:
    await site.stock(2)
    driver = site.driver(every_days=30, mode=Mode.REPORT, rate=600)
    async with led(driver) as connection:
        first = await site.go(driver, connection, rounds=10)
        assert (first.state, first.mode, first.rate, first.started_by) == (State.DONE, Mode.REPORT, 600, "drimbox")
        site.clock.advance(29 * 86_400)
        await driver.round(connection)
        assert len(await site.walks.latest()) == 1
        site.clock.advance(86_400)
        await site.go(driver, connection, rounds=10)
    assert len(await site.walks.latest()) == 2
    never = site.driver()
    async with led(never) as connection:
        site.clock.advance(400 * 86_400)
        await never.round(connection)
    assert len(await site.walks.latest()) == 2


# --- neighbours that are away -----------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.28", "D7")
async def test_a_pacs_that_goes_down_half_way_is_waited_for(site: Site) -> None:
    await site.stock(10)
    await site.start()
    driver = site.driver(poll=60)
    async with led(driver) as connection:
        await site.go(driver, connection, until=lambda w: w.done == 4)
        site.compare.down = DOWN
        site.compare.tried.clear()
        held = await site.go(driver, connection, seconds=6 * 3600)
        assert (held.done, held.findings, held.state) == (4, {}, State.RUNNING)
        assert held.note == "En attente : Le PACS pacs-a est injoignable."
        # One study, tried again less and less often.
        assert {uid for _, uid in site.compare.tried} == {"1.2.3.5"}
        assert 20 < len(site.compare.tried) < 40
        site.compare.down = None
        ended = await site.go(driver, connection, seconds=3600)
    assert (ended.state, ended.done, ended.findings, ended.note) == (State.DONE, 10, {}, "")
    assert site.compare.seen == studies(*range(1, 11))
    # What was waited for is not in the pace.
    assert ended.busy < 60


@pytest.mark.requirement("DB.SO.28", "D7")
async def test_a_study_that_the_pacs_cannot_answer_about_does_not_hold_up_the_others(site: Site) -> None:
    await site.stock(6)
    truncated = Unavailable("Le PACS annonce 4 images et n'en liste que 2.", code="pacs-truncated")
    site.compare.errors = dict.fromkeys(studies(2, 4), truncated)
    await site.start()
    driver = site.driver()
    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=3600)
    assert walk.state is State.DONE
    assert await site.found(walk) == [("1.2.3.2", "pacs-refuses"), ("1.2.3.4", "pacs-refuses")]
    assert [uid for _, uid in site.compare.tried].count("1.2.3.2") == 3


@pytest.mark.requirement("DB.SO.28", "D7")
async def test_a_pacs_that_answers_nothing_sensible_any_more_is_waited_for_too(site: Site) -> None:
    await site.stock(100)
    site.compare.down = Unavailable("Le PACS répond par le statut C001.", code="pacs-find-failed")
    await site.start(rate=600)
    driver = site.driver(poll=900)
    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=2 * 86_400)
        assert walk.findings == {"pacs-refuses": 10}
        site.compare.down = None
        walk = await site.go(driver, connection)
    assert (walk.state, walk.done, walk.findings) == (State.DONE, 100, {"pacs-refuses": 10})


async def test_a_defect_on_one_study_does_not_stop_the_walk(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.stock(3)
    await site.start()
    driver = site.driver()
    compare = site.compare

    async def broken(target):  # type: ignore[no-untyped-def]
        if target.study_uid == "1.2.3.2":
            raise ValueError("PAT-TROIS DOMINIQUE")
        return await compare(target)

    driver.examine = broken
    async with led(driver) as connection:
        walk = await site.go(driver, connection)
    assert walk.findings == {"defect": 1}
    [line] = await site.walks.found(walk.id)
    assert line.detail.startswith("ValueError, test_walk_driver.py:")
    assert "PAT-TROIS" not in caplog.text


# --- cut, and several nodes -------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.28")
async def test_one_node_drives_at_a_time_and_another_takes_over(site: Site) -> None:
    await site.stock(20)
    await site.start(rate=6000)
    first, second = site.driver(), site.driver()
    async with first.leading() as one:
        assert one is not None
        async with second.leading() as other:
            assert other is None
        # The other kind of walk has a driver of its own.
        async with led(site.driver(Kind.ADDRESS)):
            pass
        await site.go(first, one, until=lambda w: w.done == 7)
        # The first is cut off by the database: what it still believes to lead, it cannot write.
        await site.rows("SELECT pg_terminate_backend(%s)", one.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            await first.round(one)
        async with led(second) as other:
            walk = await site.go(second, other)
    assert (walk.state, walk.done) == (State.DONE, 20)
    assert sorted(set(site.compare.seen)) == sorted(site.compare.seen)
    assert len(site.compare.seen) == 20


@pytest.mark.requirement("DB.SO.28")
async def test_a_walk_goes_on_where_it_was_cut(site: Site) -> None:
    """Cancelled at any point, also in the middle of a study; then two nodes race for the rest."""
    await site.stock(40)
    site.compare.findings = {uid: {Finding.GONE: ""} for uid in studies(5, 6, 7, 30)}
    await site.start(rate=6000)
    compare = site.compare

    async def slow(target):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.002)
        return await compare(target)

    async def moved(seconds: float) -> None:
        site.clock.advance(seconds)
        await asyncio.sleep(0)

    for _ in range(200):
        nodes = [site.driver(), site.driver()]
        for node in nodes:
            node.examine, node.sleep = slow, moved
        tasks = [asyncio.create_task(node.run()) for node in nodes]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not (walk := await site.walk()).active:
            break
    assert (walk.state, walk.done, walk.findings) == (State.DONE, 40, {"gone": 4})
    assert [uid for uid, _ in await site.found(walk)] == studies(5, 6, 7, 30)
    assert set(site.compare.seen) == set(studies(*range(1, 41)))


async def test_a_driver_survives_the_loss_of_the_database(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.stock(30)
    await site.start(rate=6000)
    node = site.driver()

    async def moved(seconds: float) -> None:
        site.clock.advance(seconds)
        await asyncio.sleep(0.001)

    node.sleep = moved
    task = asyncio.create_task(node.run())
    try:
        for _ in range(3):
            await asyncio.sleep(0.05)
            await site.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 724518"
            )
        async with asyncio.timeout(20):
            while (await site.walk()).active:  # noqa: ASYNC110 - another process would have to tell
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await site.walk()).done == 30


# --- repairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.28")
async def test_repairs_are_left_to_jobs_that_are_followed_to_their_end(site: Site) -> None:
    await site.stock(6)
    await site.stock(1, state="depublished", first=7)
    await site.report_stands("1.2.3.7")
    await site.start(Mode.REPAIR)
    driver = site.driver(repairing=2)
    most = 0

    async def worker() -> None:
        nonlocal most
        jobs = await site.jobs()
        most = max(most, len([j for j in jobs if j["status"] == "todo"]))
        for job in jobs:
            study = job["args"]["study_uid"]
            assert job["args"] == {"study_uid": study, "cause": "reconciliation", "structure": "ambroise"}
            assert (job["lock"], job["priority"]) == (f"study:{study}", -10)
            match study:
                case "1.2.3.2" | "1.2.3.7":
                    await site.replace(study)
                case "1.2.3.3":
                    await site.depublish(study)
                case "1.2.3.4":
                    async with site.pool.connection() as connection:
                        await site.incidents.open(
                            connection, structure="ambroise", study_uid=study, code="ipp-differs", reason="IPP"
                        )
                case "1.2.3.5":
                    await site.rows("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = %s", job["id"])
                    continue
            await site.rows("DELETE FROM procrastinate_jobs WHERE id = %s AND status = 'todo'", job["id"])

    async with led(driver) as connection:
        walk = await site.go(driver, connection, between=worker)
    assert (walk.state, walk.done, walk.total) == (State.DONE, 7, 7)
    assert walk.findings == {"replaced": 1, "depublished": 1, "stopped": 1, "defect": 1, "published": 1}
    assert await site.found(walk) == [
        ("1.2.3.2", "replaced"),
        ("1.2.3.3", "depublished"),
        ("1.2.3.4", "stopped"),
        ("1.2.3.5", "defect"),
        ("1.2.3.7", "published"),
    ]
    assert most <= 2
    assert site.compare.seen == []


@pytest.mark.requirement("DB.SO.28", "D7")
async def test_repairs_that_are_put_off_hold_the_walk_back(site: Site) -> None:
    """A PACS that is away never fills the queue with the whole archive."""
    await site.stock(50)
    await site.start(Mode.REPAIR)
    driver = site.driver(repairing=2, put_off=3, poll=60)

    async def put_off() -> None:
        for job in await site.jobs():
            if not job["attempts"]:
                async with site.pool.connection() as connection:
                    await site.incidents.open(
                        connection,
                        structure="ambroise",
                        study_uid=job["args"]["study_uid"],
                        code="resync-waiting",
                        reason="En attente : Le PACS pacs-a est injoignable.",
                        severity="warning",
                    )
        await site.rows("UPDATE procrastinate_jobs SET attempts = 1, scheduled_at = now() + interval '900 s'")

    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=7200, between=put_off)
        assert (walk.state, walk.done, len(await site.jobs())) == (State.RUNNING, 0, 3)
        assert walk.note == ("En attente : 3 examens en file pour un PACS ou le DMP : Le PACS pacs-a est injoignable.")
        walk = await site.go(driver, connection, between=site.carried_out)
    assert (walk.state, walk.done, walk.findings) == (State.DONE, 50, {})


@pytest.mark.requirement("DB.SO.28")
async def test_a_repair_that_runs_over_a_restart_is_neither_lost_nor_done_twice(site: Site) -> None:
    await site.stock(5)
    await site.start(Mode.REPAIR)
    seen: list[str] = []
    for _ in range(40):
        driver = site.driver(repairing=1)
        async with led(driver) as connection:
            for _ in range(2):
                await driver.round(connection)
        site.clock.advance(2)
        seen += [job["args"]["study_uid"] for job in await site.jobs()]
        await site.carried_out()
    walk = await site.walk()
    assert (walk.state, walk.done) == (State.DONE, 5)
    assert seen == studies(1, 2, 3, 4, 5)


async def test_a_walk_that_is_stopped_leaves_its_repairs_to_the_queue(site: Site) -> None:
    await site.stock(5)
    await site.start(Mode.REPAIR)
    driver = site.driver(repairing=2)
    async with led(driver) as connection:
        await site.go(driver, connection, seconds=10)
        await site.acts.stop(Kind.RECONCILIATION, ADMINISTRATOR)
        await site.carried_out()
        walk = await site.go(driver, connection, seconds=10)
    assert walk.findings == {"left": 2}
    assert (walk.state, walk.done) == (State.STOPPED, 0)


async def test_a_walk_of_an_empty_archive_ends_at_once(site: Site) -> None:
    await site.start()
    driver = site.driver()
    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=10)
    assert (walk.state, walk.total) == (State.DONE, 0)


async def test_two_starts_at_once_make_one_walk(site: Site) -> None:
    await site.stock(2)
    outcomes = await asyncio.gather(
        *(site.acts.start(Kind.RECONCILIATION, Mode.REPORT, 30, ADMINISTRATOR) for _ in range(3)),
        return_exceptions=True,
    )
    assert [type(o).__name__ for o in outcomes].count("WalkRefused") == 2
    async with site.pool.connection() as connection, connection.transaction():
        with pytest.raises(WalkRefused):
            await begin(
                connection,
                Kind.RECONCILIATION,
                Mode.REPAIR,
                rate=1,
                by="x",
                now=dt.datetime.now(dt.UTC),
            )
        # The transaction of the caller goes on.
        await connection.execute("SELECT 1")
