"""Keeps the audit journal: seals it every minute, verifies it every night, and takes out what the site no longer keeps.

Several nodes may do so on one database: one at a time seals, one does the night's work.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psycopg
import psycopg_pool

from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.record import retention, verification
from drimbox.record.audit import Actor, Journal, Kind
from drimbox.record.logs import correlated
from drimbox.record.pseudonym import PatientKey
from drimbox.record.seals import Sealer
from drimbox.store.database import Pool, single

ITSELF = Actor(system="drimbox")
Alarm = Callable[[str], Awaitable[None]]
"""Tells the operator that the journal is not whole, in a French sentence."""

_NIGHT_LOCK = 724521
_DATABASE = (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Conduct:
    """``keep_days`` 0: without end. ``nightly``: what is older leaves by itself. ``hour``: of Paris, of the night's
    work; ``seal_every`` is in seconds."""

    keep_days: int = 0
    nightly: bool = False
    hour: int = 3
    seal_every: float = 60.0


class JournalKeeper:
    """One journal's keeper. Get it with ``keeping``."""

    def __init__(
        self, pool: Pool, key: PatientKey, journal: Journal, clock: Clock, conduct: Conduct, alarm: Alarm
    ) -> None:
        self.conduct = conduct
        self._pool = pool
        self._key = key
        self._journal = journal
        self._clock = clock
        self._alarm = alarm
        self._sealer = Sealer(pool, key)
        self._asked: asyncio.Task[None] | None = None

    @property
    def verifying(self) -> bool:
        """Is a verification that somebody asked for under way?"""
        return self._asked is not None and not self._asked.done()

    def verify_for(self, by: Actor) -> bool:
        """Begin a verification; False when one is under way already."""
        if self.verifying:
            return False
        self._asked = asyncio.create_task(self._verify_asked(by))
        return True

    async def run(self) -> None:
        """Until cancelled. Survives the loss of the database."""
        while True:
            await asyncio.sleep(self.conduct.seal_every)
            try:
                await self.tick()
            except _DATABASE as error:
                _log.error("journal not kept: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - a task boundary: the next round must come
                _log.exception("journal not kept")

    async def tick(self) -> None:
        """One round: seal, and the night's work when it is due."""
        await self._sealer.seal()
        if not await self._due():
            return
        async with single(self._pool) as connection:
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS mine", (_NIGHT_LOCK,))).fetchone()
            if not row or not row["mine"]:
                return
            try:
                if await self._due():
                    await self._night()
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_NIGHT_LOCK,))

    async def finished(self) -> None:
        """Wait for the end of a verification that somebody asked for."""
        if self._asked is not None:
            await self._asked

    async def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            with suppress(asyncio.CancelledError):
                await self._asked

    async def _night(self) -> None:
        with correlated("journal-night"):
            await self._verify(ITSELF)
            if self.conduct.keep_days and self.conduct.nightly:
                try:
                    removed = await retention.remove(
                        self._pool, self._key, self._journal, keep_days=self.conduct.keep_days, by=ITSELF
                    )
                except DrimboxError as error:
                    await self._alarm(error.reason)
                else:
                    _log.info("%d events past their retention removed", removed.events)

    async def _verify(self, by: Actor) -> None:
        found = await verification.verified(self._pool, self._key, self._journal, by)
        _log.log(logging.INFO if found.whole else logging.CRITICAL, "journal verified: %s", found.summary)
        if not found.whole:
            await self._alarm(found.problems[0])

    async def _verify_asked(self, by: Actor) -> None:
        try:
            await self._sealer.seal()
            await self._verify(by)
        except _DATABASE as error:
            _log.error("journal not verified: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a task boundary: the page shows no new verification
            _log.exception("journal not verified")

    async def _due(self) -> bool:
        """Was the journal sealed before the last night's hour, and not verified by the box itself since?"""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT EXISTS (SELECT 1 FROM audit_seal WHERE number = 1 AND sealed_at < %(hour)s) "
                    "AND NOT EXISTS (SELECT 1 FROM audit WHERE event = %(event)s AND actor ->> 'system' = 'drimbox' "
                    "AND at >= %(hour)s) AS due",
                    {"event": Kind.AUDIT_VERIFIED.code, "hour": self._last_night()},
                )
            ).fetchone()
        return bool(row and row["due"])

    def _last_night(self) -> dt.datetime:
        now = self._clock.now().astimezone(PARIS)
        tonight = now.replace(hour=self.conduct.hour, minute=0, second=0, microsecond=0)
        return tonight if tonight <= now else tonight - dt.timedelta(days=1)


@asynccontextmanager
async def keeping(
    pool: Pool, key: PatientKey, journal: Journal, clock: Clock, *, conduct: Conduct, alarm: Alarm
) -> AsyncIterator[JournalKeeper]:
    """The journal is kept as long as the block lasts; what was written in it is sealed at its end."""
    keeper = JournalKeeper(pool, key, journal, clock, conduct, alarm)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await keeper.close()
        with suppress(*_DATABASE):
            await Sealer(pool, key, wait=1).seal()
