"""The audit journal, and how the administrator is told of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from drimbox.box.settings.common import HttpsUrl, Port, Seconds, Section
from drimbox.record.retention import LEAST_DAYS


def _days(value: int) -> int:
    if value and value < LEAST_DAYS:
        raise ValueError(f"le journal se garde au moins {LEAST_DAYS} jours (0 : sans fin)")
    return value


def _address(value: str) -> str:
    name, at, host = value.strip().rpartition("@")
    if not (name and at and host) or any(c.isspace() or not c.isprintable() or c in "<>,;" for c in value.strip()):
        raise ValueError("une adresse électronique est attendue (nom@domaine)")
    return value.strip()


Days = Annotated[int, AfterValidator(_days)]
Address = Annotated[str, AfterValidator(_address)]


class JournalSection(Section):
    """The audit journal: how long it is kept, when it is sealed and verified (docs/journal.md)."""

    keep_days: Days = Field(
        1096,
        description="least age, in days, at which a trace may be removed: the site's own policy decides (six months to "
        f"three years are usual; {LEAST_DAYS} days is the least; 0: kept without end)",
    )
    removal: Literal["command", "nightly"] = Field(
        "command",
        description="who removes what is older: `drimbox journal remove` alone, or the box itself every night",
    )
    seal_seconds: Seconds = Field(60, le=3600, description="seconds between two seals of the journal")
    night_hour: int = Field(3, ge=0, le=23, description="hour (Paris) from which the journal is verified every night")


class SmtpSection(Section):
    """The site's own SMTP server."""

    host: str = Field(description="name of the SMTP server")
    port: Port = Field(587, description="its port")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="TLS by STARTTLS, TLS from the first octet, or none (a relay on the same machine)"
    )
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its certificate; none: those that the machine believes"
    )
    username: str = Field("", description="account to log in with; none: no login")
    password_file: Path | None = Field(None, description="file of its password")
    sender: Address = Field(description="address that the e-mails come from")

    @model_validator(mode="after")
    def _whole_login(self) -> SmtpSection:
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username et password_file vont ensemble")
        if self.username and self.security == "none":
            raise ValueError("un mot de passe ne part pas sans TLS : security = starttls ou tls")
        return self


class MailSection(SmtpSection):
    """E-mails through the site's own SMTP server."""

    recipients: tuple[Address, ...] = Field(min_length=1, description="addresses of those who are told")


class WebhookSection(Section):
    """A POST of JSON to a service of the site (monitoring, chat)."""

    url: HttpsUrl = Field(description="address that is called")
    secret_file: Path | None = Field(
        None, description="file of a secret: each call then carries `X-Drimbox-Signature: sha256=HMAC of the body`"
    )
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its certificate; none: those that the machine believes"
    )


class NotificationsSection(Section):
    """The administrator told of what comes into the operator's queue, by e-mail, webhook or both; no health data."""

    mail: MailSection | None = None
    webhook: WebhookSection | None = None
    every_minutes: float = Field(15, ge=0.05, le=1440, description="least time between two notifications of a channel")
    warnings: bool = Field(False, description="warnings too, not errors alone")

    @model_validator(mode="after")
    def _some_channel(self) -> NotificationsSection:
        if self.mail is None and self.webhook is None:
            raise ValueError("[notifications] demande [notifications.mail] ou [notifications.webhook]")
        return self
