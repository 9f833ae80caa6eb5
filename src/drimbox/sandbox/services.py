"""The national services in one process: test PKI, Pro Sante Connect, DMP, signed list. What they hold outlives them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.foundation.signals import stop_on
from drimbox.sandbox.dmp import Authorisation, KnownPatient, KnownStructure, dmp_app, view_app
from drimbox.sandbox.dmp.vocabulary import SERVICES_PATH
from drimbox.sandbox.issuing import (
    AGENCY,
    WHITELIST_SIGNER,
    SiteCertificates,
    service_certificate,
    site_certificates,
    subject_of,
    whitelist_signer,
)
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import TestAuthority
from drimbox.sandbox.psc.api import ApiGateway
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.backchannel import backchannel
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import User, sample_users
from drimbox.sandbox.psc.provider import REALM
from drimbox.sandbox.psc.proxy import ProxyConfig, proxy_app
from drimbox.sandbox.published import reports
from drimbox.sandbox.sites import ServicesConfig, Site
from drimbox.sandbox.whitelist import PATH, ListedDomain, Publisher, whitelist_app

#: The official test patient (official-data.md 4.1), whose DMP is open.
TEST_PATIENT = KnownPatient(
    ins="279035121518989",
    oid="1.2.250.1.213.1.4.10",
    family="PAT-TROIS",
    given="DOMINIQUE",
    birth_date="19790328",
    sex="F",
)


@dataclass(frozen=True, slots=True)
class SiteEndpoint:
    """What the services know of a site, and its certificates."""

    site: Site
    certificates: SiteCertificates
    operator_dn: str


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything is, for whoever joins in.

    ``psc_helpers`` and ``dmp_view`` are the sandbox's own addresses, which the real services do not have.
    """

    psc_discovery: str
    psc_issuer: str
    psc_helpers: str
    dmp_repository: str
    dmp_registry: str
    dmp_patients: str
    dmp_habilitations: str
    dmp_view: str
    whitelist: str
    whitelist_signer_cn: str
    whitelist_signer_ou: str
    roots: Path
    revocation_lists: tuple[Path, ...]
    sites: Mapping[str, SiteEndpoint]
    logins: tuple[User, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values for ``json.dumps``."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@asynccontextmanager
async def run_services(config: ServicesConfig, *, clock: Clock | None = None) -> AsyncIterator[Endpoints]:
    """Serve everything until the block ends. Raises ``OSError`` when a port is taken."""
    clock = clock or SystemClock()
    authority = TestAuthority(config.state / "pki")
    endpoints = _endpoints(config, authority)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())

        async def serve(app: ASGIApp, name: str, port: int, client: ClientCertificate) -> None:
            pair = service_certificate(authority, name, config.public_host)
            tls = listener_context(pair, authority, client)
            await stack.enter_async_context(serving(app, host=config.host, port=port, tls=tls))

        provider = psc_app(
            config.url(config.psc_port),
            [_client(known) for known in endpoints.sites.values()],
            endpoints.logins,
            clock=clock,
            state=config.state / "psc",
            wallet_url=config.url(config.wallet_port) if config.wallet_port is not None else None,
            notify=backchannel(http, caller_context(authority)),
            controls=config.controls,
            poll_seconds=config.poll_seconds,
        )
        await serve(provider, "psc-serveur", config.psc_port, ClientCertificate.OPTIONAL)
        if config.wallet_port is not None:
            await serve(provider, "psc-serveur", config.wallet_port, ClientCertificate.UNASKED)
        record = _dmp(config, authority, clock)
        stack.callback(record.state.dmp.close)
        await serve(record, "dmp-serveur", config.dmp_port, ClientCertificate.REQUIRED)
        if config.api_port is not None:
            gateway = ApiGateway(provider.state.provider, record, scope="dmp")
            await serve(gateway, "dmp-serveur", config.api_port, ClientCertificate.REQUIRED)
        if config.proxy_port is not None:
            known = list(endpoints.sites.values())[-1]
            between = ProxyConfig(
                config.url(config.psc_port), {subject_of(known.certificates.psc): known.site.client_id}
            )
            shown = caller_context(authority, known.certificates.psc)
            relay = proxy_app(http, shown, between, clock=clock)
            await serve(relay, "psc-serveur", config.proxy_port, ClientCertificate.REQUIRED)
        if config.view_port is not None:
            await serve(view_app(record.state.dmp), "dmp-serveur", config.view_port, ClientCertificate.UNASKED)
        publisher = Publisher(_domains(endpoints, clock.now()), whitelist_signer(authority), clock)
        listed = whitelist_app(publisher, controls=config.controls)
        await serve(listed, "liste-serveur", config.whitelist_port, ClientCertificate.UNASKED)
        yield endpoints


