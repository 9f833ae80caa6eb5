"""The link in a report: the listener of the viewer host, and how patients are let in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.settings.common import HttpsUrl, KeyPair, Port, ProxySection, Seconds, Section
from drimbox.box.settings.journal import SmtpSection, WebhookSection


class LinkMailSection(SmtpSection):
    """The code by e-mail, to the address of the patient that the report gives (CDA, `patientRole/telecom`)."""


class LinkWebhookSection(WebhookSection):
    """The code by a service of the site (SMS, its own directory of patients), which is told the INS of the patient."""


class LinkOidcClaims(Section):
    """Under which names the identity provider tells each trait; the defaults are those of FranceConnect."""

    family: str = Field("family_name", min_length=1, description="birth name")
    given: str = Field("given_name", min_length=1, description="birth given names, with blanks between them")
    birth_date: str = Field("birthdate", min_length=1, description="birth date (`YYYY-MM-DD`)")
    sex: str = Field("gender", min_length=1, description="sex (`male`, `female`; `M` and `F` are understood)")
    birth_place: str = Field(
        "birthplace", min_length=1, description="INSEE code of the commune of birth, empty for a birth abroad"
    )
    birth_country: str = Field(
        "birthcountry", description="INSEE code of the country of birth; empty: not told, and births abroad not let in"
    )


class LinkOidcSection(Section):
    """The identity provider of patients, FranceConnect+ or any other OpenID provider (`patients = "oidc"`)."""

    discovery: HttpsUrl = Field(
        description="address of its discovery document; FranceConnect+: "
        "`https://auth.franceconnect.gouv.fr/api/v2/.well-known/openid-configuration`"
    )
    client_id: str = Field(min_length=1, description="client id that it gave this site")
    name: str = Field("FranceConnect+", min_length=1, max_length=60, description="what patients know it by")
    authentication: Literal["client_secret_post", "client_secret_basic", "private_key_jwt", "tls_client_auth"] = Field(
        "client_secret_post", description="how the box proves itself to it (FranceConnect+: `client_secret_post`)"
    )
    secret_file: Path | None = Field(None, description="file of the client secret, for the two methods of that name")
    signing_key: Path | None = Field(
        None, description="PEM file of the private key for `private_key_jwt` (RSA from 2048 bits, or P-256)"
    )
    auth: KeyPair | None = Field(None, description="client certificate for `tls_client_auth` (RFC 8705)")
    encryption_key: Path | None = Field(
        None,
        description="PEM file of the private key that its tokens are encrypted for (FranceConnect+ demands one: RSA "
        "from 2048 bits, or P-256); tokens that are not are then refused. The public keys stand at `/lien/cles.json` "
        "of the viewer host",
    )
    scopes: tuple[str, ...] = Field(
        ("openid", "family_name", "given_name", "gender", "birthdate", "birthplace", "birthcountry"),
        description="scopes asked for",
    )
    acr: str = Field(
        "eidas2",
        description="least level of assurance: `eidas2` (substantial), `eidas3` (high), `eidas1`, or a word that the "
        "provider gives back as it is; empty: none is asked for",
    )
    prompt: str = Field("login", description="`login`: whoever comes proves it anew; empty: as the provider likes")
    pkce: bool = Field(
        True, description="PKCE (RFC 7636); `false` for a provider that refuses parameters that it does not know"
    )
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its certificate; none: those that the machine believes"
    )
    timeout: Seconds = Field(10, description="seconds without an answer before it is held for unreachable")
    claims: LinkOidcClaims = LinkOidcClaims()

    @field_validator("discovery")
    @classmethod
    def _well_known(cls, discovery: str) -> str:
        if "/.well-known/" not in discovery:
            raise ValueError("l'adresse du document de découverte contient /.well-known/ : la donner entière")
        return discovery

    @field_validator("scopes")
    @classmethod
    def _openid(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("openid manque parmi les scopes : sans lui, pas de jeton d'identité")
        if any(not scope or any(c.isspace() for c in scope) for scope in scopes):
            raise ValueError("un scope par élément de la liste, sans espace")
        return scopes

    @model_validator(mode="after")
    def _one_proof(self) -> LinkOidcSection:
        needed = {
            "client_secret_post": "secret_file",
            "client_secret_basic": "secret_file",
            "private_key_jwt": "signing_key",
            "tls_client_auth": "auth",
        }[self.authentication]
        given = [name for name in ("secret_file", "signing_key", "auth") if getattr(self, name) is not None]
        if given != [needed]:
            raise ValueError(
                f'authentication = "{self.authentication}" demande {needed}'
                + (f", et rien d'autre (donné : {', '.join(given)})" if given else "")
            )
        return self


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
    patients: Literal["closed", "portal", "oidc", "code"] = Field(
        "closed",
        description="what a patient is offered (decision 19): nothing, the way to the structure's own portal, a login "
        "at an identity provider (FranceConnect+), or a one-time code once birth date, sex and birth place were said",
    )
    portal_url: HttpsUrl | None = Field(None, description='address of the patient portal (`patients = "portal"`)')
    portal_name: str = Field("le portail des patients", description="how that portal is called in a sentence")
    oidc: LinkOidcSection | None = None
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
        if self.patients == "oidc" and self.oidc is None:
            raise ValueError('patients = "oidc" demande [link.oidc] : quel fournisseur d\'identité ?')
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
