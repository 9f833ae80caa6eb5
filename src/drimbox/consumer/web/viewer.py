"""The viewer's page: the patient above, OHIF below, and what OHIF needs to start."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.image_identity import CODE as IMAGE_TRAITS
from drimbox.consumer.key_images import key_images
from drimbox.consumer.local import LocalExam
from drimbox.consumer.opening import OpenExam
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.views import MAX_EXAMS, View, view_of
from drimbox.consumer.web.desk import call_of, desk_of, form_of, here, page, ready, see_other, session_of
from drimbox.consumer.web.documents import found_document, open_exam, open_local, search, surroundings_of
from drimbox.consumer.web.policies import OHIF_POLICY
from drimbox.foundation.errors import Busy, Refused
from drimbox.foundation.uids import new_secret

_SCRIPTS = ("ohif-words.js", "ohif-french.js", "ohif-arrival.js", "ohif-tools.js", "ohif.js")
_PETS = frozenset({"PT"})


async def images(request: Request) -> Response:
    """Open the images of an exam: once for the whole session, however many tabs ask."""
    session = session_of(request)
    call = call_of(request, session)
    surroundings_of(request, call).look_around(ready(request, session, call))
    search(request, session, call)
    key = request.path_params["document"]
    exam, warning = await _named(call, key)
    if warning is not None:
        return page(request, "warning.html", session=session, call=call, document=warning, target=here(request))
    opened = await _opened(request, session, call, key, exam)
    wanted = _wanted(request, opened)
    opened.images.start(first=wanted)
    return await _shown(request, session, call, view_of(opened), wanted)


async def compare(request: Request) -> Response:
    """Several exams of the list, or of the local PACS, in one viewer, side by side; each is opened as if alone."""
    session = session_of(request)
    call = call_of(request, session)
    ready(request, session, call)
    search(request, session, call)
    keys = tuple(dict.fromkeys(request.query_params.getlist("examen")))
    if not 2 <= len(keys) <= MAX_EXAMS:
        raise Refused(f"Choisissez de deux à {MAX_EXAMS} examens à comparer", code="compare")
    found = [await _named(call, key) for key in keys]
    for _, warning in found:
        if warning is not None:
            return page(request, "warning.html", session=session, call=call, document=warning, target=here(request))
    exams = tuple(
        [await _opened(request, session, call, key, exam) for key, (exam, _) in zip(keys, found, strict=True)]
    )
    if len({exam.study_uid for exam in exams}) < len(exams):
        # One study may be here and elsewhere; in one viewer it has one place.
        raise Refused("C'est deux fois le même examen : il n'y a rien à comparer", code="compare")
    view = next((v for v in call.views.values() if v.exams == exams), None)
    if view is None:
        view = View(new_secret(), exams)
        call.views[view.id] = view
        while len(call.views) > desk_of(request).limits.exams_per_call:
            del call.views[next(iter(call.views))]
    return await _shown(request, session, call, view)


async def retry(request: Request) -> Response:
    """Ask the sources once more for the series that failed."""
    session = session_of(request)
    call, view = opened_of(request, session)
    await form_of(request, session)
    ready(request, session, call)
    for exam in view.exams:
        exam.images.retry()
    keys = [key for exam in view.exams for key, one in call.exams.items() if one is exam]
    if len(keys) == 1:
        return see_other(f"/appel/{call.id}/images/{keys[0]}")
    return see_other(f"/appel/{call.id}/comparaison?{urlencode([('examen', key) for key in keys])}")


async def progress(request: Request) -> Response:
    """How far each series has come, for the page and for OHIF (DB.VI-CS.18)."""
    session = session_of(request, active=False)
    call, view = opened_of(request, session)
    keys = {id(exam): key for key, exam in call.exams.items()}
    series = []
    for exam, images in view.series:
        told = images.progress
        series.append(
            {
                "study": exam.study_uid,
                "uid": told.series_uid,
                "number": images.series.number,
                "state": told.state.value,
                "received": told.received,
                "expected": told.expected,
                "bytes": told.bytes,
                "seconds": round(told.seconds, 1),
                "reason": told.reason,
                "withdrawn": told.withdrawn,
                "again": exam.images.may_retry(told.series_uid),
                "decide": f"/appel/{call.id}/identite/{keys.get(id(exam), '')}" if told.code == IMAGE_TRAITS else "",
            }
        )
    return JSONResponse({"over": all(images.over for _, images in view.series), "series": series})


async def shell(request: Request) -> Response:
    """The page in which OHIF runs; it reads from the address which exams it shows."""
    session = session_of(request)
    opened_of(request, session)
    return _ohif(request)


async def waiting(request: Request) -> Response:
    """The same without any exam, behind the list of who is logged in: it is told later what to show."""
    professional = session_of(request, active=False).professional
    if professional is None or professional.ended:
        raise Gone
    return _ohif(request)


def _ohif(request: Request) -> Response:
    viewer = desk_of(request).viewer
    scripts = "".join(f'<script src="/statique/{name}"></script>' for name in _SCRIPTS)
    text = (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Images</title>{scripts}<script defer src="{viewer.script}"></script>'
        f'<link rel="stylesheet" href="{viewer.style}"><link rel="stylesheet" href="/statique/ohif.css"></head><body>'
        "<noscript>La visionneuse a besoin de JavaScript.</noscript>"
        '<div id="react-portal"></div><div id="root"></div></body></html>'
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": OHIF_POLICY})


async def first_image(request: Request) -> Response:
    """The image that came first, as a picture: on screen while OHIF starts. 204: none, or none that can be drawn."""
    session = session_of(request, active=False)
    _, view = opened_of(request, session)
    wanted = request.query_params.get("serie", "")
    for _, images in sorted(view.series, key=lambda each: each[1].series.series_uid != wanted):
        image = await images.first()
        if image is not None:
            picture = await desk_of(request).pictures.of(image)
            if picture is not None:
                return Response(picture.body, media_type=picture.media_type)
            break
    return Response(status_code=204)


def opened_of(request: Request, session: Session) -> tuple[OpenCall, View]:
    """What a viewer's address names, of this browser. Raises ``Gone`` for any other."""
    address = request.path_params["view"]
    for call in session.calls.values():
        found = call.view(address)
        if found is not None:
            call.used = desk_of(request).clock.monotonic()
            return call, found
    raise Gone


