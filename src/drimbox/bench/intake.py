"""Reports accepted and durably queued, over one and over eight connections; beside the database's own limit."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from drimbox.bench.messages import LARGE, SMALL, Messages
from drimbox.bench.rows import Row, ratio
from drimbox.bench.usage import family, postmaster, processor_seconds
from drimbox.sandbox.ris import wire
from drimbox.store import database, embedded

_CONNECTIONS = (1, 8)
# Enough of each for seconds of work, and for what they weigh together.
_HOW_MANY = {SMALL: 2000, LARGE: 320}


class Lost(Exception):
    """What was acknowledged is not there, or is there otherwise: the figures would mean nothing."""


async def measure(folder: Path, rounds: int) -> list[Row]:
    """A PostgreSQL and a receiver of their own in ``folder``."""
    rows: list[Row] = []
    with embedded.running(folder / "postgres") as dsn:
        await asyncio.to_thread(database.migrate, dsn)
        await asyncio.to_thread(_make_room, dsn)
        async with receiving(dsn, folder) as (port, process):
            processes = (process.pid, *family(postmaster(folder / "postgres")))
            for size in (SMALL, LARGE):
                for connections in _CONNECTIONS:
                    rows += await _one(dsn, port, processes, size, connections, rounds)
    return rows


async def _one(dsn: str, port: int, processes: Sequence[int], size: int, connections: int, rounds: int) -> list[Row]:
    what = f"{size // 1000} kB over {connections} MLLP connection{'s' if connections > 1 else ''}"
    accepted = Row(f"reports of {what}, accepted and durably queued", "/s")
    limit = Row(f"{what.replace('MLLP', 'database')}: the same bytes, INSERT and COMMIT alone", "/s")
    cost = Row(f"reports of {what}, processor time of receiver and database for one", "ms")
    count = _HOW_MANY[size]
    for turn in range(rounds + 1):
        run = f"I{size}-{connections}-{turn}-{time.monotonic_ns()}"
        maker = Messages(run, size)
        messages = [maker.one(number) for number in range(count)]
        alone = await asyncio.to_thread(_inserted, dsn, messages, connections)
        before = processor_seconds(processes)
        begun = time.monotonic()
        await sent(port, messages, connections)
        seconds = time.monotonic() - begun
        spent = processor_seconds(processes) - before
        await asyncio.to_thread(_check, dsn, run, count)
        if turn:
            # The first turn warms up.
            accepted.values.append(count / seconds)
            limit.values.append(alone)
            cost.values.append(1000 * spent / count)
    return [accepted, limit, ratio(f"{what}: ratio to the database alone", accepted, limit), cost]


async def sent(port: int, messages: Sequence[bytes], connections: int) -> None:
    """Each connection sends its next message once the one before is answered, as senders do."""
    answers = await asyncio.gather(
        *(wire.send("127.0.0.1", port, messages[k::connections]) for k in range(connections))
    )
    if not all(wire.verdict(answer) == "AA" for some in answers for answer in some):
        raise Lost("a message was not accepted")


def _inserted(dsn: str, messages: Sequence[bytes], connections: int) -> float:
    """Rows per second that the same bytes make in a table of nothing else, each with its own COMMIT."""

    async def some(share: Sequence[bytes]) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            for message in share:
                await connection.execute("INSERT INTO bench_limit (raw) VALUES (%s)", (message,))
                await connection.commit()

    async def all_of_them() -> float:
        begun = time.monotonic()
        await asyncio.gather(*(some(messages[k::connections]) for k in range(connections)))
        return len(messages) / (time.monotonic() - begun)

    return asyncio.run(all_of_them())


def _make_room(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE bench_limit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, raw bytea)")
        connection.execute("ALTER TABLE bench_limit ALTER COLUMN raw SET STORAGE EXTERNAL")


def _check(dsn: str, run: str, count: int) -> None:
    """Every acknowledged message is there with its report and its job; then make room again."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM message m JOIN report r ON r.message_id = m.id "
            "JOIN procrastinate_jobs j ON (j.args ->> 'report_id')::bigint = r.id WHERE m.control_id LIKE %s",
            (f"{run}-%",),
        ).fetchone()
        if row is None or row[0] != count:
            raise Lost(f"{count} messages were acknowledged, {row and row[0]} are there")
        connection.execute("TRUNCATE message, procrastinate_jobs CASCADE")
        connection.execute(sql.SQL("TRUNCATE bench_limit"))


@asynccontextmanager
async def receiving(dsn: str, folder: Path) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """The port and the process of a receiver on this database."""
    with (folder / "receiver.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "drimbox.bench.receiver", dsn, str(folder), stdout=asyncio.subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = await process.stdout.readline()
        yield int(said), process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
