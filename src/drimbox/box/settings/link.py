"""The link in a report: the listener of the viewer host, and how patients are let in."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.settings.common import HttpsUrl, KeyPair, Port, ProxySection, Section
from drimbox.box.settings.journal import SmtpSection, WebhookSection


class LinkMailSection(SmtpSection):
    """The code by e-mail, to the address of the patient that the report gives (CDA, `patientRole/telecom`)."""


class LinkWebhookSection(WebhookSection):
    """The code by a service of the site (SMS, its own directory of patients), which is told the INS of the patient."""


class LinkSection(Section):
    """The link in a report (`IHEInvokeImageDisplay`), opened on the viewer host (docs/link.md); absent: closed."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - it is for the Internet
    port: Port = Field(443, description="port to listen on; from outside it must be reached on port 443")
    public_url: HttpsUrl | None = Field(
        None, description="address by which others reach it; none: `https://` and the host of [market_certificate]"
    )
    tls: KeyPair | None = Field(
        None,
        description="server certificate of this listener, where a proxy of the site stands before it and shows the "
        "market certificate itself; none: the listener shows the certificate of [market_certificate]",
    )
    proxy: ProxySection | None = Field(
        None,
        description="an nginx that ends TLS before this listener: on the same machine by `socket`, else by `addresses` "
        "with `tls` (docs/tls.md)",
    )
    place: str = Field(
        "", description="name of the site as patients know it; none: the name of the first of [[structures]]"
    )
    patients: Literal["closed", "portal", "code"] = Field(
        "closed",
        description="what a patient is offered (decision 19): nothing, the way to the structure's own portal, or a "
        "one-time code once birth date, sex and birth place of the patient were said",
    )
    portal_url: HttpsUrl | None = Field(None, description='address of the patient portal (`patients = "portal"`)')
    portal_name: str = Field("le portail des patients", description="how that portal is called in a sentence")
    mail: LinkMailSection | None = None
    webhook: LinkWebhookSection | None = None
    code_minutes: int = Field(10, ge=2, le=30, description="minutes that a code is good for")
    tries_per_study: int = Field(
        10, ge=1, le=100, description="identities that may be said of the patient of one study within a day"
    )
    tries_per_address: int = Field(
        30, ge=1, le=10_000, description="identities that may be said from one address within a day"
    )
    professions: tuple[str, ...] = Field(
        (), description="professions let in, by their code of TRE_G15 (`10` physician...); none: any"
    )
    idle_minutes: float = Field(15, gt=0, le=30, description="inactivity that ends a visit")
    visit_minutes: float = Field(120, gt=0, le=240, description="longest visit")
    requests_per_minute: int = Field(
        60, ge=1, le=100_000, description="requests of strangers from one address: the link itself, logins, codes"
    )

    @field_validator("professions")
    @classmethod
    def _codes(cls, professions: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(r"[0-9]{2}", one) is None for one in professions):
            raise ValueError("un code de profession a deux chiffres (TRE_G15)")
        return professions

    @model_validator(mode="after")
    def _patients_have_a_way(self) -> LinkSection:
        if self.patients == "code" and self.mail is None and self.webhook is None:
            raise ValueError('patients = "code" demande [link.mail] ou [link.webhook] : le code doit partir')
        if self.patients == "portal" and self.portal_url is None:
            raise ValueError('patients = "portal" demande portal_url')
        return self


def check_link(link: LinkSection, *, source: bool, market: MarketCertificateSection | None) -> None:
    """Raises ``ValueError``: it opens images of a source, under a name that the box knows."""
    if not source:
        raise ValueError("[link] ouvre les images d'une source : [source] manque")
    if link.proxy is not None:
        _check_proxy(link, link.proxy, market)
    if link.tls is None and market is None and link.proxy is None:
        raise ValueError("[link] demande [market_certificate], ou tls derrière un proxy du site")
    if link.public_url is None and market is None:
        raise ValueError("[link] sans [market_certificate] demande public_url")
    if link.tls is None and link.public_url is not None and market is not None:
        name = link.public_url.removeprefix("https://").partition("/")[0].partition(":")[0]
        if name != market.host:
            raise ValueError("public_url de [link] n'est pas l'hôte de [market_certificate]")


def _check_proxy(link: LinkSection, proxy: ProxySection, market: MarketCertificateSection | None) -> None:
    if proxy.addresses and link.tls is None:
        raise ValueError("[link.proxy] avec addresses demande tls : le mandataire d'une autre machine vient en TLS")
    if market is None or not market.authorities:
        return
    if market.validation != "http-01":
        raise ValueError("derrière [link.proxy], market_certificate.validation est http-01 : nginx termine le TLS")
    if proxy.socket is not None and market.http_port == 80:
        raise ValueError(
            'derrière [link.proxy], nginx tient le port 80 : donnez http_host = "127.0.0.1" et un autre http_port à '
            "[market_certificate]"
        )
