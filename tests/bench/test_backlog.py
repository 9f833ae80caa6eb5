"""A long queue: in order on each study, as fast as a short one, in the same memory."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import psycopg
import pytest

from drimbox.bench.backlog import Backlog, backlog
from drimbox.bench.messages import exam_of, study_uid
from drimbox.bench.usage import resident
from drimbox.store.database import Pool


def both(number: int) -> list[str]:
    """The documents of the two reports on a study, in their order."""
    return [exam_of(number).document_id, f"1.2.250.1.213.4.5.99.5.{number}"]


def in_order(queue: Backlog) -> bool:
    """Did the second report on each study come after the first, and none twice? Some were passed over."""
    for study, documents in queue.dmp.arrived.items():
        expected = both(int(study.rpartition(".")[2]))
        if documents not in (expected, expected[:1], expected[1:]):
            return False
    return True


async def test_a_backlog_is_carried_through_in_order(dsn: str, pool: Pool, tmp_path: Path) -> None:
    queue = backlog(dsn, pool, tmp_path)
    await queue.fill(30)
    assert await queue.waiting() == 60
    await queue.drain(60)
    assert all(queue.dmp.arrived[study_uid(n)] == both(n) for n in range(30))


@pytest.mark.slow
@pytest.mark.requirement("D7")
async def test_fifty_thousand_reports_wait_and_hinder_no_one(dsn: str, pool: Pool, tmp_path: Path) -> None:
    queue = backlog(dsn, pool, tmp_path)
    await queue.fill(25_000)
    assert await queue.waiting() == 50_000
    # What is loaded once and for all is loaded.
    await queue.drain(200)
    gc.collect()
    before = resident(os.getpid())
    head = await queue.drain(500)
    await queue.skip(await queue.waiting() - 25_000)
    middle = await queue.drain(500)
    gc.collect()
    after = resident(os.getpid())
    await queue.skip(await queue.waiting() - 600)
    end = await queue.drain(500)
    assert in_order(queue)
    assert after - before < 30 * 2**20
    # The machine may have other work; a queue whose cost grows with its length would be off by far more.
    assert head < 3 * end
    assert middle < 3 * end


# --- the queue itself -------------------------------------------------------------------------------------------------


async def put(connection: psycopg.AsyncConnection, lock: str, *, priority: int = 0, after: str | None = None) -> int:
    row = await (
        await connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, priority, scheduled_at) "
            "VALUES ('default', 't', %s, %s, now() + %s::interval) RETURNING id",
            (lock, priority, after),
        )
    ).fetchone()
    assert row is not None
    return int(row[0])


async def fetch(connection: psycopg.AsyncConnection, queues: list[str] | None = None) -> int | None:
    row = await (
        await connection.execute("SELECT id FROM procrastinate_fetch_job_v2(%s::varchar[], NULL)", (queues,))
    ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


async def finish(connection: psycopg.AsyncConnection, job: int | None) -> None:
    await connection.execute("DELETE FROM procrastinate_jobs WHERE id = %s", (job,))


async def test_work_on_one_lock_keeps_its_order_even_while_the_first_waits(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        waits = await put(connection, "a", after="1 hour")
        behind = await put(connection, "a")
        free, second = await put(connection, "b"), await put(connection, "b")
        assert await fetch(connection) == free
        assert await fetch(connection) is None
        await finish(connection, free)
        assert await fetch(connection) == second
        await connection.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE id = %s", (waits,))
        assert await fetch(connection) == waits
        assert await fetch(connection) is None
        await finish(connection, waits)
        assert await fetch(connection) == behind


async def test_what_is_due_comes_before_what_is_newer_and_priority_before_both(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        tried = await put(connection, "a", after="-1 second")
        background = await put(connection, "b", priority=-10, after="-1 hour")
        new, urgent = await put(connection, "c"), await put(connection, "d", priority=5)
        walk = await put(connection, "e", priority=-10)
        assert [await fetch(connection) for _ in range(5)] == [urgent, tried, new, background, walk]
        assert await fetch(connection) is None


async def test_a_worker_takes_jobs_of_its_queues_only(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        job = await put(connection, "a")
        assert await fetch(connection, ["other"]) is None
        assert await fetch(connection, ["other", "default"]) == job


async def test_workers_at_once_never_share_a_lock_nor_a_job(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for number in range(60):
            await put(connection, f"lock-{number % 12}")
    done: list[tuple[str, int]] = []
    running: set[str] = set()

    async def worker() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as own:
            while len(done) < 60:
                row = await (
                    await own.execute("SELECT id, lock FROM procrastinate_fetch_job_v2(NULL, NULL)")
                ).fetchone()
                if row is None or row[0] is None:
                    await asyncio.sleep(0.005)
                    continue
                job, lock = row
                assert lock not in running
                running.add(lock)
                await asyncio.sleep(0.001)
                done.append((lock, job))
                running.discard(lock)
                await finish(own, job)

    await asyncio.wait_for(asyncio.gather(*(worker() for _ in range(6))), 60)
    assert len({job for _, job in done}) == 60
    for number in range(12):
        jobs = [job for lock, job in done if lock == f"lock-{number}"]
        assert jobs == sorted(jobs)


async def test_those_that_wait_for_later_are_not_read(dsn: str) -> None:
    """20,000 that wait for their time: to find the one that may run, a handful of pages are read."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, scheduled_at) "
            "SELECT 'default', 't', 'l' || n, now() + interval '1 hour' FROM generate_series(1, 20000) AS n"
        )
        await connection.execute("ANALYZE procrastinate_jobs")
        # The first look reads the catalogue, too.
        await finish(connection, await fetch(connection))
        job = await put(connection, "free")
        plan = await (
            await connection.execute(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT id FROM procrastinate_fetch_job_v2(NULL, NULL)"
            )
        ).fetchone()
        assert plan is not None
        top = plan[0][0]["Plan"]
        assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 300
        row = await (await connection.execute("SELECT id FROM procrastinate_jobs WHERE status = 'doing'")).fetchone()
        assert row == (job,)
