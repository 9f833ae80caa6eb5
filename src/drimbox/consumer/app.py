"""The consumer, put together as one ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from drimbox.consumer.call import Range
from drimbox.consumer.consultation import IMAGING_REPORT
from drimbox.consumer.login import CALLBACK_PATH, GOODBYE_PATH, LoginDesk
from drimbox.consumer.opening import Opener
from drimbox.consumer.ports import AuditJournal, Dmp, HostLists, Psc, SeriesFetcher, Structures
from drimbox.consumer.sessions import Limits, Sessions
from drimbox.consumer.viewer_files import load_viewer
from drimbox.consumer.web import dicomweb, documents, entry, reading, signin, statics, viewer
from drimbox.consumer.web.desk import Desk, cookie_name
from drimbox.consumer.web.guard import complete, on_crash, on_error, on_http_error
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_guard import Guard
from drimbox.record.logs import correlated
from drimbox.reports.report import Coded

BACKCHANNEL_PATH = "/psc/deconnexion"
MOBILE_TWO_FACTORS = "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered"
_SWEEP_SECONDS = 30


@asynccontextmanager
async def consumer_app(
    *,
    box_name: str,
    version: str,
    public_url: str,
    call_paths: Sequence[str],
    environment: Range,
    consent_values: Mapping[str, str],
    syntaxes: Sequence[str],
    psc: Psc,
    dmp: Dmp,
    structures: Structures,
    whitelist: HostLists,
    wado: SeriesFetcher,
    journal: AuditJournal,
    clock: Clock,
    viewer_dir: Path,
    folder: Path,
    limits: Limits | None = None,
    authn_context: str = MOBILE_TWO_FACTORS,
    report_types: Sequence[Coded] = (IMAGING_REPORT,),
    calls_per_minute: int = 600,
) -> AsyncIterator[ASGIApp]:
    """The consumer as long as the block lasts; at its end every session is closed and its images deleted.

    ``public_url`` is the origin that browsers see (no path); ``folder`` holds the images of open sessions and is
    emptied at the start; ``syntaxes`` are asked for viewing, best first; ``calls_per_minute`` limits contextual calls
    and logins of one address. Raises ``Misconfigured`` when the viewer is not installed in ``viewer_dir``.
    """
    limits = limits or Limits()
    sessions = Sessions(folder=folder, clock=clock, limits=limits)
    login = LoginDesk(psc, sessions, journal, clock, public_url)
    sessions.on_end(login.ended)
    desk = Desk(
        box_name=box_name,
        version=version,
        public_url=public_url,
        cookie=cookie_name(box_name, public_url),
        environment=environment,
        consent_values=consent_values,
        authn_context=authn_context,
        report_types=report_types,
        limits=limits,
        sessions=sessions,
        login=login,
        opener=Opener(dmp, journal, whitelist, wado, clock, syntaxes),
        dmp=dmp,
        structures=structures,
        journal=journal,
        clock=clock,
        viewer=load_viewer(viewer_dir),
    )
    doors = frozenset((*call_paths, CALLBACK_PATH, BACKCHANNEL_PATH))
    app = Starlette(
        routes=_routes(call_paths),
        exception_handlers={DrimboxError: on_error, HTTPException: on_http_error, Exception: on_crash},
    )
    app.state.desk = desk
    sweeper = asyncio.create_task(_sweep(sessions))
    try:
        # Outermost, so that even the page of an internal error carries the headers.
        yield Guard(
            app,
            clock=clock,
            public_url=public_url,
            doors=doors,
            per_minute=calls_per_minute,
            complete=complete,
            correlated=correlated,
        )
    finally:
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        await sessions.close()


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        sessions.sweep()


def _routes(call_paths: Sequence[str]) -> list[Route]:
    exam = "/visionneuse/{view}"
    series = exam + "/dicomweb/studies/{study}/series/{series}"
    image = series + "/instances/{instance}"
    return [
        *(Route(path, entry.receive, methods=["POST"]) for path in call_paths),
        Route("/", entry.home, methods=["GET"]),
        Route("/presence", entry.presence, methods=["POST"]),
        Route("/entree/{ticket}", entry.enter, methods=["GET"]),
        Route("/appel/{call}", entry.show, methods=["GET"]),
        Route("/appel/{call}/information", entry.accept_notice, methods=["POST"]),
        Route("/appel/{call}/situation", entry.practices, methods=["GET"]),
        Route("/appel/{call}/situation", entry.choose_practice, methods=["POST"]),
        Route("/appel/{call}/connexion", signin.begin, methods=["GET"]),
        Route(CALLBACK_PATH, signin.back, methods=["GET"]),
        Route("/deconnexion", signin.ask_logout, methods=["GET"]),
        Route("/deconnexion", signin.logout, methods=["POST"]),
        Route(GOODBYE_PATH, signin.goodbye, methods=["GET"]),
        Route(BACKCHANNEL_PATH, signin.told, methods=["POST"]),
        Route("/appel/{call}/liste", documents.fragment, methods=["GET"]),
        Route("/appel/{call}/criteres", documents.refine, methods=["POST"]),
        Route("/appel/{call}/actualiser", documents.again, methods=["POST"]),
        Route("/appel/{call}/autorisation", documents.authorise, methods=["POST"]),
        Route("/appel/{call}/averti/{document}", reading.acknowledge, methods=["POST"]),
        Route("/appel/{call}/compte-rendu/{document}", reading.report, methods=["GET"]),
        Route("/appel/{call}/compte-rendu/{document}/pdf", reading.pdf, methods=["GET"]),
        Route("/appel/{call}/images/{document}", viewer.images, methods=["GET"]),
        Route(exam + "/etat", viewer.progress, methods=["GET"]),
        Route(exam + "/reprise", viewer.retry, methods=["POST"]),
        Route(exam + "/dicomweb/studies", dicomweb.studies, methods=["GET"]),
        Route(exam + "/dicomweb/studies/{study}/series", dicomweb.series, methods=["GET"]),
        Route(series + "/instances", dicomweb.instances, methods=["GET"]),
        Route(series + "/metadata", dicomweb.series_metadata, methods=["GET"]),
        Route(image, dicomweb.instance, methods=["GET"]),
        Route(image + "/metadata", dicomweb.instance_metadata, methods=["GET"]),
        Route(image + "/frames/{frames}", dicomweb.frames, methods=["GET"]),
        Route(image + "/bulkdata/{where}", dicomweb.bulk_data, methods=["GET"]),
        Route(image + "/rendered", dicomweb.rendered, methods=["GET"]),
        Route(exam + "/viewer", viewer.shell, methods=["GET"]),
        Route("/statique/{name}", statics.ours, methods=["GET"]),
        Route("/{path:path}", statics.viewers, methods=["GET"]),
    ]
