"""What every page needs: the parts of the consumer, the browser's session, forms that cannot be forged, rendering."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from drimbox.consumer import vocabulary
from drimbox.consumer.call import Range
from drimbox.consumer.consultant import Consultant, consultant, require_consent
from drimbox.consumer.login import LoginDesk
from drimbox.consumer.opening import Opener
from drimbox.consumer.pictures import Pictures
from drimbox.consumer.ports import AuditJournal, Dmp, Structures
from drimbox.consumer.prefetch import Prefetcher
from drimbox.consumer.professional import LoginEnded, practice_named
from drimbox.consumer.sessions import Gone, Limits, OpenCall, Session, Sessions
from drimbox.consumer.users import OPTIONAL_TRAITS, UserMemory
from drimbox.consumer.viewer_files import ViewerFiles
from drimbox.consumer.weasis import WeasisDoor
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Refused
from drimbox.importing.desk import ImportDesk
from drimbox.importing.media import MediaDesk
from drimbox.national.psc.userinfo import Practice
from drimbox.reports.report import Coded

MAX_FORM_BYTES = 16 * 1024
STYLE_PATH = "/statique/style.css"


@dataclass(frozen=True, slots=True)
class ListSettings:
    """What the list does of itself.

    ``news_days``: how far back is new for who sees a patient for the first time; ``emergency_minutes``: how long an
    emergency access lasts, 0: none is offered; ``withdraw_on_refusal``: is taking the authorisation back offered when
    the call says that the patient refuses (decision 18); ``kos_ahead``: KOS read before anyone opens them;
    ``probe_sources``: are their sources asked whether they answer; ``rows`` shown at once.
    """

    news_days: int = 90
    emergency_minutes: float = 60
    withdraw_on_refusal: bool = False
    kos_ahead: int = 20
    probe_sources: bool = True
    rows: int = 100


@dataclass(frozen=True, slots=True)
class Desk:
    """The consumer, put together. ``cookie`` is the name of the session cookie, of this box alone."""

    box_name: str
    version: str
    public_url: str
    cookie: str
    environment: Range
    consent_values: Mapping[str, str]
    issuers: Mapping[str, str]
    authn_context: str
    report_types: Sequence[Coded]
    limits: Limits
    sessions: Sessions
    login: LoginDesk
    opener: Opener
    dmp: Dmp
    users: UserMemory
    listing: ListSettings
    structures: Structures
    journal: AuditJournal
    clock: Clock
    viewer: ViewerFiles
    pictures: Pictures
    weasis: WeasisDoor[Any] | None
    imports: ImportDesk | None = None
    media: MediaDesk | None = None
    prefetch: Prefetcher | None = None
    viewer_ahead: bool = True


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def address_of(request: Request) -> str:
    """Where the request comes from, for the journal."""
    return request.client.host if request.client else ""


def session_of(request: Request, *, active: bool = True) -> Session:
    """The browser's session. Raises ``Gone`` when it has none."""
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie), active=active)
    if session is None:
        raise Gone("Votre session est terminée : relancez l'appel depuis votre logiciel")
    return session


def call_of(request: Request, session: Session) -> OpenCall:
    """The call that the address names, of this browser. Raises ``Gone`` for any other."""
    call = session.call(request.path_params["call"])
    call.used = desk_of(request).clock.monotonic()
    return call


def practice_of(session: Session, call: OpenCall) -> Practice | None:
    """The practice in force for a call: chosen for it, named by the caller, or else the last one chosen."""
    professional = session.professional
    if professional is None:
        return None
    if call.practice is None:
        call.practice = practice_named(professional.info, call.call.situation) or professional.practice
    return call.practice


def ready(request: Request, session: Session, call: OpenCall) -> Consultant:
    """Who consults, once everything that comes first is done: login, notice, practice.

    Raises ``Rejected`` (``no-consent``), ``LoginEnded`` or ``Gone`` when it is not; the call's own page then says more.
    """
    desk = desk_of(request)
    require_consent(call.call)
    professional = session.professional
    if professional is None or professional.ended:
        raise LoginEnded
    practice = practice_of(session, call)
    if practice is None or not professional.notice_accepted:
        raise Gone("Cette page s'ouvre depuis la liste des examens")
    who = consultant(
        professional, practice, desk.structures, authn_context=desk.authn_context, address=address_of(request)
    )
    if call.emergency is None:
        return who
    if desk.clock.monotonic() >= call.emergency.until:
        raise Gone("L'accès en urgence est terminé : revenez à la liste des examens")
    return who.in_emergency(call.emergency.reason)


