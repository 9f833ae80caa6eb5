"""What stands around every answer: security headers, French error pages, a limit on how often one caller may knock."""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drimbox.consumer.professional import LoginEnded
from drimbox.consumer.sessions import Gone
from drimbox.consumer.web.desk import desk_of, page, see_other
from drimbox.consumer.web.policies import PAGE_POLICY
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, OutcomeUnknown, Refused, Unavailable
from drimbox.record import logs

_log = logging.getLogger(__name__)

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_TITLES = {
    404: "Page introuvable",
    409: "Ouverture refusée",
    403: "Demande refusée",
    413: "Envoi trop volumineux",
    429: "Trop de demandes",
    502: "Réponse inutilisable",
    503: "Service indisponible",
}


class Guard:
    """Wraps the application: headers on every answer, and a ceiling on the knocks of one address."""

    def __init__(self, app: ASGIApp, *, clock: Clock, public_url: str, doors: frozenset[str], per_minute: int) -> None:
        """``doors`` are the paths open to strangers; ``per_minute`` how often one address may use them."""
        self._app = app
        self._doors = doors
        self._knocks = Knocks(clock, per_minute)
        self._lasting_tls = not _is_local(urlsplit(public_url).hostname or "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._complete(MutableHeaders(scope=message))
            await send(message)

        if scope["path"] in self._doors and not self._knocks.allow(_client(scope)):
            refusal = PlainTextResponse("Trop de demandes : réessayez dans une minute.\n", 429, {"Retry-After": "60"})
            await refusal(scope, receive, guarded)
            return
        with logs.correlated():
            await self._app(scope, receive, guarded)

    def _complete(self, headers: MutableHeaders) -> None:
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        framed = "frame-ancestors 'self'" in headers["Content-Security-Policy"]
        headers.setdefault("X-Frame-Options", "SAMEORIGIN" if framed else "DENY")
        if self._lasting_tls:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")


class Knocks:
    """A token bucket per caller, for a bounded number of callers."""

    _CALLERS = 10_000

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, caller: str) -> bool:
        now = self._clock.monotonic()
        left, since = self._buckets.pop(caller, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
        self._buckets[caller] = (left - 1 if left >= 1 else left, now)
        while len(self._buckets) > self._CALLERS:
            self._buckets.popitem(last=False)
        return left >= 1


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


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_local(host: str) -> bool:
    """HSTS on a loopback name would bind every other service of the machine, for a year."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
