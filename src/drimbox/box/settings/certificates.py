"""The market certificate of the viewer host, and the authorities that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from drimbox.box.settings.common import HttpsUrl, Port, Section
from drimbox.certificates.rules import host_breaches


def _host(value: str) -> str:
    if breaches := host_breaches(value):
        raise ValueError(breaches[0].text)
    return value


class AuthoritySection(Section):
    """A certificate authority that speaks ACME (RFC 8555); several, in the order of preference."""

    name: str = Field(description="its name, in the queue and on the pages")
    directory: HttpsUrl = Field(description="address of its ACME directory")
    terms_agreed: bool = Field(False, description="true once the site has read and accepts its terms of service")
    contact: tuple[str, ...] = Field((), description="e-mail addresses that it may write to")
    external_account_id: str = Field("", description="id of the external account, from a commercial authority")
    external_account_key_file: Path | None = Field(
        None, description="file of the key of the external account, in base64url as the authority gives it"
    )
    preferred_chain: str = Field(
        "", description="common name of the root or intermediate to prefer among the chains that it offers"
    )
    profile: str = Field("", description="profile of certificate to ask for, among those that it names")
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its own web server; none: those of `[market_certificate]`"
    )

    @model_validator(mode="after")
    def _whole_binding(self) -> AuthoritySection:
        if bool(self.external_account_id) != (self.external_account_key_file is not None):
            raise ValueError("external_account_id et external_account_key_file vont ensemble")
        return self


class HandingSection(Section):
    """An nginx before the viewer's listener that shows the market certificate itself (docs/certificates.md).

    The box writes certificate, chain and key to one file of `folder`, `HOST.pem`, and tells nginx.
    """

    folder: Path = Field(description="folder of that file, which the box's account may write to")
    password_file: Path = Field(
        description="file of the password that encrypts the key in it, made at need; nginx reads it too"
    )
    reload_command: tuple[str, ...] = Field(
        (),
        description='what reloads nginx: a program by its whole path, and its arguments (`["/usr/bin/sudo", "-n", '
        '"/usr/bin/systemctl", "reload", "nginx"]`); no shell reads it',
    )
    reload_pid_file: Path | None = Field(
        None,
        description="instead: nginx's pid file; it is sent SIGHUP, which takes the same account, or CAP_KILL; with "
        "neither, the site watches the file (a systemd path unit)",
    )

    @model_validator(mode="after")
    def _one_way_to_reload(self) -> HandingSection:
        if self.reload_command and self.reload_pid_file is not None:
            raise ValueError("reload_command ou reload_pid_file, l'un des deux")
        if self.reload_command and not self.reload_command[0].startswith("/"):
            raise ValueError("reload_command commence par le chemin complet d'un programme")
        return self


class MarketCertificateSection(Section):
    """The market certificate of the viewer host (`vi`), ordered and renewed by the box (docs/certificates.md)."""

    host: Annotated[str, AfterValidator(_host)] = Field(
        description="name of the viewer host, exactly as the agency gave it: the one name of the certificate"
    )
    authorities: tuple[AuthoritySection, ...] = ()
    validation: Literal["http-01", "tls-alpn-01"] = Field(
        "http-01",
        description="how an authority checks that the host is ours: on port 80, or on port 443 where none is opened",
    )
    http_host: str = Field("0.0.0.0", description="address of the listener of HTTP-01 and of its redirect")  # noqa: S104
    http_port: Port = Field(80, description="port of that listener; from outside it must be reached on port 80")
    key: Literal["P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096"] = Field(
        "P-256", description="kind of key; each new certificate has a new one"
    )
    levels: tuple[Literal["DV", "OV"], ...] = Field(
        ("DV", "OV"), description="levels of validation that are accepted; empty (a test authority): not looked at"
    )
    roots: tuple[Path, ...] = Field(
        (Path("/etc/ssl/certs/ca-certificates.crt"),), description="PEM files of the roots that browsers believe"
    )
    vault_secret: Path | None = Field(
        None,
        description="file of the secret that seals the private keys kept in the database, the same for every node; "
        "none: `keys/vault.key` in state_dir, made at the first start",
    )
    nginx: HandingSection | None = None

    @model_validator(mode="after")
    def _authorities_differ(self) -> MarketCertificateSection:
        directories = [authority.directory for authority in self.authorities]
        if len(set(directories)) != len(directories):
            raise ValueError("deux autorités ont la même adresse (directory)")
        return self
