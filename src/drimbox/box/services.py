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

from drimbox import __version__
from drimbox.box import keys
from drimbox.box.places import structure_place
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.box.trusting import TrustKeeper, fetching, list_keeper, public_lists, trust_of
from drimbox.box.whitelisting import WhitelistDesk, whitelist_keeper
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring.keeper import Keyring
from drimbox.national.dmp.client import DmpClient, DmpEndpoints, Software
from drimbox.national.psc.client import PscClient
from drimbox.national.whitelist import WhitelistKeeper
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import PatientKey, load_patient_key
from drimbox.store.database import Pool
from drimbox.trust.fitness import Demand, fitting
from drimbox.trust.keystore import Credential, read_file
from drimbox.trust.tls import Judge
from drimbox.trust.token import Tokens
from drimbox.trust.watch import TrustWatch

PRODUCT = "drimbox"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """One of each; closed together when the box stops."""

    settings: Settings
    clock: Clock
    pool: Pool
    http: HttpClient
    trust: TrustWatch
    trust_keeper: TrustKeeper
    dmp: DmpClient
    psc: PscClient
    whitelist: WhitelistKeeper
    whitelist_desk: WhitelistDesk
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
    key = patient_key(settings)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        lists = list_keeper(settings, fetching(http), clock)
        trust = trust_of(settings, lists)
        keyring = await keys.opened(settings, pool, trust, clock)
        kept = TrustKeeper(trust, lists, public_lists(settings, fetching(http), clock), pool, clock)
        journal = Journal(pool, key)
        whitelist = whitelist_keeper(settings, http, clock, trust, pool)
        desk = WhitelistDesk(
            whitelist,
            pool,
            journal,
            Incidents(pool, clock),
            clock,
            f"{settings.box.name} {__version__}",
            dt.timedelta(hours=settings.whitelist.refresh_hours),
        )
        services = Services(
            settings=settings,
            clock=clock,
            pool=pool,
            http=http,
            trust=trust,
            trust_keeper=kept,
            dmp=_dmp(settings, http, clock),
            psc=_psc(settings, http, clock, trust, keyring, kept.judge),
            whitelist=whitelist,
            whitelist_desk=desk,
            journal=journal,
            patient_key=key,
            keyring=keyring,
        )
        tasks = [asyncio.create_task(work) for work in (*kept.tasks(), desk.run())]
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


def _psc(
    settings: Settings, http: HttpClient, clock: Clock, trust: TrustWatch, keyring: Keyring, judge: Judge | None
) -> PscClient:
    psc = settings.psc
    secret = None
    if psc.client_secret_file is not None:
        secret = read_file(psc.client_secret_file).strip().decode("utf-8")
    tls = psc_tls(settings, trust, keyring, judge=judge)
    return PscClient(http, tls, psc.discovery, psc.client_id, secret, clock, psc.timeout, psc.acr, psc.scope)


def psc_tls(
    settings: Settings, trust: TrustWatch, keyring: Keyring, *, proxy: bool = False, judge: Judge | None = None
) -> ssl.SSLContext:
    """How this box shows itself to PSC (RFC 8705), or to the ``proxy`` e-Sante before it, which is no public server.

    Where the pair cannot be used PSC will not know us, and the rest goes on; one that comes later is taken up.
    """
    psc = settings.psc
    place = "psc.auth" if psc.auth is not None else structure_place(settings.structures[0].id, "auth")
    if problem := keyring.standing(place).problem:
        _log.error("certificate for Pro Sante Connect: %s", problem)
    if not psc.roots or proxy:
        return keys.client_tls(keyring, place, trust)
    # A public CA: its revocation lists are not among those of IGC-Sante.
    return keys.client_tls(keyring, place, TrustWatch(psc.roots), judge=judge)
