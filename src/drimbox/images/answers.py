"""What a source says when it gives no images, in the words of VI-CO.27."""

from __future__ import annotations

import json

from drimbox.foundation.errors import Busy, DrimboxError, Rejected, Unavailable
from drimbox.foundation.http_client import Stream

_MAX_BODY = 4096
_MAX_CODE = 64

_REASONS = {
    400: ("request-refused", "La source refuse la forme de la demande"),
    401: ("token-refused", "La source refuse le jeton d'accès : reconnectez-vous"),
    403: ("profession-refused", "La source refuse l'accès : profession non habilitée à récupérer ces images"),
    404: ("images-unknown", "La source ne connaît pas ces images"),
    406: ("syntax-unavailable", "La source n'a ces images dans aucune des syntaxes de transfert demandées"),
    410: ("images-gone", "La source n'a plus ces images"),
}
_BOX_REFUSALS = frozenset(("box-not-listed", "certificate-absent"))


async def refusal(answer: Stream) -> DrimboxError:
    """The error that a status other than 200 stands for. ``peer_code`` is the status and, from a drimbox, its code."""
    told = await _code(answer)
    peer_code = f"{answer.status} {told}".strip()
    if answer.status == 503:
        return Busy(
            "La source est occupée ou son PACS ne répond pas",
            code="source-busy",
            peer_code=peer_code,
            retry_after=_seconds(answer.headers.get("Retry-After", "")),
        )
    if answer.status == 403 and told in _BOX_REFUSALS:
        return Rejected("La source ne reconnaît pas cette DRIMbox", code="box-refused", peer_code=peer_code)
    if answer.status in _REASONS:
        code, reason = _REASONS[answer.status]
        return Rejected(reason, code=code, peer_code=peer_code)
    if 400 <= answer.status < 500:
        return Rejected("La source refuse la demande", code="request-refused", peer_code=peer_code)
    return Unavailable(
        "Erreur de la source pendant la récupération des images", code="source-error", peer_code=peer_code
    )


async def _code(answer: Stream) -> str:
    """The ``code`` of a drimbox's error body; empty for any other."""
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) > _MAX_BODY:
            return ""
    try:
        content = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return ""
    code = content.get("code") if isinstance(content, dict) else None
    return code if isinstance(code, str) and len(code) <= _MAX_CODE and code.replace("-", "").isalnum() else ""


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None
