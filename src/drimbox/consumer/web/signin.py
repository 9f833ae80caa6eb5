"""Pages of login and logout with Pro Santé Connect."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from drimbox.consumer.remote_login import channel_of, national_id_of
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.web.desk import (
    address_of,
    body_of,
    call_of,
    desk_of,
    first,
    form_of,
    page,
    see_other,
    session_of,
    with_cookie,
    without_cookie,
)
from drimbox.foundation.errors import Busy, DrimboxError, Refused, Rejected, Unavailable

_MAX_LOGOUT_TOKEN = 16 * 1024


def login_page(request: Request, session: Session, call: OpenCall, message: str = "", status: int = 200) -> Response:
    """The ways to log in that this box offers, side by side (PSC.01)."""
    login = desk_of(request).login
    return page(
        request,
        "login.html",
        session=session,
        call=call,
        message=message,
        redirects=login.redirects,
        remote=login.remote is not None,
        status=status,
    )


async def begin(request: Request) -> Response:
    """Send the browser to PSC."""
    session = session_of(request)
    call = call_of(request, session)
    desk = desk_of(request)
    if not desk.login.redirects:
        raise Gone
    try:
        address = await desk.login.begin(session, call.id)
    except DrimboxError as error:
        return login_page(request, session, call, f"{error.reason}. Réessayez dans quelques instants.", 503)
    return RedirectResponse(address, status_code=303)


async def ask_remotely(request: Request) -> Response:
    """Ask for a confirmation on the professional's own device."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    try:
        national_id, channel = national_id_of(first(fields, "rpps")), channel_of(first(fields, "moyen"))
        await desk_of(request).login.ask_remotely(session, call.id, national_id, channel)
    except (Refused, Busy) as error:
        if isinstance(error, Gone):
            raise
        return login_page(request, session, call, f"{error.reason}.", 422)
    return see_other(f"/appel/{call.id}/connexion/attente")


async def wait_remotely(request: Request) -> Response:
    """The number to compare while the device is asked; then the way on, or why there is none."""
    session = session_of(request, active=False)
    call = call_of(request, session)
    desk = desk_of(request)
    waiting = session.remote
    if waiting is None or waiting.call_id != call.id:
        return see_other(f"/appel/{call.id}")
    if not waiting.over:
        return page(request, "device.html", session=session, call=call, waiting=waiting)
    try:
        call_id = await desk.login.finish_remotely(session, address_of(request))
    except Gone:
        raise
    except (Rejected, Refused) as error:
        return login_page(request, session, call, f"{error.reason}.", 403)
    except DrimboxError as error:
        return login_page(request, session, call, f"{error.reason}. Réessayez dans quelques instants.", 503)
    return with_cookie(desk, see_other(f"/appel/{call_id}"), session)


async def remote_state(request: Request) -> Response:
    """Has the device answered? For the page that waits."""
    session = session_of(request, active=False)
    call = call_of(request, session)
    waiting = session.remote
    over = waiting is None or waiting.call_id != call.id or waiting.over
    return JSONResponse({"over": over})


async def give_up(request: Request) -> Response:
    """The professional does not want to wait any longer, or typed another's number."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    waiting, session.remote = session.remote, None
    if waiting is not None:
        await waiting.close()
    return see_other(f"/appel/{call.id}")


async def back(request: Request) -> Response:
    """PSC sends the browser back, with a code or with its reason."""
    desk = desk_of(request)
    query = request.query_params
    session = session_of(request)
    expected = session.logins.get(query.get("state", ""))
    retry = f"/appel/{expected.call_id}" if expected else "/"
    try:
        call_id = await desk.login.finish(
            session,
            state=query.get("state", ""),
            code=query.get("code", ""),
            error=query.get("error", ""),
            issuer=query.get("iss"),
            address=address_of(request),
        )
    except Gone:
        raise
    except (Rejected, Refused) as error:
        return page(request, "problem.html", status=403, title="Connexion refusée", reason=error.reason, retry=retry)
    except Unavailable as error:
        return page(request, "problem.html", status=503, title="Connexion impossible", reason=error.reason, retry=retry)
    return with_cookie(desk, see_other(f"/appel/{call_id}" if call_id in session.calls else "/"), session)


async def ask_logout(request: Request) -> Response:
    """Confirm the end of the session: what is open will be closed."""
    session = session_of(request)
    imports, person = desk_of(request).imports, session.professional
    # Said before it is too late: what is still to be asked of a source waits for the next login (DB.CO.76).
    going_on = await imports.under_way(person.info.national_id) if imports is not None and person is not None else 0
    return page(request, "logout.html", session=session, calls=list(session.calls.values()), going_on=going_on)


async def logout(request: Request) -> Response:
    """End the session here, then at PSC (DB.CO.64)."""
    session = session_of(request)
    await form_of(request, session)
    desk = desk_of(request)
    elsewhere, done = await desk.login.logout(session, address_of(request))
    response = page(request, "goodbye.html", elsewhere=elsewhere, done=done)
    # Images live in the memory of the tab, and must not outlive the session in any cache of the browser.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return without_cookie(desk, response)


async def goodbye(request: Request) -> Response:
    """Where PSC sends the browser after its own logout."""
    return page(request, "goodbye.html", elsewhere="", done=True)


async def shown(request: Request) -> Response:
    """PSC's logout page shows this in a frame: the session that it names is over (Front-Channel Logout 3)."""
    login = desk_of(request).login
    query = request.query_params
    try:
        await login.shown(query.get("iss", ""), query.get("sid", ""))
        status, origins = 200, " ".join(await login.psc.page_origins())
    except DrimboxError:
        status, origins = 400, "'none'"
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": f"default-src 'none'; frame-ancestors {origins}"}
    return Response(status_code=status, headers=headers)


async def told(request: Request) -> Response:
    """PSC says that a session is over (OpenID Connect Back-Channel Logout)."""
    fields = dict(parse_qsl((await body_of(request, _MAX_LOGOUT_TOKEN)).decode("ascii", "replace"), max_num_fields=10))
    try:
        await desk_of(request).login.notified(fields.get("logout_token", ""))
    except (Refused, Rejected):
        return Response(status_code=400)
    return Response(status_code=200)
