"""The list of exams of a patient: the search, its criteria, and what is found out around its rows."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.call import Filters
from drimbox.consumer.consultant import Consultant
from drimbox.consumer.consultation import Consultation, Failed, Finding, Found, Question, consult
from drimbox.consumer.exams import Document, Exam, Order, counted_by_type, in_order
from drimbox.consumer.kos import KosContent
from drimbox.consumer.local import LocalExam
from drimbox.consumer.opening import OpenExam
from drimbox.consumer.permission import Barred
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.surroundings import Means, Surroundings
from drimbox.consumer.traits_found import traits_found, used_names
from drimbox.consumer.web.access import emergency_over
from drimbox.consumer.web.desk import Desk, call_of, desk_of, first, form_of, here, page, ready, see_other, session_of
from drimbox.foundation.errors import Refused, Rejected
from drimbox.identity.traits import parse_date

# An answer that is nearly there is worth waiting for: the page then comes whole, without a second request.
_PATIENCE = 0.3
_LONG_PATIENCE = 25.0
_CODE = re.compile(r"[A-Za-z0-9_]{1,16}")
_MOST_ROWS = 5000


async def listing(request: Request, session: Session, call: OpenCall) -> Response:
    """The list, or the place where it will appear while the DMP is being asked."""
    await emergency_over(request, session, call)
    try:
        who = ready(request, session, call)
        await remembered(desk_of(request), who, call)
        search(request, session, call)
    except Rejected as error:
        if error.code != "structure-unknown":
            raise
        return page(request, "structure.html", session=session, call=call, reason=error.reason)
    around = surroundings_of(request, call)
    around.check_login(who)
    around.look_around(who, lambda: used_names(call))
    order = request.query_params.get("tri", call.order)
    call.order = Order(order) if order in set(Order) else Order.DATE
    finding = await _finding(call, _PATIENCE)
    if session.calls.get(call.id) is not call:
        raise Gone("Cette liste n'est plus celle de ce navigateur : revenez à la liste des examens")
    consultation = search(request, session, call)
    go = _direct(call, finding)
    if go:
        return see_other(go)
    return page(request, "exams.html", session=session, call=call, **_shown(request, call, who, consultation))


async def fragment(request: Request) -> Response:
    """The list alone, as soon as there is news of it: ``vu`` is what the page has. 204 with nothing new."""
    session = session_of(request, active=False)
    call = call_of(request, session)
    who = ready(request, session, call)
    search(request, session, call)
    seen = request.query_params.get("vu", "")
    if seen.isdecimal() and len(seen) < 10:
        if await call.bell.beyond(int(seen), _LONG_PATIENCE) == int(seen):
            return Response(status_code=204, headers={"X-Drimbox-Version": seen})
    else:
        await _finding(call, _LONG_PATIENCE)
    if session.calls.get(call.id) is not call:
        raise Gone("La liste n'est plus à jour : rechargez la page")
    # Another tab may have asked with other criteria meanwhile: its search is the one that is shown.
    consultation = search(request, session, call)
    go = _direct(call, consultation.finding if not consultation.searching else None)
    if go:
        return Response(status_code=204, headers={"X-Drimbox-Go": go})
    shown = _shown(request, call, who, consultation)
    answer = page(request, "list.html", session=session, call=call, **shown)
    answer.headers["X-Drimbox-Version"] = str(shown["version"])
    answer.headers["X-Drimbox-Busy"] = "1" if shown["busy"] else "0"
    return answer


async def series(request: Request) -> Response:
    """What one exam holds: its series, each to be opened by itself (DB.CO.57)."""
    session = session_of(request)
    call = call_of(request, session)
    who = ready(request, session, call)
    search(request, session, call)
    key = request.path_params["document"]
    exam, document = await found_document(call, key)
    if document.warning and key not in call.warned:
        return page(request, "warning.html", session=session, call=call, document=document, target=here(request))
    content = await surroundings_of(request, call).content(who, document)
    traits_found(call, content.manifest)
    return page(request, "series.html", session=session, call=call, exam=exam, document=document, content=content)


async def refine(request: Request) -> Response:
    """New criteria: a new question to the DMP (DB.CO.55); the rows stay until it is answered."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    call.filters = Filters() if first(fields, "action") == "tout" else _filters(fields, call.filters)
    await ask_again(call)
    return see_other(f"/appel/{call.id}")


