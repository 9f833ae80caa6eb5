"""What every answer of the console says: security headers, and French error pages."""

from __future__ import annotations

import logging

import psycopg
import psycopg_pool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.web.desk import page
from drimbox.foundation.errors import Busy, DrimboxError, Unavailable

DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)

_log = logging.getLogger(__name__)
_HEADERS = {
    # No script at all: what a page shows came from messages of others.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers would then hide from us where a form comes from.
    "Referrer-Policy": "same-origin",
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
    "walk-unknown": 404,
    "market-unknown": 404,
    "body-size": 413,
}


def complete(headers: MutableHeaders) -> None:
    """What the answers of the console say of themselves."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)


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
