"""What was acknowledged is there, once, whatever dies in between; what was not acknowledged has one effect when it
comes again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from drimbox.bench.intake import receiving
from drimbox.bench.messages import Messages
from drimbox.sandbox.ris import wire
from drimbox.store import database, embedded

CONNECTIONS = 8


class Sender:
    """Sends until answered: after a broken connection or an AR it begins again with the same message, as a RIS does."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[int, list[bytes]] = {}
        self.tries: Counter[int] = Counter()

    async def send(self, number: int, message: bytes) -> None:
        for _ in range(600):
            self.tries[number] += 1
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                [answer] = await wire.send("127.0.0.1", self.port, [message], timeout=20)
                if wire.verdict(answer) == "AA":
                    self.answers.setdefault(number, []).append(answer)
                    return
                assert wire.verdict(answer) == "AR"
            await asyncio.sleep(0.05)
        raise AssertionError("never acknowledged")


async def effects(dsn: str) -> dict[str, tuple[int, int, int]]:
    """For each control id: how many messages, reports and jobs."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (
            await connection.execute(
                "SELECT m.control_id, count(DISTINCT m.id), count(DISTINCT r.id), count(DISTINCT j.id) FROM message m "
                "LEFT JOIN report r ON r.message_id = m.id "
                "LEFT JOIN procrastinate_jobs j ON (j.args ->> 'report_id')::bigint = r.id GROUP BY 1"
            )
        ).fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """A PostgreSQL of this test's own: it will be killed."""
    with embedded.running(tmp_path / "postgres") as dsn:
        await asyncio.to_thread(database.migrate, dsn)
        yield dsn


@pytest.mark.requirement("DB.SO.03")
async def test_a_receiver_that_is_killed_loses_nothing_that_it_acknowledged(dsn: str, tmp_path: Path) -> None:
    maker, sender, dice = Messages("KILL", 12_000), Sender(), random.Random(7)
    numbers = itertools.count()
    ends = 0

    async def one_connection() -> None:
        while ends < 5:
            number = next(numbers)
            await sender.send(number, maker.one(number))

    work = [asyncio.create_task(one_connection()) for _ in range(CONNECTIONS)]
    while not all(task.done() for task in work):
        async with receiving(dsn, tmp_path) as (sender.port, process):
            await asyncio.wait(work, timeout=dice.uniform(0.05, 0.6) if ends < 5 else None)
            before = set(sender.answers)
            if not all(task.done() for task in work):
                process.send_signal(signal.SIGKILL)
                await process.wait()
                ends += 1
        there = await effects(dsn)
        assert all(there[f"KILL-{number}"] == (1, 1, 1) for number in before)
    await asyncio.gather(*work)
    sent = next(numbers)
    assert sent > CONNECTIONS
    # Some were committed and not acknowledged any more: they came again, and had no second effect.
    assert await effects(dsn) == {f"KILL-{number}": (1, 1, 1) for number in range(sent)}
    assert sum(sender.tries.values()) > sent


@pytest.mark.requirement("DB.SO.03")
async def test_a_database_that_is_killed_loses_nothing_that_was_acknowledged(server: str, tmp_path: Path) -> None:
    maker, sender, dice = Messages("PG", 12_000), Sender(), random.Random(11)
    numbers = iter(range(160))

    async def one_connection() -> None:
        for number in numbers:
            await sender.send(number, maker.one(number))

    async with receiving(server, tmp_path) as (sender.port, _):
        work = [asyncio.create_task(one_connection()) for _ in range(CONNECTIONS)]
        for _ in range(3):
            await asyncio.wait(work, timeout=dice.uniform(0.1, 0.4))
            before = set(sender.answers)
            await _kill_a_backend(server)
            there = await _once_it_is_back(server)
            assert all(there[f"PG-{number}"] == (1, 1, 1) for number in before)
        await asyncio.wait_for(asyncio.gather(*work), 120)
    assert await effects(server) == {f"PG-{number}": (1, 1, 1) for number in range(160)}


async def _kill_a_backend(dsn: str) -> None:
    """SIGKILL to one that works for the receiver: PostgreSQL then throws away all memory and recovers from its log."""
    with suppress(psycopg.OperationalError):
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            rows = await (
                await connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            ).fetchall()
            for (pid,) in rows[:1]:
                os.kill(pid, signal.SIGKILL)


async def _once_it_is_back(dsn: str) -> dict[str, tuple[int, int, int]]:
    async with asyncio.timeout(60):
        while True:
            with suppress(psycopg.OperationalError):
                return await effects(dsn)
            await asyncio.sleep(0.1)


@pytest.mark.requirement("DB.SO.03")
async def test_the_acknowledgement_waits_for_the_commit(dsn: str, tmp_path: Path) -> None:
    """Everything is written, and then the commit itself takes its time: nothing is answered meanwhile."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$"
        )
        await connection.execute(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON report DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slow_commit()"
        )
    maker, loop = Messages("SLOW", 12_000), asyncio.get_running_loop()
    async with receiving(dsn, tmp_path) as (port, process):
        begun = loop.time()
        await wire.send("127.0.0.1", port, [maker.one(1)])
        assert loop.time() - begun >= 0.5
        # Killed during the commit: never acknowledged, and not there.
        lost = asyncio.create_task(wire.send("127.0.0.1", port, [maker.one(2)]))
        await asyncio.sleep(0.25)
        assert not lost.done()
        process.kill()
        with pytest.raises(ConnectionError):
            await lost
    await asyncio.sleep(0.6)
    async with receiving(dsn, tmp_path) as (port, _):
        [answer] = await wire.send("127.0.0.1", port, [maker.one(2)])
    assert wire.verdict(answer) == "AA"
    assert await effects(dsn) == {"SLOW-1": (1, 1, 1), "SLOW-2": (1, 1, 1)}


@pytest.mark.requirement("DB.SO.03")
async def test_duplicates_over_eight_connections_have_one_effect_and_one_answer(dsn: str, tmp_path: Path) -> None:
    """Each message over every connection, each connection in an order of its own, several times over."""
    maker, dice = Messages("DUP", 12_000), random.Random(3)
    messages = [maker.one(number) for number in range(30)]
    orders = [dice.sample(range(30), 30) + dice.sample(range(30), 30) for _ in range(CONNECTIONS)]
    async with receiving(dsn, tmp_path) as (port, _):
        answers = await asyncio.gather(
            *(wire.send("127.0.0.1", port, [messages[number] for number in order]) for order in orders)
        )
    for number in range(30):
        one = {
            a
            for order, some in zip(orders, answers, strict=True)
            for n, a in zip(order, some, strict=True)
            if n == number
        }
        assert len(one) == 1
        assert wire.verdict(one.pop()) == "AA"
    assert await effects(dsn) == {f"DUP-{number}": (1, 1, 1) for number in range(30)}


async def test_two_nodes_on_one_database_take_a_message_once(dsn: str, tmp_path: Path) -> None:
    maker = Messages("TWO", 12_000)
    messages = [maker.one(number) for number in range(40)]
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(receiving(dsn, tmp_path)))[0] for _ in range(2)]
        jobs = [wire.send("127.0.0.1", port, messages[::step]) for port in ports for step in (1, -1)]
        answers = await asyncio.gather(*jobs)
    assert all(wire.verdict(answer) == "AA" for some in answers for answer in some)
    assert answers[0] == answers[2] == answers[1][::-1] == answers[3][::-1]
    assert await effects(dsn) == {f"TWO-{number}": (1, 1, 1) for number in range(40)}
