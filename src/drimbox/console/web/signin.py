"""Login by password or with Pro Santé Connect, logout, change of one's own password."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from drimbox.console.account import Account, Role
from drimbox.console.login import LoginRefused, PasswordRefused
from drimbox.console.psc import PscDesk
from drimbox.console.sessions import Session
from drimbox.console.web.desk import (
    LOGIN_PATH,
    Desk,
    NotHere,
    Visitor,
    address_of,
    desk_of,
    first,
    page,
    see_other,
    stranger_fields,
    stranger_of,
    stranger_token,
    with_session,
    with_stranger,
    without_session,
)
from drimbox.foundation.errors import Unavailable
from drimbox.record.audit import Event, Kind, Object, Thing

QUEUE_PATH = "/file"
ACCOUNTS_PATH = "/comptes"
JOURNAL_PATH = "/journal"


async def home(request: Request, visitor: Visitor) -> Response:
    """The page that this person works with."""
    if visitor.may(Role.OPERATOR):
        return see_other(QUEUE_PATH)
    if visitor.may(Role.ADMINISTRATOR):
        return see_other(ACCOUNTS_PATH)
    if visitor.may(Role.AUDITOR) and desk_of(request).journal_room is not None:
        return see_other(JOURNAL_PATH)
    return page(request, "nothing.html", visitor=visitor)


async def ask(request: Request) -> Response:
    """The login page."""
    return _login_page(request)


async def enter(request: Request) -> Response:
    """Login and password were sent."""
    desk = desk_of(request)
    fields = await stranger_fields(request)
    address = address_of(request)
    try:
        account = await desk.passwords.enter(first(fields, "identifiant"), first(fields, "secret"), address)
    except LoginRefused as error:
        return _login_page(request, error.reason, 401)
    session = await _begin(desk, request, account)
    return with_session(desk, see_other("/"), session)


async def to_psc(request: Request) -> Response:
    """Send the browser to Pro Santé Connect."""
    desk = desk_of(request)
    psc = _psc(desk)
    stranger = stranger_of(request)
    try:
        address = await psc.begin(stranger)
    except Unavailable as error:
        return _login_page(request, f"{error.reason}. Réessayez dans quelques instants.", 503)
    return with_stranger(desk, RedirectResponse(address, status_code=303), stranger)


async def from_psc(request: Request) -> Response:
    """Pro Santé Connect sends the browser back."""
    desk = desk_of(request)
    query = request.query_params
    account, id_token = await _psc(desk).finish(
        request.cookies.get(desk.form_cookie, ""),
        state=query.get("state", ""),
        code=query.get("code", ""),
        error=query.get("error", ""),
        address=address_of(request),
    )
    session = await _begin(desk, request, account, id_token)
    # A redirection would still be a request that another site made, without the strict cookie: the page goes on itself.
    return with_session(desk, page(request, "welcome.html", name=account.name), session)


async def ask_leave(request: Request, visitor: Visitor) -> Response:
    return page(request, "logout.html", visitor=visitor)


async def leave(request: Request, visitor: Visitor) -> Response:
    """End the session here, then at Pro Santé Connect (IE.38)."""
    desk = desk_of(request)
    session = visitor.session
    desk.sessions.end(session)
    await desk.journal.write(None, Event(Kind.LOGOUT, visitor.actor, (Object(Thing.SESSION, session.id, "logout"),)))
    elsewhere = await desk.psc.logout_url(session.id_token) if desk.psc and session.id_token else ""
    unfinished = bool(session.id_token) and not elsewhere
    return without_session(desk, page(request, "goodbye.html", elsewhere=elsewhere, unfinished=unfinished))


async def goodbye(request: Request) -> Response:
    """Where Pro Santé Connect sends the browser after its own logout."""
    return page(request, "goodbye.html", elsewhere="", unfinished=False)


async def ask_password(request: Request, visitor: Visitor) -> Response:
    return _password_page(request, visitor)


async def change_password(request: Request, visitor: Visitor) -> Response:
    """One's own password; every session of the account ends, this browser gets a new one."""
    desk = desk_of(request)
    if not visitor.account.has_password:
        raise NotHere
    try:
        account = await desk.passwords.change(
            visitor.account,
            visitor.field("ancien"),
            visitor.field("nouveau"),
            visitor.field("encore"),
            visitor.session.address,
        )
    except PasswordRefused as error:
        return _password_page(request, visitor, error.reason, 400)
    desk.sessions.end(visitor.session)
    session = desk.sessions.open(account, visitor.session.address, visitor.session.id_token)
    session.tell("Votre mot de passe est changé. Vos autres sessions sont fermées.")
    return with_session(desk, see_other("/"), session)


async def _begin(desk: Desk, request: Request, account: Account, id_token: str = "") -> Session:
    """A session of its own for each login: whatever cookie the browser came with is worth nothing."""
    former = desk.sessions.find(request.cookies.get(desk.cookie))
    if former is not None:
        desk.sessions.end(former)
    address = address_of(request)
    session = desk.sessions.open(account, address, id_token)
    means = "Pro Santé Connect" if id_token else "mot de passe"
    event = Event(Kind.LOGIN, account.actor(address), (Object(Thing.SESSION, session.id, means),))
    try:
        await desk.journal.write(None, event)
    except BaseException:
        # No session that the journal does not know.
        desk.sessions.end(session)
        raise
    return session


def _login_page(request: Request, message: str = "", status: int = 200) -> Response:
    desk = desk_of(request)
    stranger = stranger_of(request)
    response = page(
        request,
        "login.html",
        status=status,
        message=message,
        token=stranger_token(desk, stranger),
        with_psc=desk.psc is not None,
        action=LOGIN_PATH,
    )
    return with_stranger(desk, response, stranger)


def _password_page(request: Request, visitor: Visitor, message: str = "", status: int = 200) -> Response:
    desk = desk_of(request)
    if not visitor.account.has_password:
        raise NotHere("Votre compte s'ouvre avec Pro Santé Connect : il n'a pas de mot de passe")
    return page(
        request,
        "password.html",
        visitor=visitor,
        status=status,
        message=message,
        due=desk.passwords.must_change(visitor.account),
        rules=desk.passwords.rules,
        administrator=visitor.may(Role.ADMINISTRATOR),
    )


def _psc(desk: Desk) -> PscDesk:
    if desk.psc is None:
        raise NotHere
    return desk.psc
