"""Who may ask: the registered clients, and how each proves itself (RFC 6749 2.3.1, RFC 8705 2.1)."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from cryptography import x509
from starlette.requests import Request

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import client_certificate


@dataclass(frozen=True, slots=True)
class Client:
    """A service registered with the provider.

    It has a ``secret`` or a ``certificate_subject`` (the whole subject DN of its ORG AUTH_CLI, RFC 4514 form, the order
    of the RDN being free): with a certificate, its tokens are bound to it. Addresses are compared letter by letter.
    ``backchannel_logout`` is called, ``frontchannel_logout`` shown in a frame, when a session it took part in ends.
    ``ciba``: it may ask for logins on the professional's device, which PSC grants service by service and to
    certificates alone (standards.md F.5).
    """

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    certificate_subject: str | None = None
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout: str | None = None
    frontchannel_logout: str | None = None
    ciba: bool = False

    def __post_init__(self) -> None:
        if (self.secret is None) == (self.certificate_subject is None):
            raise ValueError(f"client {self.client_id}: give either a secret or a certificate subject")
        if self.certificate_subject is not None:
            try:
                x509.Name.from_rfc4514_string(self.certificate_subject)
            except ValueError as error:
                raise ValueError(f"client {self.client_id}: not a distinguished name") from error


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that has proved itself; ``certificate`` (DER) when it did so by TLS."""

    client: Client
    certificate: bytes | None


def authenticate(request: Request, form: Mapping[str, str], clients: Mapping[str, Client]) -> Caller:
    """Who calls. Raises ``Refused``: ``invalid_client``, or ``invalid_request`` when two methods are mixed."""
    header = request.headers.get("authorization")
    if header is not None:
        if "client_secret" in form:
            raise Refused("Deux authentifications du client dans une requête", code="invalid_request")
        client_id, secret = _basic(header)
        if form.get("client_id", client_id) != client_id:
            raise Refused("client_id du formulaire et de l'en-tête différents", code="invalid_request")
        return Caller(_by_secret(clients, client_id, secret), None)
    client_id = form.get("client_id", "")
    if "client_secret" in form:
        return Caller(_by_secret(clients, client_id, form["client_secret"]), None)
    return _by_certificate(clients, client_id, client_certificate(request))


def same_subject(certificate: bytes, subject: str) -> bool:
    """Is ``subject`` (RFC 4514) the subject of the DER certificate, RDN by RDN in any order?"""
    presented = x509.load_der_x509_certificate(certificate).subject
    return _attributes(presented) == _attributes(x509.Name.from_rfc4514_string(subject))


def _attributes(name: x509.Name) -> Counter[tuple[str, str | bytes]]:
    return Counter((attribute.oid.dotted_string, attribute.value) for attribute in name)


def _basic(header: str) -> tuple[str, str]:
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refused("Authentification du client : Basic attendu", code="invalid_client")
    try:
        client_id, colon, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise Refused("Authentification du client illisible", code="invalid_client") from error
    if not colon:
        raise Refused("Authentification du client illisible", code="invalid_client")
    return unquote_plus(client_id), unquote_plus(secret)


def _by_secret(clients: Mapping[str, Client], client_id: str, secret: str) -> Client:
    client = clients.get(client_id)
    if client is None or client.secret is None or not hmac.compare_digest(client.secret.encode(), secret.encode()):
        raise Refused("Client inconnu ou secret faux", code="invalid_client")
    return client


def _by_certificate(clients: Mapping[str, Client], client_id: str, certificate: bytes | None) -> Caller:
    client = clients.get(client_id)
    if client is None or client.certificate_subject is None or certificate is None:
        raise Refused("Client non authentifié", code="invalid_client")
    if not same_subject(certificate, client.certificate_subject):
        raise Refused("Le certificat présenté n'est pas celui du client", code="invalid_client")
    return Caller(client, certificate)
