"""Going on with a walk: its next study, and what is written down of each. For the driver alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import LiteralString

from psycopg.types.json import Jsonb

from drimbox.reconciliation.walk import Finding, Kind, Target, Walk
from drimbox.store.database import Connection


async def next_target(connection: Connection, walk: Walk) -> Target | None:
    """The next study of a walk; None at its end."""
    query = _NEXT_BY_ADDRESS if walk.kind is Kind.ADDRESS else _NEXT
    row = await (
        await connection.execute(query, {"position": walk.position, "last": walk.last, "base": walk.base})
    ).fetchone()
    return Target(**row) if row else None


async def step(
    transaction: Connection, walk: Walk, target: Target, *, now: dt.datetime, done: int, busy: float
) -> bool:
    """Go beyond a study; False when somebody else moved, paused or stopped the walk meanwhile."""
    changed = await transaction.execute(
        "UPDATE walk SET position = %s, done = done + %s, stepped_at = %s, busy = busy + %s, note = '' "
        "WHERE id = %s AND position = %s AND state = 'running'",
        (target.position, done, now, busy, walk.id, walk.position),
    )
    return changed.rowcount == 1


async def record(
    transaction: Connection, walk: Walk, target: Target, findings: Mapping[Finding, str], *, now: dt.datetime
) -> None:
    """Write down what was found about a study, each with its detail."""
    for kind, detail in findings.items():
        await transaction.execute(
            "INSERT INTO walk_study (walk_id, position, kind, structure, study_uid, was, at, detail) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (walk.id, target.position, kind.value, target.structure, target.study_uid, target.was, now, detail[:200]),
        )
    await count(transaction, walk.id, dict.fromkeys(findings, 1))


async def repairing(transaction: Connection, walk: Walk, target: Target, job_id: int, *, now: dt.datetime) -> None:
    """Remember that a study is being repaired by a job."""
    await transaction.execute(
        "INSERT INTO walk_study (walk_id, position, structure, study_uid, was, at, job_id) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (walk.id, target.position, target.structure, target.study_uid, target.was, now, job_id),
    )


async def count(transaction: Connection, walk_id: int, numbers: Mapping[Finding, int], *, done: int = 0) -> None:
    """Add to what a walk found, and to the studies that it is through with."""
    if not numbers and not done:
        return
    await transaction.execute(
        "UPDATE walk SET done = done + %(done)s, findings = (SELECT coalesce(jsonb_object_agg(key, total), '{}') FROM "
        "(SELECT key, sum(value::bigint) AS total FROM (SELECT * FROM jsonb_each_text(findings) UNION ALL "
        "SELECT * FROM jsonb_each_text(%(numbers)s)) AS every GROUP BY key) AS sums) WHERE id = %(id)s",
        {"id": walk_id, "done": done, "numbers": Jsonb({kind.value: n for kind, n in numbers.items()})},
    )


async def wait(connection: Connection, walk: Walk, note: str) -> None:
    """Tell what a walk waits for."""
    if walk.note != note:
        await connection.execute("UPDATE walk SET note = %s WHERE id = %s AND state = 'running'", (note, walk.id))


async def finish(connection: Connection, walk: Walk, *, now: dt.datetime) -> bool:
    """The walk came to its end; False when it was paused or stopped just before."""
    changed = await connection.execute(
        "UPDATE walk SET state = 'done', ended_at = %s, note = '' WHERE id = %s AND state = 'running' "
        "AND NOT EXISTS (SELECT 1 FROM walk_study WHERE walk_id = walk.id AND kind = '')",
        (now, walk.id),
    )
    return changed.rowcount == 1


async def counted(connection: Connection, kind: Kind, base: str) -> tuple[int, int]:
    """How many studies a walk would meet now, and the id of the last."""
    query = _COUNT_BY_ADDRESS if kind is Kind.ADDRESS else _COUNT
    row = await (await connection.execute(query, {"position": 0, "last": 2**62, "base": base})).fetchone()
    assert row is not None
    return int(row["total"]), int(row["last"])


# What there is to look at: the current versions; and the last version of a study that was taken out of the DMP though
# reports on it still stand, since the study may have come back. Never one that the site declared deleted.
_WALKED: LiteralString = """
    FROM publication AS version
    WHERE version.id > %(position)s AND version.id <= %(last)s AND version.state IN ('current', 'depublished')
      AND (version.state = 'current' OR (
          NOT EXISTS (SELECT 1 FROM publication AS other
                      WHERE other.study_uid = version.study_uid AND other.structure = version.structure
                      AND (other.state IN ('current', 'prepared')
                           OR (other.state = 'depublished' AND other.id > version.id)))
          AND (SELECT documents <> '{}' FROM reported_study WHERE reported_study.structure = version.structure
               AND reported_study.study_uid = version.study_uid)
          AND (SELECT count(*) FROM withdrawn_study WHERE withdrawn_study.study_uid = version.study_uid) = 0))
"""
_TARGET: LiteralString = "SELECT version.id AS position, version.structure, version.study_uid, version.state AS was"
_NEXT: LiteralString = _TARGET + _WALKED + " ORDER BY version.id LIMIT 1"
_COUNT: LiteralString = "SELECT count(*) AS total, coalesce(max(version.id), 0) AS last" + _WALKED

# Two ranges of the index `publication_address`: no KOS is read for it.
_ELSEWHERE: LiteralString = (
    " FROM publication AS version WHERE version.state = 'current' AND version.id > %(position)s "
    'AND version.id <= %(last)s AND (retrieve_base_of(version.kos) COLLATE "C") '
)
_BEFORE: LiteralString = _ELSEWHERE + "< %(base)s"
_BEHIND: LiteralString = _ELSEWHERE + "> %(base)s"
_NEXT_BY_ADDRESS: LiteralString = (
    "SELECT * FROM ((" + _TARGET + _BEFORE + " ORDER BY version.id LIMIT 1) UNION ALL "  # noqa: S608 - constants
    "(" + _TARGET + _BEHIND + " ORDER BY version.id LIMIT 1)) AS nearest ORDER BY position LIMIT 1"
)
_COUNT_BY_ADDRESS: LiteralString = (
    "SELECT count(*) AS total, coalesce(max(id), 0) AS last FROM "  # noqa: S608 - constants
    "((SELECT version.id" + _BEFORE + ") UNION ALL (SELECT version.id" + _BEHIND + ")) AS elsewhere"
)
