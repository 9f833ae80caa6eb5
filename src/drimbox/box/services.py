"""What both functions of a box stand on: trust, HTTP, the clients of the national services, the journal."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from drimbox import __version__
from drimbox.box import keys
from drimbox.box.places import structure_place
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Rejected
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring.keeper import Keyring
from drimbox.national.dmp.client import DmpClient, DmpEndpoints, Software
from drimbox.national.psc.client import PscClient
from drimbox.national.whitelist import Whitelist, WhitelistKeeper, verify
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import PatientKey, load_patient_key
from drimbox.store.database import Pool
from drimbox.trust.fitness import Demand, fitting
from drimbox.trust.keystore import Credential, read_file
from drimbox.trust.tls import client_context
from drimbox.trust.token import Tokens
from drimbox.trust.watch import TrustWatch

PRODUCT = "drimbox"
_log = logging.getLogger(__name__)
_TRUST_REFRESH = 300.0
# Seconds before a list that could not be had is asked for again: doubled each time, up to the last.
_WHITELIST_RETRY = (5.0, 600.0)


@dataclass(frozen=True, slots=True)
class Services:
    """One of each; closed together when the box stops."""

    settings: Settings
    clock: Clock
    pool: Pool
    http: HttpClient
    trust: TrustWatch
    dmp: DmpClient
    psc: PscClient
    whitelist: WhitelistKeeper
    journal: Journal
    patient_key: PatientKey
    keyring: Keyring


def credential(pair: KeyPair) -> Credential:
    """The key pair of a setting, for a neighbour of the site. Raises ``Misconfigured``."""
    return fitting(pair.source.read(Tokens()), Demand(), SystemClock().now())


@asynccontextmanager
async def opened(settings: Settings, pool: Pool) -> AsyncIterator[Services]:
    """Everything ready to use. Raises ``Misconfigured`` for keys, lists or roots that cannot be used."""
    clock = SystemClock()
    trust = TrustWatch(settings.trust.roots, settings.trust.revocation_lists)
    key = patient_key(settings)
    keyring = await keys.opened(settings, pool, trust, clock)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        services = Services(
            settings=settings,
            clock=clock,
            pool=pool,
            http=http,
            trust=trust,
            dmp=_dmp(settings, http, clock),
            psc=_psc(settings, http, clock, trust, keyring),
            whitelist=_whitelist(settings, http, clock, trust, pool),
            journal=Journal(pool, key),
            patient_key=key,
            keyring=keyring,
        )
        tasks = [asyncio.create_task(_keep_trust(trust)), asyncio.create_task(_keep_whitelist(settings, services))]
        try:
            yield services
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def patient_key(settings: Settings) -> PatientKey:
    """The key of the patient references in the journal. Raises ``Misconfigured``."""
    return load_patient_key(_secrets(settings) / "audit.key")


def _secrets(settings: Settings) -> Path:
    folder = settings.box.state_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _dmp(settings: Settings, http: HttpClient, clock: Clock) -> DmpClient:
    dmp = settings.dmp
    return DmpClient(
        http,
        DmpEndpoints(dmp.repository, dmp.registry, dmp.patients, dmp.habilitations),
        Software(PRODUCT, __version__, settings.box.homologation_number, settings.box.device_id),
        clock,
        vihf_version=dmp.vihf_version,
        vihf_algorithm=dmp.vihf_algorithm,
        signature_algorithm=dmp.signature_algorithm,
        source_id=dmp.source_id,
        timeout=dmp.timeout,
        test=settings.box.environment == "test",
    )


def _psc(settings: Settings, http: HttpClient, clock: Clock, trust: TrustWatch, keyring: Keyring) -> PscClient:
    psc = settings.psc
    secret = None
    if psc.client_secret_file is not None:
        secret = read_file(psc.client_secret_file).strip().decode("utf-8")
    tls = psc_tls(settings, trust, keyring)
    return PscClient(http, tls, psc.discovery, psc.client_id, secret, clock, psc.timeout, psc.acr, psc.scope)


def psc_tls(settings: Settings, trust: TrustWatch, keyring: Keyring, *, proxy: bool = False) -> ssl.SSLContext:
    """How this box shows itself to PSC (RFC 8705), or to the ``proxy`` e-Sante before it, which is no public server.

    Where the pair cannot be used PSC will not know us, and the rest goes on; one that comes later is taken up.
    """
    psc = settings.psc
    place = "psc.auth" if psc.auth is not None else structure_place(settings.structures[0].id, "auth")
    if problem := keyring.standing(place).problem:
        _log.error("certificate for Pro Sante Connect: %s", problem)
    # A public CA: its revocation lists are not among those of IGC-Sante.
    public = TrustWatch(psc.roots) if psc.roots and not proxy else None
    return keys.client_tls(keyring, place, public or trust)


def _whitelist(settings: Settings, http: HttpClient, clock: Clock, trust: TrustWatch, pool: Pool) -> WhitelistKeeper:
    chosen = settings.whitelist
    tls = trust.enrol(client_context(trust.trust))

    async def fetch() -> bytes:
        reply = await http.send("GET", chosen.url, tls=tls, timeout=30, max_bytes=16 * 2**20)
        if reply.status != 200:
            raise Rejected("Liste blanche non fournie", code="whitelist-http", peer_code=str(reply.status))
        return reply.body

    def believed(document: bytes) -> Whitelist:
        return verify(
            document,
            trust=trust.trust,
            signer_cn=chosen.signer_cn,
            signer_ou=chosen.signer_ou,
            now=clock.now(),
        )

    return WhitelistKeeper(pool, fetch, believed, clock, dt.timedelta(days=chosen.max_age_days))


async def _keep_trust(trust: TrustWatch) -> None:
    while True:
        await asyncio.sleep(_TRUST_REFRESH)
        try:
            trust.refresh()
        except Misconfigured as error:
            _log.error("revocation lists: %s", error.reason)


async def _keep_whitelist(settings: Settings, services: Services) -> None:
    """Fetch the signed list at the start and every day; a failure is tried again sooner (decision 16)."""
    retry, longest = _WHITELIST_RETRY
    while True:
        try:
            await services.whitelist.refresh()
            pause, retry = settings.whitelist.refresh_hours * 3600, _WHITELIST_RETRY[0]
        except (DrimboxError, psycopg.Error) as error:
            told = f"{error.reason} ({error.code})" if isinstance(error, DrimboxError) else type(error).__name__
            _log.error("whitelist not refreshed: %s", told)
            pause, retry = retry, min(2 * retry, longest)
        await asyncio.sleep(pause)
