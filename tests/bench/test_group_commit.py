"""Pieces of work that share a transaction: each is committed before its caller is told, none takes others with it."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from drimbox.store.database import Pool, opened, single
from drimbox.store.grouping import GroupCommit, Statement

_PUT = "INSERT INTO note (number) VALUES (%(number)s)"


def put(number: int, size: int = 0) -> Statement:
    return Statement(_PUT, {"number": number}, size)


@pytest.fixture
async def table(pool: Pool) -> Pool:
    async with single(pool) as connection:
        await connection.execute(
            "CREATE TABLE note (place bigint GENERATED ALWAYS AS IDENTITY, number integer UNIQUE CHECK (number <> 13), "
            "made xid8 DEFAULT pg_current_xact_id())"
        )
    return pool


async def notes(pool: Pool) -> list[tuple[int, str]]:
    async with single(pool) as connection:
        rows = await (await connection.execute("SELECT number, made::text AS made FROM note ORDER BY place")).fetchall()
    return [(row["number"], row["made"]) for row in rows]


async def test_those_who_wait_together_share_transactions_and_keep_their_order(table: Pool) -> None:
    group = GroupCommit(table)
    await asyncio.gather(*(group.run(put(n)) for n in range(40) if n != 13))
    found = await notes(table)
    assert [number for number, _ in found] == [n for n in range(40) if n != 13]
    # The first goes at once, alone or nearly; the others that came meanwhile go together.
    assert len({made for _, made in found}) <= 3


async def test_a_group_has_its_limits(table: Pool) -> None:
    group = GroupCommit(table, most=4, most_bytes=100)
    await asyncio.gather(*(group.run(put(n, 60 if n < 20 else 0)) for n in range(40) if n != 13))
    found = await notes(table)
    by_transaction = [[n for n, made in found if made == one] for one in dict.fromkeys(made for _, made in found)]
    assert all(len(numbers) <= 4 for numbers in by_transaction)
    # Two of those that are large do not go together.
    assert all(sum(n < 20 for n in numbers) <= 1 for numbers in by_transaction)


async def test_one_that_fails_takes_no_other_with_it(table: Pool) -> None:
    group = GroupCommit(table)
    ended = await asyncio.gather(*(group.run(put(n)) for n in (1, 2, 13, 3, 2, 4)), return_exceptions=True)
    assert [type(end) for end in ended] == [
        *(type(None), type(None), psycopg.errors.CheckViolation),
        *(type(None), psycopg.errors.UniqueViolation, type(None)),
    ]
    assert [number for number, _ in await notes(table)] == [1, 2, 3, 4]


async def test_who_is_told_finds_its_work_committed(table: Pool, dsn: str) -> None:
    """Asked over a connection of its own, at the very moment of being told."""
    group = GroupCommit(table)

    async def told(number: int) -> bool:
        await group.run(put(number))
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
            return (await (await other.execute("SELECT 1 FROM note WHERE number = %s", (number,))).fetchone()) == (1,)

    assert all(await asyncio.gather(*(told(n) for n in range(200, 230))))


async def test_nothing_is_told_before_the_commit(table: Pool, dsn: str) -> None:
    """What waits for a lock inside the transaction keeps everyone of the group waiting."""
    group = GroupCommit(table)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("LOCK TABLE note IN EXCLUSIVE MODE")
        waiting = [asyncio.create_task(group.run(put(n))) for n in (1, 2, 3)]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        await other.rollback()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert len(await notes(table)) == 3


async def test_a_caller_that_gives_up_disturbs_no_one(table: Pool, dsn: str) -> None:
    group = GroupCommit(table)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("LOCK TABLE note IN EXCLUSIVE MODE")
        gives_up, *others = [asyncio.create_task(group.run(put(n))) for n in (1, 2, 3)]
        await asyncio.sleep(0.1)
        gives_up.cancel()
        await other.rollback()
    await asyncio.wait_for(asyncio.gather(*others), 10)
    await asyncio.wait_for(group.run(put(4)), 10)
    assert {2, 3, 4} <= {number for number, _ in await notes(table)}


async def test_without_a_database_all_are_told_at_once(dsn: str) -> None:
    async with opened(dsn, size=2) as pool:
        group = GroupCommit(pool)
    ended = await asyncio.gather(*(group.run(put(n)) for n in range(5)), return_exceptions=True)
    assert all(isinstance(end, psycopg.OperationalError) for end in ended)


async def test_two_groups_in_each_others_way_both_come_through(table: Pool) -> None:
    """The same keys in opposite orders, from two nodes: one is stored once, no one is left without an answer."""
    first, second = GroupCommit(table), GroupCommit(table)
    numbers = list(range(300, 330))
    ended = await asyncio.gather(
        *(first.run(put(n)) for n in numbers), *(second.run(put(n)) for n in reversed(numbers)), return_exceptions=True
    )
    assert sorted(number for number, _ in await notes(table)) == numbers
    assert sum(end is None for end in ended) == len(numbers)
    assert all(end is None or isinstance(end, psycopg.errors.UniqueViolation) for end in ended)


async def test_a_connection_that_served_alone_is_as_it_was(table: Pool) -> None:
    """Neither a single statement nor the end of a broken one leaves a connection that commits by itself."""
    group = GroupCommit(table)
    for number in (1, 13, 2):
        await asyncio.gather(group.run(put(number)), return_exceptions=True)
    for _ in range(8):
        async with table.connection() as connection:
            assert not connection.autocommit
            await connection.execute(_PUT, {"number": 99})
            await connection.rollback()
    assert [number for number, _ in await notes(table)] == [1, 2]
