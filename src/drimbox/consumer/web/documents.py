"""The list of exams of a patient: the search, its criteria, the authorisation."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.call import Filters
from drimbox.consumer.consultation import Barred, Consultation, Failed, Finding, Found, consult, grant
from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.web.desk import call_of, desk_of, first, form_of, page, ready, see_other, session_of
from drimbox.foundation.errors import Refused, Rejected
from drimbox.identity.traits import parse_date

# An answer that is nearly there is worth waiting for: the page then comes whole, without a second request.
_PATIENCE = 0.3
_LONG_PATIENCE = 25.0
_CODE = re.compile(r"[A-Za-z0-9_]{1,16}")


async def listing(request: Request, session: Session, call: OpenCall) -> Response:
    """The list, or the place where it will appear while the DMP is being asked."""
    try:
        search(request, session, call)
    except Rejected as error:
        if error.code != "structure-unknown":
            raise
        return page(request, "structure.html", session=session, call=call, reason=error.reason)
    finding = await _finding(call, _PATIENCE)
    go = _direct(call, finding)
    if go:
        return see_other(go)
    return page(request, "exams.html", session=session, call=call, **_shown(finding))


async def fragment(request: Request) -> Response:
    """The list alone, once the DMP has answered; 202 when it takes even longer."""
    session = session_of(request, active=False)
    call = call_of(request, session)
    ready(request, session, call)
    finding = await _finding(call, _LONG_PATIENCE)
    if finding is None:
        return Response(status_code=202)
    go = _direct(call, finding)
    if go:
        return Response(status_code=204, headers={"X-Drimbox-Go": go})
    return page(request, "list.html", session=session, call=call, **_shown(finding))


async def refine(request: Request) -> Response:
    """New criteria: a new question to the DMP (DB.CO.55)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    call.filters = Filters() if first(fields, "action") == "tout" else _filters(fields, call.filters)
    await _forget_search(call)
    return see_other(f"/appel/{call.id}")


async def again(request: Request) -> Response:
    """The same question once more."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    await _forget_search(call)
    return see_other(f"/appel/{call.id}")


async def authorise(request: Request) -> Response:
    """The explicit act: the patient agrees, the authorisation is recorded in the DMP (decision 22)."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    who = ready(request, session, call)
    finding = await _finding(call, _PATIENCE)
    if not isinstance(finding, Barred) or not finding.may_grant or first(fields, "accord") != "oui":
        raise Refused("Cochez la case qui atteste l'accord du patient, puis validez", code="form")
    desk = desk_of(request)
    await grant(desk.dmp, desk.journal, who, call.call)
    await _forget_search(call)
    return see_other(f"/appel/{call.id}")


def search(request: Request, session: Session, call: OpenCall) -> None:
    """Ask the DMP, unless that is already being done or has been done with these criteria."""
    who = ready(request, session, call)
    if call.consultation is not None:
        return
    desk = desk_of(request)
    filters = call.filters
    call.consultation = Consultation(
        filters,
        lambda: consult(
            desk.dmp, desk.journal, who, call.call, filters, report_types=desk.report_types, now=desk.clock.now
        ),
    )


async def found_document(call: OpenCall, key: str) -> tuple[Exam, Document]:
    """The document that an address names, among those found for this patient. Raises ``Gone``."""
    finding = await _finding(call, _LONG_PATIENCE)
    for exam in finding.exams if isinstance(finding, Found) else ():
        for document in exam.documents:
            if document.key == key:
                return exam, document
    raise Gone("Ce document n'est plus dans la liste : revenez à la liste et actualisez-la")


async def _finding(call: OpenCall, seconds: float) -> Finding | None:
    return await call.consultation.wait(seconds) if call.consultation is not None else None


async def _forget_search(call: OpenCall) -> None:
    consultation, call.consultation = call.consultation, None
    if consultation is not None:
        await consultation.close()


def _direct(call: OpenCall, finding: Finding | None) -> str:
    """Where to go at once when the call itself named a study that was found (``StudyInstanceUID``); once only."""
    if call.directed or not call.call.filters.study_uid or not isinstance(finding, Found):
        return ""
    images = [exam.images for exam in finding.exams if exam.images is not None]
    call.directed = True
    return f"/appel/{call.id}/images/{images[0].key}" if len(images) == 1 else ""


def _shown(finding: Finding | None) -> dict[str, Any]:
    return {
        "found": finding if isinstance(finding, Found) else None,
        "barred": finding if isinstance(finding, Barred) else None,
        "failed": finding if isinstance(finding, Failed) else None,
        "waiting": finding is None,
    }


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
    )


def _day(fields: dict[str, list[str]], name: str) -> dt.date | None:
    text = first(fields, name)
    if not text:
        return None
    try:
        return parse_date(text)
    except Refused:
        raise Refused("Date mal formée dans les critères", code="form") from None
