"""How a request is signed (RFC 8555 6.2, RFC 7515, RFC 7638), and what proves that an account answers a challenge."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.keystore import PrivateKey

JOSE = "application/jose+json"
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def signed(key: PrivateKey, url: str, payload: Mapping[str, Any] | None, *, nonce: str, account: str = "") -> bytes:
    """The body of a POST to ``url`` (``payload`` None: POST-as-GET), signed as ``account``, else by the key itself."""
    protected: dict[str, Any] = {"alg": _algorithm(key), "url": url, "nonce": nonce}
    protected |= {"kid": account} if account else {"jwk": public_jwk(key)}
    return _flattened(protected, b"" if payload is None else json.dumps(payload).encode(), _joserfc(key))


def key_change(old: PrivateKey, new: PrivateKey, url: str, account: str) -> dict[str, Any]:
    """The inner message of a key rollover (RFC 8555 7.3.5), signed by the new key."""
    protected = {"alg": _algorithm(new), "url": url, "jwk": public_jwk(new)}
    inner = json.dumps({"account": account, "oldKey": public_jwk(old)}).encode()
    return _parsed(_flattened(protected, inner, _joserfc(new)))


def external_binding(key: PrivateKey, url: str, identifier: str, secret: str) -> dict[str, Any]:
    """What binds a new account to one that exists at the authority (RFC 8555 7.3.4).

    ``secret`` is the MAC key in base64url, as authorities hand it out. Raises ``Misconfigured`` (``acme-binding``).
    """
    try:
        octets = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    except (binascii.Error, ValueError):
        octets = b""
    if not octets:
        raise Misconfigured(
            "La clé du compte externe (external account binding) n'est pas en base64url : recopiez celle de l'autorité",
            code="acme-binding",
        )
    protected = {"alg": "HS256", "kid": identifier, "url": url}
    mac = OctKey.import_key(octets)
    return _parsed(_flattened(protected, json.dumps(public_jwk(key)).encode(), mac))


def public_jwk(key: PrivateKey) -> dict[str, Any]:
    return dict(_joserfc(key).as_dict(private=False))


def key_authorization(token: str, key: PrivateKey) -> str:
    """``token.thumbprint`` (RFC 8555 8.1): what answers a challenge."""
    return f"{token}.{_joserfc(key).thumbprint()}"


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def digest_of(authorization: str) -> bytes:
    """What the certificate of TLS-ALPN-01 carries (RFC 8737 3)."""
    return hashlib.sha256(authorization.encode()).digest()


def _algorithm(key: PrivateKey) -> str:
    return _CURVES[key.curve.name] if isinstance(key, EllipticCurvePrivateKey) else "RS256"


def _joserfc(key: PrivateKey) -> ECKey | RSAKey:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ECKey.import_key(pem) if isinstance(key, EllipticCurvePrivateKey) else RSAKey.import_key(pem)


def _flattened(protected: Mapping[str, Any], payload: bytes, key: ECKey | RSAKey | OctKey) -> bytes:
    registry = jws.JWSRegistry(algorithms=[protected["alg"]], strict_check_header=False)
    return json.dumps(jws.serialize_json({"protected": dict(protected)}, payload, key, registry=registry)).encode()


def _parsed(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message)
    return found
