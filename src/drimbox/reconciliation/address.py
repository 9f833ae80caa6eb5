"""This source's own address changed: the KOS that carry another one are to be rewritten (DB.SO.31).

Seen at the start, and from time to time: an archive that was imported carries the addresses of the box before.
"""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import suppress
from typing import LiteralString

from drimbox.reconciliation import walks
from drimbox.reconciliation.walk import Kind, Mode, State, Walk, WalkRefused
from drimbox.store.database import Connection

_log = logging.getLogger(__name__)


async def look(connection: Connection, base: str, *, rate: int, now: dt.datetime) -> Walk | None:
    """Remember the address of this source; begin a walk when KOS carry another one and none is under way for it.

    Those that a walk to this address has already met are left alone: what kept them from being rewritten is in the
    operator's queue.
    """
    async with connection.transaction():
        changed = await _remember(connection, base, now)
        under_way = await walks.active(connection, Kind.ADDRESS)
        if under_way is not None:
            if under_way.base == base or not changed:
                return None
            await walks.change_state(connection, Kind.ADDRESS, State.STOPPED, now=now)
        if not await _to_rewrite(connection, base):
            return None
        with suppress(WalkRefused):
            return await walks.begin(connection, Kind.ADDRESS, Mode.REPAIR, rate=rate, by="drimbox", now=now, base=base)
    return None


async def _remember(transaction: Connection, base: str, now: dt.datetime) -> bool:
    """Is this another address than the last one?"""
    row = await (await transaction.execute("SELECT base FROM source_address ORDER BY id DESC LIMIT 1")).fetchone()
    if row is not None and row["base"] == base:
        return False
    await transaction.execute("INSERT INTO source_address (base, since) VALUES (%s, %s)", (base, now))
    if row is not None:
        _log.warning("this source has another address", extra={"before": row["base"], "now": base})
    return row is not None


async def _to_rewrite(transaction: Connection, base: str) -> bool:
    row = await (await transaction.execute(_UNMET, {"base": base})).fetchone()
    return bool(row and row["found"])


# A version that was confirmed after the last walk began may have been made before the change.
_UNMET: LiteralString = """
    WITH met AS (
        SELECT max(last) AS last, max(started_at) AS at FROM walk
        WHERE kind = 'address' AND base = %(base)s AND state IN ('done', 'stopped')
          AND started_at >= (SELECT since FROM source_address ORDER BY id DESC LIMIT 1)
    ), elsewhere AS (
        SELECT id, confirmed_at FROM publication
        WHERE state = 'current' AND (retrieve_base_of(kos) COLLATE "C") < %(base)s
        UNION ALL
        SELECT id, confirmed_at FROM publication
        WHERE state = 'current' AND (retrieve_base_of(kos) COLLATE "C") > %(base)s
    )
    SELECT EXISTS (SELECT 1 FROM elsewhere, met WHERE met.last IS NULL OR elsewhere.id > met.last
                   OR elsewhere.confirmed_at > met.at) AS found
"""
