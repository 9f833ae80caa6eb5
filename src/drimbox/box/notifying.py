"""How the administrator is told of the queue, put together; and a try of it from the command line (DB.SO.21)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from drimbox.box.settings import Settings
from drimbox.box.settings.journal import SmtpSection, WebhookSection
from drimbox.box.trusting import judge_at_rest
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring import reminders
from drimbox.notification.mail import MailChannel
from drimbox.notification.notices import example
from drimbox.notification.teller import Channel, Manner, Teller, telling
from drimbox.notification.webhook import WebhookChannel
from drimbox.publication.incidents import Incidents
from drimbox.store.database import Connection, Pool
from drimbox.trust.keystore import read_file
from drimbox.trust.tls import Judge, public_client_context


@asynccontextmanager
async def notifying(
    settings: Settings, pool: Pool, http: HttpClient, clock: Clock, judge: Judge | None = None
) -> AsyncIterator[None]:
    """Tell by every channel of the configuration as long as the block lasts. Raises ``Misconfigured``."""
    section = settings.notifications
    if section is None:
        yield
        return
    incidents = Incidents(pool, clock)

    async def open_incident(connection: Connection, code: str, reason: str) -> None:
        await incidents.open_for_note(connection, code=code, reason=reason)

    manner = Manner(
        settings.box.name, _console(settings), section.every_minutes * 60, section.warnings, always=(reminders.EXPIRY,)
    )
    tellers = [Teller(pool, clock, one, manner, open_incident) for one in _channels(settings, http, clock, judge)]
    async with telling(tellers, poll=manner.poll):
        yield


def tried(settings: Settings) -> str:
    """Send an example by every channel; says what went out. Raises ``Refused`` when one did not."""

    async def work() -> str:
        said, failed = [], []
        clock = SystemClock()
        async with HttpClient() as http:
            for channel in _channels(settings, http, clock, judge_at_rest(settings)):
                try:
                    await channel.tell(example(settings.box.name, _console(settings), clock.now()))
                    said.append(f"{channel.name} : envoyé")
                except DrimboxError as error:
                    failed.append(
                        f"{channel.name} : {error.reason}{f' [{error.peer_code}]' if error.peer_code else ''}"
                    )
        if failed:
            raise Refused("\n".join([*said, *failed]), code="notification-failed")
        return "\n".join(said)

    if settings.notifications is None:
        raise Refused("La configuration n'a pas de [notifications]", code="notification-none")
    return asyncio.run(work())


def _channels(settings: Settings, http: HttpClient, clock: Clock, judge: Judge | None) -> Sequence[Channel]:
    section = settings.notifications
    found: list[Channel] = []
    if section is not None and section.mail is not None:
        found.append(mail_channel(section.mail, section.mail.recipients, clock, judge))
    if section is not None and section.webhook is not None:
        found.append(webhook_channel(section.webhook, http, judge))
    return found


def mail_channel(
    section: SmtpSection, recipients: Sequence[str], clock: Clock, judge: Judge | None = None
) -> MailChannel:
    """A way to send e-mails. Raises ``Misconfigured``."""
    file = section.password_file

    def password() -> str:
        return read_file(file).strip().decode("utf-8") if file is not None else ""

    return MailChannel(
        host=section.host,
        port=section.port,
        security=section.security,
        tls=None if section.security == "none" else public_client_context(section.roots, judge=judge),
        sender=section.sender,
        recipients=recipients,
        clock=clock,
        username=section.username,
        password=password,
    )


def webhook_channel(section: WebhookSection, http: HttpClient, judge: Judge | None = None) -> WebhookChannel:
    """A way to call a service of the site. Raises ``Misconfigured``."""
    file = section.secret_file

    def secret() -> bytes:
        return read_file(file).strip() if file is not None else b""

    return WebhookChannel(http, section.url, public_client_context(section.roots, judge=judge), secret)


def _console(settings: Settings) -> str:
    return settings.console.public_url if settings.console is not None else ""
