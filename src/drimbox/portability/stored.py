"""The archive as an export reads it: one consistent view of the table ``publication``, in constant memory.

What reached the DMP leaves: current, replaced and depublished versions. A version that is on its way has no known state
yet, and one that the DMP refused was never published: they are counted, not written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import IsolationLevel

from drimbox.publication.kos import State
from drimbox.store.database import Connection, Pool

EXPORTED: Final = (State.CURRENT.value, State.REPLACED.value, State.DEPUBLISHED.value)

Row = dict[str, Any]
Position = tuple[str, int]
"""Where an export stands: the month of a set (``YYYYMM``) and the id of its first version."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to export.

    ``structure`` is the short name of one structure, None for all; ``since`` and ``until`` bound the last change of a
    version (published, replaced, depublished), ``until`` excluded.
    """

    structure: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredSet:
    """One submission set: the ids of its versions."""

    position: Position
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is: sets to export, and versions that do not leave, by state."""

    sets: int
    pending: int
    abandoned: int


class StoredArchive:
    """The archive as it stands at one moment."""

    def __init__(self, connection: Connection, choice: Choice) -> None:
        self._connection = connection
        self._values = {
            "states": list(EXPORTED),
            "structure": choice.structure,
            "since": choice.since,
            "until": choice.until,
        }

    async def amount(self) -> Amount:
        """How much there is."""
        sets = await self._one(_COUNT, self._values)
        left = await self._one(_LEFT_OUT, self._values)
        return Amount(sets["found"], left["pending"], left["abandoned"])

    async def changed(self, since: dt.datetime) -> int:
        """How many sets have a version that changed from ``since`` on."""
        row = await self._one(_COUNT + " WHERE changed >= %(changed)s", {**self._values, "changed": since})
        return int(row["found"])

    async def sets(self, after: Position | None) -> AsyncIterator[StoredSet]:
        """The sets in the order of the export, those after ``after``."""
        async with self._connection.cursor(name="archive_export") as cursor:
            cursor.itersize = 500
            month, first = after or (None, None)
            values = {**self._values, "month": month, "first": first}
            await cursor.execute(_IN_ORDER, values)
            async for row in cursor:
                yield StoredSet((row["month"], row["first"]), row["ids"])

    async def versions(self, ids: Sequence[int]) -> list[Row]:
        """The versions of a set, whole, oldest first."""
        cursor = await self._connection.execute(_VERSIONS, {"ids": list(ids), "states": list(EXPORTED)})
        return await cursor.fetchall()

    async def _one(self, query: LiteralString, values: dict[str, Any]) -> Row:
        row = await (await self._connection.execute(query, values)).fetchone()
        assert row is not None
        return row


@asynccontextmanager
async def looking_at(pool: Pool, choice: Choice) -> AsyncIterator[StoredArchive]:
    """The archive as it stands now, for as long as the block lasts."""
    async with pool.connection() as connection:
        before = connection.isolation_level
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        try:
            async with connection.transaction():
                yield StoredArchive(connection, choice)
        finally:
            if not connection.closed:
                await connection.set_isolation_level(before)


# Versions of one set were prepared in one go. A change of any of them makes the whole set leave again.
_SETS: LiteralString = """
SELECT min(id) AS first, array_agg(id ORDER BY id) AS ids,
       max(coalesce(ended_at, confirmed_at, prepared_at)) AS changed,
       to_char(min(prepared_at) AT TIME ZONE 'Europe/Paris', 'YYYYMM') AS month
FROM publication
WHERE %(structure)s::text IS NULL OR structure = %(structure)s
GROUP BY structure, submission_uid, prepared_at
HAVING bool_and(state = ANY (%(states)s))
   AND bool_or((%(since)s::timestamptz IS NULL OR coalesce(ended_at, confirmed_at, prepared_at) >= %(since)s)
               AND (%(until)s::timestamptz IS NULL OR coalesce(ended_at, confirmed_at, prepared_at) < %(until)s))
"""
_KEY: LiteralString = "(to_char(min(prepared_at) AT TIME ZONE 'Europe/Paris', 'YYYYMM'), min(id))"
_AFTER: LiteralString = " AND (%(month)s::text IS NULL OR " + _KEY + " > (%(month)s, %(first)s::bigint))"
# All of them are literals.
_COUNT: LiteralString = "SELECT count(*) AS found FROM (" + _SETS + ") AS sets"  # noqa: S608
_IN_ORDER: LiteralString = "SELECT * FROM (" + _SETS + _AFTER + ") AS sets ORDER BY month, first"  # noqa: S608

_LEFT_OUT: LiteralString = """
SELECT count(*) FILTER (WHERE state = 'prepared') AS pending, count(*) FILTER (WHERE state = 'abandoned') AS abandoned
FROM publication WHERE %(structure)s::text IS NULL OR structure = %(structure)s
"""

# The documents that stand on a study are told with its newest version alone.
_VERSIONS: LiteralString = """
SELECT p.*, old.kos_uid AS replaced_kos,
       CASE WHEN NOT EXISTS (SELECT 1 FROM publication newer WHERE newer.structure = p.structure
                             AND newer.study_uid = p.study_uid AND newer.id > p.id
                             AND newer.state = ANY (%(states)s))
            THEN reported_study.documents END AS standing
FROM publication p
LEFT JOIN publication old ON old.id = p.replaces
LEFT JOIN reported_study ON reported_study.structure = p.structure AND reported_study.study_uid = p.study_uid
WHERE p.id = ANY (%(ids)s) ORDER BY p.id
"""
