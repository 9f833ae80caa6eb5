"""The addresses of a visit: what is below ``/visite/{key}``, each behind the guard, and what goes wrong there."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from drimbox.consumer.web.policies import PAGE_POLICY
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch
from drimbox.images.retrieval import Retrieval
from drimbox.link.visit import Visit
from drimbox.link_images import dicomweb, downloads, viewer
from drimbox.link_images.desk import Desk, address_of, base_of
from drimbox.link_images.dicomweb import Handler
from drimbox.link_images.ports import Opened
from drimbox.link_images.sending import Sent, Watched
from drimbox.link_images.standing import Gone
from drimbox.link_images.statics import STATICS
from drimbox.link_images.visits import OpenStudy
from drimbox.link_images.words import said, status_of

_log = logging.getLogger(__name__)
_SERIES = "/dicomweb/studies/{study}/series/{series}"
_IMAGE = _SERIES + "/instances/{instance}"
_TITLES = {
    403: "Demande refusée",
    404: "Page introuvable",
    410: "Images indisponibles",
    413: "Examen trop volumineux",
    502: "Images illisibles",
    503: "Service momentanément indisponible",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Content-Security-Policy": PAGE_POLICY,
}
# What stands in the address of what a visit is not for: worth a line in the journal.
_ASKED_FOR = ("study", "series", "instance")


def visit_routes(desk: Desk, opened: Opened) -> list[Route]:
    """What is mounted at ``/visite/{key}``. ``opened`` is asked at every request, before anything else is done."""

    def get(path: str, handler: Handler) -> Route:
        return Route(path, _behind(desk, opened, handler), methods=["GET"])

    return [
        get("/", viewer.page),
        get("/viewer", viewer.shell),
        get("/tmtv", viewer.shell),
        get("/etat", viewer.progress),
        get("/presence", _presence),
        get("/apercu", viewer.first_image),
        Route("/reprise", _behind(desk, opened, viewer.retry), methods=["POST"]),
        get("/telechargement/{form}", downloads.download),
        get("/dicomweb/studies", dicomweb.studies),
        get("/dicomweb/studies/{study}/series", dicomweb.series),
        get(_SERIES + "/instances", dicomweb.instances),
        get(_SERIES + "/metadata", dicomweb.series_metadata),
        get(_SERIES + "/arrivees", dicomweb.arrivals),
        get(_IMAGE, dicomweb.instance),
        get(_IMAGE + "/metadata", dicomweb.instance_metadata),
        get(_IMAGE + "/frames/{frames}", dicomweb.frames),
        get(_IMAGE + "/bulkdata/{where}", dicomweb.bulk_data),
        get(_IMAGE + "/rendered", dicomweb.rendered),
    ]


def page_environment() -> Environment:
    """Where the pages come from."""
    environment = Environment(
        # What both viewers tell in the same words is the consumer's.
        loader=ChoiceLoader(
            [PackageLoader("drimbox.link_images", "pages"), PackageLoader("drimbox.consumer", "pages")]
        ),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = lambda at: at.astimezone(PARIS).strftime("%d/%m/%Y à %H:%M")
    environment.filters["day"] = _day
    environment.filters["grouped"] = _grouped
    return environment


def _behind(desk: Desk, opened: Opened, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        # What the guard raises is the door's to answer.
        visit = await opened(request)
        study: OpenStudy | None = None
        try:
            if request.method == "HEAD":
                return PlainTextResponse("", 405, {"Allow": "GET"})
            standing = await desk.register.of(visit)
            study = desk.visits.of(visit, standing)
            response = await handler(desk, request, study)
            if study.over.is_set():
                raise Gone
        except DrimboxError as error:
            response = await _problem(desk, request, visit, study, error)
        if isinstance(response, Retrieval):
            # It says what it is once it has begun.
            return _watched(desk, response, study)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]:
            response.headers.setdefault("X-Frame-Options", "DENY")
        return _watched(desk, response, study) if isinstance(response, Sent) else response

    return endpoint


def _watched(desk: Desk, response: Response, study: OpenStudy | None) -> Response:
    return response if study is None else Watched(response, desk.visits, study)


async def _presence(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """Is the visit still open, and its page that of the KOS in force? For the page, which leaves the screen when the
    visit is over, and is made anew when another KOS says what is shared (409)."""
    shown = request.query_params.get("version", opened.standing.version)
    return Response(status_code=204 if shown == opened.standing.version else 409)


async def _problem(
    desk: Desk, request: Request, visit: Visit, study: OpenStudy | None, error: DrimboxError
) -> Response:
    status = status_of(error)
    _log.info("a visit was refused: %s", error.code)
    if isinstance(error, Gone) and study is None:
        # The study may not be seen any more: what was on its way to this visit stops.
        desk.visits.forget(visit.key)
    elif study is not None:
        await _tell(desk, request, study, error)
    headers = {"Retry-After": str(int(error.retry_after or 30))} if isinstance(error, Busy) else {}
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(f"{said(error)}.\n", status_code=status, headers=headers)
    text = desk.pages.get_template("problem.html").render(
        desk=desk,
        visit=visit,
        base=base_of(visit),
        statics=STATICS,
        title=_TITLES.get(status, "Erreur"),
        reason=said(error),
        again=status == 503,
    )
    return HTMLResponse(text, status_code=status, headers=headers)


async def _tell(desk: Desk, request: Request, study: OpenStudy, error: DrimboxError) -> None:
    """Requests for what is not of the visit, once for each thing that is wrong with them."""
    asked = [request.path_params[name] for name in _ASKED_FOR if name in request.path_params]
    if study.over.is_set():
        # It was right when it was asked for.
        return
    if not (isinstance(error, IdentityMismatch) or (isinstance(error, Gone) and asked)):
        return
    if error.code in study.refused:
        return
    study.refused.add(error.code)
    await desk.traces.refused(study.visit, study.standing, address_of(request), error)


def _day(text: str) -> str:
    return f"{text[6:8]}/{text[4:6]}/{text[:4]}" if len(text) == 8 and text.isdigit() else ""


def _grouped(matricule: str) -> str:
    """``2 79 03 51 215 189 89``: as the health card writes it."""
    cuts = (0, 1, 3, 5, 7, 10, 13, 15)
    return " ".join(matricule[a:b] for a, b in pairwise(cuts) if matricule[a:b])
