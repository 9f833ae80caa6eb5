"""What stands around every answer: security headers, French error pages, a limit on how often one caller may knock."""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from urllib.parse import urlsplit

import psycopg
import psycopg_pool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drimbox.console.web.desk import page
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, Unavailable
from drimbox.record import logs

DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)

_log = logging.getLogger(__name__)
_HEADERS = {
    # No script at all: what a page shows came from messages of others.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers would then hide from us where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_TITLES = {
    400: "Demande refusée",
    403: "Accès refusé",
    404: "Page introuvable",
    405: "Demande refusée",
    409: "Action impossible",
    413: "Envoi trop volumineux",
    503: "Service indisponible",
}
_STATUSES = {
    "form": 400,
    "psc-state": 400,
    "login-refused": 401,
    "forbidden": 403,
    "psc-no-account": 403,
    "psc-refused": 403,
    "not-here": 404,
    "incident-unknown": 404,
    "account-unknown": 404,
    "body-size": 413,
}


class Guard:
    """Wraps the application. ``doors`` are the paths open to strangers, ``per_minute`` how often one address knocks."""

    def __init__(self, app: ASGIApp, *, clock: Clock, public_url: str, doors: frozenset[str], per_minute: int) -> None:
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
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self._lasting_tls:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        if scope["path"] in self._doors and not self._knocks.allow(_client(scope)):
            refusal = PlainTextResponse("Trop de demandes : réessayez dans une minute.\n", 429, {"Retry-After": "60"})
            await refusal(scope, receive, guarded)
            return
        with logs.correlated():
            await self._app(scope, receive, guarded)


class Knocks:
    """A token bucket per caller, for a bounded number of callers."""

    _CALLERS = 10_000

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._per_minute = float(per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, caller: str) -> bool:
        now = self._clock.monotonic()
        left, since = self._buckets.pop(caller, (self._per_minute, now))
        left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        while len(self._buckets) > self._CALLERS:
            self._buckets.popitem(last=False)
        return allowed


async def on_error(request: Request, error: Exception) -> Response:
    """An error that has a French reason."""
    assert isinstance(error, DrimboxError)
    _log.info("request refused: %s", error.code)
    status = 503 if isinstance(error, Unavailable) else _STATUSES.get(error.code, 409)
    response = _problem(request, status, error.reason)
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(int(error.retry_after or 30))
    return response


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = "Cette page n'existe pas" if error.status_code == 404 else "Cette demande n'est pas acceptée ici"
    return _problem(request, error.status_code, reason)


async def on_database_error(request: Request, error: Exception) -> Response:
    """The pages say that nothing is known, never that there is nothing."""
    _log.error("database: %s", type(error).__name__)
    return _problem(request, 503, "La base de données ne répond pas : l'état de la file n'est pas connu")


async def on_crash(request: Request, error: Exception) -> Response:
    """Nothing of the error goes to the browser; the log has it."""
    return _problem(request, 500, "Erreur interne de la DRIMbox : votre demande n'a pas abouti")


def _problem(request: Request, status: int, reason: str) -> Response:
    return page(request, "problem.html", status=status, title=_TITLES.get(status, "Erreur"), reason=reason)


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_local(host: str) -> bool:
    """HSTS on a loopback name would bind every other service of the machine, for a year."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
