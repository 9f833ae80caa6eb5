"""What became of the repairs that a walk left to jobs, told by the archive and by the operator's queue."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from drimbox.publication.incidents import RESYNC, RESYNC_WAITING
from drimbox.reconciliation import steps
from drimbox.reconciliation.walk import Finding, Kind, Target, Walk
from drimbox.store.database import Connection

DIFFERENCE = f"{RESYNC}difference"
"""The code of the lines that a walk without repairs puts in the operator's queue: any comparison that follows closes
them."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Repairs in the queue of jobs: about to run or running, and put off since a neighbour is away (``reason``)."""

    running: int = 0
    put_off: int = 0
    reason: str = ""


async def settle(connection: Connection, walk: Walk, *, base: str) -> UnderWay:
    """Write down the repairs that ended; what is still under way."""
    rows = await (await connection.execute(_REPAIRS, {"walk": walk.id, "waiting": RESYNC_WAITING})).fetchall()
    ended = [row for row in rows if row["status"] not in ("todo", "doing")]
    for row in ended:
        async with connection.transaction():
            await _settle(connection, walk, row, base)
    going = [row for row in rows if row["status"] in ("todo", "doing")]
    put_off = [row for row in going if row["status"] == "todo" and row["attempts"]]
    reason = next((str(row["reason"]) for row in put_off if row["reason"]), "")
    return UnderWay(len(going) - len(put_off), len(put_off), reason)


async def _settle(transaction: Connection, walk: Walk, row: dict[str, Any], base: str) -> None:
    """One repair that ended. The line of a study that was as it should be is not kept."""
    outcome = await _outcome(transaction, walk, row, base)
    where = (walk.id, row["position"])
    if outcome is None:
        changed = await transaction.execute(
            "DELETE FROM walk_study WHERE walk_id = %s AND position = %s AND kind = ''", where
        )
        numbers = {}
    else:
        kind, detail = outcome
        changed = await transaction.execute(
            "UPDATE walk_study SET kind = %s, detail = %s WHERE walk_id = %s AND position = %s AND kind = ''",
            (kind.value, detail[:200], *where),
        )
        numbers = {kind: 1}
    # Stopped meanwhile: it has been counted as left.
    if changed.rowcount:
        await steps.count(transaction, walk.id, numbers, done=1)


async def _outcome(transaction: Connection, walk: Walk, row: dict[str, Any], base: str) -> tuple[Finding, str] | None:
    """What the archive and the queue say of the study now; None when nothing had to be done."""
    if row["status"] == "failed":
        return Finding.DEFECT, "resync"
    if row["status"] is not None and row["status"] != "succeeded":
        return Finding.LEFT, str(row["status"])
    now = await (
        await transaction.execute(
            _NOW, {"study": row["study_uid"], "structure": row["structure"], "position": row["position"]}
        )
    ).fetchone()
    assert now is not None
    if now["newer"]:
        return (Finding.REPLACED if row["was"] == "current" else Finding.PUBLISHED), ""
    if row["was"] == "current" and now["state"] == "depublished":
        return Finding.DEPUBLISHED, ""
    if now["error"]:
        return Finding.STOPPED, str(now["error"])
    if walk.kind is Kind.ADDRESS and now["state"] == "current" and now["base"] != base:
        return Finding.STOPPED, "address"
    return None


async def close_difference(transaction: Connection, target: Target, *, now: dt.datetime) -> None:
    """A study is as it should be: what an earlier walk told the operator of it is over."""
    await transaction.execute(
        "UPDATE incident SET closed_at = %(now)s, history = history_with(history, %(step)s) WHERE closed_at IS NULL "
        "AND code = %(code)s AND study_uid = %(study)s AND structure = %(structure)s",
        {
            "now": now,
            "code": DIFFERENCE,
            "step": _step(now, "Comparé de nouveau : conforme"),
            "study": target.study_uid,
            "structure": target.structure,
        },
    )


def _step(now: dt.datetime, text: str) -> Jsonb:
    return Jsonb({"at": now.isoformat(), "text": text, "by": ""})


_REPAIRS: LiteralString = """
    SELECT repair.position, repair.structure, repair.study_uid, repair.was, job.status::text AS status, job.attempts,
           (SELECT reason FROM incident WHERE incident.study_uid = repair.study_uid AND incident.code = %(waiting)s
            AND incident.closed_at IS NULL LIMIT 1) AS reason
    FROM walk_study AS repair LEFT JOIN procrastinate_jobs AS job ON job.id = repair.job_id
    WHERE repair.walk_id = %(walk)s AND repair.kind = '' ORDER BY repair.position
"""

_NOW: LiteralString = """
    SELECT version.state, retrieve_base_of(version.kos) AS base,
           EXISTS (SELECT 1 FROM publication AS newer WHERE newer.study_uid = %(study)s
                   AND newer.structure = %(structure)s AND newer.state = 'current'
                   AND newer.id > %(position)s) AS newer,
           (SELECT code FROM incident WHERE study_uid = %(study)s AND structure IN ('', %(structure)s)
            AND closed_at IS NULL AND severity = 'error' ORDER BY id DESC LIMIT 1) AS error
    FROM publication AS version WHERE version.id = %(position)s
"""
