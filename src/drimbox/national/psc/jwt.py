"""Signed tokens of PSC: the algorithm is one of three, the key is one that PSC publishes, the claims hold.

Each rule that fails refuses the token: OpenID Connect Core 3.1.3.7, RFC 8725 (JWT best practices).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from drimbox.foundation.errors import Refused
from drimbox.national.psc.answers import Document, seconds, text

ALGORITHMS = ("RS256", "PS256", "ES256")
MAX_TOKEN = 64 * 1024
MAX_HEADER = 4096
MIN_RSA_BITS = 2048
SKEW = dt.timedelta(seconds=30)
# An id_token is verified seconds after it is made: an old one is somebody else's.
MAX_AGE = dt.timedelta(minutes=10)
LEVELS = ("eidas1", "eidas2", "eidas3")
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

SigningKey = RSAKey | ECKey


class BadToken(Refused):
    """A token that is not to be believed: ``what`` is the rule that it breaks, never the token."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Jeton de Pro Santé Connect refusé : {what}", code="psc-jwt")
        self.what = what


@dataclass(frozen=True, slots=True)
class Expected:
    """What an id_token must say. ``nonce`` None: not compared (refreshed tokens, OpenID Connect Core 12.2). ``acr``
    empty: no level was asked for."""

    issuer: str
    client_id: str
    acr: str
    nonce: str | None
    access_token: str


def header(token: str) -> Document:
    """The unverified header. Raises ``Refused`` (``psc-jwt``): not a compact JWS, too long, no good algorithm."""
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        raise refused("jeton mal formé")
    read = json_part(token.partition(".")[0])
    if text(read, "alg") not in ALGORITHMS:
        raise refused("algorithme de signature refusé")
    if not text(read, "kid"):
        raise refused("jeton sans clé désignée")
    if "crit" in read or "b64" in read:
        raise refused("extension de jeton inconnue")
    return read


def claims(token: str, key: SigningKey) -> Document:
    """The claims, once the signature holds under ``key``. Raises ``Refused`` (``psc-jwt``)."""
    algorithm = text(header(token), "alg")
    if isinstance(key, RSAKey) is algorithm.startswith("ES"):
        raise refused("clé et algorithme ne vont pas ensemble")
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = MAX_HEADER
    try:
        payload = jws.deserialize_compact(token.encode("ascii"), key, registry=registry).payload
        content = json.loads(payload or b"")
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise refused("signature fausse") from error
    if not isinstance(content, dict):
        raise refused("contenu illisible")
    return content


def signing_keys(key_set: Document) -> dict[str, SigningKey]:
    """The usable keys of a JWK set by ``kid``; keys of other kinds or uses, or too weak, are left out."""
    entries = key_set.get("keys")
    found: dict[str, SigningKey] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or not text(entry, "kid"):
            continue
        key = _imported(entry)
        if key is not None:
            found[text(entry, "kid")] = key
    return found


def check_id_token(content: Document, expected: Expected, now: dt.datetime) -> None:
    """Every claim of an id_token. Raises ``Refused`` (``psc-jwt``)."""
    _check_party(content, expected.issuer, expected.client_id)
    if _moment(content, "exp") <= now - SKEW:
        raise refused("jeton d'identité expiré")
    issued = _moment(content, "iat")
    if not now - MAX_AGE <= issued <= now + SKEW:
        raise refused("jeton d'identité d'un autre moment")
    if expected.nonce is not None and not _same(text(content, "nonce"), expected.nonce):
        raise refused("le jeton d'identité répond à une autre connexion")
    _check_level(content, expected.acr)
    if not text(content, "sub"):
        raise refused("jeton d'identité sans sujet")
    half = text(content, "at_hash")
    if half and not _same(half, _left_half(expected.access_token)):
        raise refused("les deux jetons ne vont pas ensemble")


def check_logout_token(content: Document, issuer: str, client_id: str, now: dt.datetime) -> None:
    """Every claim of a back-channel logout token (its specification, 2.6). Raises ``Refused`` (``psc-jwt``)."""
    _check_party(content, issuer, client_id)
    issued = _moment(content, "iat")
    if not now - MAX_AGE <= issued <= now + SKEW:
        raise refused("jeton de déconnexion d'un autre moment")
    if "exp" in content and _moment(content, "exp") <= now - SKEW:
        raise refused("jeton de déconnexion expiré")
    events = content.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
        raise refused("ce jeton n'est pas un jeton de déconnexion")
    if "nonce" in content or not text(content, "jti"):
        raise refused("ce jeton n'est pas un jeton de déconnexion")
    if not text(content, "sub") and not text(content, "sid"):
        raise refused("jeton de déconnexion sans session ni sujet")


def check_userinfo(content: Document, issuer: str, client_id: str) -> None:
    """The claims of a signed userinfo: PSC may leave ``iss`` and ``aud`` out, never get them wrong."""
    if "iss" in content and not _same(text(content, "iss"), issuer):
        raise refused("émetteur inattendu")
    if "aud" in content and client_id not in _audiences(content):
        raise refused("jeton destiné à un autre service")


def check_not_over(content: Document, now: dt.datetime) -> None:
    """A token that says until when it is good is not taken after that."""
    if "exp" in content and _moment(content, "exp") <= now - SKEW:
        raise refused("jeton expiré")


def refused(what: str) -> BadToken:
    """The refusal of a token: says the rule, never the token."""
    return BadToken(what)


def _check_party(content: Document, issuer: str, client_id: str) -> None:
    if not _same(text(content, "iss"), issuer):
        raise refused("émetteur inattendu")
    audiences = _audiences(content)
    if client_id not in audiences:
        raise refused("jeton destiné à un autre service")
    presented = content.get("azp", client_id if len(audiences) == 1 else None)
    if presented != client_id:
        raise refused("jeton délivré à un autre service")


def _check_level(content: Document, wanted: str) -> None:
    """PSC leaves ``acr`` out for eidas1; an unknown level is refused, a higher one is welcome (standards.md F.2)."""
    level = content.get("acr", LEVELS[0])
    if level == wanted or not wanted:
        return
    if level not in LEVELS or wanted not in LEVELS or LEVELS.index(level) < LEVELS.index(wanted):
        raise refused("niveau d'authentification insuffisant")


def _audiences(content: Document) -> Sequence[object]:
    audience = content.get("aud")
    return audience if isinstance(audience, list) else [audience]


def _moment(content: Document, name: str) -> dt.datetime:
    value = seconds(content, name)
    if value is None:
        raise refused(f"date {name} absente")
    return dt.datetime.fromtimestamp(value, dt.UTC)


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


def _left_half(token: str) -> str:
    """``at_hash`` (OpenID Connect Core 3.1.3.6); the three algorithms all go with SHA-256."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()[:16]).rstrip(b"=").decode()


def json_part(part: str) -> Document:
    """One part of a compact token that is JSON. Raises ``BadToken``."""
    try:
        content = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise refused("jeton mal formé") from error
    if not isinstance(content, dict) or len(part) > MAX_HEADER:
        raise refused("jeton mal formé")
    return content


def _imported(entry: dict[str, Any]) -> SigningKey | None:
    if entry.get("kty") not in ("RSA", "EC"):
        return None
    try:
        if entry["kty"] == "RSA" and _modulus_bits(entry) < MIN_RSA_BITS:
            return None
        key = JWKRegistry.import_key(
            {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
        )
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, RSAKey | ECKey) else None


def _modulus_bits(entry: dict[str, Any]) -> int:
    modulus = base64.urlsafe_b64decode(entry["n"] + "==")
    return int.from_bytes(modulus, "big").bit_length()
