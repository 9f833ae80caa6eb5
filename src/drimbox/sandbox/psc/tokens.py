"""What the provider signs: access, refresh, identity and logout tokens, and signed userinfo."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import secrets
import uuid
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, RSAKey

from drimbox.foundation.clock import Clock
from drimbox.sandbox.psc.ledger import Token
from drimbox.sandbox.psc.userinfo import other_ids

ACR = "eidas1"
MAX_TOKEN = 8192
_BACKCHANNEL_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Mint:
    """Signs with RS256 under the key of ``state`` (made on first use), or under a passing one when there is no state.

    Refresh tokens are signed with HS512 under a passing key: only this provider ever reads them.
    """

    def __init__(self, issuer: str, clock: Clock, state: Path | None) -> None:
        self._issuer = issuer
        self._clock = clock
        self._key = _signing_key(state)
        self._refresh_key = OctKey.import_key(secrets.token_bytes(64))
        self._stranger: RSAKey | None = None

    def public_keys(self) -> dict[str, Any]:
        """The JWK set of ``jwks_uri``."""
        return {"keys": [{**self._key.as_dict(private=False), "use": "sig", "alg": "RS256"}]}

    def access(self, token: Token, certificate: bytes | None) -> str:
        """An access token; bound to the client's certificate when it proved itself by one (RFC 8705 3.1)."""
        user = token.grant.session.user
        claims = self._common(token) | {
            "authMode": "MOBILE",
            "otherIds": other_ids(user),
            "preferred_username": user.national_id,
        }
        if token.grant.asked.nonce:
            claims["nonce"] = token.grant.asked.nonce
        if certificate is not None:
            claims["cnf"] = {"x5t#S256": thumbprint(certificate)}
        return self._sign(claims)

    def refresh(self, token: Token) -> str:
        """A refresh token, which only this provider can read."""
        claims = self._common(token) | {"aud": self._issuer}
        return jwt.encode({"alg": "HS512"}, claims, self._refresh_key, algorithms=["HS512"])

    def identity(self, token: Token, access_token: str, *, nonce: str | None, fault: str | None = None) -> str:
        """The id_token that goes with an access token; ``fault`` names what shall be wrong with it (``faults``)."""
        claims = self._common(token) | {
            "typ": "ID",
            "aud": token.grant.asked.client_id,
            "at_hash": _half_hash(access_token),
            "authMode": "MOBILE",
            "otherIds": other_ids(token.grant.session.user),
            "preferred_username": token.grant.session.user.national_id,
        }
        if nonce is not None:
            claims["nonce"] = nonce
        match fault:
            case "wrong-nonce":
                claims["nonce"] = secrets.token_urlsafe(24)
            case "wrong-issuer":
                claims["iss"] = self._issuer + "-autre"
            case "wrong-audience":
                claims |= {"aud": "autre-client", "azp": "autre-client"}
            case "wrong-acr":
                claims["acr"] = "eidas0"
            case "expired":
                claims |= {"iat": claims["iat"] - 3600, "exp": claims["iat"] - 3000}
            case "wrong-signature":
                return self._sign(claims, key=self._stranger_key())
            case "unsigned":
                return _unsigned(claims)
        return self._sign(claims)

    def logout(self, client_id: str, subject: str, sid: str) -> str:
        """A logout token (OpenID Connect Back-Channel Logout 2.4)."""
        now = _seconds(self._clock.now())
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": client_id,
            "iat": now,
            "exp": now + 120,
            "jti": str(uuid.uuid4()),
            "typ": "Logout",
            "sid": sid,
            "events": {_BACKCHANNEL_EVENT: {}},
        }
        return self._sign(claims, kind="logout+jwt")

    def signed_userinfo(self, claims: dict[str, Any], client_id: str) -> str:
        """Userinfo as a JWT."""
        return self._sign(claims | {"iss": self._issuer, "aud": client_id})

    def read(self, token: str, *kinds: str) -> dict[str, Any] | None:
        """The claims of our own token of one of the ``typ`` named, None for anything else. Dates are not looked at."""
        if len(token) > MAX_TOKEN or token.count(".") != 2:
            return None
        for key, algorithm in ((self._key, "RS256"), (self._refresh_key, "HS512")):
            try:
                claims = jwt.decode(token, key, algorithms=[algorithm]).claims
            except (JoseError, ValueError):
                continue
            if claims.get("iss") == self._issuer and claims.get("typ") in kinds:
                return claims
        return None

    def _common(self, token: Token) -> dict[str, Any]:
        session = token.grant.session
        return {
            "exp": _seconds(token.ends_at),
            "iat": _seconds(self._clock.now()),
            "auth_time": _seconds(session.authenticated_at),
            "jti": token.jti,
            "iss": self._issuer,
            "sub": session.user.subject,
            "typ": token.kind.value,
            "azp": token.grant.asked.client_id,
            "session_state": session.sid,
            "acr": ACR,
            "scope": token.grant.asked.scope,
            "sid": session.sid,
        }

    def _sign(self, claims: dict[str, Any], *, kind: str = "JWT", key: RSAKey | None = None) -> str:
        header = {"alg": "RS256", "typ": kind, "kid": self._key.kid}
        return jwt.encode(header, claims, key or self._key, algorithms=["RS256"])

    def _stranger_key(self) -> RSAKey:
        if self._stranger is None:
            self._stranger = RSAKey.generate_key(2048)
        return self._stranger


def thumbprint(certificate: bytes) -> str:
    """``x5t#S256`` of a DER certificate (RFC 8705 3.1)."""
    return _base64url(hashlib.sha256(certificate).digest())


def challenge_of(verifier: str) -> str:
    """The S256 code challenge of a verifier (RFC 7636 4.2)."""
    return _base64url(hashlib.sha256(verifier.encode("ascii")).digest())


def _half_hash(token: str) -> str:
    return _base64url(hashlib.sha256(token.encode("ascii")).digest()[:16])


def _unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(_base64url(json.dumps(part).encode()) for part in parts) + "."


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _seconds(instant: dt.datetime) -> int:
    return int(instant.timestamp())


def _signing_key(state: Path | None) -> RSAKey:
    path = state / "psc-signing-key.pem" if state is not None else None
    if path is not None and path.exists():
        pem = path.read_bytes()
    else:
        pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(pem)
    key = RSAKey.import_key(pem)
    key.ensure_kid()
    return key
