"""The registered services: their addresses, and how each proves itself (OpenID Connect Core 9)."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_der_x509_certificate
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.requests import Request

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import client_certificate

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Keys = Callable[[], Awaitable[dict[str, Any]]]
"""The public keys of a service (JWK set), fetched from its ``jwks_uri``."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service. ``method`` is the one way in which it proves itself; ``encrypted``: its tokens are for its keys alone.

    ``certificate`` is the SHA-256 of its client certificate, for ``tls_client_auth``.
    """

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...]
    keys: Keys
    method: str = "client_secret_post"
    secret: str = field(default="", repr=False)
    certificate: bytes = b""
    encrypted: bool = True


async def authenticate(
    request: Request, form: Mapping[str, str], services: Mapping[str, Service], audience: str, now: dt.datetime
) -> Service:
    """Who calls. Raises ``Refused`` (``invalid_client``)."""
    header = request.headers.get("authorization")
    named = _basic(header)[0] if header is not None else form.get("client_id", "")
    service = services.get(named)
    if service is None:
        raise _unknown()
    proofs = {
        "client_secret_basic": header is not None,
        "client_secret_post": "client_secret" in form,
        "private_key_jwt": "client_assertion" in form,
    }
    shown = [name for name, there in proofs.items() if there] or ["tls_client_auth"]
    if shown != [service.method]:
        raise _unknown()
    match service.method:
        case "client_secret_basic":
            good = _same(_basic(header or "")[1], service.secret)
        case "client_secret_post":
            good = _same(form["client_secret"], service.secret)
        case "private_key_jwt":
            good = await _asserted(form, service, audience, now)
        case _:
            good = _certified(request, service)
    if not good:
        raise _unknown()
    return service


def _basic(header: str) -> tuple[str, str]:
    scheme, _, rest = header.partition(" ")
    try:
        user, colon, secret = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise _unknown() from None
    if scheme.lower() != "basic" or not colon:
        raise _unknown()
    return unquote_plus(user), unquote_plus(secret)


async def _asserted(form: Mapping[str, str], service: Service, audience: str, now: dt.datetime) -> bool:
    if form.get("client_assertion_type") != _ASSERTION:
        return False
    published = (await service.keys())["keys"]
    keys = KeySet.import_key_set({"keys": [key for key in published if key.get("use") == "sig"]})
    try:
        claims = jwt.decode(form["client_assertion"], keys, algorithms=["RS256", "ES256"]).claims
    except (JoseError, ValueError):
        return False
    moment = int(now.timestamp())
    whole = claims.get("iss") == claims.get("sub") == service.client_id and claims.get("aud") == audience
    return whole and bool(claims.get("jti")) and moment < claims.get("exp", 0) <= moment + 300


def _certified(request: Request, service: Service) -> bool:
    shown = client_certificate(request)
    return shown is not None and load_der_x509_certificate(shown).fingerprint(hashes.SHA256()) == service.certificate


def _same(left: str, right: str) -> bool:
    return bool(right) and hmac.compare_digest(left.encode(), right.encode())


def _unknown() -> Refused:
    return Refused("Service inconnu, ou mal authentifié", code="invalid_client")
