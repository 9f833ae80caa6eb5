"""The whitelist of a running box: fetched every day and on demand, journalled, told to the operator (decision 16)."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.box.settings import Settings
from drimbox.certificates import trouble
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.national.whitelist import Held, Renewal, Whitelist, WhitelistKeeper, verify
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Thing, failed
from drimbox.store.database import Pool
from drimbox.trust.tls import client_context
from drimbox.trust.watch import TrustWatch

REFUSED, LATE = "whitelist-refused", "whitelist-late"
DATABASE_ERRORS = (psycopg.Error, PoolTimeout)
# Seconds before a list that could not be had is asked for again: doubled each time, up to the last.
_RETRY = (5.0, 600.0)
_MAX_BYTES = 16 * 2**20
# Changes named in one event; more are counted.
_NAMED = 40

_log = logging.getLogger(__name__)


def whitelist_keeper(
    settings: Settings, http: HttpClient, clock: Clock, trust: TrustWatch, pool: Pool
) -> WhitelistKeeper:
    """The keeper of the list that the configuration names."""
    chosen = settings.whitelist
    tls = trust.enrol(client_context(trust.trust))

    async def fetch() -> bytes:
        reply = await http.send("GET", chosen.url, tls=tls, timeout=30, max_bytes=_MAX_BYTES)
        if reply.status != 200:
            raise Rejected("Liste blanche non fournie", code="whitelist-http", peer_code=str(reply.status))
        return reply.body

    def believed(document: bytes) -> Whitelist:
        return judged(settings, document, trust, clock)

    return WhitelistKeeper(pool, fetch, believed, clock, dt.timedelta(days=chosen.max_age_days))


def judged(settings: Settings, document: bytes, trust: TrustWatch, clock: Clock) -> Whitelist:
    """A list after every check. Raises ``Refused`` as ``national.whitelist.verify`` does."""
    chosen = settings.whitelist
    return verify(document, trust=trust.trust, signer_cn=chosen.signer_cn, signer_ou=chosen.signer_ou, now=clock.now())


@dataclass(frozen=True, slots=True)
class WhitelistDesk:
    """What is done about the list: by the clock, at the console, from the command line."""

    keeper: WhitelistKeeper
    pool: Pool
    journal: Journal
    incidents: Incidents
    clock: Clock
    system: str
    every: dt.timedelta

    async def renew(self, by: Actor) -> Renewal:
        """Fetch the list now. What it changes, or why it was refused, is in the journal and in the operator's queue.

        Raises what ``WhitelistKeeper.renew`` raises: the last good list is in use all the same.
        """
        try:
            renewal = await self.keeper.renew()
        except DrimboxError as error:
            await self._tell(error, by)
            raise
        if renewal.changes:
            await self.journal.write(None, Event(Kind.WHITELIST_CHANGED, by, _named(renewal.changes)))
        await trouble.over(self.incidents, "Une liste blanche valable a été reçue.", REFUSED, LATE)
        return renewal

    async def held(self) -> Held | None:
        """The last good list."""
        return await self.keeper.held()

    async def run(self) -> None:
        """Fetch the list at the start and every day; a failure is tried again sooner."""
        retry, longest = _RETRY
        itself = Actor(system=self.system)
        while True:
            try:
                await self.renew(itself)
                pause, retry = self.every.total_seconds(), _RETRY[0]
            except (DrimboxError, *DATABASE_ERRORS) as error:
                told = f"{error.reason} ({error.code})" if isinstance(error, DrimboxError) else type(error).__name__
                _log.error("whitelist not refreshed: %s", told)
                pause, retry = retry, min(2 * retry, longest)
            await asyncio.sleep(pause)

    async def _tell(self, error: DrimboxError, by: Actor) -> None:
        """A list that is no good is told at once; a server that is silent, once the list in use is a day late."""
        held = await self.keeper.held()
        if isinstance(error, Refused):
            await self.journal.write(None, failed(Event(Kind.WHITELIST_REFUSED, by), error))
            await self._open(REFUSED, f"La liste blanche reçue a été refusée : {error.reason}. {self._stands(held)}")
        elif held is not None and self.clock.now() - held.fetched_at > self.every + dt.timedelta(hours=1):
            peer = f" [{error.peer_code}]" if error.peer_code else ""
            await self._open(
                LATE, f"La liste blanche n'a pas pu être reçue : {error.reason}{peer}. {self._stands(held)}"
            )

    async def _open(self, code: str, reason: str) -> None:
        async with self.pool.connection() as connection:
            await trouble.tell(connection, self.incidents, code, reason)

    def _stands(self, held: Held | None) -> str:
        if held is None:
            return "Aucune liste n'a encore été acceptée : ni images servies, ni images demandées"
        end = held.fetched_at + self.keeper.max_age
        until = f"{end.astimezone(PARIS):%d/%m/%Y à %H:%M}"
        if end < self.clock.now():
            return f"La précédente ne fait plus foi depuis le {until} : ni images servies, ni images demandées"
        return f"La précédente reste en service jusqu'au {until}"


def _named(changes: Sequence[str]) -> tuple[Object, ...]:
    shown = tuple(Object(Thing.SYSTEM, line[:500]) for line in changes[:_NAMED])
    more = len(changes) - len(shown)
    return (*shown, Object(Thing.SYSTEM, f"{more} more")) if more > 0 else shown


def not_believed(held: Held | None, max_age: dt.timedelta, now: dt.datetime) -> Unavailable | None:
    """Why the list that is held serves nobody, None while it does."""
    if held is None:
        return Unavailable("Aucune liste blanche n'a encore été acceptée", code="whitelist-none")
    if now - held.fetched_at > max_age:
        return Unavailable("La dernière liste blanche valable ne fait plus foi", code="whitelist-age")
    return None
