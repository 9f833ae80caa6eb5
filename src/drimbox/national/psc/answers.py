"""What an HTTP answer of PSC means: a document, a refusal, a registration to mend, an outage."""

from __future__ import annotations

import json
import re
from typing import Any

from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, Rejected, Unavailable
from drimbox.foundation.http_client import Reply

Document = dict[str, Any]

_WORD = re.compile(r"[A-Za-z_]{1,64}")
# RFC 6749 5.2: these are about us, not about the token.
_OURS = {"invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type", "invalid_redirect_uri"}


def document(reply: Reply) -> Document:
    """The JSON object of a successful answer.

    Raises ``Rejected`` (``psc-token``, the OAuth error as ``peer_code``) when PSC refuses what was presented,
    ``Misconfigured`` (``psc-client``) when it refuses this DRIMbox, ``Unavailable`` (``psc-unavailable``; ``Busy`` when
    it says when to come back) when it cannot answer or its answer cannot be read.
    """
    check(reply)
    return parsed(reply.body)


def check(reply: Reply) -> None:
    """Return for a success (200, 204); raises as ``document`` does otherwise."""
    if reply.status not in (200, 204):
        raise _refusal(reply)


def parsed(body: bytes) -> Document:
    """A JSON object. Raises ``Unavailable`` (``psc-unavailable``): a proxy's page, a cut answer."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable() from error
    if not isinstance(content, dict):
        raise _unreadable()
    return content


def text(content: Document, name: str) -> str:
    """A text member, stripped; empty when it is missing or of another kind."""
    value = content.get(name)
    return value.strip() if isinstance(value, str) else ""


def seconds(content: Document, name: str) -> float | None:
    """A member that counts seconds, None when it is missing or makes no sense."""
    value = content.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Beyond the year 9999 no date can be made of it; NaN and infinity fail the comparison.
    return float(value) if 0 <= value < 250_000_000_000 else None


def _refusal(reply: Reply) -> DrimboxError:
    word = _error_word(reply.body)
    code = word or f"http-{reply.status}"
    if reply.status in (429, 503):
        return Busy(
            "Pro Santé Connect est momentanément indisponible",
            code="psc-unavailable",
            peer_code=code,
            retry_after=_retry_after(reply),
        )
    if reply.status >= 500:
        return Unavailable("Pro Santé Connect ne répond pas correctement", code="psc-unavailable", peer_code=code)
    if word in _OURS:
        return Misconfigured(
            "Pro Santé Connect refuse cette DRIMbox : vérifiez client_id, secret ou certificat (section psc)",
            code="psc-client",
            peer_code=code,
        )
    if reply.status in (400, 401, 403):
        return Rejected("Jeton ou code refusé par Pro Santé Connect", code="psc-token", peer_code=code)
    return Unavailable("Réponse inattendue de Pro Santé Connect", code="psc-unavailable", peer_code=code)


def _error_word(body: bytes) -> str:
    """The OAuth error code; only a plain word, since it is shown and logged."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    word = text(content, "error") if isinstance(content, dict) else ""
    return word if _WORD.fullmatch(word) else ""


def _retry_after(reply: Reply) -> float | None:
    value = reply.headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else None


def _unreadable() -> Unavailable:
    return Unavailable("Réponse illisible de Pro Santé Connect", code="psc-unavailable")
