"""Goes on with walks, study by study; of several nodes on one database, one at a time does.

Whoever drives holds an advisory lock on the very connection by which it writes: who lost the lock can write nothing any
more. A walk goes on from its row wherever the last driver, or the machine, was cut. In mode ``report`` a study is
compared here; in mode ``repair`` it is left to the job that resynchronises it, and followed until that job is through.
Neither PACS nor DMP being away is ever a finding: the walk waits, and says what for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.publication.incidents import Incidents
from drimbox.publication.ports import AuditJournal
from drimbox.publication.triggers import Cause, defer_resync
from drimbox.reconciliation import address, periodic, repairs, steps, walks, words
from drimbox.reconciliation.hours import Range, resumes_at
from drimbox.reconciliation.trouble import Trouble
from drimbox.reconciliation.walk import Finding, Kind, Mode, State, Target, Walk, walk_of
from drimbox.record.audit import Actor, Event, Object, Thing
from drimbox.record.audit import Kind as Audited
from drimbox.record.logs import correlated
from drimbox.store.database import Connection

_log = logging.getLogger(__name__)

Examine = Callable[[Target], Awaitable[Mapping[Finding, str]]]
"""Compares a study with PACS and DMP, and changes nothing; raises ``Unavailable`` when one of them cannot answer."""

ITSELF = Actor(system="drimbox")
_LOCKS = {Kind.RECONCILIATION: (724518, 1), Kind.ADDRESS: (724518, 2)}
_CAUSES = {Kind.RECONCILIATION: Cause.RECONCILIATION, Kind.ADDRESS: Cause.ADDRESS}
_FOLLOWING = 0.5  # seconds between two looks at repairs that are running


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a driver behaves. ``hours`` are those in which it rests, ``rate`` (studies a minute) and ``mode`` those of
    the walks that it begins itself, ``every_days`` how often it does so (0: never).

    ``repairing`` studies at once have their repair running or about to; ``put_off`` more may wait for a PACS or the DMP
    to come back before the walk waits too. Pauses after a failure grow from ``first_pause`` to ``longest_pause``
    seconds. At most ``incidents`` lines of one walk go to the operator's queue.
    """

    hours: Sequence[Range] = ()
    rate: int = 30
    mode: Mode = Mode.REPAIR
    every_days: float = 0
    repairing: int = 2
    put_off: int = 10
    poll: float = 5.0
    first_pause: float = 15.0
    longest_pause: float = 900.0
    incidents: int = 500


