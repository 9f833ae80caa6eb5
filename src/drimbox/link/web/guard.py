"""Who may look at a visit's pages; what every answer of the door says; pages for what went wrong."""

from __future__ import annotations

import logging

import psycopg
import psycopg_pool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Unavailable
from drimbox.link.agreement import Disagrees
from drimbox.link.visit import Visit
from drimbox.link.visits import Closed
from drimbox.link.web.desk import VISITS_PATH, desk_of, door_cookie, page

DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)

_log = logging.getLogger(__name__)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # The address of the link names a study and its report: no other site that a page leads to is told of it. Not
    # "no-referrer": browsers would then hide from us where a form comes from.
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
}
# One answer for every link that opens nothing, whatever is wrong with it (VI_SO.28).
_INVALID = frozenset({"link-invalid", "link-disagrees"})
_STATUSES = {
    "form": 400,
    "link-state": 400,
    "oidc-issuer": 400,
    "oidc-refused": 403,
    "body-size": 413,
    "link-code": 403,
    "link-closed": 404,
    "gone": 404,
    "link-tries": 429,
    "psc-refused": 403,
    "no-national-id": 403,
    "profession": 403,
}
# What the pages behind the door ask by themselves is no activity of the visitor, unless they say that there was some.
_BY_ITSELF = ("/presence", "/etat")
_TITLES = {
    400: "Demande refusée",
    403: "Accès refusé",
    404: "Page introuvable",
    413: "Envoi trop volumineux",
    429: "Trop d'essais",
    503: "Images momentanément indisponibles",
}


async def opened(request: Request) -> Visit:
    """The visit that the address and the browser's cookie open together.

    Raises ``Closed``, and what the database raises when it is away: whether the study may still be seen is asked again
    every so often.
    """
    desk = desk_of(request)
    key = request.path_params.get("key", "")
    active = not request.url.path.endswith(_BY_ITSELF) or request.query_params.get("actif") == "1"
    door = desk.visits.find(key, request.cookies.get(door_cookie(desk, key)), active=active)
    if desk.visits.due(door):
        try:
            await desk.entrance.check(door)
        except Disagrees as problem:
            raise Closed from problem
    return door.visit


def complete(headers: MutableHeaders) -> None:
    """What the answers of the door say of themselves; what is shown behind it may say otherwise."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    if "frame-ancestors 'none'" in headers["Content-Security-Policy"]:
        headers.setdefault("X-Frame-Options", "DENY")


async def on_error(request: Request, error: Exception) -> Response:
    """An error that has a French reason."""
    assert isinstance(error, DrimboxError)
    _log.info("request refused: %s", error.code)
    if error.code in _INVALID:
        return _invalid(request)
    status = 503 if isinstance(error, Unavailable | OutcomeUnknown) else 502
    status = _STATUSES.get(error.code, status)
    reason = error.reason
    if status in (502, 503):
        # What failed inside is for the operator (VI_SO.28 b).
        status, reason = 503, "L'établissement ne peut pas donner les images en ce moment : réessayez plus tard"
    response = _problem(request, status, _TITLES.get(status, "Erreur"), reason)
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(int(error.retry_after or 30))
    return response


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = "Page introuvable" if error.status_code == 404 else "Demande refusée"
    response = _problem(request, error.status_code, title, "Ouvrez le lien qui se trouve dans le compte rendu")
    response.headers.update(error.headers or {})
    return response


async def on_database_error(request: Request, error: Exception) -> Response:
    _log.error("database: %s", type(error).__name__)
    reason = "L'établissement ne peut pas donner les images en ce moment : réessayez plus tard"
    return _problem(request, 503, _TITLES[503], reason)


async def on_crash(request: Request, error: Exception) -> Response:
    """Nothing of the error goes to the browser; the log has it."""
    return _problem(request, 500, "Erreur", "Votre demande n'a pas abouti : réessayez plus tard")


def _invalid(request: Request) -> Response:
    return _problem(
        request,
        404,
        "Lien non valable",
        "Ce lien n'ouvre pas d'images : adresse incorrecte ou identifiants incohérents",
    )


def _problem(request: Request, status: int, title: str, reason: str) -> Response:
    wants_page = "text/html" in request.headers.get("accept", "text/html")
    if request.url.path.startswith(f"{VISITS_PATH}/") and not wants_page:
        # Asked for by a script of the viewer.
        return PlainTextResponse(f"{reason}.\n", status_code=status)
    return page(request, "problem", status=status, title=title, reason=f"{reason}.")
