"""Likely priors on their way as soon as the list is there (``consumer.prefetch``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.consultation import Found
from drimbox.consumer.exams import Exam
from drimbox.consumer.sessions import OpenCall, Session
from drimbox.consumer.web.desk import desk_of, ready
from drimbox.consumer.web.documents import open_exam

Handler = Callable[[Request], Awaitable[Response]]


def after(handler: Handler) -> Handler:
    """The same page; once it shows the list, likely priors are fetched behind it, where the settings say so."""

    async def answered(request: Request) -> Response:
        response = await handler(request)
        _begin(request)
        return response

    return answered


def _begin(request: Request) -> None:
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(desk.cookie), active=False)
    call = session.calls.get(request.path_params["call"]) if session is not None else None
    if desk.prefetch is None or session is None or call is None or call.consultation is None:
        return
    finding = call.consultation.finding
    if isinstance(finding, Found) and "kos" not in finding.waiting:
        desk.prefetch.begin(
            call.id, finding.exams, call.call.filters, lambda exam: _fetched(request, session, call, exam)
        )


async def _fetched(request: Request, session: Session, call: OpenCall, exam: Exam) -> None:
    """Open it as its user would, and wait until its images are here. Raises as ``Opener.exam`` and the sources."""
    assert exam.images is not None
    key = exam.images.key
    async with call.opening:
        if key in call.exams or len(call.exams) >= desk_of(request).limits.exams_per_call:
            return
        who, practice = ready(request, session, call), call.practice
        opened = await open_exam(request, who, call, exam)
        if session.calls.get(call.id) is not call or call.practice is not practice:
            await opened.close()
            return
        call.exams[key] = opened
    opened.images.start()
    for series in opened.images.series.values():
        await series.whole()
