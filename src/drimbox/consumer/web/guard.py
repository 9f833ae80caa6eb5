"""What every answer of the consumer says: security headers, and French error pages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from drimbox.consumer.identity_check import TraitsDiffer
from drimbox.consumer.professional import LoginEnded
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.web.access import differing
from drimbox.consumer.web.desk import desk_of, page, see_other
from drimbox.consumer.web.policies import BESIDE_POLICY, PAGE_POLICY
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, OutcomeUnknown, Refused, Unavailable

CALL_PATH = "/appel"
Handler = Callable[[Request], Awaitable[Response]]

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


def steady(routes: Sequence[Route], *, but: Collection[Handler]) -> list[Route]:
    """The same routes, where no page of a call outlives what it was made for.

    A page may take long to make (the DMP is slow). When meanwhile somebody else logged in on that browser, or another
    practice was chosen, what comes out was found for the former and must not be shown under the name of the latter: the
    browser is asked to come again. ``but``: the handlers that make such a change themselves.
    """
    return [
        Route(route.path, _steady(route.endpoint), methods=sorted(route.methods or ()))
        if route.path.startswith(f"{CALL_PATH}/{{call}}") and route.endpoint not in but
        else route
        for route in routes
    ]


def _steady(handler: Handler) -> Handler:
    async def same(request: Request) -> Response:
        desk = desk_of(request)
        session = desk.sessions.find(request.cookies.get(desk.cookie), active=False)
        if session is None:
            return await handler(request)
        call_id = request.path_params["call"]
        call, person = session.calls.get(call_id), session.professional
        try:
            response = await handler(request)
        except Exception:
            # What was found for the former went while the page was being made: that is no failure of the page.
            if session.calls.get(call_id) is call and session.professional is person:
                raise
            response = None
        if response is not None and session.calls.get(call_id) is call and session.professional is person:
            return response
        _log.info("a page was made for somebody who is no longer there")
        return see_other(request.url.path if request.method == "GET" else f"{CALL_PATH}/{call_id}")

    return same


def complete(headers: MutableHeaders) -> None:
    """What the answers of the consumer say of themselves: a page, or the viewer in its frame."""
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    policy = headers["Content-Security-Policy"]
    if "frame-ancestors https:" in policy:
        # Shown by PSC's own pages, which the older header cannot say.
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    else:
        headers.setdefault("X-Frame-Options", "SAMEORIGIN" if "frame-ancestors 'self'" in policy else "DENY")


async def on_error(request: Request, error: Exception) -> Response:
    """An error that has a French reason: its page, or a plain line for programs."""
    assert isinstance(error, DrimboxError)
    status = _status(error)
    _log.info("request refused: %s", error.code)
    if isinstance(error, LoginEnded) and "call" in request.path_params and _wants_page(request):
        return see_other(f"/appel/{request.path_params['call']}")
    if isinstance(error, TraitsDiffer) and _wants_page(request):
        session, call = _where(request)
        if session is not None and call is not None:
            return _framed(request, differing(request, error, session, call))
    response = _framed(request, _problem(request, status, error.reason))
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
    session, call = _where(request)
    retry = request.url.path if status == 503 and request.method == "GET" else ""
    title = _TITLES.get(status, "Erreur")
    return page(
        request, "problem.html", session=session, call=call, status=status, title=title, reason=reason, retry=retry
    )


def _framed(request: Request, response: Response) -> Response:
    """What is asked for in the frame beside the images is said there."""
    if request.url.path.endswith("/volet"):
        response.headers["Content-Security-Policy"] = BESIDE_POLICY
    return response


def _where(request: Request) -> tuple[Session | None, OpenCall | None]:
    """The browser's session and the call that the address names, if there are any."""
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie), active=False)
    return session, session.calls.get(request.path_params.get("call", "")) if session else None


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
