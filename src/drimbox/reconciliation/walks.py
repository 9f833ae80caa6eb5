"""The tables ``walk`` and ``walk_study``: how far each walk went, and what it found.

A walk takes the studies of the archive one by one, by the id of their newest version: first those that stood at its
start. A version that is published meanwhile has a greater id, so that no study comes twice and a walk has an end.
"""

from __future__ import annotations

import datetime as dt

from psycopg.errors import UniqueViolation

from drimbox.reconciliation.steps import count, counted
from drimbox.reconciliation.walk import ACTIVE, Finding, Found, Kind, Mode, State, Walk, WalkRefused, walk_of
from drimbox.store.database import Connection, Pool


class Walks:
    """Reads and begins walks, and changes their state; going on with one is the driver's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def active(self, kind: Kind) -> Walk | None:
        """The walk of that kind which is under way or paused."""
        async with self._pool.connection() as connection:
            return await active(connection, kind)

    async def latest(self, limit: int = 10) -> tuple[Walk, ...]:
        """Newest first."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute("SELECT * FROM walk ORDER BY id DESC LIMIT %s", (limit,))).fetchall()
        return tuple(map(walk_of, rows))

    async def one(self, walk_id: int) -> Walk | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute("SELECT * FROM walk WHERE id = %s", (walk_id,))).fetchone()
        return walk_of(row) if row else None

    async def repairing(self, walk_id: int) -> int:
        """Studies whose repair is in the queue of jobs."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT count(*) AS n FROM walk_study WHERE walk_id = %s AND kind = ''", (walk_id,)
                )
            ).fetchone()
        return int(row["n"]) if row else 0

    async def found(
        self, walk_id: int, *, after: tuple[int, str] = (0, ""), kind: str = "", limit: int = 500
    ) -> tuple[Found, ...]:
        """What a walk found, in its order; ``after`` is position and kind of the line to go on from."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT position, structure, study_uid, kind, at, detail FROM walk_study "
                    "WHERE walk_id = %(walk)s AND kind <> '' AND (%(kind)s = '' OR kind = %(kind)s) "
                    "AND (position, kind) > (%(position)s, %(last)s) ORDER BY position, kind LIMIT %(limit)s",
                    {"walk": walk_id, "kind": kind, "position": after[0], "last": after[1], "limit": limit},
                )
            ).fetchall()
        return tuple(Found(**row) for row in rows)

    async def addresses(self) -> tuple[tuple[str, dt.datetime], ...]:
        """The WADO-RS bases that this source has had, newest first, each with its first day."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute("SELECT base, since FROM source_address ORDER BY id DESC LIMIT 20")
            ).fetchall()
        return tuple((row["base"], row["since"]) for row in rows)


async def active(connection: Connection, kind: Kind) -> Walk | None:
    """The walk of that kind which is under way or paused."""
    row = await (
        await connection.execute("SELECT * FROM walk WHERE kind = %s AND state IN ('running', 'paused')", (kind.value,))
    ).fetchone()
    return walk_of(row) if row else None


async def begin(
    transaction: Connection, kind: Kind, mode: Mode, *, rate: int, by: str, now: dt.datetime, base: str = ""
) -> Walk:
    """Begin a walk over what the archive holds now. Raises ``WalkRefused`` (``walk-active``): one of a kind at a time.

    ``base`` is the address that a walk of kind ``ADDRESS`` brings to the KOS: only those that have another are met.
    """
    total, last = await counted(transaction, kind, base)
    try:
        async with transaction.transaction():
            row = await (
                await transaction.execute(
                    "INSERT INTO walk (kind, mode, state, rate, base, started_at, started_by, total, last) "
                    "VALUES (%s, %s, 'running', %s, %s, %s, %s, %s, %s) RETURNING *",
                    (kind.value, mode.value, rate, base, now, by, total, last),
                )
            ).fetchone()
    except UniqueViolation:
        raise WalkRefused("Un parcours de ce genre est déjà en cours ou en pause", "walk-active") from None
    assert row is not None
    return walk_of(row)


async def change_state(transaction: Connection, kind: Kind, state: State, *, now: dt.datetime) -> Walk:
    """Pause, go on or stop; repairs that are in the queue of jobs then still come. Raises ``WalkRefused``."""
    row = await (
        await transaction.execute(
            "SELECT * FROM walk WHERE kind = %s AND state IN ('running', 'paused') FOR UPDATE", (kind.value,)
        )
    ).fetchone()
    if row is None:
        raise WalkRefused("Aucun parcours de ce genre n'est en cours", "walk-none")
    if row["state"] == state.value:
        raise WalkRefused("C'est déjà le cas", "walk-same")
    ended = now if state not in ACTIVE else None
    changed = await (
        await transaction.execute(
            "UPDATE walk SET state = %s, note = '', ended_at = %s WHERE id = %s RETURNING *",
            (state.value, ended, row["id"]),
        )
    ).fetchone()
    assert changed is not None
    if ended is not None:
        left = await transaction.execute(
            "UPDATE walk_study SET kind = %s WHERE walk_id = %s AND kind = ''", (Finding.LEFT.value, row["id"])
        )
        if left.rowcount:
            await count(transaction, int(row["id"]), {Finding.LEFT: left.rowcount})
    return walk_of(changed)
