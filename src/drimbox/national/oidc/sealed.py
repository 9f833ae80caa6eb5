"""Tokens that are signed, then encrypted for this box (OpenID Connect Core 16.14; RFC 7516)."""

from __future__ import annotations

from joserfc import jwe
from joserfc.errors import JoseError

from drimbox.national.oidc.service import PrivateKey, encryption_of
from drimbox.national.psc import jwt
from drimbox.national.psc.answers import text

_CONTENT = "A256GCM"
_PARTS = 4


def opened(token: str, key: PrivateKey | None) -> str:
    """The signed token inside; with no ``key`` the token itself. Raises ``BadToken``.

    Who has a key takes nothing that was not encrypted for it: anybody on the way could have taken the envelope off.
    """
    if key is None:
        return token
    if len(token) > jwt.MAX_TOKEN or token.count(".") != _PARTS or not token.isascii():
        raise jwt.refused("jeton non chiffré")
    header = jwt.json_part(token.partition(".")[0])
    allowed = encryption_of(key)
    if text(header, "alg") not in allowed or text(header, "enc") != _CONTENT:
        raise jwt.refused("chiffrement refusé")
    if "zip" in header or "crit" in header:
        # What is compressed may become anything when it is read.
        raise jwt.refused("extension de jeton inconnue")
    registry = jwe.JWERegistry(algorithms=[*allowed, _CONTENT], strict_check_header=False)
    try:
        inside = jwe.decrypt_compact(token, key, registry=registry).plaintext
        return (inside or b"").decode("ascii")
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise jwt.refused("jeton chiffré pour un autre, ou abîmé") from error
