"""The way in: the contextual call, and the page that leads from it to the list of exams."""

from __future__ import annotations

import logging
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from drimbox.consumer.call import MAX_CALL_BYTES, CallRefused, Consent, parse_call
from drimbox.consumer.professional import LoginEnded, practice_named
from drimbox.consumer.sessions import OpenCall, Session
from drimbox.consumer.web import documents
from drimbox.consumer.web.desk import (
    address_of,
    body_of,
    call_of,
    desk_of,
    first,
    form_of,
    page,
    practice_of,
    see_other,
    session_of,
    with_cookie,
)
from drimbox.consumer.web.signin import login_page
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.record.audit import Actor, Event, Kind, failed

_log = logging.getLogger(__name__)

_FORM = "application/x-www-form-urlencoded"


async def receive(request: Request) -> Response:
    """POST of the contextual call: 303 to a single-use address, or 400 that names the parameter at fault."""
    desk = desk_of(request)
    event = Event(Kind.CONTEXTUAL_CALL, Actor(system="contextual-call", address=address_of(request)))
    try:
        call = parse_call(
            await _call_body(request),
            environment=desk.environment,
            consent_values=desk.consent_values,
            issuers=desk.issuers,
            today=desk.clock.now().astimezone(PARIS).date(),
        )
    except Refused as error:
        await desk.journal.write(None, failed(event, error))
        _log.warning("contextual call refused: %s", error.parameter if isinstance(error, CallRefused) else error.code)
        return _refusal(request, error)
    await desk.journal.write(None, replace(event, patient=call.ins))
    ticket = desk.sessions.announce(call)
    return RedirectResponse(f"{desk.public_url}/entree/{ticket}", status_code=303)


async def enter(request: Request) -> Response:
    """The single-use address: the browser that opens it first owns the call."""
    desk = desk_of(request)
    if request.method != "GET" or "prefetch" in request.headers.get("sec-purpose", ""):
        # Only a person's own visit counts: a preview must not use the address up.
        return Response(status_code=503, headers={"Retry-After": "0"})
    known = desk.sessions.find(request.cookies.get(desk.cookie))
    session, call = desk.sessions.enter(request.path_params["ticket"], known)
    response = see_other(f"/appel/{call.id}")
    return response if session is known else with_cookie(desk, response, session)


async def show(request: Request) -> Response:
    """The call's page: whatever comes first of consent, login, notice, practice; then the list of exams."""
    session = session_of(request)
    call = call_of(request, session)
    if call.call.consent is not Consent.YES:
        return _no_consent(request, session, call)
    professional = session.professional
    if professional is None:
        return login_page(request, session, call)
    try:
        await professional.keep_alive()
    except LoginEnded as ended:
        return login_page(request, session, call, ended.reason)
    except Unavailable:
        # The DMP does not need the token; images do, and they will say it when they cannot be had.
        _log.warning("Pro Santé Connect does not answer: the token was not refreshed")
    if not professional.notice_accepted:
        # Asked once per user, not once per login (DMP/AIRS.07).
        users = desk_of(request).users
        professional.notice_accepted = await users.notice_accepted(professional.info.national_id)
    if not professional.notice_accepted:
        return page(request, "notice.html", session=session, call=call)
    if practice_of(session, call) is None:
        return _practices(request, session, call)
    return await documents.listing(request, session, call)


async def accept_notice(request: Request) -> Response:
    """The box ticked once: consultations carry the national id and are notified to the patient (DMP/AIRS.07)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    if session.professional is None:
        raise LoginEnded
    if first(fields, "lu") == "oui":
        desk = desk_of(request)
        info = session.professional.info
        await desk.users.accept_notice(info.national_id, desk.clock.now())
        person = Actor(person=info.national_id, name=session.professional.name, address=address_of(request))
        await desk.journal.write(None, Event(Kind.NOTICE_ACCEPTED, person))
        session.professional.notice_accepted = True
    return see_other(f"/appel/{call.id}")


async def practices(request: Request) -> Response:
    """The choice of practice, at any time (DB.CO.50)."""
    session = session_of(request)
    return _practices(request, session, call_of(request, session))


async def choose_practice(request: Request) -> Response:
    """Act in another practice: its identity and certificates follow, and nothing found under the former one stays."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    professional = session.professional
    if professional is None:
        raise LoginEnded
    choice = first(fields, "situation")
    offered = professional.info.practices
    if not choice.isdecimal() or len(choice) > 6 or int(choice) >= len(offered):
        raise Refused("Situation d'exercice inconnue", code="form")
    chosen = offered[int(choice)]
    professional.practice = chosen
    await desk_of(request).login.memory.keep(professional.info.national_id, chosen)
    if call.practice != chosen:
        await desk_of(request).sessions.renew(session, call, chosen)
    return see_other(f"/appel/{call.id}")


def _no_consent(request: Request, session: Session, call: OpenCall) -> Response:
    """Nothing is asked; where it is configured, the professional may take their authorisation back (decision 18)."""
    return page(
        request,
        "consent.html",
        session=session,
        call=call,
        unknown=call.call.consent is Consent.UNKNOWN,
        withdraw=desk_of(request).listing.withdraw_on_refusal and call.call.consent is Consent.NO,
    )


def _practices(request: Request, session: Session, call: OpenCall) -> Response:
    professional = session.professional
    if professional is None:
        raise LoginEnded
    situation = call.call.situation
    unknown = bool(situation) and practice_named(professional.info, situation) is None
    structures = desk_of(request).structures
    offered = [(each, structures.of(each.structure_id) is not None) for each in professional.info.practices]
    return page(request, "practices.html", session=session, call=call, offered=offered, unknown=unknown)


async def _call_body(request: Request) -> bytes:
    # Some callers send no type at all; one that says another is not making this call.
    media_type = request.headers.get("content-type", _FORM).split(";")[0].strip().lower()
    if media_type != _FORM:
        raise CallRefused("", f"L'appel contextuel est un formulaire ({_FORM})")
    return await body_of(request, MAX_CALL_BYTES)


def _refusal(request: Request, error: Refused) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return page(request, "problem.html", status=400, title="Appel contextuel refusé", reason=error.reason, retry="")
    return PlainTextResponse(f"{error.reason}\n", status_code=400)


async def presence(request: Request) -> Response:
    """Is the session still there, and still that of who sees the page?

    ``actif`` says that the user did something since the last question (DB.CO.65); ``page`` is the mark of the page.
    """
    session = session_of(request, active="actif" in request.query_params)
    if request.query_params.get("page", session.mark) != session.mark:
        # Somebody else logged in, in another tab: this one must not go on showing what it shows.
        return Response(status_code=205)
    if session.professional is not None and "actif" in request.query_params:
        try:
            await session.professional.keep_alive()
        except Unavailable:
            _log.warning("Pro Santé Connect does not answer: the token was not refreshed")
    return Response(status_code=204)


async def home(request: Request) -> Response:
    """The bare address: nothing to see without a call, the open patients otherwise."""
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie))
    return page(request, "home.html", session=session, calls=list(session.calls.values()) if session else [])
