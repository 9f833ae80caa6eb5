"""The viewer's page: the patient above, OHIF below, and what OHIF needs to start."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from drimbox.consumer.opening import OpenExam
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.viewing import State
from drimbox.consumer.web.desk import call_of, desk_of, form_of, page, ready, see_other, session_of
from drimbox.consumer.web.documents import found_document, search
from drimbox.consumer.web.policies import OHIF_POLICY
from drimbox.foundation.errors import Busy


async def images(request: Request) -> Response:
    """Open the images of an exam: once for the whole session, however many tabs ask."""
    session = session_of(request)
    call = call_of(request, session)
    who = ready(request, session, call)
    desk = desk_of(request)
    search(request, session, call)
    key = request.path_params["document"]
    exam, document = await found_document(call, key)
    if document.warning and key not in call.warned:
        return page(request, "warning.html", session=session, call=call, document=document, target=request.url.path)
    async with call.opening:
        opened = call.exams.get(key)
        if opened is None:
            if len(call.exams) >= desk.limits.exams_per_call:
                raise Busy("Trop d'examens ouverts pour ce patient", code="exams-open")
            practice = call.practice
            opened = await desk.opener.exam(who, call.call, exam, call.folder)
            if session.calls.get(call.id) is not call or call.practice is not practice:
                # Closed, or opened under another practice, while the DMP was answering.
                await opened.close()
                raise Gone
            call.exams[key] = opened
    opened.images.start()
    await desk.opener.viewed(who, call.call, opened)
    return page(request, "viewer.html", session=session, call=call, exam=exam, opened=opened)


async def retry(request: Request) -> Response:
    """Ask the sources once more for the series that failed."""
    session = session_of(request)
    call, opened = opened_of(request, session)
    await form_of(request, session)
    ready(request, session, call)
    opened.images.retry()
    key = next(k for k, exam in call.exams.items() if exam is opened)
    return see_other(f"/appel/{call.id}/images/{key}")


async def progress(request: Request) -> Response:
    """How far each series has come, for the page and for OHIF (DB.VI-CS.18)."""
    session = session_of(request, active=False)
    _, opened = opened_of(request, session)
    numbers = {s.series_uid: s.number for s in opened.images.manifest.series}
    series = [
        {
            "uid": p.series_uid,
            "number": numbers[p.series_uid],
            "state": p.state.value,
            "received": p.received,
            "expected": p.expected,
            "bytes": p.bytes,
            "seconds": round(p.seconds, 1),
            "reason": p.reason,
            "again": opened.images.may_retry(p.series_uid),
        }
        for p in opened.images.progress
    ]
    over = all(p.state in (State.DONE, State.FAILED) for p in opened.images.progress)
    return JSONResponse({"over": over, "series": series})


async def shell(request: Request) -> Response:
    """The page in which OHIF runs; it reads from the address which exam it shows."""
    session = session_of(request)
    opened_of(request, session)
    viewer = desk_of(request).viewer
    text = (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Images</title><script src="/statique/ohif.js"></script><script defer src="{viewer.script}"></script>'
        f'<link rel="stylesheet" href="{viewer.style}"></head><body><noscript>La visionneuse a besoin de JavaScript.'
        '</noscript><div id="react-portal"></div><div id="root"></div></body></html>'
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": OHIF_POLICY})


def opened_of(request: Request, session: Session) -> tuple[OpenCall, OpenExam]:
    """The exam that a viewer's address names, of this browser. Raises ``Gone`` for any other."""
    view = request.path_params["view"]
    for call in session.calls.values():
        found = call.exam(view)
        if found is not None:
            call.used = desk_of(request).clock.monotonic()
            return call, found
    raise Gone
