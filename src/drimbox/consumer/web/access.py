"""What the professional does about access: authorisation, emergency, traits that differ, what is on the screen."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.call import Consent
from drimbox.consumer.consultant import Consultant, consultant
from drimbox.consumer.exams import Document
from drimbox.consumer.identity_check import TraitsDiffer
from drimbox.consumer.image_identity import CODE as IMAGE_TRAITS
from drimbox.consumer.local import LocalExam
from drimbox.consumer.permission import (
    EMERGENCY_REASONS,
    Barred,
    Emergency,
    begun,
    emergency_reason,
    ended,
    grant,
    withdraw,
)
from drimbox.consumer.professional import LoginEnded
from drimbox.consumer.sessions import OpenCall, Session
from drimbox.consumer.users import OPTIONAL_TRAITS
from drimbox.consumer.web.desk import (
    Desk,
    address_of,
    call_of,
    desk_of,
    first,
    form_of,
    page,
    practice_of,
    ready,
    see_other,
    session_of,
    way_back,
)
from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.record.audit import Kind, Object, Thing

_PATIENCE = 0.3


async def authorise(request: Request) -> Response:
    """The explicit act: the patient agrees, the authorisation is recorded in the DMP (decision 22)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    who = ready(request, session, call)
    barred = await _barred(call)
    if barred is None or not barred.may_grant or first(fields, "accord") != "oui":
        raise Refused("Cochez la case qui atteste l'accord du patient, puis validez", code="form")
    desk = desk_of(request)
    await grant(desk.dmp, desk.journal, who, call.call)
    await _search_anew(call)
    return see_other(f"/appel/{call.id}")


async def ask_emergency(request: Request) -> Response:
    """The page on which an emergency access is declared, with its reason."""
    session = session_of(request)
    call = call_of(request, session)
    ready(request, session, call)
    _emergency_seconds(desk_of(request))
    return page(request, "emergency.html", session=session, call=call, reasons=EMERGENCY_REASONS)


async def start_emergency(request: Request) -> Response:
    """Emergency access (*bris de glace*): declared with its reason, written down, then shown as long as it lasts."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    who = ready(request, session, call)
    desk = desk_of(request)
    seconds = _emergency_seconds(desk)
    barred = await _barred(call)
    if barred is None or not barred.may_hurry or first(fields, "urgence") != "oui":
        raise Refused("Cochez la case qui atteste l'urgence, puis validez", code="form")
    reason = emergency_reason(first(fields, "motif"), first(fields, "precision"))
    emergency = Emergency(reason, desk.clock.monotonic() + seconds)
    await begun(desk.journal, who, call.call, emergency)
    await _search_anew(call)
    call.emergency = emergency
    call.timer = asyncio.create_task(_ends_by_itself(desk, who, call, seconds))
    return see_other(f"/appel/{call.id}")


async def stop_emergency(request: Request) -> Response:
    """The professional ends the emergency access: nothing found under it stays."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    if call.emergency is not None:
        who = _acting(request, session, call)
        if who is not None:
            await end_emergency(desk_of(request), who, call)
    return see_other(f"/appel/{call.id}")


async def emergency_over(request: Request, session: Session, call: OpenCall) -> None:
    """End an emergency access whose time is up, wherever its timer stands."""
    desk = desk_of(request)
    if call.emergency is not None and desk.clock.monotonic() >= call.emergency.until:
        who = _acting(request, session, call)
        if who is not None:
            await end_emergency(desk, who, call)


async def end_emergency(desk: Desk, who: Consultant, call: OpenCall) -> None:
    """Write the end down, and drop all that was found under it."""
    await ended(desk.journal, who, call.call)
    await call.forget()
    call.bell.ring()


