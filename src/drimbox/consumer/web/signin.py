"""Pages of login and logout with Pro Santé Connect."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from drimbox.consumer.sessions import Gone
from drimbox.consumer.web.desk import (
    address_of,
    body_of,
    call_of,
    desk_of,
    form_of,
    page,
    see_other,
    session_of,
    with_cookie,
    without_cookie,
)
from drimbox.foundation.errors import DrimboxError, Refused, Rejected, Unavailable

_MAX_LOGOUT_TOKEN = 16 * 1024


async def begin(request: Request) -> Response:
    """Send the browser to PSC."""
    session = session_of(request)
    call = call_of(request, session)
    desk = desk_of(request)
    try:
        address = await desk.login.begin(session, call.id)
    except DrimboxError as error:
        reason = f"{error.reason}. Réessayez dans quelques instants."
        return page(request, "login.html", session=session, call=call, message=reason, status=503)
    return RedirectResponse(address, status_code=303)


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
    return page(request, "logout.html", session=session, calls=list(session.calls.values()))


async def logout(request: Request) -> Response:
    """End the session here, then at PSC (DB.CO.64)."""
    session = session_of(request)
    await form_of(request, session)
    desk = desk_of(request)
    elsewhere = await desk.login.logout(session, address_of(request))
    response = page(request, "goodbye.html", elsewhere=elsewhere, done=False)
    # Images live in the memory of the tab, and must not outlive the session in any cache of the browser.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return without_cookie(desk, response)


async def goodbye(request: Request) -> Response:
    """Where PSC sends the browser after its own logout."""
    return page(request, "goodbye.html", elsewhere="", done=True)


async def told(request: Request) -> Response:
    """PSC says that a session is over (OpenID Connect Back-Channel Logout)."""
    fields = dict(parse_qsl((await body_of(request, _MAX_LOGOUT_TOKEN)).decode("ascii", "replace"), max_num_fields=10))
    try:
        await desk_of(request).login.notified(fields.get("logout_token", ""))
    except (Refused, Rejected):
        return Response(status_code=400)
    return Response(status_code=200)
