"""Durable jobs: deferred in the transaction that stores what they are about (procrastinate on the same PostgreSQL)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from psycopg.types.json import Jsonb

from drimbox.store.database import Connection

_DEFER = """
SELECT procrastinate_defer_jobs_v1(ARRAY[
    ROW(%(queue)s, %(task)s, %(priority)s, %(lock)s, NULL, %(args)s, %(at)s)::procrastinate_job_to_defer_v1
]) AS ids
"""


async def defer(
    connection: Connection,
    task: str,
    *,
    args: Mapping[str, str | int],
    lock: str | None = None,
    queue: str = "default",
    priority: int = 0,
    at: dt.datetime | None = None,
) -> int:
    """Put one job in the queue, within the caller's transaction; returns its id.

    Jobs that share a ``lock`` run one after the other, in the order they were deferred. ``args`` hold identifiers of
    rows, never health data.
    """
    row = await (
        await connection.execute(
            _DEFER,
            {"queue": queue, "task": task, "priority": priority, "lock": lock, "args": Jsonb(dict(args)), "at": at},
        )
    ).fetchone()
    assert row is not None
    return int(row["ids"][0])
