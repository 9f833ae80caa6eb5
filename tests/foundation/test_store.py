"""The store: migrations, and jobs deferred in the caller's transaction."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from drimbox.foundation.errors import Unavailable
from drimbox.store import database, embedded, jobs


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


async def test_a_task_that_waits_for_a_connection_is_cancelled_whatever_comes_first(dsn: str) -> None:
    """The connection it waited for and its cancellation meet: it must not go on as if nothing had been."""

    async def for_ever() -> None:
        while True:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")

    async with database.opened(dsn, size=1) as pool:
        for turns in range(60):
            held = await pool.getconn()
            task = asyncio.create_task(for_ever())
            await asyncio.sleep(0.002)
            giving_back = asyncio.create_task(pool.putconn(held))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.done(), f"it goes on ({turns})"
            assert task.cancelled()
            await giving_back
        # None was lost on the way.
        async with asyncio.timeout(5), pool.connection() as connection:
            await connection.execute("SELECT 1")


def test_a_server_that_cannot_be_reached_is_said_without_its_password() -> None:
    with pytest.raises(Unavailable) as refused:
        database.migrate("postgresql://box:very-secret@127.0.0.1:1/box")
    assert refused.value.code == "database"
    assert "very-secret" not in str(refused.value)


async def test_an_embedded_server_that_dies_is_started_again_and_its_pool_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    with embedded.running(folder) as dsn:
        async with database.opened(dsn, size=2) as pool:
            async with pool.connection() as connection:
                await connection.execute("CREATE TABLE kept (what text)")
                await connection.execute("INSERT INTO kept VALUES ('all')")
            killed = _postmaster(folder)
            os.kill(killed, signal.SIGKILL)
            assert await asyncio.to_thread(_another_runs, folder, killed)
            assert await _kept(pool) == [{"what": "all"}]
    assert not (folder / "postmaster.pid").exists()


def _another_runs(folder: Path, former: int) -> bool:
    until = time.monotonic() + 60
    while _postmaster(folder) in (former, 0) and time.monotonic() < until:
        time.sleep(0.1)
    return _postmaster(folder) not in (former, 0)


async def _kept(pool: database.Pool) -> list[dict[str, str]]:
    async with asyncio.timeout(60):
        while True:
            # What is left of the killed server may answer once more, and break off.
            with contextlib.suppress(psycopg.Error):
                async with pool.connection() as connection:
                    return await (await connection.execute("SELECT what FROM kept")).fetchall()
            await asyncio.sleep(0.1)


def test_a_server_left_by_a_killed_user_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    program = (
        "import pathlib, sys, time; from drimbox.store import embedded\n"
        "with embedded.running(pathlib.Path(sys.argv[1])): print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"up\n"
        user.kill()
    assert (folder / "postmaster.pid").exists()
    embedded.stop_abandoned(folder)
    assert not (folder / "postmaster.pid").exists()
    embedded.stop_abandoned(folder)


def _postmaster(folder: Path) -> int:
    """Its process number, 0 while there is none."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        return int((folder / "postmaster.pid").read_text("utf-8").split()[0])
    return 0
