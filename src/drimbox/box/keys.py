"""The pairs of a box, kept in service: new ones taken in, the operator told, renewals called for."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import psycopg_pool

from drimbox.box.places import pairs_of, place_at, places_of
from drimbox.box.settings import Settings
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.keyring import records, reminders
from drimbox.keyring.acts import KeyActs
from drimbox.keyring.inventory import lines
from drimbox.keyring.keeper import Change, Keyring
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential
from drimbox.trust.reload import ReloadableClientContext, ReloadableServerContext, reloadable, reloadable_client
from drimbox.trust.tls import Judge, client_context, server_context
from drimbox.trust.vault import Vault, load_vault
from drimbox.trust.watch import TrustWatch

_DATABASE_ERRORS = (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)
_REMINDED_EVERY = 3600.0
_log = logging.getLogger(__name__)


async def opened(
    settings: Settings, pool: Pool, trust: TrustWatch, clock: Clock, *, neighbours: bool = False
) -> Keyring:
    """Every pair of the configuration and those that were installed, looked at once; or ``neighbours`` alone.

    Raises ``Misconfigured`` (``vault-key``) for a secret that is lost.
    """
    if neighbours:
        keyring = await asyncio.to_thread(of_neighbours, settings, trust, clock)
    else:
        keyring = await asyncio.to_thread(Keyring, places_of(settings, lambda: trust.trust), clock)
    async with pool.connection() as connection:
        installed = await records.installed(connection)
    await keyring.refresh(installed, vault_of(settings) if installed else None)
    return keyring


def of_neighbours(settings: Settings, trust: TrustWatch, clock: Clock) -> Keyring:
    """The pairs of files for the PACSs and their listener: for a command, which has no business with the others."""
    found = [where for where, _pair in pairs_of(settings) if where[0] in ("pacs", "source") and "wado" not in where]
    pairs = dict(pairs_of(settings))
    return Keyring([place_at(where, pairs[where], settings, lambda: trust.trust) for where in found], clock)


def vault_path(settings: Settings) -> Path:
    """Where the secret of the vault is: one for all that this box seals."""
    market = settings.market_certificate
    named = settings.keystore.vault_secret or (market.vault_secret if market is not None else None)
    return named or settings.box.state_dir / "keys" / "vault.key"


def vault_of(settings: Settings) -> Vault:
    """Raises ``Misconfigured`` (``vault-key``)."""
    return load_vault(vault_path(settings))


def key_acts(settings: Settings, pool: Pool, keyring: Keyring, clock: Clock, journal: Journal) -> KeyActs:
    """What administrators do. Raises ``Misconfigured`` (``vault-key``)."""
    return KeyActs(pool, keyring, vault_of(settings), clock, journal)


def client_tls(
    keyring: Keyring, name: str, trust: TrustWatch, *, needed: bool = False, judge: Judge | None = None
) -> ReloadableClientContext:
    """A client's context, always at the pair in service at a place; without one, no certificate is shown.

    ``judge`` is asked about servers of public authorities. Raises ``Misconfigured`` for one that is ``needed``.
    """
    if needed:
        keyring.pair(name)
    context = reloadable_client(trust.enrol(client_context(trust.trust, judge=judge)))

    def use(pair: Credential) -> Callable[[], None]:
        ready = trust.enrol(client_context(trust.trust, pair, judge=judge))
        return lambda: context.present(ready)

    try:
        keyring.follow(name, use)
    except Misconfigured as error:
        if needed:
            raise
        _log.error("pair %s not shown: %s", name, error.reason)
    return context


def listener_context(keyring: Keyring, name: str, trust: TrustWatch | None = None) -> ReloadableServerContext:
    """The context of the listener at a place, always at the pair in service; with ``trust``, clients prove theirs.

    Raises ``Misconfigured`` where no pair is fit.
    """
    context = reloadable()

    def use(pair: Credential) -> Callable[[], None]:
        made = server_context(pair, trust.trust if trust is not None else None)
        ready: ssl.SSLContext = trust.enrol(made) if trust is not None else made
        return lambda: context.present(ready)

    keyring.pair(name)
    keyring.follow(name, use)
    return context


@asynccontextmanager
async def watching(settings: Settings, acts: KeyActs, incidents: Incidents) -> AsyncIterator[None]:
    """Take in new pairs, and tell the operator of theirs, until the block ends."""
    tasks = [
        asyncio.create_task(_keep_looking(settings, acts, incidents)),
        asyncio.create_task(_keep_reminding(settings, acts, incidents)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_looking(settings: Settings, acts: KeyActs, incidents: Incidents) -> None:
    untold: list[Change] = []
    while True:
        try:
            await acts.look()
            untold += acts.keyring.changes()
            await reminders.tell(acts.pool, incidents, untold)
            untold = []
        except (*_DATABASE_ERRORS, DrimboxError) as error:
            _log.error("pairs not looked at: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a task boundary: the next look must come
            _log.exception("pairs not looked at")
        await asyncio.sleep(settings.keystore.look)


async def _keep_reminding(settings: Settings, acts: KeyActs, incidents: Incidents) -> None:
    while True:
        try:
            now = acts.clock.now()
            await reminders.remind(
                acts.pool, incidents, lines(acts.keyring.standings, now), settings.keystore.reminders, now
            )
        except _DATABASE_ERRORS as error:
            _log.error("renewals not looked at: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a task boundary: the next look must come
            _log.exception("renewals not looked at")
        await asyncio.sleep(_REMINDED_EVERY)
