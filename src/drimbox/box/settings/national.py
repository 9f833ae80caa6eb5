"""The national services."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from drimbox.box.settings.common import HttpsUrl, KeyPair, Oid, Seconds, Section


class DmpSection(Section):
    """The national record (DMP)."""

    repository: HttpsUrl = Field(description="address of the repository service (ITI-41, ITI-43)")
    registry: HttpsUrl = Field(description="address of the registry service (ITI-18, ITI-57)")
    patients: HttpsUrl = Field(description="address of the patients service (TD0.2)")
    habilitations: HttpsUrl = Field(description="address of the habilitations service (TD0.3)")
    source_id: Oid = Field(description="OID of this installation: sourceId of the submission sets")
    vihf_version: Literal["3.0", "4.0"] = Field("3.0", description="VIHF_Version (decision 12)")
    vihf_algorithm: Literal["rsa-sha256", "rsa-sha1"] = Field(
        "rsa-sha256", description="signature of the VIHF (decision 12)"
    )
    signature_algorithm: Literal["rsa-sha256", "rsa-sha1"] = Field(
        "rsa-sha256", description="XAdES signature of the submission set (decision 13)"
    )
    timeout: Seconds = Field(60, description="seconds without an answer before the outcome is held for unknown")
    consultation: Literal["AIR", "API_PSC"] = Field(
        "AIR",
        description="how the DMP is consulted: by the VIHF alone (reinforced indirect authentication), or with a "
        "bearer beside it (API PSC, transition form); the addresses above are then those of the API",
    )
    api_token: HttpsUrl | None = Field(
        None,
        description="token endpoint of the API's authorization server, where the PSC token is exchanged (RFC 8693); "
        "none: the PSC token itself is the bearer",
    )
    api_scope: str = Field("", description="scope asked for in that exchange; empty: none is sent")
    api_subject_issuer: str = Field("psc", description="subject_issuer sent in that exchange; empty: none is sent")


class PscSection(Section):
    """Pro Sante Connect."""

    discovery: HttpsUrl = Field(description="address of the wallet-openid-configuration document")
    client_id: str = Field(description="Client_ID of the DRIMbox")
    client_secret_file: Path | None = Field(
        None, description="file of the client secret; none: client certificate (RFC 8705)"
    )
    auth: KeyPair | None = Field(None, description="ORG AUTH_CLI of the DRIMbox for PSC; none: the first structure's")
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its server certificate (a public one); none: those of [trust]"
    )
    login: Literal["code", "ciba", "both"] = Field(
        "code",
        description="how radiologists log in: by PSC's page (authorization code with PKCE), on their own device "
        "(CIBA, polled), or as they choose",
    )
    proxy: HttpsUrl | None = Field(
        None,
        description="proxy e-Santé through which logins on a device go; none: this box is its own proxy. Others may "
        "keep the tokens: see proxy_token",
    )
    proxy_userinfo: str = Field("psc/userinfo", description="where the proxy relays userinfo, under /send/")
    proxy_token: str = Field(
        "psc/token",
        description="where the proxy gives the PSC access token that goes with WADO-RS, under /send/; empty: it gives "
        "none, and images of other sites need a login by PSC's page",
    )
    proxy_timeout: Seconds = Field(180, description="seconds that the proxy may wait for the professional")
    acr: str = Field("eidas1", description="acr_values asked for (PSC.08)")
    scope: str = Field("openid scope_all", description="scope asked for")
    timeout: Seconds = Field(10, description="seconds without an answer before PSC is held for unreachable")


class WhitelistSection(Section):
    """The signed list of DRIMboxes (decision 16)."""

    url: HttpsUrl = Field(description="address of the signed list")
    signer_cn: str = Field("Liste Blanche DRIM-M", description="CN that the signer's certificate must carry")
    signer_ou: str = Field("318751275100020", description="OU that the signer's certificate must carry")
    max_age_days: float = Field(7, gt=0, description="days after which the last good list is no longer believed")
    refresh_hours: float = Field(24, gt=0, description="hours between two downloads")
