"""The reconciliation that begins by itself, every so many days."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress

from drimbox.reconciliation import walks
from drimbox.reconciliation.walk import Kind, Mode, Walk, WalkRefused
from drimbox.store.database import Connection


async def look(connection: Connection, *, every_days: float, mode: Mode, rate: int, now: dt.datetime) -> Walk | None:
    """Begin one, when the last began long enough ago and none is under way. 0 days: never."""
    if not every_days or await walks.active(connection, Kind.RECONCILIATION):
        return None
    row = await (
        await connection.execute("SELECT max(started_at) AS at FROM walk WHERE kind = %s", (Kind.RECONCILIATION.value,))
    ).fetchone()
    if row and row["at"] and now - row["at"] < dt.timedelta(days=every_days):
        return None
    with suppress(WalkRefused):
        async with connection.transaction():
            return await walks.begin(connection, Kind.RECONCILIATION, mode, rate=rate, by="drimbox", now=now)
    return None
