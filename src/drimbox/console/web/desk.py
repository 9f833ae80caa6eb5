"""What every page needs: the parts of the console, who visits, forms that cannot be forged, rendering."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from drimbox.certificates.acts import CertificateActs
from drimbox.console.account import Account, Role
from drimbox.console.accounts import Accounts, AuditJournal
from drimbox.console.acts import Acts
from drimbox.console.backlog import BacklogReader
from drimbox.console.circle import CircleRoom
from drimbox.console.health import HealthWatch
from drimbox.console.journal import JournalRoom
from drimbox.console.keys import KeyRoom
from drimbox.console.login import PasswordDesk
from drimbox.console.messages import Messages
from drimbox.console.psc import PscDesk
from drimbox.console.sessions import Session, Sessions
from drimbox.console.studies import Studies
from drimbox.console.walks import WalkRoom
from drimbox.console.web import rendering, uploads
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Actor, Event, Kind, Object, Thing

MAX_FORM_BYTES = 16 * 1024
LOGIN_PATH = "/connexion"
PASSWORD_PATH = "/mot-de-passe"  # noqa: S105 - a path


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting in force, as administrators see it. Secrets are files: their content never comes here."""

    section: str
    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Desk:
    """The console, put together. ``structures`` are the names by short name; ``cookie`` and ``form_cookie`` belong to
    this box alone; ``form_key`` signs the form of strangers; ``link_origin`` is that of the links in reports, empty
    where this box opens none."""

    box_name: str
    version: str
    public_url: str
    cookie: str
    form_cookie: str
    structures: Mapping[str, str]
    settings: Sequence[SettingLine]
    clock: Clock
    journal: AuditJournal
    sessions: Sessions
    accounts: Accounts
    passwords: PasswordDesk
    psc: PscDesk | None
    incidents: Incidents
    acts: Acts
    studies: Studies
    messages: Messages
    backlog: BacklogReader
    health: HealthWatch
    form_key: bytes = field(repr=False)
    walks: WalkRoom | None = None
    certificates: CertificateActs | None = None
    journal_room: JournalRoom | None = None
    keys: KeyRoom | None = None
    circle: CircleRoom | None = None
    link_origin: str = ""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is at a page: the session, the account as it is now, the fields of the form that was sent."""

    session: Session
    account: Account
    fields: Mapping[str, Sequence[str]]

    def may(self, role: Role) -> bool:
        return role in self.account.roles

    @property
    def actor(self) -> Actor:
        return self.account.actor(self.session.address)

    def field(self, name: str) -> str:
        return first(self.fields, name)


class Forbidden(Refused):
    """The account has not the right that this page asks for."""

    def __init__(self, reason: str = "Votre compte n'a pas ce droit") -> None:
        super().__init__(reason, code="forbidden")


class NotHere(Refused):
    """What is asked for does not exist."""

    def __init__(self, reason: str = "Cette page n'existe pas") -> None:
        super().__init__(reason, code="not-here")


Page = Callable[[Request, Visitor], Awaitable[Response]]
Handler = Callable[[Request], Awaitable[Response]]


def for_people(page: Page, *roles: Role, before_password: bool = False) -> Handler:
    """A page for whoever is logged in and has one of ``roles``, where there are some; a form sent to it must be ours.

    ``before_password``: open to people who must first choose another password. Who is not logged in is sent to the
    login page.
    """

    async def handle(request: Request) -> Response:
        desk = desk_of(request)
        visitor = await _visitor(request)
        if visitor is None:
            return see_other(LOGIN_PATH)
        if visitor.session.by_password and desk.passwords.must_change(visitor.account) and not before_password:
            return see_other(PASSWORD_PATH)
        if roles and not any(map(visitor.may, roles)):
            raise Forbidden
        return await page(request, visitor)

    return handle


async def _visitor(request: Request) -> Visitor | None:
    """Raises ``Refused`` (``form``) for a form that is not ours."""
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie))
    if session is None:
        return None
    account = await desk.accounts.by_id(session.account.id)
    if account is None or account.locked_at is not None or account.stamp != session.account.stamp:
        # The account was changed since: whoever sits there must log in again, with what holds now.
        if desk.sessions.end(session):
            ended = (Object(Thing.SESSION, session.id, "account-changed"),)
            await desk.journal.write(None, Event(Kind.LOGOUT, session.account.actor(session.address), ended))
        return None
    fields: Mapping[str, Sequence[str]] = {}
    if request.method == "POST":
        fields = await fields_of(request)
        if not same(first(fields, "jeton"), session.csrf):
            raise Refused("Formulaire périmé : revenez à la page précédente et recommencez", code="form")
    return Visitor(session, account, fields)


async def fields_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form, from our own pages. Raises ``Refused`` (``form``, ``body-size``)."""
    origin = request.headers.get("origin", desk_of(request).public_url)
    if origin != desk_of(request).public_url or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused("Formulaire envoyé depuis un autre site", code="form")
    upload = uploads.is_upload(request.headers.get("content-type", ""))
    most = uploads.MAX_BYTES if upload else MAX_FORM_BYTES
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > most:
            raise Refused("Envoi trop volumineux", code="body-size")
    if upload:
        return await uploads.upload_fields(request.headers, bytes(received))
    try:
        pairs = parse_qsl(received.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise Refused("Formulaire illisible", code="form") from error
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def address_of(request: Request) -> str:
    """Where the request comes from, for the journal."""
    return request.client.host if request.client else ""


def first(fields: Mapping[str, Sequence[str]], name: str) -> str:
    return fields[name][0] if fields.get(name) else ""


def same(left: str, right: str) -> bool:
    """Compare secrets, whatever their characters, in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def number(text: str) -> int | None:
    """A row's number, None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


# --- forms of strangers -----------------------------------------------------------------------------------------------


def stranger_of(request: Request) -> str:
    """The secret that a browser without session holds for its login form; a fresh one when it has none."""
    held = request.cookies.get(desk_of(request).form_cookie, "")
    return held if re.fullmatch(r"[A-Za-z0-9_-]{43}", held) else new_secret()


def stranger_token(desk: Desk, stranger: str) -> str:
    """What the hidden field of that browser's form must hold; nothing is kept for it."""
    return hmac.new(desk.form_key, stranger.encode(), hashlib.sha256).hexdigest()


async def stranger_fields(request: Request) -> dict[str, list[str]]:
    """The fields of a form of a browser without session. Raises ``Refused`` (``form``) when it is not ours."""
    desk = desk_of(request)
    fields = await fields_of(request)
    held = request.cookies.get(desk.form_cookie, "")
    if not held or not same(first(fields, "jeton"), stranger_token(desk, held)):
        raise Refused("Formulaire périmé : recommencez", code="form")
    return fields


# --- cookies ----------------------------------------------------------------------------------------------------------


def with_session(desk: Desk, response: Response, session: Session) -> Response:
    """Give the browser its session: a cookie that no script reads, and that no other site makes it send."""
    response.set_cookie(desk.cookie, session.secret, path="/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(desk.form_cookie, path="/", secure=True, httponly=True, samesite="lax")
    return response


def without_session(desk: Desk, response: Response) -> Response:
    response.delete_cookie(desk.cookie, path="/", secure=True, httponly=True, samesite="strict")
    return response


def with_stranger(desk: Desk, response: Response, stranger: str) -> Response:
    """Bind a login to a browser. ``Lax``: Pro Santé Connect sends the browser back from another site."""
    response.set_cookie(desk.form_cookie, stranger, path="/", secure=True, httponly=True, samesite="lax")
    return response


def cookie_name(box_name: str, public_url: str, what: str) -> str:
    """Cookies know no ports: two boxes, or two listeners of one, must not share a name."""
    port = urlsplit(public_url).port or 443
    slug = re.sub(r"[^a-z0-9]+", "-", box_name.lower()).strip("-") or "box"
    return f"__Host-console-{slug}-{port}-{what}"


# --- rendering --------------------------------------------------------------------------------------------------------


def page(
    request: Request, template: str, *, visitor: Visitor | None = None, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page in French."""
    desk = desk_of(request)
    text = rendering.render(
        template,
        desk=desk,
        visitor=visitor,
        told=visitor.session.take_told() if visitor else [],
        path=request.url.path,
        now=desk.clock.now(),
        Role=Role,
        **context,
    )
    return HTMLResponse(text, status_code=status)
