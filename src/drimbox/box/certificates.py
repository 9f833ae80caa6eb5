"""The market certificate of the viewer host, put together: authorities, doors, the work that keeps it.

``Market.context`` is what the listener of the viewer host is given: it is always at the newest certificate.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from drimbox.box.keys import vault_of
from drimbox.box.settings import Settings
from drimbox.box.settings.certificates import AuthoritySection, HandingSection, MarketCertificateSection
from drimbox.certificates import records, trouble
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme.client import AcmeClient, ExternalAccount
from drimbox.certificates.acts import CertificateActs
from drimbox.certificates.doors import http_door
from drimbox.certificates.handing import Handing
from drimbox.certificates.keeper import Keeper
from drimbox.certificates.ordering import HTTP_01, TLS_ALPN_01, Ordering
from drimbox.certificates.presenting import DATABASE_ERRORS, Presenting
from drimbox.certificates.roots import read_roots
from drimbox.certificates.rules import Rules
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from drimbox.trust.chain import TrustStore
from drimbox.trust.keystore import read_file
from drimbox.trust.reload import ReloadableServerContext
from drimbox.trust.tls import Judge, client_context

_log = logging.getLogger(__name__)
# Every node looks at the validations under way this often; an authority is called once all of them have.
_LOOK = 2.0
_SPREAD = 2 * _LOOK


@dataclass(frozen=True, slots=True)
class Market:
    """The parts: ``acts`` for people, ``keeper`` for the work, ``presenting`` for the viewer's listener."""

    section: MarketCertificateSection
    acts: CertificateActs
    keeper: Keeper = field(repr=False)
    presenting: Presenting = field(repr=False)

    @property
    def context(self) -> ReloadableServerContext:
        """The TLS context of the viewer host's listener, for its whole life."""
        return self.presenting.context


def assembled(
    settings: Settings,
    section: MarketCertificateSection,
    *,
    dsn: str,
    pool: Pool,
    http: HttpClient,
    clock: Clock,
    journal: Journal,
    judge: Judge | None = None,
) -> Market:
    """The parts, nothing running; ``judge`` is asked about the authorities' own servers.

    Raises ``Misconfigured`` for roots, keys or secrets that cannot be used.
    """
    roots = read_roots(section.roots)
    rules = Rules(section.host, roots, section.levels)
    vault = vault_of(settings)
    incidents = Incidents(pool, clock)
    authorities = [_authority(one, roots, http, clock, judge) for one in section.authorities]
    validating = section.validation == TLS_ALPN_01
    presenting = Presenting(
        section.host,
        pool,
        vault,
        incidents,
        clock,
        validating=validating,
        poll=_LOOK if validating else 5.0,
        handing=_handing(section.nginx, section.host, clock),
    )
    ordering = Ordering(
        rules,
        vault,
        clock,
        validation=section.validation,
        key_kind=section.key,
        spread=_SPREAD if validating else 0.0,
        announced=presenting.refresh,
    )
    keeper = Keeper(section.host, authorities, dsn, ordering, incidents, journal, clock, installed=presenting.refresh)
    acts = CertificateActs(pool, rules, vault, clock, journal, incidents, authorities)
    return Market(section, acts, keeper, presenting)


def _handing(section: HandingSection | None, host: str, clock: Clock) -> Handing | None:
    if section is None:
        return None
    return Handing(host, section.folder, section.password_file, clock, section.reload_command, section.reload_pid_file)


@asynccontextmanager
async def running(market: Market) -> AsyncIterator[Market]:
    """Order, renew and present until the block ends; a door that cannot be opened is told to the operator.

    Raises ``Misconfigured`` for a folder to which nothing can be handed over.
    """
    if market.presenting.handing is not None:
        await asyncio.to_thread(market.presenting.handing.make_ready)
    async with AsyncExitStack() as stack:
        try:
            await market.presenting.refresh()
        except DATABASE_ERRORS as error:
            _log.error("market certificate not looked at: %s", type(error).__name__)
        await stack.enter_async_context(door(market))
        tasks = [asyncio.create_task(market.keeper.run()), asyncio.create_task(market.presenting.run())]
        try:
            yield market
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def door(market: Market) -> AsyncIterator[bool]:
    """Answer HTTP-01 until the block ends, where that is how the site is validated; True when the door is open.

    The images of a source do not wait for a port: one that cannot be opened is a line of the operator's queue.
    """
    section, acts = market.section, market.acts
    if section.validation != HTTP_01:
        yield False
        return

    async def lookup(token: str) -> str | None:
        async with acts.pool.connection() as connection:
            return await records.challenge(connection, token, section.host, acts.clock.now())

    app = http_door(section.host, lookup, DATABASE_ERRORS)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(
                serving(app, host=section.http_host, port=section.http_port, tls=None, keep_alive=5)
            )
        except OSError as error:
            _log.error("HTTP-01 not answered: %s", error.strerror)
            await _tell_closed(market, error)
            yield False
            return
        await trouble.over(acts.incidents, "Le port est ouvert.", trouble.LISTENER)
        yield True


async def _tell_closed(market: Market, error: OSError) -> None:
    section = market.section
    reason = (
        f"Le port {section.http_port} de la validation HTTP-01 ne peut pas être ouvert ({error.strerror}) : "
        "libérez-le, ou donnez-en le droit à la passerelle."
    )
    async with market.acts.pool.connection() as connection:
        await trouble.tell(connection, market.acts.incidents, trouble.LISTENER, reason)


def _authority(
    section: AuthoritySection,
    roots: tuple[x509.Certificate, ...],
    http: HttpClient,
    clock: Clock,
    judge: Judge | None,
) -> Authority:
    own = read_roots(section.roots) if section.roots else roots
    return Authority(
        name=section.name,
        client=AcmeClient(http, public_tls(own, judge), section.directory, clock),
        contact=section.contact,
        agreed=section.terms_agreed,
        external=_external(section.external_account_id, section.external_account_key_file),
        preferred_chain=section.preferred_chain,
        profile=section.profile,
    )


def _external(identifier: str, file: Path | None) -> ExternalAccount | None:
    if file is None:
        return None
    try:
        return ExternalAccount(identifier, read_file(file).decode("ascii").strip())
    except UnicodeDecodeError:
        raise Misconfigured(
            f"Le fichier {file} ne contient pas de clé de compte externe (base64url attendu)", code="acme-binding"
        ) from None


def public_tls(roots: tuple[x509.Certificate, ...], judge: Judge | None = None) -> ssl.SSLContext:
    """The context of a client of public web servers: their revocation lists are not among those of IGC-Santé."""
    return client_context(TrustStore(roots), judge=judge)