async def _named(call: OpenCall, key: str) -> tuple[Exam | LocalExam, Document | None]:
    """What an address names, and the document that must be warned of before it is opened. Raises ``Gone``."""
    local = call.surroundings.local_exam(key) if call.surroundings is not None else None
    if local is not None:
        return local, None
    exam, document = await found_document(call, key)
    return exam, document if document.warning and key not in call.warned else None


async def _opened(request: Request, session: Session, call: OpenCall, key: str, exam: Exam | LocalExam) -> OpenExam:
    """The exam, opened now if it is not yet, its images on their way. Raises ``Busy``, ``Gone``, and as ``Opener``."""
    desk = desk_of(request)
    async with call.opening:
        opened = call.exams.get(key)
        if opened is None:
            if len(call.exams) >= desk.limits.exams_per_call:
                raise Busy("Trop d'examens ouverts pour ce patient", code="exams-open")
            practice = call.practice
            who = ready(request, session, call)
            if isinstance(exam, LocalExam):
                opened = await open_local(request, who, call, exam)
            else:
                opened = await open_exam(request, who, call, exam)
            if session.calls.get(call.id) is not call or call.practice is not practice:
                # Closed, or opened under another practice, while the DMP was answering.
                await opened.close()
                raise Gone
            call.exams[key] = opened
    return opened


def _wanted(request: Request, opened: OpenExam) -> str:
    """The series that the address names by its place in the KOS; empty when it names none (DB.CO.57)."""
    place = request.query_params.get("serie", "")
    series = opened.images.manifest.series
    return series[int(place)].series_uid if place.isdecimal() and len(place) < 6 and int(place) < len(series) else ""


async def _shown(request: Request, session: Session, call: OpenCall, view: View, wanted: str = "") -> Response:
    # Before anything else is done: the images come while the page is made.
    view.start()
    opener = desk_of(request).opener
    who = ready(request, session, call)
    await asyncio.gather(*(opener.viewed(who, call.call, exam) for exam in view.exams))
    modalities = {images.series.modality for _, images in view.series}
    return page(
        request,
        "viewer.html",
        session=session,
        call=call,
        view=view,
        others=_others(call, view),
        neighbours=_neighbours(call, view),
        fusion=bool(modalities & _PETS) and "CT" in modalities,
        wanted=wanted,
        keys=[key for exam in view.exams for key in key_images(exam.images.manifest)],
        opened_query=urlencode(
            [("StudyInstanceUIDs", uid) for uid in view.study_uids] + ([("serie", wanted)] if wanted else [])
        ),
    )


def _others(call: OpenCall, view: View) -> list[Exam]:
    """The exams of the list that may be put beside these, newest first."""
    found = call.consultation.shown if call.consultation is not None else None
    if found is None or len(view.exams) >= MAX_EXAMS:
        return []
    shown = {exam.exam.images.key for exam in view.exams if exam.exam.images is not None}
    uids = set(view.study_uids)
    return [
        exam
        for exam in found.exams
        if exam.images is not None and exam.images.key not in shown and not uids & set(exam.images.entry.study_uids())
    ]


def _neighbours(call: OpenCall, view: View) -> list[LocalExam]:
    """The studies of the local PACS that may be put beside these, newest first."""
    if call.surroundings is None or len(view.exams) >= MAX_EXAMS:
        return []
    shown = set(view.study_uids)
    return [exam for exam in call.surroundings.local if exam.study_uid not in shown]
