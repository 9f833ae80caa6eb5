"""The durable work: orders the first certificate, renews it in time, and goes on after every failure and every restart.

Of several nodes on one database, the one that holds an advisory lock works; it writes through the very connection that
holds the lock, so that who lost the lock can write nothing any more. An order that was cut is taken up where it was.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from drimbox.certificates import records, schedule, trouble
from drimbox.certificates.accounts import Authority, signed_in
from drimbox.certificates.acme.refusals import Refusal
from drimbox.certificates.ordering import Ordering, purpose
from drimbox.certificates.records import Installed, KeptOrder, Plan
from drimbox.certificates.rules import Checked, RulesBroken
from drimbox.certificates.schedule import Trouble
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Unavailable
from drimbox.publication.incidents import Incidents
from drimbox.publication.ports import AuditJournal
from drimbox.record.audit import Actor, Event, Object, Outcome, Thing
from drimbox.record.audit import Kind as Audited
from drimbox.record.logs import correlated
from drimbox.store.database import Connection

_log = logging.getLogger(__name__)

ITSELF = Actor(system="drimbox")
# Refusals that say nothing against the order, which goes on.
_PASSING = frozenset(("badNonce", "orderNotReady"))
_LOCK = 724520


@dataclass(slots=True)
class Keeper:
    """Keeps the market certificate of one host. ``authorities`` in the order of preference; none: by hand alone.

    ``installed`` is awaited after a new certificate is in the database. ``poll`` seconds pass between two looks.
    """

    host: str
    authorities: Sequence[Authority]
    dsn: str
    ordering: Ordering
    incidents: Incidents
    journal: AuditJournal
    clock: Clock
    installed: Callable[[], Awaitable[None]] | None = None
    poll: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random

    async def run(self) -> None:
        """Work whenever no other node does, until cancelled; survives the loss of the database."""
        while True:
            try:
                async with self.leading() as connection:
                    while connection is not None:
                        await self.round(connection)
                        await self.sleep(min(self.poll, 5.0))
            except psycopg.Error as error:
                _log.error("certificates: the database is gone: %s", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a task boundary: the next round must come
                _log.error("certificates: defect at %s", _place(error))
            await self.sleep(self.poll)

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[Connection | None]:
        """The connection that holds the lock of this host; None when another node, or the command line, has it."""
        connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, row_factory=dict_row)
        async with connection:
            # A node that died without a word must not keep the lock for hours.
            await connection.execute("SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10")
            taken = await connection.execute(
                "SELECT pg_try_advisory_lock(%s, hashtext(%s)) AS mine", (_LOCK, self.host)
            )
            row = await taken.fetchone()
            mine = bool(row and row["mine"])
            yield connection if mine else None
            if mine:
                # The end of the connection would do it too, a moment later: whoever comes next must not meet us.
                await connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_LOCK, self.host))

    async def round(self, connection: Connection) -> bool:
        """One look, and one try when it is time for one; True when there was one. Raises ``psycopg.Error``."""
        current = await records.current(connection, self.host)
        if current is not None:
            current = await self._ask_for_window(connection, current)
        plan = await records.plan(connection, self.host)
        order = await records.open_order(connection, self.host)
        await self._tell_lateness(connection, current)
        if order is None and not self._is_time(current, plan):
            return False
        directories = [authority.directory for authority in self.authorities]
        if order is not None and order.directory not in directories:
            await records.end_order(connection, order.id, self.clock.now(), failure="autorité retirée des réglages")
            order = None
        # An order that is under way is gone on with at its own authority, or given up by its own failure.
        asked = [order.directory] if order is not None else directories
        chosen, _ = schedule.authority_for(asked, plan.troubles, self.clock.now())
        if chosen is None and order is not None and plan.troubles[order.directory].steps_aside:
            chosen, _ = schedule.authority_for(directories, plan.troubles, self.clock.now())
            if chosen is not None:
                await records.end_order(connection, order.id, self.clock.now(), failure="autre autorité demandée")
                order = None
        if chosen is None:
            return False
        authority = next(a for a in self.authorities if a.directory == chosen)
        with correlated(f"certificate-{self.host}"):
            await self._try(connection, authority, plan, current, order)
        return True

    def _is_time(self, current: Installed | None, plan: Plan) -> bool:
        if not self.authorities:
            return False
        if plan.asked_at is not None or current is None:
            return True
        # Whoever revoked it asked for another one, or wanted none.
        now = self.clock.now()
        age = now - current.installed_at
        fresh = dt.timedelta(0) <= age < dt.timedelta(seconds=schedule.LEAST_INTERVAL)
        return current.revoked_at is None and not fresh and now >= renewal_of(current)

    async def _try(
        self,
        connection: Connection,
        authority: Authority,
        plan: Plan,
        current: Installed | None,
        order: KeptOrder | None,
    ) -> None:
        by = plan.asked_by or ITSELF.system
        try:
            account = await signed_in(connection, authority, self.ordering.vault)
            if order is None:
                order = await self.ordering.begin(connection, authority, account, by=by, replaces=current)
            checked = await self.ordering.carry_through(connection, authority, account, order)
        except DrimboxError as error:
            await self._failed(connection, authority, plan, current, order, error)
            return
        except (psycopg.Error, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - a task boundary, which records the failure
            place = _place(error)
            _log.error("certificates: defect at %s", place)
            defect = DrimboxError(f"Défaut de la passerelle ({place}) : signalez-le", code="defect")
            await self._failed(connection, authority, plan, current, order, defect)
            return
        await self._install(connection, authority, plan, order, checked, by)

    async def _install(
        self,
        connection: Connection,
        authority: Authority,
        plan: Plan,
        order: KeptOrder,
        checked: Checked,
        by: str,
    ) -> None:
        now = self.clock.now()
        leaf = checked.certificate
        outcome = f"Certificat installé, valable jusqu'au {leaf.not_valid_after_utc.astimezone(PARIS):%d/%m/%Y}"
        async with connection.transaction():
            number = await records.install(
                connection,
                host=self.host,
                directory=authority.directory,
                certificates=(leaf, *checked.chain),
                key=order.key,
                by=by,
                now=now,
            )
            await records.end_order(connection, order.id, now, certificate=number)
            troubles = {d: t for d, t in plan.troubles.items() if d != authority.directory}
            asked_since = await self._asked_since(connection, plan)
            await records.tried(
                connection, self.host, now=now, outcome=outcome, troubles=troubles, still_asked=asked_since
            )
            await self.journal.write(
                connection,
                Event(Audited.CONFIGURATION_CHANGED, ITSELF, (certificate_object(leaf.serial_number, "installed"),)),
            )
        _log.info("market certificate installed, from %s", authority.name)
        await trouble.over(self.incidents, f"{outcome}.", trouble.ORDER, trouble.LATE, trouble.BY_HAND)
        if self.installed is not None:
            await self.installed()

    async def _failed(
        self,
        connection: Connection,
        authority: Authority,
        plan: Plan,
        current: Installed | None,
        order: KeptOrder | None,
        error: DrimboxError,
    ) -> None:
        now = self.clock.now()
        passing = isinstance(error, Unavailable | OutcomeUnknown) or (
            isinstance(error, Refusal) and error.kind in _PASSING
        )
        imposed = isinstance(error, Busy) and error.code == "acme-rate"
        kept = plan.troubles.get(authority.directory)
        failures = (kept.failures if kept is not None else 0) + 1
        seconds = schedule.pause(failures, self.draw(), refused=not passing)
        if isinstance(error, Busy) and error.retry_after is not None:
            seconds = max(seconds, error.retry_after)
        met = Trouble(failures, now + dt.timedelta(seconds=seconds), imposed, not passing)
        told = told_of(error, authority.name)
        if order is not None and not passing:
            await records.end_order(connection, order.id, now, failure=told)
        if isinstance(error, Refusal) and error.kind == "accountDoesNotExist":
            await records.forget_account(connection, authority.directory)
        await records.tried(
            connection,
            self.host,
            now=now,
            outcome=f"{told}.",
            troubles={**plan.troubles, authority.directory: met},
            still_asked=plan.asked_at is not None or await self._asked_since(connection, plan),
        )
        _log.warning("market certificate not obtained: %s", error.code)
        failed = Event(
            Audited.CONFIGURATION_CHANGED,
            ITSELF,
            (Object(Thing.SYSTEM, self.host, "certificate-order"),),
            outcome=Outcome.MINOR_FAILURE if current is not None else Outcome.SERIOUS_FAILURE,
            outcome_text=error.reason,
        )
        await self.journal.write(connection, failed)
        await trouble.tell(connection, self.incidents, trouble.ORDER, f"{told}.")

    async def _asked_since(self, connection: Connection, plan: Plan) -> bool:
        """Did somebody ask for another one while this one was under way?"""
        latest = await records.plan(connection, self.host)
        return latest.asked_at is not None and latest.asked_at != plan.asked_at

    async def _ask_for_window(self, connection: Connection, current: Installed) -> Installed:
        """What the authority says of the renewal of its certificate, as often as it likes to be asked (RFC 9773)."""
        now = self.clock.now()
        authority = next((a for a in self.authorities if a.directory == current.directory), None)
        due = current.window_check is None or not now < current.window_check <= now + dt.timedelta(days=1)
        if authority is None or not due:
            return current
        try:
            window = await authority.client.renewal_window(current.leaf)
        except DrimboxError as error:
            # It changes nothing: what it said before holds, else two thirds of the life.
            _log.info("no renewal information: %s", error.code)
            window = None
        later = now + dt.timedelta(hours=6)
        check = window.ask_again if window is not None and window.ask_again is not None else later
        await records.keep_window(connection, current.id, window, check)
        return await records.certificate(connection, current.id) or current

    async def _tell_lateness(self, connection: Connection, current: Installed | None) -> None:
        """The operator hears of a certificate that nobody renews while there is time left."""
        if current is None or current.revoked_at is not None:
            return
        now, until = self.clock.now(), current.not_after.astimezone(PARIS)
        if now < renewal_of(current):
            # A clock that was wrong, or an authority that changed its mind.
            await trouble.over(self.incidents, "Rien n'est en retard.", trouble.LATE, trouble.BY_HAND)
        elif not self.authorities:
            reason = (
                f"Le certificat de {self.host} expire le {until:%d/%m/%Y} et a été installé à la main : commandez-en "
                "un autre (drimbox certificate csr), puis installez-le."
            )
            await trouble.tell(connection, self.incidents, trouble.BY_HAND, reason)
        elif now >= schedule.late_time(current.not_before, current.not_after):
            reason = f"Le certificat de {self.host} expire le {until:%d/%m/%Y} et n'a pas pu être renouvelé."
            await trouble.tell(connection, self.incidents, trouble.LATE, reason)


def renewal_of(current: Installed) -> dt.datetime:
    """When this certificate is to be renewed."""
    return schedule.renewal_time(current.not_before, current.not_after, current.leaf.serial_number, current.window)


def told_of(error: DrimboxError, authority: str) -> str:
    """A failure in one French sentence, with the authority's own words."""
    if isinstance(error, RulesBroken):
        return f"{authority} a délivré un certificat qui n'a pas été installé. {error.reason.rstrip('.')}"
    peer = f" [{error.peer_code}]" if error.peer_code else ""
    return f"{authority} : {error.reason}{peer}"


def certificate_object(serial: int, act: str) -> Object:
    """How the journal names a certificate."""
    return Object(Thing.SYSTEM, f"certificate:{serial:x}", act)


def _place(error: Exception) -> str:
    """The kind of an error and where it arose: nothing of what it says."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}, {Path(last.filename).name}:{last.lineno}"


__all__ = ["ITSELF", "Keeper", "certificate_object", "purpose", "renewal_of", "told_of"]
