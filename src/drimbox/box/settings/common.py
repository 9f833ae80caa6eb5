"""What the tables of the configuration have in common."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from drimbox.foundation.uids import is_uid
from drimbox.trust.pairs import PairSource


def _oid(value: str) -> str:
    if value and not is_uid(value):
        raise ValueError("ce n'est pas un OID (chiffres et points, 64 caractères au plus)")
    return value


def _https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("une adresse https:// est attendue")
    return value.rstrip("/")


def _web(value: str) -> str:
    if not value.startswith(("https://", "http://")) or any(c.isspace() for c in value):
        raise ValueError("une adresse http:// ou https:// est attendue")
    return value


def _ae(value: str) -> str:
    if not 0 < len(value.strip()) <= 16 or not value.isascii() or "\\" in value:
        raise ValueError("ce n'est pas un AE title (1 à 16 caractères ASCII, sans barre oblique inverse)")
    return value.strip()


def _structure(value: str) -> str:
    if value and re.fullmatch(r"[0-9][0-9A-Za-z/-]{5,30}", value) is None:
        raise ValueError("ce n'est pas un Struct_IdNat (un chiffre de type puis le numéro : 1 + FINESS, 3 + SIRET…)")
    if len(value) == 9:
        raise ValueError("un Struct_IdNat commence par son chiffre de type : 1 devant un FINESS de neuf caractères")
    return value


def _issuer(value: str) -> str:
    parts = [part.strip() for part in value.split("&")]
    if len(parts) != 3 or not parts[0] or not is_uid(parts[1]) or parts[2] != "ISO":
        raise ValueError("un émetteur entier est attendu (CX-4 : nom&OID&ISO)")
    return "&".join(parts)


def _order_control(value: str) -> str:
    if re.fullmatch(r"[A-Z]{2}", value) is None:
        raise ValueError("ce n'est pas un code ORC-1 (deux lettres majuscules, table HL7 0119)")
    return value


Oid = Annotated[str, AfterValidator(_oid)]
StructureId = Annotated[str, AfterValidator(_structure)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
WebUrl = Annotated[str, AfterValidator(_web)]
IssuerCx4 = Annotated[str, AfterValidator(_issuer)]
OrderControl = Annotated[str, AfterValidator(_order_control)]
AeTitle = Annotated[str, AfterValidator(_ae)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A table of the configuration: unknown keys are mistakes, values cannot change after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyPair(Section):
    """A certificate with its chain, and its private key: two PEM files, one PKCS#12 file, or a PKCS#11 token."""

    certificate: Path | None = Field(
        None, description="PEM file: the certificate, then its chain; with `token`, none: the one that the token holds"
    )
    key: Path | None = Field(None, description="PEM file of the private key, PKCS#8")
    pkcs12: Path | None = Field(None, description="PKCS#12 file (.p12, .pfx) of the certificate, its chain and its key")
    password_file: Path | None = Field(
        None, description="file that holds the password of the private key, or of the PKCS#12 file"
    )
    module: Path | None = Field(None, description="PKCS#11 module (.so) of the maker of the token; ORG SIGN alone")
    token: str = Field("", description="label of the token")
    token_key: str = Field("", description="label of the private key in the token")
    pin_file: Path | None = Field(None, description="file that holds the PIN of the token")

    @model_validator(mode="after")
    def _one_form(self) -> KeyPair:
        in_token = (self.module, self.token, self.token_key, self.pin_file)
        forms = (self.key is not None, self.pkcs12 is not None, any(in_token))
        if sum(forms) != 1:
            raise ValueError(
                "une paire est soit certificate et key (PEM), soit pkcs12, soit module, token, token_key et pin_file"
            )
        if self.key is not None and self.certificate is None:
            raise ValueError("key demande certificate")
        if self.pkcs12 is not None and self.certificate is not None:
            raise ValueError("pkcs12 contient déjà le certificat : retirez certificate")
        if any(in_token) and not all(in_token):
            raise ValueError("un jeton PKCS#11 demande module, token, token_key et pin_file")
        return self

    @property
    def source(self) -> PairSource:
        """Where the pair is read."""
        return PairSource(
            self.certificate,
            self.key,
            self.pkcs12,
            self.password_file,
            self.module,
            self.token,
            self.token_key,
            self.pin_file,
        )


class ProxySection(Section):
    """A reverse proxy (nginx) that ends TLS before this listener, which then takes nothing from anybody else.

    Without this table the box ends TLS itself (docs/tls.md).
    """

    socket: Path | None = Field(
        None,
        description="unix socket of this listener, for a proxy on the same machine; `port` is then not opened",
    )
    group: str = Field("", description="group that may use the socket: the proxy's (`www-data`); none: the box's own")
    addresses: tuple[str, ...] = Field(
        (), description="addresses of proxies on other machines; they come over TLS, with a client certificate"
    )
    roots: tuple[Path, ...] = Field((), description="with addresses: CAs of the proxies' client certificates")
    names: tuple[str, ...] = Field(
        (), description="with addresses: names of which a proxy's certificate must carry one (DNS name, or CN)"
    )

    @model_validator(mode="after")
    def _one_way(self) -> ProxySection:
        if (self.socket is None) == (not self.addresses):
            raise ValueError("donnez socket (même machine) ou addresses (autres machines), l'un des deux")
        if bool(self.addresses) != bool(self.roots and self.names):
            raise ValueError("addresses, roots et names vont ensemble")
        for address in self.addresses:
            ipaddress.ip_address(address)
        return self


class TlsServer(Section):
    """A listener with TLS."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    public_url: HttpsUrl = Field(description="address by which others reach it")
    tls: KeyPair = Field(description="server certificate of this listener")
    proxy: ProxySection | None = None
