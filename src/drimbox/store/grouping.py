"""Group commit: pieces of work that wait at the same time share one transaction, one round trip and one flush.

Each caller is told only after the commit of the transaction that holds its work. A piece that fails takes none of the
others with it: the group is rolled back and each piece is carried out in a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from drimbox.store.database import Connection, Pool, single


@dataclass(frozen=True, slots=True)
class Statement:
    """A piece of work: one statement, its values by name. It may be carried out twice, the first time rolled back."""

    query: LiteralString
    values: Mapping[str, object]
    size: int = 0
    """Bytes, roughly."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    statement: Statement
    done: asyncio.Future[None]


class GroupCommit:
    """Carries out pieces of work in the order in which they came, as many in one transaction as wait for it.

    ``most`` pieces and ``most_bytes`` (as their callers say) go into one transaction; a larger piece goes alone.
    """

    def __init__(self, pool: Pool, *, most: int = 64, most_bytes: int = 16 * 2**20) -> None:
        self._pool = pool
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[_Waiting] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def run(self, statement: Statement) -> None:
        """Returns once the work is committed. Raises what the database raised; then nothing of it is stored, but after
        ``OperationalError`` and ``InterfaceError``, where nobody knows.
        """
        waiting = _Waiting(statement, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        await waiting.done

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._carry_out(self._next())
        finally:
            self._runner = None
            for left in self._waiting:
                left.done.cancel()

    def _next(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        room = self._most_bytes - group[0].statement.size
        while self._waiting and len(group) < self._most and self._waiting[0].statement.size <= room:
            group.append(self._waiting.popleft())
            room -= group[-1].statement.size
        return group

    async def _carry_out(self, group: list[_Waiting]) -> None:
        try:
            await self._together([waiting.statement for waiting in group])
        except asyncio.CancelledError:
            for waiting in group:
                waiting.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - each caller is given what its own statement raised
            if len(group) == 1 or _no_database(error):
                _tell(group, error)
                return
            for waiting in group:
                await self._carry_out([waiting])
        else:
            _tell(group, None)

    async def _together(self, statements: Sequence[Statement]) -> None:
        if len(statements) == 1:
            async with single(self._pool) as connection:
                await _execute(connection, statements[0])
            return
        async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
            for statement in statements:
                await _execute(connection, statement)


async def _execute(connection: Connection, statement: Statement) -> None:
    await connection.execute(statement.query, statement.values, prepare=True)


def _no_database(error: Exception) -> bool:
    """Is the connection lost or not to be had? Trying the pieces one by one would only multiply the wait.

    Not so where two transactions stood in each other's way (SQLSTATE 40…): smaller ones will not.
    """
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return lost and not (getattr(error, "sqlstate", None) or "").startswith("40")


def _tell(group: Sequence[_Waiting], error: Exception | None) -> None:
    for waiting in group:
        # Its caller may be gone: cancelled while the commit was under way.
        if waiting.done.done():
            continue
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)