async def give_up_authorisation(request: Request) -> Response:
    """The call says that the patient refuses: the professional takes their own authorisation back (decision 18)."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    desk = desk_of(request)
    professional = session.professional
    practice = practice_of(session, call)
    if professional is None or professional.ended or practice is None:
        raise LoginEnded
    if not desk.listing.withdraw_on_refusal or call.call.consent is not Consent.NO:
        raise Refused("Le retrait de l'autorisation n'est pas proposé pour cet appel", code="form")
    who = consultant(
        professional, practice, desk.structures, authn_context=desk.authn_context, address=address_of(request)
    )
    await withdraw(desk.dmp, desk.journal, who, call.call)
    return page(request, "withdrawn.html", session=session, call=call)


async def decide(request: Request) -> Response:
    """The professional goes on although other traits than the INS differ; written down before anything is opened."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    who = ready(request, session, call)
    if first(fields, "decision") != "oui":
        raise Refused("Cochez la case qui atteste votre décision, puis validez", code="form")
    key = request.path_params["document"]
    back = way_back(fields, call)
    desk = desk_of(request)
    document = call.document(key)
    local = call.surroundings.local_exam(key) if call.surroundings is not None else None
    if document is None and local is None:
        raise Refused("Ce document n'est plus dans la liste", code="form")
    opened = call.exams.get(key)
    of_images = first(fields, "objet") == "images"
    if of_images and (opened is None or opened.identity is None):
        raise Refused("Cet examen n'est plus ouvert", code="form")
    await desk.journal.write(None, who.event(Kind.IDENTITY_DECIDED, call.call.ins, (_decided_on(document, local),)))
    if of_images and opened is not None and opened.identity is not None:
        opened.identity.decided = True
        opened.images.resume(IMAGE_TRAITS)
    else:
        call.decided.add(key)
    return see_other(back)


def _decided_on(document: Document | None, local: LocalExam | None) -> Object:
    if document is None:
        return Object(Thing.STUDY, local.study_uid if local is not None else "")
    return Object(Thing.KOS if document.entry.is_kos else Thing.DOCUMENT, document.entry.unique_id)


async def image_differences(request: Request) -> Response:
    """What differs between the call and the images of an exam that is open, and what may be done about it."""
    session = session_of(request)
    call = call_of(request, session)
    ready(request, session, call)
    key = request.path_params["document"]
    opened = call.exams.get(key)
    failed = [s.failure for s in opened.images.series.values()] if opened is not None else []
    error = next((one for one in failed if isinstance(one, TraitsDiffer)), None)
    if error is None:
        return see_other(f"/appel/{call.id}/images/{key}")
    return page(
        request,
        "identity.html",
        session=session,
        call=call,
        error=error,
        back=f"/appel/{call.id}/images/{key}",
        of_images=True,
    )


def differing(request: Request, error: TraitsDiffer, session: Session, call: OpenCall) -> Response:
    """The page that shows in red what differs, with both values, and what may be done about it."""
    query = f"?{request.url.query}" if request.url.query else ""
    back = f"{request.url.path}{query}" if request.method == "GET" else f"/appel/{call.id}"
    return page(
        request, "identity.html", session=session, call=call, status=409, error=error, back=back, of_images=False
    )


async def choose_traits(request: Request) -> Response:
    """Which optional traits stay on the screen: the user's own setting (INS/va1.36)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    professional = session.professional
    if professional is None:
        raise LoginEnded
    chosen = frozenset(fields.get("trait", [])) & frozenset(OPTIONAL_TRAITS)
    professional.shown_traits = chosen
    await desk_of(request).users.keep_traits(professional.info.national_id, chosen)
    return see_other(f"/appel/{call.id}")


async def _barred(call: OpenCall) -> Barred | None:
    finding = await call.consultation.wait(_PATIENCE) if call.consultation is not None else None
    return finding if isinstance(finding, Barred) else None


async def _search_anew(call: OpenCall) -> None:
    consultation, call.consultation = call.consultation, None
    if consultation is not None:
        await consultation.close()


def _acting(request: Request, session: Session, call: OpenCall) -> Consultant | None:
    """Who acts, whether or not they may still consult; None once nobody does."""
    desk = desk_of(request)
    practice = practice_of(session, call)
    if session.professional is None or practice is None:
        return None
    with suppress(Rejected):
        return consultant(
            session.professional,
            practice,
            desk.structures,
            authn_context=desk.authn_context,
            address=address_of(request),
        )
    return None


def _emergency_seconds(desk: Desk) -> float:
    if desk.listing.emergency_minutes <= 0:
        raise Refused("L'accès en urgence n'est pas proposé par cette DRIMbox", code="form")
    return desk.listing.emergency_minutes * 60


async def _ends_by_itself(desk: Desk, who: Consultant, call: OpenCall, seconds: float) -> None:
    await asyncio.sleep(seconds)
    # What is being done here would be cancelled by what it does.
    call.timer = None
    with suppress(DrimboxError):
        await end_emergency(desk, who, call)
