"""The pages before and around a visit: the link, the choice, the two ways in, the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.link.address import BadLink, Link, parse
from drimbox.link.challenge import Incomplete, answers_of
from drimbox.link.codes import CodeRefused
from drimbox.link.entrance import SYSTEM
from drimbox.link.patients import PatientDesk
from drimbox.link.visit import Visitor
from drimbox.link.visits import Closed, Door
from drimbox.link.vouched import VouchedDesk
from drimbox.link.web.desk import (
    VISITS_PATH,
    Desk,
    Portal,
    address_of,
    body_of,
    desk_of,
    door_cookie,
    door_fields,
    form_page,
    link_in,
    page,
    see_other,
    stranger_fields,
    stranger_of,
    with_door,
    without_door,
)
from drimbox.record.audit import Actor, Event, Kind, failed

_log = logging.getLogger(__name__)
_MAX_LOGOUT_TOKEN = 16 * 1024
_STYLE = Path(__file__).parents[1] / "pages" / "style.css"


async def invoke(request: Request) -> Response:
    """The link of a report (VI_SO.07): who is it? Whether it opens anything is not looked at for a stranger."""
    try:
        link = parse(request.scope["query_string"])
    except BadLink as problem:
        desk = desk_of(request)
        event = Event(Kind.LINK_OPENED, Actor(system=SYSTEM, address=address_of(request)))
        await desk.journal.write(None, failed(event, problem))
        raise
    return form_page(request, "choice", stranger_of(request), link)


async def choose(request: Request) -> Response:
    """Patient or professional (VI_SO.08)."""
    desk = desk_of(request)
    stranger, fields = await stranger_fields(request)
    link = link_in(fields)
    if fields.get("visiteur") == Visitor.PROFESSIONAL.value:
        try:
            address = await desk.professionals.begin(link, stranger)
        except DrimboxError as error:
            return form_page(
                request, "choice", stranger, link, status=503, message=f"{error.reason} : réessayez dans un instant."
            )
        return form_page(request, "login", stranger, link, address=address)
    if isinstance(desk.patients, PatientDesk):
        return _identity_page(request, stranger, link)
    if isinstance(desk.patients, VouchedDesk):
        return await _to_provider(request, desk.patients, stranger, link)
    if isinstance(desk.patients, Portal):
        return page(request, "portal", portal=desk.patients)
    return page(request, "closed")


async def say_who(request: Request) -> Response:
    """The traits of the patient; a code goes out if they are right, and the page is the same if not."""
    desk = desk_of(request)
    patients = _patients(request)
    stranger, fields = await stranger_fields(request)
    link = link_in(fields)
    try:
        answers = answers_of(fields)
    except Incomplete as problem:
        return _identity_page(request, stranger, link, f"{problem.reason}.", fields, status=422)
    ticket = await patients.ask(link, answers, stranger, address_of(request))
    return form_page(request, "code", stranger, None, ticket=ticket, minutes=patients.minutes, place=desk.place)


async def say_code(request: Request) -> Response:
    """The code that was received."""
    desk = desk_of(request)
    patients = _patients(request)
    stranger, fields = await stranger_fields(request)
    ticket = fields.get("billet", "")
    try:
        door = await patients.enter(ticket, stranger, fields.get("code", ""), address_of(request))
    except CodeRefused as problem:
        if not problem.again:
            raise
        return form_page(
            request,
            "code",
            stranger,
            None,
            status=403,
            ticket=ticket[:64],
            minutes=patients.minutes,
            place=desk.place,
            message=f"{problem.reason}.",
        )
    return _entered(request, door)


async def back_from_psc(request: Request) -> Response:
    """Pro Santé Connect sends the browser back, with a code or with its reason."""
    desk = desk_of(request)
    query = request.query_params
    door = await desk.professionals.finish(
        stranger_of(request),
        state=query.get("state", ""),
        code=query.get("code", ""),
        error=query.get("error", ""),
        issuer=query.get("iss"),
        address=address_of(request),
    )
    return _entered(request, door)


async def back_from_provider(request: Request) -> Response:
    """The patient's identity provider sends the browser back, with a code or with its reason."""
    query = request.query_params
    door = await _vouched(request).finish(
        stranger_of(request),
        state=query.get("state", ""),
        code=query.get("code", ""),
        error=query.get("error", ""),
        issuer=query.get("iss"),
        address=address_of(request),
    )
    return _entered(request, door)


