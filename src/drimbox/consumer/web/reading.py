"""Reports, read beside the images or alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.report_document import ReportDocument
from drimbox.consumer.sessions import Gone, OpenCall
from drimbox.consumer.web.desk import call_of, desk_of, form_of, page, ready, see_other, session_of
from drimbox.consumer.web.documents import found_document, search
from drimbox.consumer.web.policies import PDF_POLICY


async def report(request: Request) -> Response:
    """A report with its header in words; its PDF in a frame, or its narrative as text."""
    session = session_of(request)
    call = call_of(request, session)
    who = ready(request, session, call)
    search(request, session, call)
    key = request.path_params["document"]
    exam, document = await found_document(call, key)
    if document.warning and key not in call.warned:
        return page(request, "warning.html", session=session, call=call, document=document, target=request.url.path)
    read = await desk_of(request).opener.report(who, call.call, document)
    call.details = read.patient.traits
    _keep(call, key, read)
    return page(request, "report.html", session=session, call=call, exam=exam, document=document, report=read)


async def pdf(request: Request) -> Response:
    """The PDF of a report that was just opened."""
    session = session_of(request, active=False)
    call = call_of(request, session)
    ready(request, session, call)
    read = call.reports.get(request.path_params["document"])
    if read is None or not read.pdf:
        raise Gone
    return Response(
        read.pdf,
        media_type="application/pdf",
        headers={
            "Content-Disposition": 'inline; filename="compte-rendu.pdf"',
            "Content-Security-Policy": PDF_POLICY,
        },
    )


async def acknowledge(request: Request) -> Response:
    """The professional was told that the patient, or the representatives, cannot see the document, and goes on."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    ready(request, session, call)
    key = request.path_params["document"]
    _, document = await found_document(call, key)
    call.warned.add(key)
    kind = "images" if document.entry.is_kos else "compte-rendu"
    return see_other(f"/appel/{call.id}/{kind}/{key}")


def _keep(call: OpenCall, key: str, report: ReportDocument) -> None:
    """A few reports only: they are large, and fetching one again is cheap."""
    call.reports.pop(key, None)
    call.reports[key] = report
    while len(call.reports) > 5:
        del call.reports[next(iter(call.reports))]
