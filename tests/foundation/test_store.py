"""The store: migrations, and jobs deferred in the caller's transaction."""

import psycopg
import pytest

from drimbox.store import database, jobs


def test_migrating_twice_changes_nothing(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        before = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    database.migrate(dsn)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == before
    assert len(before) == 1


async def test_a_job_is_there_only_if_its_transaction_commits(pool: database.Pool) -> None:
    async def defer_then_fail() -> None:
        async with pool.connection() as connection:
            await jobs.defer(connection, "publish", args={"report": 1}, lock="study")
            raise LookupError

    with pytest.raises(LookupError):
        await defer_then_fail()
    async with pool.connection() as connection:
        assert await (await connection.execute("SELECT * FROM procrastinate_jobs")).fetchall() == []
        await jobs.defer(connection, "publish", args={"report": 1}, lock="study")
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT task_name, lock, args FROM procrastinate_jobs")).fetchall()
    assert rows == [{"task_name": "publish", "lock": "study", "args": {"report": 1}}]