@dataclass(slots=True)
class Driver:
    """Drives the walks of one kind. ``base`` is this source's own WADO-RS address."""

    kind: Kind
    dsn: str
    examine: Examine
    incidents: Incidents
    journal: AuditJournal
    clock: Clock
    base: str
    conduct: Conduct = field(default_factory=Conduct)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _trouble: Trouble = field(default_factory=Trouble)
    _walking_since: float | None = None
    _looked_at: float | None = None

    async def run(self) -> None:
        """Drive whenever no other node does, until cancelled; survives the loss of the database."""
        while True:
            try:
                async with self.leading() as connection:
                    while connection is not None:
                        await self.sleep(await self.round(connection))
            except psycopg.Error as error:
                _log.error("walk: the database is gone: %s", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a task boundary: the next round must come
                _log.error("walk: defect at %s", _place(error))
            await self.sleep(self.conduct.poll * 2)

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[Connection | None]:
        """The connection that holds the lock of this kind of walk; None when another node has it."""
        connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, row_factory=dict_row)
        async with connection:
            # A node that died without a word must not keep the lock for hours.
            await connection.execute("SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10")
            # Losing the last moments of a walk does no harm: it does them again.
            await connection.execute("SET synchronous_commit = off")
            row = await (
                await connection.execute("SELECT pg_try_advisory_lock(%s, %s) AS mine", _LOCKS[self.kind])
            ).fetchone()
            mine = bool(row and row["mine"])
            self._trouble.over()
            self._walking_since = self._looked_at = None
            yield connection if mine else None

    async def round(self, connection: Connection) -> float:
        """One piece of work at the most; the seconds until the next is due. Raises ``psycopg.Error``."""
        await self._begin_what_is_due(connection)
        walk = await walks.active(connection, self.kind)
        if walk is None or walk.state is not State.RUNNING:
            self._trouble.over()
            self._walking_since = None
            if walk is not None and walk.mode is Mode.REPAIR:
                await repairs.settle(connection, walk, base=self.base)
            return self.conduct.poll
        if walk.mode is Mode.REPAIR:
            waits = await self._follow(connection, walk)
            if waits is not None:
                return await self._wait(connection, walk, waits, self.conduct.poll if waits else _FOLLOWING)
        now = self.clock.now()
        resumed = resumes_at(now, self.conduct.hours)
        if resumed != now:
            return await self._rest(connection, walk, now, resumed)
        held = self._trouble.until - self.clock.monotonic()
        if held > 0:
            return min(held, self.conduct.poll)
        due = _due(walk, now)
        return min(due, self.conduct.poll) if due > 0 else await self._next(connection, walk, now)

    # --- one study ----------------------------------------------------------------------------------------------------

    async def _next(self, connection: Connection, walk: Walk, now: dt.datetime) -> float:
        target = await steps.next_target(connection, walk)
        if target is None:
            return await self._end(connection, walk)
        if walk.mode is Mode.REPAIR:
            await self._repair(connection, walk, target, now)
            return 0.0
        with correlated(f"walk-{walk.id}-{target.position}"):
            try:
                findings = await self.examine(target)
            except Unavailable as error:
                about = self._trouble.about_the_study(target.position, error)
                if about is None:
                    return await self._put_off(connection, walk, error)
                findings = about
            except psycopg.Error:
                raise
            except DrimboxError as error:
                findings = {Finding.UNUSABLE: error.code}
            except Exception as error:  # noqa: BLE001 - the boundary of a piece of work, which records the failure
                _log.error("walk: defect at %s", _place(error))
                findings = {Finding.DEFECT: _place(error)}
            else:
                self._trouble.over()
        await self._report(connection, walk, target, findings, now)
        return 0.0

    async def _report(
        self, connection: Connection, walk: Walk, target: Target, findings: Mapping[Finding, str], now: dt.datetime
    ) -> None:
        async with connection.transaction():
            if not await steps.step(connection, walk, target, now=now, done=1, busy=self._busy(walk)):
                return
            await steps.record(connection, walk, target, findings, now=now)
            if not findings:
                await repairs.close_difference(connection, target, now=now)
            elif sum(walk.findings.values()) < self.conduct.incidents:
                await self.incidents.open(
                    connection,
                    structure=target.structure,
                    study_uid=target.study_uid,
                    code=repairs.DIFFERENCE,
                    reason=words.difference(findings),
                    severity="warning",
                )

    async def _repair(self, connection: Connection, walk: Walk, target: Target, now: dt.datetime) -> None:
        """Leave the study to its job, in the transaction that goes beyond it: none is left out, none comes twice."""
        async with connection.transaction():
            if not await steps.step(connection, walk, target, now=now, done=0, busy=self._busy(walk)):
                return
            job_id = await defer_resync(connection, target.study_uid, _CAUSES[self.kind], structure=target.structure)
            await steps.repairing(connection, walk, target, job_id, now=now)

    async def _follow(self, connection: Connection, walk: Walk) -> str | None:
        """See to the repairs under way; what the walk must wait for, None when there is room for another."""
        under_way = await repairs.settle(connection, walk, base=self.base)
        if under_way.put_off >= self.conduct.put_off:
            return words.waiting(under_way.put_off, under_way.reason)
        return "" if under_way.running >= self.conduct.repairing else None

    async def _end(self, connection: Connection, walk: Walk) -> float:
        if not await steps.finish(connection, walk, now=self.clock.now()):
            left = await repairs.settle(connection, walk, base=self.base)
            note = words.waiting(left.put_off, left.reason) if left.put_off else ""
            return await self._wait(connection, walk, note, self.conduct.poll if note else _FOLLOWING)
        ended = await connection.execute("SELECT * FROM walk WHERE id = %s", (walk.id,))
        row = await ended.fetchone()
        assert row is not None
        done = walk_of(row)
        _log.info("walk ended", extra={"walk": walk.id, "studies": done.done})
        await self.journal.write(connection, event(ITSELF, done, "done"))
        return self.conduct.poll

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _rest(self, connection: Connection, walk: Walk, now: dt.datetime, until: dt.datetime | None) -> float:
        if until is None:
            return await self._wait(connection, walk, "Suspendue : les plages ne laissent aucune heure", 60.0)
        note = f"Suspendue jusqu'au {until.astimezone(PARIS):%d/%m à %H:%M} (plage horaire)"
        return await self._wait(connection, walk, note, min((until - now).total_seconds(), self.conduct.poll))

    async def _put_off(self, connection: Connection, walk: Walk, error: Unavailable) -> float:
        """A neighbour is away: the same study is tried again later, after pauses that grow."""
        pause = self._trouble.wait(self.clock.monotonic(), self.conduct.first_pause, self.conduct.longest_pause)
        _log.warning("walk waits: %s", error.code, extra={"walk": walk.id, "seconds": round(pause)})
        return await self._wait(connection, walk, f"En attente : {error.reason}", min(pause, self.conduct.poll))

    async def _wait(self, connection: Connection, walk: Walk, note: str, seconds: float) -> float:
        if note:
            self._walking_since = None
        await steps.wait(connection, walk, note)
        return seconds

    def _busy(self, walk: Walk) -> float:
        """Seconds since the last study: for the forecast. What was waited for besides does not count."""
        now = self.clock.monotonic()
        since, self._walking_since = self._walking_since, now
        return 60 / walk.rate if since is None else now - since

    # --- beginning ----------------------------------------------------------------------------------------------------

    async def _begin_what_is_due(self, connection: Connection) -> None:
        now = self.clock.monotonic()
        if self._looked_at is not None and now - self._looked_at < 600:
            return
        self._looked_at = now
        if self.kind is Kind.ADDRESS:
            begun = await address.look(connection, self.base, rate=self.conduct.rate, now=self.clock.now())
        else:
            conduct = self.conduct
            begun = await periodic.look(
                connection, every_days=conduct.every_days, mode=conduct.mode, rate=conduct.rate, now=self.clock.now()
            )
        if begun is not None:
            _log.info("walk begun", extra={"walk": begun.id, "studies": begun.total})
            await self.journal.write(connection, event(ITSELF, begun, "start"))


@asynccontextmanager
async def walking(drivers: Sequence[Driver]) -> AsyncIterator[None]:
    """Drive while the block lasts."""
    tasks = [asyncio.create_task(driver.run()) for driver in drivers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def event(by: Actor, walk: Walk, act: str) -> Event:
    """How the journal tells what became of a walk."""
    told = f"{act}: {walk.kind.value}, {walk.mode.value}, {walk.rate}/min, {walk.done}/{walk.total}"
    return Event(Audited.ARCHIVE_WALKED, by, (Object(Thing.SYSTEM, f"walk-{walk.id}", told),))


def _due(walk: Walk, now: dt.datetime) -> float:
    """Seconds until the next study may be taken; a clock that was put back does not stop the walk."""
    interval = 60 / walk.rate
    since = (now - walk.stepped_at).total_seconds() if walk.stepped_at else interval
    return interval - since if since > -interval else 0.0


def _place(error: BaseException) -> str:
    """The kind of an error and where it arose: nothing of what it says."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}, {Path(last.filename).name}:{last.lineno}"
