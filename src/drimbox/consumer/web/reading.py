"""Reports, read beside the images or alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.consultant import Consultant
from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.report_document import ReportDocument
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.traits_found import traits_found
from drimbox.consumer.web.desk import call_of, desk_of, form_of, here, page, ready, see_other, session_of, way_back
from drimbox.consumer.web.documents import found_document, search
from drimbox.consumer.web.policies import BESIDE_POLICY, PDF_POLICY


async def report(request: Request) -> Response:
    """A report with its header in words; its PDF in a frame, or its narrative as text."""
    return await _shown(request, "report.html")


async def beside(request: Request) -> Response:
    """The same without the page around it, for the frame beside the images (DB.CO.59)."""
    answer = await _shown(request, "report_beside.html")
    answer.headers["Content-Security-Policy"] = BESIDE_POLICY
    return answer


async def pdf(request: Request) -> Response:
    """The PDF of a report that was just opened."""
    read = _read_before(request)
    if not read.pdf:
        raise Gone
    return Response(
        read.pdf,
        media_type="application/pdf",
        headers={
            "Content-Disposition": 'inline; filename="compte-rendu.pdf"',
            "Content-Security-Policy": PDF_POLICY,
        },
    )


async def picture(request: Request) -> Response:
    """A picture that a report which was just opened holds."""
    read = _read_before(request)
    number = request.path_params["number"]
    if number >= len(read.body.pictures):
        raise Gone
    found = read.body.pictures[number]
    return Response(found.content, media_type=found.media_type, headers={"Content-Security-Policy": PDF_POLICY})


async def acknowledge(request: Request) -> Response:
    """The professional was told that the patient, or the representatives, cannot see the document, and goes on."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    ready(request, session, call)
    key = request.path_params["document"]
    await found_document(call, key)
    call.warned.add(key)
    return see_other(way_back(fields, call))


async def _shown(request: Request, template: str) -> Response:
    session = session_of(request)
    call = call_of(request, session)
    who = ready(request, session, call)
    search(request, session, call)
    key = request.path_params["document"]
    exam, document = await found_document(call, key)
    if document.warning and key not in call.warned:
        return page(request, "warning.html", session=session, call=call, document=document, target=here(request))
    read = await _read(request, session, call, who, document)
    return page(
        request,
        template,
        session=session,
        call=call,
        exam=exam,
        document=document,
        report=read,
        others=_others(exam, document),
    )


async def _read(
    request: Request, session: Session, call: OpenCall, who: Consultant, document: Document
) -> ReportDocument:
    """The report, retrieved unless it was a moment ago; the traits that only it tells are kept for the screen."""
    read = call.reports.get(document.key)
    if read is None:
        decided = document.key in call.decided
        read = await desk_of(request).opener.report(who, call.call, document, decided=decided)
        if session.calls.get(call.id) is not call:
            raise Gone
    traits_found(call, read.patient.traits)
    _keep(call, document.key, read)
    return read


def _others(exam: Exam, document: Document) -> list[Document]:
    return [report for report in exam.reports if report.key != document.key]


def _read_before(request: Request) -> ReportDocument:
    session = session_of(request, active=False)
    call = call_of(request, session)
    ready(request, session, call)
    read = call.reports.get(request.path_params["document"])
    if read is None:
        raise Gone
    return read


def _keep(call: OpenCall, key: str, report: ReportDocument) -> None:
    """A few reports only: they are large, and fetching one again is cheap."""
    call.reports.pop(key, None)
    call.reports[key] = report
    while len(call.reports) > 5:
        del call.reports[next(iter(call.reports))]
