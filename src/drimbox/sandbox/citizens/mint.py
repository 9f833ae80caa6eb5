"""What the provider signs, and then encrypts for a service (OpenID Connect Core 2, 5.3.2, 16.14)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from joserfc import jwe, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OctKey, RSAKey

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused

LIFE = 60
FAULTS = (
    "wrong-nonce",
    "no-nonce",
    "wrong-issuer",
    "wrong-audience",
    "two-audiences",
    "wrong-azp",
    "low-acr",
    "no-acr",
    "unknown-acr",
    "expired",
    "old",
    "from-the-future",
    "wrong-at-hash",
    "no-sub",
    "wrong-signature",
    "unsigned",
    "symmetric",
    "stranger-key",
    "unencrypted",
    "encrypted-for-another",
    "compressed",
    "not-json",
)


class Mint:
    """Signs with ES256 under a passing key. Faults make tokens that nobody may take."""

    def __init__(self, issuer: str, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._key = ECKey.generate_key("P-256", auto_kid=True)
        self._stranger = ECKey.generate_key("P-256", auto_kid=True)
        self._other = RSAKey.generate_key(2048, auto_kid=True)

    def public_keys(self) -> dict[str, Any]:
        """The JWK set of ``jwks_uri``."""
        return {"keys": [{**self._key.as_dict(private=False), "use": "sig", "alg": "ES256"}]}

    def identity(
        self, subject: str, client_id: str, *, nonce: str, acr: str, access_token: str, sid: str, fault: str = ""
    ) -> str:
        """An id_token."""
        now = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": client_id,
            "exp": now + LIFE,
            "iat": now,
            "auth_time": now,
            "nonce": nonce,
            "acr": acr,
            "amr": ["pop"],
            "at_hash": _half(access_token),
            "sid": sid,
        }
        changes: dict[str, dict[str, Any]] = {
            "wrong-nonce": {"nonce": secrets.token_hex(32)},
            "wrong-issuer": {"iss": f"{self._issuer}/autre"},
            "wrong-audience": {"aud": "un-autre-service"},
            "two-audiences": {"aud": [client_id, "un-autre-service"]},
            "wrong-azp": {"azp": "un-autre-service"},
            "low-acr": {"acr": "eidas1"},
            "unknown-acr": {"acr": "eidas9"},
            "expired": {"exp": now - 120, "iat": now - 240},
            "old": {"iat": now - 3600},
            "from-the-future": {"iat": now + 3600, "exp": now + 3700},
            "wrong-at-hash": {"at_hash": _half("another")},
        }
        claims |= changes.get(fault, {})
        for name in {"no-nonce": ["nonce"], "no-acr": ["acr"], "no-sub": ["sub"]}.get(fault, []):
            del claims[name]
        return self.signed(claims, fault)

    def signed(self, claims: Mapping[str, Any], fault: str = "") -> str:
        """A compact JWS of these claims."""
        header = {"alg": "ES256", "typ": "JWT", "kid": self._key.kid}
        match fault:
            case "wrong-signature":
                return jwt.encode(header, dict(claims), self._stranger, algorithms=["ES256"])
            case "stranger-key":
                named = {**header, "kid": self._stranger.kid}
                return jwt.encode(named, dict(claims), self._stranger, algorithms=["ES256"])
            case "unsigned":
                return f"{_part({**header, 'alg': 'none'})}.{_part(claims)}."
            case "symmetric":
                # The public key taken for a shared secret (RFC 8725 2.1).
                shared = OctKey.import_key(json.dumps(self.public_keys()["keys"][0]).encode())
                return jwt.encode({**header, "alg": "HS256"}, dict(claims), shared, algorithms=["HS256"])
            case "not-json":
                return _part(header) + "." + _text(b"[]") + "." + _text(b"x" * 64)
            case _:
                return jwt.encode(header, dict(claims), self._key, algorithms=["ES256"])

    def sealed(self, token: str, keys: Mapping[str, Any], fault: str = "") -> str:
        """A token encrypted for the key that a service publishes for that. Raises ``Refused``: it publishes none."""
        if fault == "unencrypted":
            return token
        entry = next((key for key in keys.get("keys", []) if key.get("use") == "enc"), None)
        if entry is None:
            raise Refused("Le service ne publie pas de clé de chiffrement", code="invalid_client")
        if fault == "encrypted-for-another":
            entry = {**self._other.as_dict(private=False), "kid": self._other.kid, "alg": "RSA-OAEP"}
        algorithm = str(entry["alg"])
        key = JWKRegistry.import_key({name: value for name, value in entry.items() if name not in ("alg", "use")})
        header = {"alg": algorithm, "enc": "A256GCM", "cty": "JWT", "kid": entry["kid"]}
        if fault == "compressed":
            header["zip"] = "DEF"
        registry = jwe.JWERegistry(algorithms=[algorithm, "A256GCM", "DEF"])
        return jwe.encrypt_compact(header, token.encode(), key, registry=registry)

    def read(self, token: str) -> dict[str, Any] | None:
        """The claims of our own token; None for anything else."""
        try:
            return jwt.decode(token, self._key, algorithms=["ES256"]).claims
        except (JoseError, ValueError):
            return None


def _half(token: str) -> str:
    return _text(hashlib.sha256(token.encode()).digest()[:16])


def _part(content: Mapping[str, Any]) -> str:
    return _text(json.dumps(dict(content)).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
