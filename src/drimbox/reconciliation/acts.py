"""What an administrator may do with walks; the console and the command line both come through here."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.publication.ports import AuditJournal
from drimbox.reconciliation import walks
from drimbox.reconciliation.driver import event
from drimbox.reconciliation.walk import Kind, Mode, State, Walk, WalkRefused
from drimbox.reconciliation.words import KINDS, number
from drimbox.record.audit import Actor
from drimbox.store.database import Pool

MAX_RATE = 6000


@dataclass(frozen=True, slots=True)
class WalkActs:
    """Each act and its line in the journal are one transaction; each gives one French sentence that says what was done,
    or raises ``WalkRefused``. ``base`` is this source's own WADO-RS address."""

    pool: Pool
    journal: AuditJournal
    clock: Clock
    base: str

    async def start(self, kind: Kind, mode: Mode, rate: int, by: Actor) -> str:
        """Begin a walk; the box takes it up within seconds."""
        if not 0 < rate <= MAX_RATE:
            raise WalkRefused(f"Le débit va de 1 à {MAX_RATE} examens par minute", "walk-rate")
        if kind is Kind.ADDRESS and mode is not Mode.REPAIR:
            raise WalkRefused("Un changement d'adresse se corrige", "walk-mode")
        async with self.pool.connection() as connection, connection.transaction():
            walk = await walks.begin(
                connection,
                kind,
                mode,
                rate=rate,
                by=by.name or by.person,
                now=self.clock.now(),
                base=self.base if kind is Kind.ADDRESS else "",
            )
            await self.journal.write(connection, event(by, walk, "start"))
        return f"{KINDS[kind]} n° {walk.id} commencée : {number(walk.total)} examen{'s' if walk.total > 1 else ''}."

    async def pause(self, kind: Kind, by: Actor) -> str:
        """What is being repaired is carried through; nothing more is taken."""
        await self._change(kind, State.PAUSED, by, "pause")
        return f"{KINDS[kind]} mise en pause."

    async def resume(self, kind: Kind, by: Actor) -> str:
        await self._change(kind, State.RUNNING, by, "resume")
        return f"{KINDS[kind]} reprise."

    async def stop(self, kind: Kind, by: Actor) -> str:
        """For good; repairs that are in the queue of jobs still come."""
        walk = await self._change(kind, State.STOPPED, by, "stop")
        return f"{KINDS[kind]} arrêtée après {number(walk.done)} examen{'s' if walk.done > 1 else ''}."

    async def _change(self, kind: Kind, state: State, by: Actor, act: str) -> Walk:
        async with self.pool.connection() as connection, connection.transaction():
            walk = await walks.change_state(connection, kind, state, now=self.clock.now())
            await self.journal.write(connection, event(by, walk, act))
        return walk