async def again(request: Request) -> Response:
    """The same question once more, or another try of what did not answer (``partie``)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    part = first(fields, "partie")
    if not part or call.surroundings is None or not call.surroundings.retry(part):
        await ask_again(call)
    return see_other(f"/appel/{call.id}")


def search(request: Request, session: Session, call: OpenCall) -> Consultation:
    """Ask the DMP, unless that is already being done or has been done with these criteria."""
    who = ready(request, session, call)
    if call.consultation is not None:
        return call.consultation
    desk = desk_of(request)
    question = Question(
        who, call.call, call.filters, desk.report_types, call.last_visit, news_days=desk.listing.news_days
    )
    former, call.former = call.former, None
    call.consultation = Consultation(
        call.filters,
        lambda tell: consult(desk.dmp, desk.journal, desk.users, question, tell, now=desk.clock.now),
        call.bell,
        former,
    )
    return call.consultation


async def ask_again(call: OpenCall) -> None:
    """Forget the search, not what it found: that is shown until there is something else to show."""
    consultation, call.consultation = call.consultation, None
    if consultation is not None:
        call.former = consultation.shown
        await consultation.close()


async def remembered(desk: Desk, who: Consultant, call: OpenCall) -> None:
    """What is known of the user from earlier: the traits to show, the last visit to this patient."""
    if who.professional.shown_traits is None:
        who.professional.shown_traits = await desk.users.traits(who.person)
    if not call.last_visit_read:
        call.last_visit = await desk.users.last_visit(who.person, call.call.ins)
        call.last_visit_read = True


async def found_document(call: OpenCall, key: str) -> tuple[Exam, Document]:
    """The document that an address names, among those found for this patient. Raises ``Gone``."""
    found = _among(call.consultation.shown if call.consultation else None, key)
    if found is None:
        await _finding(call, _LONG_PATIENCE)
        found = _among(call.consultation.shown if call.consultation else None, key)
    if found is None:
        raise Gone("Ce document n'est plus dans la liste : revenez à la liste et actualisez-la")
    return found


async def open_exam(request: Request, who: Consultant, call: OpenCall, exam: Exam) -> OpenExam:
    """Open an exam of the list: its KOS read once, its traits compared, decisions kept. Raises as ``Opener.exam``."""
    content: KosContent | None = None
    if exam.images is not None:
        content = await surroundings_of(request, call).content(who, exam.images)
        traits_found(call, content.manifest)
    decided = exam.images is not None and exam.images.key in call.decided
    return await desk_of(request).opener.exam(
        who, call.call, exam, call.folder, content, decided=decided, used_names=lambda: used_names(call)
    )


async def open_local(request: Request, who: Consultant, call: OpenCall, exam: LocalExam) -> OpenExam:
    """Open a study of the local PACS. Raises as ``Opener.local``."""
    decided = exam.key in call.decided
    return await desk_of(request).opener.local(
        call.call, exam, call.folder, decided=decided, used_names=lambda: used_names(call)
    )


def surroundings_of(request: Request, call: OpenCall) -> Surroundings:
    """What is known around the rows of this call."""
    if call.surroundings is None:
        desk = desk_of(request)
        means = Means(desk.opener.kos, desk.opener.images, desk.listing.kos_ahead, desk.listing.probe_sources)
        call.surroundings = Surroundings(means, call.call, call.bell)
    return call.surroundings


async def _finding(call: OpenCall, seconds: float) -> Finding | None:
    return await call.consultation.wait(seconds) if call.consultation is not None else None


def _among(found: Found | None, key: str) -> tuple[Exam, Document] | None:
    for exam in found.exams if found is not None else ():
        for document in exam.documents:
            if document.key == key:
                return exam, document
    return None


def _direct(call: OpenCall, finding: Finding | None) -> str:
    """Where to go at once when the call itself named a study that was found (``StudyInstanceUID``); once only."""
    if call.directed or not call.call.filters.study_uid or not isinstance(finding, Found) or "kos" in finding.waiting:
        return ""
    images = [exam.images for exam in finding.exams if exam.images is not None]
    call.directed = True
    return f"/appel/{call.id}/images/{images[0].key}" if len(images) == 1 else ""


def _shown(request: Request, call: OpenCall, who: Consultant, consultation: Consultation) -> dict[str, Any]:
    """What the list's template shows. Rows that get on the screen begin to be looked into."""
    finding = consultation.finding
    found = consultation.shown
    surroundings = surroundings_of(request, call)
    rows: tuple[Exam, ...] = ()
    if found is not None:
        traits_found(call, found)
        rows = in_order(found.exams, call.order)[: _rows(request, desk_of(request).listing.rows)]
        surroundings.look(who, rows)
    # Read last: what is looked into from now on rings the bell again.
    version = call.bell.count
    return {
        "found": found,
        "rows": rows,
        "stale": found is not None and found is not finding,
        "barred": finding if isinstance(finding, Barred) else None,
        "failed": finding if isinstance(finding, Failed) else None,
        "waiting": consultation.searching,
        "busy": consultation.searching or surroundings.busy,
        "version": version,
        "around": surroundings,
        "troubles": (*(found.troubles if found is not None else ()), *surroundings.troubles),
        "news": counted_by_type(found.exams, found.fresh) if found is not None and found.fresh is not None else None,
        "pacs": who.structure.pacs,
        "order": call.order,
        "page_rows": desk_of(request).listing.rows,
        "hurry": desk_of(request).listing.emergency_minutes > 0,
    }


def _rows(request: Request, usual: int) -> int:
    asked = request.query_params.get("lignes", "")
    return min(max(int(asked), usual), _MOST_ROWS) if asked.isdecimal() and len(asked) < 6 else usual


def _filters(fields: dict[str, list[str]], former: Filters) -> Filters:
    modalities = tuple(dict.fromkeys(fields.get("modalite", [])))
    if any(not _CODE.fullmatch(code) for code in modalities):
        raise Refused("Modalité inconnue", code="form")
    regions = tuple(dict.fromkeys(r[:128] for r in fields.get("region", []) if r))
    start, end = _day(fields, "du"), _day(fields, "au")
    if start and end and start > end:
        raise Refused("La fin de la période précède son début", code="form")
    accession = first(fields, "numero")[:64]
    return Filters(
        study_uid=former.study_uid if first(fields, "etude") == "oui" else "",
        modalities=modalities[:32],
        regions=regions[:32],
        accession=accession,
        # The issuer is the caller's: it holds as long as the number is the one it was given with.
        accession_issuer=former.accession_issuer if accession == former.accession else "",
        first_day=start,
        last_day=end,
        since_last_visit=first(fields, "nouveaux") == "oui",
        replaced=first(fields, "remplaces") == "oui",
    )


def _day(fields: dict[str, list[str]], name: str) -> dt.date | None:
    text = first(fields, name)
    if not text:
        return None
    try:
        return parse_date(text)
    except Refused:
        raise Refused("Date mal formée dans les critères", code="form") from None
