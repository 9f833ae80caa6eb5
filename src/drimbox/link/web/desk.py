"""What every page needs: the parts of the door, forms that cannot be forged, cookies, rendering."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.link.address import Link, read
from drimbox.link.entrance import Entrance
from drimbox.link.logouts import Logouts
from drimbox.link.patients import PatientDesk
from drimbox.link.ports import AuditJournal
from drimbox.link.professionals import ProfessionalDesk
from drimbox.link.visits import Door, Visits
from drimbox.link.vouched import VouchedDesk

MAX_FORM_BYTES = 8 * 1024
VISITS_PATH = "/visite"
STYLE_PATH = "/lien/style.css"


@dataclass(frozen=True, slots=True)
class Portal:
    """The structure's own patient portal, where it has one (decision 19)."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Desk:
    """The door, put together.

    ``place`` is the name of the site; ``patients`` is the desk of one-time codes, that of an identity provider, a
    portal to be sent to, or None where patients are not let in; ``cookies`` begins the names of the listener's cookies.
    """

    place: str
    version: str
    public_url: str
    cookies: str
    clock: Clock
    journal: AuditJournal
    visits: Visits
    entrance: Entrance
    professionals: ProfessionalDesk
    patients: PatientDesk | VouchedDesk | Portal | None
    logouts: Logouts
    form_key: bytes = field(repr=False)


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def address_of(request: Request) -> str:
    """Where the request comes from: limited by it, and written down."""
    return request.client.host if request.client else ""


def see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


# --- forms ------------------------------------------------------------------------------------------------------------


def stranger_of(request: Request) -> str:
    """The secret that a browser holds for its forms before any login; a fresh one when it has none."""
    held = request.cookies.get(stranger_cookie(desk_of(request)), "")
    return held if re.fullmatch(r"[A-Za-z0-9_-]{43}", held) else new_secret()


def token_for(desk: Desk, stranger: str) -> str:
    """What the hidden field of that browser's forms must hold; nothing is kept for it."""
    return hmac.new(desk.form_key, stranger.encode(), hashlib.sha256).hexdigest()


async def stranger_fields(request: Request) -> tuple[str, Mapping[str, str]]:
    """The browser's secret and the fields of a form of ours. Raises ``Refused`` (``form``, ``body-size``)."""
    desk = desk_of(request)
    fields = await fields_of(request)
    held = request.cookies.get(stranger_cookie(desk), "")
    if not held or not same(fields.get("jeton", ""), token_for(desk, held)):
        raise _stale()
    return held, fields


async def door_fields(request: Request, door: Door) -> Mapping[str, str]:
    """The fields of a form of an open door. Raises ``Refused`` (``form``, ``body-size``)."""
    fields = await fields_of(request)
    if not same(fields.get("jeton", ""), door.csrf):
        raise _stale()
    return fields


async def fields_of(request: Request) -> Mapping[str, str]:
    """The fields of a form, each at most once, from our own pages. Raises ``Refused`` (``form``, ``body-size``)."""
    ours = desk_of(request).public_url
    if request.headers.get("origin", ours) != ours:
        raise Refused("Formulaire envoyé depuis un autre site", code="form")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused("Formulaire envoyé depuis un autre site", code="form")
    received = await body_of(request, MAX_FORM_BYTES)
    try:
        pairs = parse_qsl(received.decode("utf-8"), keep_blank_values=True, max_num_fields=40, errors="strict")
    except ValueError:
        raise _unreadable() from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _unreadable()
    return fields


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request. Raises ``Refused`` (``body-size``)."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > most:
            raise Refused("Envoi trop volumineux", code="body-size")
    return bytes(received)


def link_in(fields: Mapping[str, str]) -> Link:
    """The link that a form carries on. Raises ``BadLink``."""
    return read(list(fields.items()))


def same(left: str, right: str) -> bool:
    """Compare secrets, whatever their characters, in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def _stale() -> Refused:
    return Refused("Page périmée : ouvrez de nouveau le lien du compte rendu", code="form")


def _unreadable() -> Refused:
    return Refused("Formulaire illisible : ouvrez de nouveau le lien du compte rendu", code="form")


# --- cookies ----------------------------------------------------------------------------------------------------------


def cookie_prefix(public_url: str) -> str:
    """Cookies know no ports: two listeners of one host must not share a name."""
    return f"__Host-lien-{urlsplit(public_url).port or 443}"


def stranger_cookie(desk: Desk) -> str:
    return f"{desk.cookies}-formulaire"


def door_cookie(desk: Desk, key: str) -> str:
    """One for each open door."""
    return f"{desk.cookies}-visite-{key}"


def with_stranger(desk: Desk, response: Response, stranger: str) -> Response:
    return _with_cookie(response, stranger_cookie(desk), stranger)


def with_door(desk: Desk, request: Request, response: Response, door: Door) -> Response:
    """Give the browser its door, and take those back that are closed; the secret of its forms has served."""
    beginning = door_cookie(desk, "")
    for name in request.cookies:
        if name.startswith(beginning) and not desk.visits.lasting(name[len(beginning) :]):
            without_cookie(response, name)
    without_cookie(response, stranger_cookie(desk))
    return _with_cookie(response, door_cookie(desk, door.visit.key), door.secret)


def without_door(desk: Desk, response: Response, door: Door) -> Response:
    without_cookie(response, door_cookie(desk, door.visit.key))
    return response


def without_cookie(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def _with_cookie(response: Response, name: str, value: str) -> Response:
    """No script reads it, no other host gets it. ``Lax``: a provider sends the browser back from another site, and
    nothing is changed by a GET."""
    response.set_cookie(name, value, path="/", secure=True, httponly=True, samesite="lax")
    return response


# --- rendering --------------------------------------------------------------------------------------------------------

Step = Literal["choice", "login", "vouched", "identity", "code", "portal", "closed", "leave", "goodbye", "problem"]


def page(request: Request, step: Step, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page in French."""
    text = _TEMPLATES.get_template(f"{step}.html").render(desk=desk_of(request), style=STYLE_PATH, **context)
    return HTMLResponse(text, status_code=status)


def form_page(
    request: Request, step: Step, stranger: str, link: Link | None, *, status: int = 200, **context: Any
) -> Response:
    """A page whose forms belong to this browser, and carry the link on."""
    desk = desk_of(request)
    fields = dict(link.fields) if link is not None else {}
    response = page(request, step, status=status, token=token_for(desk, stranger), link=fields, **context)
    return with_stranger(desk, response, stranger)


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("drimbox.link", "pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_TEMPLATES = _templates()
