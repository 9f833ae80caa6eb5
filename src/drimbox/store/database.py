"""The pool of connections, and how the schema is brought up to date."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from drimbox.foundation.errors import Unavailable

Connection = psycopg.AsyncConnection[dict[str, Any]]
Pool = AsyncConnectionPool[Connection]

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def opened(dsn: str, *, size: int = 10) -> AsyncIterator[Pool]:
    """A pool on ``dsn``, rows as dicts. Raises ``Unavailable`` (``database``) when no connection can be had in 30 s."""
    pool: Pool = _Pool(
        dsn,
        min_size=1,
        max_size=size,
        open=False,
        kwargs={"row_factory": dict_row},
        connection_class=psycopg.AsyncConnection,
        # A connection of before a restart of PostgreSQL is replaced, not handed out to fail.
        check=check_alive,
        reset=_reset,
    )
    try:
        await pool.open(wait=True, timeout=30)
    except psycopg.Error as error:
        raise Unavailable("Base PostgreSQL injoignable", code="database") from error
    try:
        yield pool
    finally:
        await pool.close()


class _Pool(AsyncConnectionPool[Connection]):
    """One that never loses a cancellation.

    psycopg_pool waits by ``asyncio.wait_for``, which before Python 3.12 gives what it waited for to a task that was
    cancelled at that moment, as if nothing had been: a task in the background would go on for ever, and whoever stops
    it wait as long.
    """

    async def getconn(self, timeout: float | None = None) -> Connection:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        connection = await super().getconn(timeout)
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


@asynccontextmanager
async def single(pool: Pool) -> AsyncIterator[Connection]:
    """A connection on which each statement is a transaction of its own: one round trip, and no BEGIN nor COMMIT."""
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        yield connection


async def _reset(connection: Connection) -> None:
    """As whoever takes it next expects it."""
    await connection.set_autocommit(False)


async def check_alive(connection: psycopg.AsyncConnection[Any]) -> None:
    """Is a connection of a pool still alive? Raises ``psycopg.Error`` when not.

    A server that went away has closed its end, and a closed end can be read: only then, or when it has sent us
    something unasked, is a question worth its round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def migrate(dsn: str) -> None:
    """Bring the schema to the newest version; several nodes may call it at once (advisory lock).

    Raises ``Unavailable`` (``database``) when no connection can be had.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    url = make_url("postgresql+psycopg://")
    engine = create_engine(url, creator=lambda: psycopg.connect(dsn))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(724517)")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise Unavailable("Base PostgreSQL injoignable", code="database", peer_code=_state(error)) from error
    finally:
        engine.dispose()


def _state(error: OperationalError) -> str | None:
    """PostgreSQL's own code of the refusal, where it got that far."""
    return getattr(error.orig, "sqlstate", None)
