"""Keeps the whitelist: downloads it each day, stores what was verified, and gives the last good one (decision 16)."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.national.whitelist.document import Domain, Whitelist, read_again
from drimbox.store.database import Pool

_log = logging.getLogger(__name__)

_INSERT = "INSERT INTO whitelist (fetched_at, generated_at, document) VALUES (%s, %s, %s)"
_LAST = "SELECT fetched_at, document FROM whitelist ORDER BY fetched_at DESC, id DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Held:
    """A list and when it was fetched."""

    whitelist: Whitelist
    fetched_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Renewal:
    """A list that was just accepted, and what it changes (``differences``)."""

    whitelist: Whitelist
    fetched_at: dt.datetime
    changes: tuple[str, ...]


class WhitelistKeeper:
    """The whitelist of a box, or of several that share a database.

    ``fetch`` downloads the document; ``verify`` does all the checks of ``document.verify``; a list fetched more than
    ``max_age`` ago is no longer believed; ``memory`` is how many seconds the database is not asked again.
    """

    def __init__(
        self,
        pool: Pool,
        fetch: Callable[[], Awaitable[bytes]],
        verify: Callable[[bytes], Whitelist],
        clock: Clock,
        max_age: dt.timedelta = dt.timedelta(days=7),
        *,
        memory: float = 60.0,
    ) -> None:
        self._pool = pool
        self._fetch = fetch
        self._verify = verify
        self._clock = clock
        self._max_age = max_age
        self._memory = memory
        self._known: Held | None = None
        self._asked = -memory

    async def refresh(self) -> Whitelist:
        """As ``renew``; gives the list alone."""
        return (await self.renew()).whitelist

    async def renew(self) -> Renewal:
        """Download, verify and store the list; log what changed.

        Raises whatever ``fetch`` and ``verify`` raise, and ``Refused`` (``whitelist-older``) for a list signed before
        the one we hold (someone replays an old one): the last good list stays in use and the caller tells the operator.
        """
        document = await self._fetch()
        fresh = self._verify(document)
        former = await self._load()
        if former is not None and signed_at(fresh) < signed_at(former.whitelist):
            raise Refused("Liste blanche signée avant celle déjà reçue : refusée", code="whitelist-older")
        now = self._clock.now()
        async with self._pool.connection() as connection:
            await connection.execute(_INSERT, (now, fresh.generated_at, document))
        self._remember(Held(fresh, now))
        changes = tuple(differences(former.whitelist if former else None, fresh))
        for line in changes:
            _log.info("whitelist: %s", line)
        return Renewal(fresh, now, changes)

    @property
    def max_age(self) -> dt.timedelta:
        """How long a list is believed."""
        return self._max_age

    async def held(self) -> Held | None:
        """The last good list, whether it is still believed or not; None when there never was one."""
        return await self._load()

    async def current(self) -> Whitelist:
        """The last good list.

        Raises ``Unavailable``: ``whitelist-none`` when no list was ever accepted, ``whitelist-age`` when the last one
        is older than ``max_age``.
        """
        known = self._known
        if known is None or self._clock.monotonic() - self._asked >= self._memory:
            known = await self._load()
        if known is None:
            raise Unavailable("Aucune liste blanche n'a encore été reçue", code="whitelist-none")
        if self._clock.now() - known.fetched_at > self._max_age:
            raise Unavailable(
                f"La dernière liste blanche valable date du {known.fetched_at:%d/%m/%Y} : elle ne fait plus foi",
                code="whitelist-age",
            )
        return known.whitelist

    async def _load(self) -> Held | None:
        """The newest stored list; another process may have stored it."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_LAST)).fetchone()
        if row is None:
            return None
        if self._known is None or self._known.fetched_at != row["fetched_at"]:
            return self._remember(Held(read_again(bytes(row["document"])), row["fetched_at"]))
        return self._remember(self._known)

    def _remember(self, known: Held) -> Held:
        self._known, self._asked = known, self._clock.monotonic()
        return known


def differences(former: Whitelist | None, fresh: Whitelist) -> list[str]:
    """What an operator wants to know of a new list, one line for each DRIMbox that came, left or changed."""
    before = _by_host(former.domains if former else ())
    after = _by_host(fresh.domains)
    if former is None:
        return [f"first list, {len(after)} DRIMboxes"]
    lines = [f"added {host} ({after[host].operator_dn})" for host in after if host not in before]
    lines += [f"removed {host} ({before[host].operator_dn})" for host in before if host not in after]
    lines += [
        f"changed {host}: {before[host].operator_dn} -> {after[host].operator_dn}"
        for host in after
        if host in before and before[host].operator_dn != after[host].operator_dn
    ]
    return lines


def signed_at(whitelist: Whitelist) -> dt.datetime:
    """When it was signed, as its signer says."""
    return whitelist.signed_at or whitelist.generated_at


def _by_host(domains: tuple[Domain, ...]) -> dict[str, Domain]:
    return {domain.db_host: domain for domain in domains}
