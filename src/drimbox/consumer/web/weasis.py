"""Starting Weasis on the images of one viewer, and serving them to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.views import View
from drimbox.consumer.weasis import WeasisDoor, launch_address, manifest_of
from drimbox.consumer.web.desk import Desk, desk_of, form_of, page, ready, session_of
from drimbox.consumer.web.viewer import opened_of

MANIFEST_PATH = "/weasis/manifeste/{ticket}"
IMAGE_PATH = "/weasis/image"


@dataclass(frozen=True, slots=True)
class Opened:
    """A viewer of a browser's session, handed to Weasis."""

    session: Session
    call: OpenCall
    view: str


async def launch(request: Request) -> Response:
    """The address that starts Weasis: for the script of our page, or in a page of its own."""
    session = session_of(request)
    call, view = opened_of(request, session)
    await form_of(request, session)
    ready(request, session, call)
    desk = desk_of(request)
    view.start()
    ticket = _door(desk).ticket(Opened(session, call, view.id), lambda each: _view(desk, each) is not None)
    address = launch_address(desk.public_url + MANIFEST_PATH.format(ticket=ticket))
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"address": address})
    return page(request, "weasis.html", session=session, call=call, address=address)


async def manifest(request: Request) -> Response:
    """What Weasis gets for its ticket, once."""
    desk = desk_of(request)
    found = _door(desk).redeem(request.path_params["ticket"])
    if found is None:
        raise Gone
    opened, key = found
    view = _view(desk, opened)
    if view is None:
        raise Gone
    return Response(manifest_of(view, desk.public_url + IMAGE_PATH, key), media_type="text/xml")


async def image(request: Request) -> Response:
    """One image under the local number of the patient (WADO-URI, PS3.18 9.4), to whom has the key to its viewer."""
    desk = desk_of(request)
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    opened = _door(desk).owner(key.strip()) if kind.lower() == "bearer" else None
    view = _view(desk, opened) if opened is not None else None
    if opened is None or view is None:
        raise Gone
    asked = request.query_params
    exam = view.exam_of(asked.get("studyUID", ""))
    series = exam.images.series.get(asked.get("seriesUID", "")) if exam is not None else None
    if series is None:
        raise Gone
    found = await series.image(asked.get("objectUID", ""))
    try:
        body = await asyncio.to_thread(series.file_of, found)
    except FileNotFoundError:
        raise Gone from None
    # It is the user who looks at it: as long as images are fetched the session is not idle.
    desk.sessions.find(opened.session.secret)
    return Response(body, media_type="application/dicom")


def _door(desk: Desk) -> WeasisDoor[Opened]:
    if desk.weasis is None:
        raise Gone
    return desk.weasis


def _view(desk: Desk, opened: Opened) -> View | None:
    """The viewer, as long as its session, its login and its call last."""
    session, call = opened.session, opened.call
    professional = session.professional
    if desk.sessions.find(session.secret, active=False) is not session or professional is None or professional.ended:
        return None
    return call.view(opened.view) if session.calls.get(call.id) is call else None
