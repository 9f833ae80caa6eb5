"""How often an identity may be tried: per study and per address, over restarts and for all nodes (decision 19)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy
from drimbox.store.database import Connection, Pool

WINDOW = dt.timedelta(days=1)


class TooMany(Busy):
    """Too many tries on this study or from this address; the same is said of studies that do not exist."""

    def __init__(self) -> None:
        super().__init__(
            "Trop d'essais ont été faits aujourd'hui : réessayez demain, ou demandez les images à l'établissement",
            code="link-tries",
            retry_after=WINDOW.total_seconds(),
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """Tries within ``WINDOW``."""

    per_study: int = 10
    per_address: int = 30


class Attempts:
    """The table ``link_attempt``."""

    def __init__(self, pool: Pool, clock: Clock, allowance: Allowance) -> None:
        self._pool = pool
        self._clock = clock
        self._allowance = allowance

    async def claim(self, study_uid: str, address: str) -> None:
        """Count one more. Raises ``TooMany`` when there is none left; that one is not counted."""
        now = self._clock.now()
        since = now - WINDOW
        async with self._pool.connection() as connection, connection.transaction():
            # Two at once would not see each other's row; always in the same order, so that none waits for ever.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (study_uid,))
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", (address,))
            row = await (
                await connection.execute(
                    "SELECT count(*) FILTER (WHERE study_uid = %(study)s) AS study, "
                    "count(*) FILTER (WHERE address = %(address)s) AS address FROM link_attempt "
                    "WHERE at > %(since)s AND (study_uid = %(study)s OR address = %(address)s)",
                    {"study": study_uid, "address": address, "since": since},
                )
            ).fetchone()
            assert row is not None
            if row["study"] >= self._allowance.per_study or row["address"] >= self._allowance.per_address:
                raise TooMany
            await self._count(connection, now, study_uid, address)
            await connection.execute("DELETE FROM link_attempt WHERE at <= %s", (since,))

    async def _count(self, connection: Connection, now: dt.datetime, study_uid: str, address: str) -> None:
        await connection.execute(
            "INSERT INTO link_attempt (at, study_uid, address) VALUES (%s, %s, %s)", (now, study_uid, address)
        )
