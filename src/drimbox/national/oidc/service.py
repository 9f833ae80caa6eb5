"""What this box is for an identity provider: its id, how it proves itself, what it asks for, its keys."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote_plus

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.uids import new_secret
from drimbox.national.oidc.person import Claims

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFE = dt.timedelta(seconds=60)

PrivateKey = RSAKey | ECKey


class Proof(StrEnum):
    """How a service proves itself at the token endpoint (OpenID Connect Core 9; RFC 8705)."""

    SECRET_POST = "client_secret_post"  # noqa: S105 - the name of a method
    SECRET_BASIC = "client_secret_basic"  # noqa: S105 - the name of a method
    PRIVATE_KEY = "private_key_jwt"
    MUTUAL_TLS = "tls_client_auth"


@dataclass(frozen=True, slots=True)
class Registration:
    """This box at one provider.

    ``secret`` goes with the two methods of a secret, ``signing`` with ``private_key_jwt``. Whoever has a ``decryption``
    key takes no token that is not encrypted for it. ``acr`` empty: no level is asked for. ``pkce``: the challenge of
    RFC 7636 goes along; providers that refuse what they do not know may need it left out.
    """

    discovery_url: str
    client_id: str
    proof: Proof
    secret: str = field(default="", repr=False)
    signing: PrivateKey | None = field(default=None, repr=False)
    decryption: PrivateKey | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid",)
    acr: str = ""
    prompt: str = ""
    pkce: bool = True
    claims: Claims = field(default_factory=Claims)

    def proven(self, audience: str, now: dt.datetime) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Form fields and headers that prove the box to the token endpoint ``audience``."""
        named = {"client_id": self.client_id}
        match self.proof:
            case Proof.SECRET_POST:
                return {**named, "client_secret": self.secret}, {}
            case Proof.SECRET_BASIC:
                # RFC 6749 2.3.1: both halves are form-encoded before they are joined.
                return {}, {"Authorization": basic(quote_plus(self.client_id), quote_plus(self.secret))}
            case Proof.PRIVATE_KEY:
                assertion = self._assertion(audience, now)
                return {**named, "client_assertion_type": _ASSERTION, "client_assertion": assertion}, {}
            case Proof.MUTUAL_TLS:
                return named, {}

    def public_keys(self) -> dict[str, Any]:
        """The JWK set that the provider fetches: to encrypt for us, and to verify what we sign."""
        found = []
        if self.decryption is not None:
            found.append({**_public(self.decryption), "use": "enc", "alg": encryption_of(self.decryption)[0]})
        if self.signing is not None:
            found.append({**_public(self.signing), "use": "sig", "alg": _signature_of(self.signing)})
        return {"keys": found}

    def _assertion(self, audience: str, now: dt.datetime) -> str:
        assert self.signing is not None
        algorithm, issued = _signature_of(self.signing), int(now.timestamp())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "jti": new_secret(),
            "iat": issued,
            "exp": issued + int(_ASSERTION_LIFE.total_seconds()),
        }
        header = {"alg": algorithm, "kid": self.signing.kid}
        return jwt.encode(header, claims, self.signing, algorithms=[algorithm])


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def key_of(key: object, use: str) -> PrivateKey:
    """A private key as tokens need it, its ``kid`` being its thumbprint (RFC 7638).

    Raises ``Misconfigured`` (``oidc-key``) for one that is neither RSA of 2048 bits nor of the curve P-256.
    """
    strong = isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048
    curved = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    if not strong and not curved:
        raise Misconfigured(f"{use} : une clé RSA d'au moins 2048 bits ou P-256 est attendue", code="oidc-key")
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    found: PrivateKey = RSAKey.import_key(pem) if strong else ECKey.import_key(pem)
    found.ensure_kid()
    return found


def encryption_of(key: PrivateKey) -> tuple[str, ...]:
    """The ways to encrypt for a key that are taken, the one that is asked for first (FranceConnect+: RSA-OAEP or
    ECDH-ES, with A256GCM)."""
    return ("RSA-OAEP", "RSA-OAEP-256") if isinstance(key, RSAKey) else ("ECDH-ES",)


def _signature_of(key: PrivateKey) -> str:
    return "RS256" if isinstance(key, RSAKey) else "ES256"


def _public(key: PrivateKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.kid}