def main_services(config: ServicesConfig, *, ready: Callable[[Endpoints], None] = lambda _endpoints: None) -> None:
    """Run the services until SIGINT or SIGTERM; ``ready`` is called once they accept connections."""
    asyncio.run(_until_told(config, ready))


async def _until_told(config: ServicesConfig, ready: Callable[[Endpoints], None]) -> None:
    stop = asyncio.Event()
    stop_on(stop)
    async with run_services(config) as endpoints:
        ready(endpoints)
        await stop.wait()


def endpoints_of(config: ServicesConfig) -> Endpoints:
    """Where the services of this configuration are, for another process than theirs."""
    return _endpoints(config, TestAuthority(config.state / "pki"))


def _endpoints(config: ServicesConfig, authority: TestAuthority) -> Endpoints:
    sites: dict[str, SiteEndpoint] = {}
    for site in config.sites:
        certificates = site_certificates(authority, site)
        sites[site.key] = SiteEndpoint(site, certificates, subject_of(certificates.auth))
    psc = config.url(config.psc_port)
    dmp = config.url(config.dmp_port) + SERVICES_PATH
    return Endpoints(
        psc_discovery=f"{psc}{REALM}/.well-known/wallet-openid-configuration",
        psc_issuer=f"{psc}{REALM}",
        psc_helpers=f"{psc}/sandbox",
        dmp_repository=f"{dmp}/repository",
        dmp_registry=f"{dmp}/registry",
        dmp_patients=f"{dmp}/patients",
        dmp_habilitations=f"{dmp}/habilitations",
        dmp_view=config.url(config.dmp_port if config.view_port is None else config.view_port) + "/sandbox/dmp",
        whitelist=config.url(config.whitelist_port) + PATH,
        whitelist_signer_cn=WHITELIST_SIGNER,
        whitelist_signer_ou=AGENCY[0],
        roots=authority.roots,
        revocation_lists=authority.revocation_lists,
        sites=sites,
        logins=sample_users(config.sites[0].place, config.sites[-1].place),
    )


def _dmp(config: ServicesConfig, authority: TestAuthority, clock: Clock) -> Starlette:
    structures = [
        KnownStructure(site.place.identifier, site.place.name, legal_identifier=site.legal_identifier)
        for site in config.sites
    ]
    patient = replace(TEST_PATIENT, authorisations=dict.fromkeys(config.authorised, Authorisation.VALID))
    app = dmp_app(
        state=config.state / "dmp",
        trust_roots=(authority.roots,),
        revocation_lists=authority.revocation_lists,
        schema_dir=config.schemas,
        structures=structures,
        patients=(patient, *config.patients),
        clock=clock,
    )
    source = config.sites[0].place
    for report in reports(config.published_reports, (source.identifier, source.name)):
        app.state.dmp.preload(report)
    return app


def _client(known: SiteEndpoint) -> Client:
    return Client(
        client_id=known.site.client_id,
        name=known.site.box_name,
        redirect_uris=known.site.redirect_uris,
        certificate_subject=subject_of(known.certificates.psc),
        post_logout_redirect_uris=known.site.post_logout_redirect_uris,
        backchannel_logout=known.site.backchannel_logout,
        frontchannel_logout=known.site.frontchannel_logout,
        ciba=True,
    )


def _domains(endpoints: Endpoints, now: dt.datetime) -> tuple[ListedDomain, ...]:
    return tuple(
        ListedDomain(
            identifier=str(number),
            db=known.site.db_host,
            vi=known.site.vi_host,
            name=known.site.place.name,
            operator_dn=known.operator_dn,
            contact="bac-a-sable@localhost",
            updated_at=now,
        )
        for number, known in enumerate(endpoints.sites.values(), start=1)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