async def keys(request: Request) -> Response:
    """The public keys of this box, for the identity provider: to encrypt for it, and to verify what it signs."""
    return JSONResponse(_vouched(request).provider.public_keys(), headers={"Cache-Control": "max-age=300"})


async def told_over(request: Request) -> Response:
    """Pro Santé Connect says that a session is over (OpenID Connect Back-Channel Logout 2.5)."""
    body = await body_of(request, _MAX_LOGOUT_TOKEN)
    try:
        fields = dict(parse_qsl(body.decode("ascii", "replace"), max_num_fields=10))
        await desk_of(request).logouts.notified(fields.get("logout_token", ""))
    except (Refused, Rejected, ValueError):
        return Response(status_code=400)
    return Response(status_code=200)


async def shown_over(request: Request) -> Response:
    """Pro Santé Connect's logout page shows this in a frame: the session that it names is over (Front-Channel 3)."""
    desk, query = desk_of(request), request.query_params
    try:
        await desk.logouts.shown(query.get("iss", ""), query.get("sid", ""))
        status, origins = 200, " ".join(await desk.professionals.psc.page_origins())
    except DrimboxError:
        status, origins = 400, "'none'"
    return Response(
        status_code=status, headers={"Content-Security-Policy": f"default-src 'none'; frame-ancestors {origins}"}
    )


async def ask_leave(request: Request) -> Response:
    return page(request, "leave", door=_door(request))


async def leave(request: Request) -> Response:
    """End the visit here; the session at the provider that vouched for the visitor is ended on its own page."""
    desk = desk_of(request)
    door = _door(request)
    await door_fields(request, door)
    await desk.entrance.leave(door, "logout")
    provider, elsewhere = await _logout_elsewhere(desk, door)
    response = page(request, "goodbye", elsewhere=elsewhere, provider=provider)
    # Images live in the memory of the tab, and must not outlive the visit in any cache of the browser.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return without_door(desk, response, door)


async def goodbye(request: Request) -> Response:
    """Where a provider sends the browser after its own logout."""
    return page(request, "goodbye", elsewhere="", provider="")


async def style(request: Request) -> Response:
    body = await asyncio.to_thread(_STYLE.read_bytes)
    return Response(body, media_type="text/css", headers={"Cache-Control": "no-cache"})


async def robots(request: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


def _entered(request: Request, door: Door) -> Response:
    desk = desk_of(request)
    return with_door(desk, request, see_other(f"{VISITS_PATH}/{door.visit.key}"), door)


def _door(request: Request) -> Door:
    """Raises ``Closed``."""
    desk = desk_of(request)
    key = request.path_params["key"]
    return desk.visits.find(key, request.cookies.get(door_cookie(desk, key)), active=False)


def _identity_page(
    request: Request,
    stranger: str,
    link: Link,
    message: str = "",
    said: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    """``said`` is what was written so far, to be completed."""
    written = {name: (said or {}).get(name, "")[:80] for name in ("naissance", "sexe", "lieu")}
    return form_page(request, "identity", stranger, link, status=status, message=message, said=written)


async def _to_provider(request: Request, desk: VouchedDesk, stranger: str, link: Link) -> Response:
    try:
        address = await desk.begin(link, stranger)
    except DrimboxError as error:
        _log.error("identity provider: %s", error.code)
        message = f"{desk.name} ne répond pas : réessayez dans un instant."
        return form_page(request, "choice", stranger, link, status=503, message=message)
    return form_page(request, "vouched", stranger, link, address=address, name=desk.name)


async def _logout_elsewhere(desk: Desk, door: Door) -> tuple[str, str]:
    """Which provider vouched for the visitor, and the address of its logout page; both empty where none did."""
    if door.elsewhere is None:
        return "", ""
    if isinstance(desk.patients, VouchedDesk) and door.visit.who.visitor is Visitor.PATIENT:
        return desk.patients.name, await desk.patients.logout_url(door.elsewhere.id_token)
    return "Pro Santé Connect", await desk.professionals.logout_url(door.elsewhere.id_token)


def _vouched(request: Request) -> VouchedDesk:
    patients = desk_of(request).patients
    if not isinstance(patients, VouchedDesk):
        raise Closed
    return patients


def _patients(request: Request) -> PatientDesk:
    patients = desk_of(request).patients
    if not isinstance(patients, PatientDesk):
        raise Closed
    return patients
