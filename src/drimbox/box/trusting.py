"""Whom a box believes, put together: pinned authorities, the revocation lists of files and those that it fetches."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

import psycopg
from cryptography import x509
from psycopg_pool import PoolTimeout

from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.certificates import trouble
from drimbox.foundation.clock import PARIS, Clock, SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Rejected
from drimbox.foundation.http_client import HttpClient
from drimbox.publication.incidents import Incidents
from drimbox.store.database import Pool
from drimbox.trust.distribution import MAX_LIST_BYTES, Fetch, ListKeeper, ListState, addresses
from drimbox.trust.keystore import read_certificates
from drimbox.trust.public import PublicLists
from drimbox.trust.tls import Judge, public_client_context
from drimbox.trust.token import Tokens
from drimbox.trust.watch import TrustWatch

REVOCATION = "revocation-late"
# Seconds between two looks at the files, and the longest pause between two looks at what is due.
_FILES, _LONGEST = 300.0, 600.0
_FETCH_SECONDS = 60.0
# A list that could not be renewed is told to the operator from this part of its life on, or this long before its end.
_WORRYING = dt.timedelta(hours=24)
DATABASE_ERRORS = (psycopg.Error, PoolTimeout)

_log = logging.getLogger(__name__)


def list_addresses(settings: Settings) -> tuple[str, ...]:
    """Where this box fetches revocation lists: what the configuration says, then what the certificates say."""
    section = settings.trust
    found = dict.fromkeys(section.revocation_urls)
    if section.revocation_fetch:
        found.update(dict.fromkeys(addresses(_known(settings))))
    return tuple(found)


def _known(settings: Settings) -> Iterable[x509.Certificate]:
    """The pinned authorities, and our own certificates of IGC-Sante; one that cannot be read is told elsewhere."""
    for path in settings.trust.roots:
        yield from read_certificates(path)
    tokens = Tokens()
    for pair in igc_pairs(settings):
        try:
            yield pair.source.read(tokens).certificate
        except DrimboxError:
            continue


def igc_pairs(settings: Settings) -> Iterable[KeyPair]:
    """The pairs of the configuration that IGC-Sante issued: those of the structures, and the one for PSC."""
    for structure in settings.structures:
        yield structure.auth
        yield structure.sign
    if settings.psc.auth is not None:
        yield settings.psc.auth


def list_keeper(settings: Settings, fetch: Fetch, clock: Clock) -> ListKeeper:
    """The keeper of the lists that are fetched; it knows those that were kept before. Raises ``Misconfigured``."""
    pinned = [certificate for path in settings.trust.roots for certificate in read_certificates(path)]
    return ListKeeper(
        list_addresses(settings),
        pinned,
        fetch,
        clock,
        settings.box.state_dir / "revocation",
        every=dt.timedelta(hours=settings.trust.revocation_hours),
    )


def trust_at_rest(settings: Settings) -> TrustWatch:
    """The trust of a command that fetches nothing: files, and the lists on disk. Raises ``Misconfigured``."""

    async def nothing(_url: str) -> bytes:
        raise Rejected("rien n'est téléchargé ici", code="not-fetched")

    return trust_of(settings, list_keeper(settings, nothing, SystemClock()))


def trust_of(settings: Settings, keeper: ListKeeper) -> TrustWatch:
    """Raises ``Misconfigured``."""
    return TrustWatch(settings.trust.roots, settings.trust.revocation_lists, keeper.lists)


def fetching(http: HttpClient) -> Fetch:
    """Downloads one list: over plain HTTP as a rule, for it is signed (control point C17)."""
    tls = public_client_context()

    async def fetch(url: str) -> bytes:
        reply = await http.send("GET", url, tls=tls, timeout=_FETCH_SECONDS, max_bytes=MAX_LIST_BYTES)
        if reply.status != 200:
            raise Rejected("liste de révocation non fournie", code="revocation-http", peer_code=str(reply.status))
        return reply.body

    return fetch


def has_public_servers(settings: Settings) -> bool:
    """Does the box call a server that a public authority certifies?"""
    market, link, told = settings.market_certificate, settings.link, settings.notifications
    mails = [section.mail for section in (link, told) if section is not None and section.mail is not None]
    hooks = [section.webhook for section in (link, told) if section is not None and section.webhook is not None]
    ordered = market is not None and bool(market.authorities)
    return bool(settings.psc.roots) or ordered or bool(hooks) or any(mail.security != "none" for mail in mails)


def public_lists(settings: Settings, fetch: Fetch, clock: Clock) -> PublicLists | None:
    """What judges the servers of public authorities; None where they are not judged."""
    section = settings.trust
    if section.public_revocation == "off" or not section.revocation_fetch:
        return None
    return PublicLists(
        fetch,
        clock,
        settings.box.state_dir / "revocation" / "public",
        section.public_revocation,
        every=dt.timedelta(hours=section.revocation_hours),
    )


def judge_at_rest(settings: Settings) -> Judge | None:
    """The judge of a command: by the lists on disk. Those that it lacks are noted, for a box or ``trust fetch``."""

    async def nothing(_url: str) -> bytes:
        raise Rejected("rien n'est téléchargé ici", code="not-fetched")

    lists = public_lists(settings, nothing, SystemClock())
    return lists.judge if lists is not None else None


class TrustKeeper:
    """Keeps the trust of a running box up to date, and tells the operator when a list is not renewed in time."""

    def __init__(
        self, trust: TrustWatch, lists: ListKeeper, public: PublicLists | None, pool: Pool, clock: Clock
    ) -> None:
        self._trust = trust
        self._lists = lists
        self._public = public
        self._pool = pool
        self._clock = clock
        self._incidents = Incidents(pool, clock)
        # None: what an earlier process told is not known.
        self._told: set[str] | None = None
        # Lists are taken in by one thread at a time.
        self._turn = asyncio.Lock()
        self._asked = asyncio.Event()

    @property
    def states(self) -> tuple[ListState, ...]:
        """Every list that is fetched."""
        return (*self._lists.states, *(self._public.states if self._public is not None else ()))

    @property
    def judge(self) -> Judge | None:
        """Who judges the servers of public authorities; None where nobody does."""
        return self._public.judge if self._public is not None else None

    async def round(self, *, all_of_them: bool = False) -> None:
        """Fetch what is due and judge by it from now on."""
        async with self._turn:
            if await self._lists.round(all_of_them=all_of_them):
                # New contexts are made: connections go on meanwhile.
                await asyncio.to_thread(self._trust.take_in, self._lists.lists)
            if self._public is not None:
                await self._public.round(all_of_them=all_of_them)
        try:
            await self._tell()
        except DATABASE_ERRORS as error:
            _log.error("operator not told of revocation lists: %s", type(error).__name__)

    def tasks(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs as long as the box does."""
        return (self._follow_files(), self._go_on())

    async def _go_on(self) -> None:
        if self._public is not None:
            loop = asyncio.get_running_loop()
            # Connections are made in threads too.
            self._public.asked = partial(_wake, loop, self._asked)
        while True:
            self._asked.clear()
            await self.round()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._pause())

    def _pause(self) -> float:
        """Seconds until something is due."""
        keepers = (self._lists, self._public) if self._public is not None else (self._lists,)
        due = [keeper.next_due for keeper in keepers]
        now = self._clock.now()
        return min([_LONGEST, *(max((one - now).total_seconds(), 1.0) for one in due if one is not None)])

    async def _follow_files(self) -> None:
        while True:
            await asyncio.sleep(_FILES)
            async with self._turn:
                await asyncio.to_thread(self._look_at_files)

    def _look_at_files(self) -> None:
        try:
            if self._lists.reread():
                self._trust.take_in(self._lists.lists)
            if self._public is not None:
                self._public.reread()
            self._trust.refresh()
        except Misconfigured as error:
            _log.error("revocation lists: %s", error.reason)

    async def _tell(self) -> None:
        now = self._clock.now()
        passing = {state.url for state in self._public.states} if self._public and self._public.lenient else set()
        worrying = {
            state.url: _words(state, now, lenient=state.url in passing)
            for state in self.states
            if _is_worrying(state, now)
        }
        for url, reason in worrying.items():
            if url not in (self._told or ()):
                async with self._pool.connection() as connection:
                    await trouble.tell(connection, self._incidents, REVOCATION, reason)
        if not worrying and self._told != set():
            await trouble.over(self._incidents, "Les listes de révocation sont à jour.", REVOCATION)
        self._told = set(worrying)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # The loop of a box that stops is closed before its last threads end.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


def _is_worrying(state: ListState, now: dt.datetime) -> bool:
    if not state.problem:
        return False
    if state.ends_at is None or state.issued_at is None:
        return state.failures > 1
    return state.ends_at - now < max(_WORRYING, (state.ends_at - state.issued_at) / 4)


def _words(state: ListState, now: dt.datetime, *, lenient: bool = False) -> str:
    why = f"La liste de révocation {state.url} n'a pas pu être renouvelée : {state.problem}."
    if state.ends_at is None and lenient:
        return f"{why} Sans elle, la révocation des certificats de cette autorité publique n'est pas vérifiée."
    if state.ends_at is None:
        return f"{why} Sans elle, les certificats de son autorité sont refusés."
    if state.ends_at < now:
        return f"{why} Elle est périmée : les certificats de son autorité sont refusés."
    return f"{why} Elle vaut jusqu'au {state.ends_at.astimezone(PARIS):%d/%m/%Y à %H:%M} ; ensuite ils seront refusés."
