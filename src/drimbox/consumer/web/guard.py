"""What every answer of the consumer says: security headers, and French error pages."""

from __future__ import annotations

import logging

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from drimbox.consumer.professional import LoginEnded
from drimbox.consumer.sessions import Gone
from drimbox.consumer.web.desk import desk_of, page, see_other
from drimbox.consumer.web.policies import PAGE_POLICY
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, OutcomeUnknown, Refused, Unavailable

_log = logging.getLogger(__name__)

_TITLES = {
    404: "Page introuvable",
    409: "Ouverture refusée",
    403: "Demande refusée",
    413: "Envoi trop volumineux",
    429: "Trop de demandes",
    502: "Réponse inutilisable",
    503: "Service indisponible",
}


def complete(headers: MutableHeaders) -> None:
    """What the answers of the consumer say of themselves: a page, or the viewer in its frame."""
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    framed = "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    headers.setdefault("X-Frame-Options", "SAMEORIGIN" if framed else "DENY")


async def on_error(request: Request, error: Exception) -> Response:
    """An error that has a French reason: its page, or a plain line for programs."""
    assert isinstance(error, DrimboxError)
    status = _status(error)
    _log.info("request refused: %s", error.code)
    if isinstance(error, LoginEnded) and "call" in request.path_params and _wants_page(request):
        return see_other(f"/appel/{request.path_params['call']}")
    response = _problem(request, status, error.reason)
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(int(error.retry_after or 30))
    return response


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = "Cette page n'existe pas." if error.status_code == 404 else "Cette demande n'est pas acceptée ici."
    return _problem(request, error.status_code, reason)


async def on_crash(request: Request, error: Exception) -> Response:
    """Nothing of the error goes to the browser; the log has it."""
    return _problem(request, 500, "Erreur interne de la DRIMbox : votre demande n'a pas abouti.")


def _problem(request: Request, status: int, reason: str) -> Response:
    if not _wants_page(request):
        return PlainTextResponse(f"{reason}\n", status_code=status)
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie), active=False)
    call = session.calls.get(request.path_params.get("call", "")) if session else None
    retry = request.url.path if status == 503 and request.method == "GET" else ""
    title = _TITLES.get(status, "Erreur")
    return page(
        request, "problem.html", session=session, call=call, status=status, title=title, reason=reason, retry=retry
    )


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _status(error: DrimboxError) -> int:
    if isinstance(error, Gone):
        return 404
    if isinstance(error, LoginEnded):
        return 401
    if isinstance(error, IdentityMismatch):
        return 409
    if isinstance(error, Unavailable):
        return 503
    if isinstance(error, OutcomeUnknown):
        return 502
    codes = {"form": 403, "body-size": 413, "no-consent": 403, "no-frame": 404, "no-image": 404, "closed": 404}
    return codes.get(error.code, 422 if isinstance(error, Refused) else 502)
