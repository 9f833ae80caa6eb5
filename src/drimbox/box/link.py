"""The link in a report, put together: one listener on the viewer host, closed unless the configuration opens it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.routing import BaseRoute

from drimbox import __version__
from drimbox.box.certificates import Market
from drimbox.box.fronting import behind
from drimbox.box.keys import listener_context
from drimbox.box.notifying import mail_channel, webhook_channel
from drimbox.box.services import Services, credential
from drimbox.box.settings import Settings
from drimbox.box.settings.link import LinkOidcSection, LinkSection
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.link.agreement import Agreement, finder_among
from drimbox.link.app import Federation, OneTimeCodes, link_app
from drimbox.link.contact import StoredContacts
from drimbox.link.limits import Allowance, Attempts
from drimbox.link.logouts import Over
from drimbox.link.ports import Images, Opened, Sender, StudyFinder
from drimbox.link.senders import MailSender, WebhookSender
from drimbox.link.visits import Limits
from drimbox.link.web.desk import Portal
from drimbox.manifest.read import read_manifest
from drimbox.national.oidc.client import IdentityProvider
from drimbox.national.oidc.person import Claims
from drimbox.national.oidc.service import PrivateKey, Proof, Registration, key_of
from drimbox.publication.archive import Archive
from drimbox.publication.incidents import Incidents
from drimbox.trust.keystore import read_file, read_key
from drimbox.trust.tls import Judge, public_client_context


def nothing_inside(_opened: Opened) -> Sequence[BaseRoute]:
    """A door without a room behind it: it can be opened and closed."""
    return ()


@asynccontextmanager
async def running(
    services: Services,
    section: LinkSection,
    finders: Mapping[str, StudyFinder],
    market: Market | None,
    *,
    images: Images = nothing_inside,
    beside: Sequence[BaseRoute] = (),
    ended: Callable[[str], None] = lambda _key: None,
) -> AsyncIterator[None]:
    """Open the door until the block ends. ``finders`` ask each PACS. Raises ``Misconfigured``, ``OSError``."""
    settings = services.settings
    place = section.place or settings.structures[0].name
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(
            link_app(
                place=place,
                version=__version__,
                public_url=public_url(settings),
                agreement=Agreement(Archive(services.pool), read_manifest, finder_among(finders), services.clock),
                psc=services.psc,
                over=Over(services.pool, services.clock),
                journal=services.journal,
                clock=services.clock,
                images=images,
                beside=beside,
                ended=ended,
                patients=_patients(services, section, place),
                professions=frozenset(section.professions),
                limits=Limits(idle=section.idle_minutes * 60, visit=section.visit_minutes * 60),
                per_minute=section.requests_per_minute,
            )
        )
        if section.proxy is not None:
            address = (section.host, section.port)
            fronted = behind(app, section.proxy, services.trust, services.keyring, "link.tls", address)
            await stack.enter_async_context(fronted)
        else:
            tls = _tls(services, section, market)
            await stack.enter_async_context(serving(app, host=section.host, port=section.port, tls=tls))
        yield


def public_url(settings: Settings) -> str:
    """The origin of the viewer host, as links carry it. Raises ``Misconfigured`` (``link-none``)."""
    section, market = settings.link, settings.market_certificate
    if section is not None and section.public_url is not None:
        return section.public_url
    if market is None:
        raise Misconfigured("La configuration n'a ni [link] ni [market_certificate]", code="link-none")
    return f"https://{market.host}"


def _tls(services: Services, section: LinkSection, market: Market | None) -> ssl.SSLContext:
    """The market certificate, always the newest one; else the pair of a listener behind a proxy."""
    if section.tls is not None:
        return listener_context(services.keyring, "link.tls")
    if market is None:
        raise Misconfigured("[link] demande [market_certificate]", code="link-none")
    return market.context


def _patients(services: Services, section: LinkSection, place: str) -> OneTimeCodes | Federation | Portal | None:
    attempts = Attempts(services.pool, services.clock, Allowance(section.tries_per_study, section.tries_per_address))
    if section.patients == "oidc" and section.oidc is not None:
        provider = identity_provider(section.oidc, services.http, services.clock, services.trust_keeper.judge)
        return Federation(section.oidc.name, provider, attempts)
    if section.patients == "portal":
        return Portal(section.portal_name, section.portal_url or "")
    if section.patients == "closed":
        return None
    incidents = Incidents(services.pool, services.clock)

    async def open_incident(code: str, reason: str) -> None:
        async with services.pool.connection() as connection, connection.transaction():
            await incidents.open_for_note(connection, code=code, reason=reason)

    return OneTimeCodes(
        contacts=StoredContacts(services.pool),
        attempts=attempts,
        senders=_senders(services, section, place),
        open_incident=open_incident,
        minutes=section.code_minutes,
    )


def identity_provider(
    section: LinkOidcSection, http: HttpClient, clock: Clock, judge: Judge | None = None
) -> IdentityProvider:
    """The identity provider of patients; ``judge`` is asked about its certificate.

    Raises ``Misconfigured`` for a secret, a key or roots that cannot be used.
    """
    own = credential(section.auth) if section.auth is not None else None
    tls = public_client_context(section.roots, own, judge=judge)
    secret = read_file(section.secret_file).strip().decode("utf-8") if section.secret_file is not None else ""
    if section.secret_file is not None and not secret:
        raise Misconfigured(f"Le fichier {section.secret_file} est vide (link.oidc.secret_file)", code="oidc-key")
    registration = Registration(
        discovery_url=section.discovery,
        client_id=section.client_id,
        proof=Proof(section.authentication),
        secret=secret,
        signing=_token_key(section.signing_key, "link.oidc.signing_key"),
        decryption=_token_key(section.encryption_key, "link.oidc.encryption_key"),
        scopes=section.scopes,
        acr=section.acr,
        prompt=section.prompt,
        pkce=section.pkce,
        claims=Claims(**section.claims.model_dump()),
    )
    return IdentityProvider(http, tls, registration, clock, timeout=section.timeout)


def _token_key(file: Path | None, setting: str) -> PrivateKey | None:
    return key_of(read_key(file), setting) if file is not None else None


def _senders(services: Services, section: LinkSection, place: str) -> tuple[Sender, ...]:
    found: list[Sender] = []
    if section.webhook is not None:
        found.append(WebhookSender(webhook_channel(section.webhook, services.http, services.trust_keeper.judge), place))
    if section.mail is not None:
        found.append(MailSender(mail_channel(section.mail, (), services.clock, services.trust_keeper.judge), place))
    return tuple(found)
