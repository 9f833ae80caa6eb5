"""The link in a report, put together: one listener on the viewer host, closed unless the configuration opens it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.routing import BaseRoute

from drimbox import __version__
from drimbox.box.certificates import Market
from drimbox.box.fronting import behind
from drimbox.box.keys import listener_context
from drimbox.box.notifying import mail_channel, webhook_channel
from drimbox.box.services import Services
from drimbox.box.settings import Settings
from drimbox.box.settings.link import LinkSection
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_server import serving
from drimbox.link.agreement import Agreement, finder_among
from drimbox.link.app import OneTimeCodes, link_app
from drimbox.link.contact import StoredContacts
from drimbox.link.limits import Allowance, Attempts
from drimbox.link.ports import Images, Opened, Sender, StudyFinder
from drimbox.link.senders import MailSender, WebhookSender
from drimbox.link.visits import Limits
from drimbox.link.web.desk import Portal
from drimbox.manifest.read import read_manifest
from drimbox.publication.archive import Archive
from drimbox.publication.incidents import Incidents


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


def _patients(services: Services, section: LinkSection, place: str) -> OneTimeCodes | Portal | None:
    if section.patients == "portal":
        return Portal(section.portal_name, section.portal_url or "")
    if section.patients == "closed":
        return None
    incidents = Incidents(services.pool, services.clock)

    async def open_incident(code: str, reason: str) -> None:
        async with services.pool.connection() as connection, connection.transaction():
            await incidents.open_for_note(connection, code=code, reason=reason)

    allowance = Allowance(section.tries_per_study, section.tries_per_address)
    return OneTimeCodes(
        contacts=StoredContacts(services.pool),
        attempts=Attempts(services.pool, services.clock, allowance),
        senders=_senders(services, section, place),
        open_incident=open_incident,
        minutes=section.code_minutes,
    )


def _senders(services: Services, section: LinkSection, place: str) -> tuple[Sender, ...]:
    found: list[Sender] = []
    if section.webhook is not None:
        found.append(WebhookSender(webhook_channel(section.webhook, services.http, services.trust_keeper.judge), place))
    if section.mail is not None:
        found.append(MailSender(mail_channel(section.mail, (), services.clock, services.trust_keeper.judge), place))
    return tuple(found)