async def form_of(request: Request, session: Session) -> dict[str, list[str]]:
    """The fields of a form of ours. Raises ``Refused`` (``form``) for one that did not come from our page."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused("Formulaire envoyé depuis un autre site", code="form")
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(
        (await body_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace"), max_num_fields=200
    ):
        fields.setdefault(name, []).append(value.strip())
    if not hmac.compare_digest(first(fields, "jeton"), session.csrf):
        raise Refused("Formulaire périmé : revenez à la page précédente et recommencez", code="form")
    return fields


def first(fields: Mapping[str, Sequence[str]], name: str) -> str:
    return fields[name][0] if fields.get(name) else ""


def here(request: Request) -> str:
    """The page that was asked for, as a way back to it; addresses of this origin never tell a patient."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


def way_back(fields: Mapping[str, Sequence[str]], call: OpenCall) -> str:
    """Where a form says that the user was going (``retour``): a page of the same call, else the call's own."""
    back = first(fields, "retour")
    if not back.startswith(f"/appel/{call.id}/") or "\\" in back or any(c < " " for c in back):
        return f"/appel/{call.id}"
    return back


async def body_of(request: Request, limit: int) -> bytes:
    """The body, ``limit`` bytes at most. Raises ``Refused`` (``body-size``)."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > limit:
            raise Refused("Envoi trop volumineux", code="body-size")
    return bytes(received)


def see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


def with_cookie(desk: Desk, response: Response, session: Session) -> Response:
    """Give the browser its session: a cookie that no script reads and that no other host gets."""
    response.set_cookie(desk.cookie, session.secret, path="/", secure=True, httponly=True, samesite="lax")
    return response


def without_cookie(desk: Desk, response: Response) -> Response:
    response.delete_cookie(desk.cookie, path="/", secure=True, httponly=True, samesite="lax")
    return response


def cookie_name(box_name: str, public_url: str) -> str:
    """Cookies know no ports: two boxes on one host must not share a name."""
    port = urlsplit(public_url).port or 443
    slug = re.sub(r"[^a-z0-9]+", "-", box_name.lower()).strip("-") or "box"
    return f"__Host-drimbox-{slug}-{port}"


def page(
    request: Request,
    template: str,
    *,
    session: Session | None = None,
    call: OpenCall | None = None,
    status: int = 200,
    **context: Any,
) -> HTMLResponse:
    """A page in French. The patient and the professional are on it whenever they are known to this browser."""
    desk = desk_of(request)
    professional = session.professional if session else None
    text = _TEMPLATES.get_template(template).render(
        desk=desk,
        session=session,
        professional=professional,
        call=call,
        mark=session.mark if session else "",
        # The patient is shown to the person who is logged in, never to a browser that anybody may have opened.
        patient=call.call if call and professional else None,
        details=call.details if call and professional else None,
        practice=practice_of(session, call) if session and call else None,
        shown_traits=(professional.shown_traits or frozenset()) if professional else frozenset(),
        optional_traits=OPTIONAL_TRAITS,
        style=STYLE_PATH,
        words=vocabulary,
        **context,
    )
    return HTMLResponse(text, status_code=status)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("drimbox.consumer", "pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["day"] = lambda day: day.strftime("%d/%m/%Y") if day else ""
    environment.filters["moment"] = lambda at: at.astimezone(PARIS).strftime("%d/%m/%Y à %H:%M") if at else ""
    environment.filters["clock"] = lambda at: at.astimezone(PARIS).strftime("%H:%M")
    environment.filters["grouped"] = grouped_matricule
    environment.filters["sentence"] = sentence
    return environment


def sentence(reason: str) -> str:
    """A reason as it ends a line: with one full stop."""
    return f"{reason.rstrip(' .')}." if reason else ""


def grouped_matricule(matricule: str) -> str:
    """``2 79 03 51215189 89``: how people read an INS aloud."""
    m = matricule
    return f"{m[0]} {m[1:3]} {m[3:5]} {m[5:7]} {m[7:10]} {m[10:13]} {m[13:]}"


_TEMPLATES = _templates()
