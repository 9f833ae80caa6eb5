"""The end of the retention: what is older than the site keeps leaves the journal, and nothing else does (DB.CS.09).

Events leave by whole seals, oldest first. One transaction writes a removal into the chain, deletes what it names and
tells it in the journal; the database lets no other event go (rule ``audit_no_delete``). What was altered is not
removed: the evidence stays.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from drimbox.foundation.errors import Refused
from drimbox.record import seals
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Thing
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Connection, Pool

LEAST_DAYS = 180
"""The shortest retention that a site may choose; the database holds to it too."""

_EVENTS_AT_ONCE = 200_000


@dataclass(frozen=True, slots=True)
class Removed:
    """What left: how many events, all older than ``before``."""

    events: int
    before: dt.datetime


async def removable(pool: Pool, keep_days: int) -> int:
    """How many sealed events are older than that."""
    async with pool.connection() as connection:
        before = await seals.head(connection)
        row = await (await connection.execute(_AHEAD, _values(before.removed_to, keep_days, None))).fetchone()
    return int(row["events"]) if row else 0


async def remove(pool: Pool, key: PatientKey, journal: Journal, *, keep_days: int, by: Actor) -> Removed:
    """Take out every sealed event that is older than ``keep_days``, in steps that are each whole.

    Raises ``Refused``: ``journal-retention`` for a retention under ``LEAST_DAYS``, ``journal-altered`` when a range to
    take out is not as it was sealed.
    """
    if keep_days < LEAST_DAYS:
        raise Refused(f"Le journal se garde au moins {LEAST_DAYS} jours", code="journal-retention")
    events = 0
    while True:
        async with pool.connection() as connection, connection.transaction():
            await seals.hold(connection)
            gone, before = await _step(connection, key, journal, keep_days, by)
        events += gone
        if not gone:
            return Removed(events, before)


async def _step(
    connection: Connection, key: PatientKey, journal: Journal, keep_days: int, by: Actor
) -> tuple[int, dt.datetime]:
    end = await seals.head(connection)
    row = await (await connection.execute(_AHEAD, _values(end.removed_to, keep_days, _EVENTS_AT_ONCE))).fetchone()
    assert row is not None
    if not row["events"]:
        return 0, row["cutoff"]
    await _check(connection, row["first"], row["last"], end.removed_to)
    seal = seals.Seal(
        number=end.number + 1,
        kind="removal",
        first_id=end.removed_to + 1,
        last_id=row["last_id"],
        events=row["events"],
        newest_at=row["cutoff"],
        keep_days=keep_days,
        digest=b"",
        sealed_at=row["now"],
    )
    await seals.append(connection, seal, end, key)
    deleted = await connection.execute("DELETE FROM audit WHERE id <= %s", (seal.last_id,))
    if deleted.rowcount != seal.events:
        raise _altered()
    told = f"{seal.events} traces de plus de {keep_days} jours, jusqu'au numéro {seal.last_id}"
    await journal.write(connection, Event(Kind.AUDIT_REMOVED, by, (Object(Thing.SYSTEM, "journal", told),)))
    return int(row["events"]), row["cutoff"]


async def _check(connection: Connection, first: int, last: int, removed_to: int) -> None:
    values = {"first": first, "last": last, "removed_to": removed_to}
    for row in await (await connection.execute(seals.SEALED, values)).fetchall():
        if row["found"] != row["events"] or row["computed"] != row["digest"]:
            raise _altered()


def _altered() -> Refused:
    reason = "Des traces à retirer ne sont pas telles qu'elles ont été scellées : rien n'est retiré"
    return Refused(reason, code="journal-altered")


def _values(removed_to: int, keep_days: int, most: int | None) -> dict[str, Any]:
    return {"removed_to": removed_to, "keep": keep_days, "most": most}


# The seals that may go: in a row from the oldest, as long as each is old enough. The first goes however large it is.
_AHEAD = """
WITH cut AS (SELECT now() - make_interval(days => %(keep)s) AS off),
ahead AS (
    SELECT number, last_id, events, sum(events) OVER (ORDER BY number) AS total,
        bool_and(newest_at < cut.off) OVER (ORDER BY number) AS old, row_number() OVER (ORDER BY number) AS place
    FROM audit_seal, cut WHERE kind = 'rows' AND last_id > %(removed_to)s
)
SELECT coalesce(sum(events), 0)::bigint AS events, min(number) AS first, max(number) AS last, max(last_id) AS last_id,
    (SELECT off FROM cut) AS cutoff, clock_timestamp() AS now
FROM ahead WHERE old AND (%(most)s::bigint IS NULL OR total <= %(most)s OR place = 1)
"""
