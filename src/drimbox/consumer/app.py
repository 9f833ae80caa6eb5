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
from drimbox.consumer.identity_check import Rules
from drimbox.consumer.login import CALLBACK_PATH, GOODBYE_PATH, LoginDesk
from drimbox.consumer.logins import SessionLogins
from drimbox.consumer.memory import Forgetful, PracticeMemory
from drimbox.consumer.opening import Opener
from drimbox.consumer.pictures import FrameDecoder, Pictures
from drimbox.consumer.ports import AuditJournal, Dmp, HostLists, Psc, RemotePsc, SeriesFetcher, Structures
from drimbox.consumer.prefetch import Prefetcher
from drimbox.consumer.sessions import Limits, Sessions
from drimbox.consumer.users import ForgetfulUsers, UserMemory
from drimbox.consumer.viewer_files import load_viewer
from drimbox.consumer.weasis import WeasisDoor
from drimbox.consumer.web import (
    access,
    ahead,
    archive,
    dicomweb,
    documents,
    entry,
    imports,
    reading,
    signin,
    statics,
    viewer,
    weasis,
)
from drimbox.consumer.web.desk import Desk, ListSettings, cookie_name
from drimbox.consumer.web.guard import complete, on_crash, on_error, on_http_error, steady
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_guard import Guard
from drimbox.importing.desk import ImportDesk
from drimbox.importing.media import MediaDesk
from drimbox.record.logs import correlated
from drimbox.reports.report import Coded

BACKCHANNEL_PATH = "/psc/deconnexion"
FRONTCHANNEL_PATH = "/psc/deconnexion-navigateur"
MOBILE_TWO_FACTORS = "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered"
_SWEEP_SECONDS = 30
# They put somebody else, or another practice, in a session: that is what their answer is about.
_CHANGES = (signin.begin, signin.ask_remotely, signin.wait_remotely, signin.give_up, entry.choose_practice)


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
    decoder: FrameDecoder | None = None,
    with_weasis: bool = False,
    folder: Path,
    limits: Limits | None = None,
    authn_context: str = MOBILE_TWO_FACTORS,
    report_types: Sequence[Coded] = (IMAGING_REPORT,),
    imports: ImportDesk | None = None,
    media: MediaDesk | None = None,
    logins: SessionLogins | None = None,
    prefetch: int = 0,
    calls_per_minute: int = 600,
    issuers: Mapping[str, str] | None = None,
    memory: PracticeMemory | None = None,
    redirects: bool = True,
    remote: RemotePsc | None = None,
    users: UserMemory | None = None,
    listing: ListSettings | None = None,
    identity: Rules | None = None,
    viewer_ahead: bool = True,
) -> AsyncIterator[ASGIApp]:
    """The consumer as long as the block lasts; at its end every session is closed and its images deleted.

    ``public_url`` is the origin that browsers see (no path); ``decoder`` decodes frames for pictures
    (``images.workers.WorkerPool``); ``folder`` holds the images of open sessions and is emptied at the start;
    ``syntaxes`` are asked for viewing, best first; ``calls_per_minute`` limits contextual calls and logins of one
    address; ``issuers`` says whole what callers send of the IPP's issuer; ``memory`` keeps the practice chosen last,
    ``users`` what else is remembered of them; ``redirects`` and ``remote`` are the ways to log in; ``listing`` is what
    the list does of itself, ``identity`` what is done with traits that differ; ``viewer_ahead``: does the viewer start
    behind the list. Raises ``Misconfigured`` when the viewer
    is not installed in ``viewer_dir``.
    """
    limits = limits or Limits()
    sessions = Sessions(folder=folder, clock=clock, limits=limits)
    login = LoginDesk(psc, sessions, journal, clock, public_url, memory or Forgetful(), redirects, remote)
    sessions.on_end(login.ended)
    if logins is not None:
        logins.bind(sessions)
    ahead_of = Prefetcher(prefetch) if prefetch else None
    desk = Desk(
        box_name=box_name,
        version=version,
        public_url=public_url,
        cookie=cookie_name(box_name, public_url),
        environment=environment,
        consent_values=consent_values,
        issuers=issuers or {},
        authn_context=authn_context,
        report_types=report_types,
        limits=limits,
        sessions=sessions,
        login=login,
        opener=Opener(dmp, journal, whitelist, wado, clock, syntaxes, rules=identity or Rules()),
        dmp=dmp,
        users=users or ForgetfulUsers(),
        listing=listing or ListSettings(),
        structures=structures,
        journal=journal,
        clock=clock,
        viewer=load_viewer(viewer_dir),
        pictures=Pictures(decoder),
        weasis=WeasisDoor(clock) if with_weasis else None,
        imports=imports,
        media=media,
        prefetch=ahead_of,
        viewer_ahead=viewer_ahead,
    )
    doors = frozenset((*call_paths, CALLBACK_PATH, BACKCHANNEL_PATH, FRONTCHANNEL_PATH))
    app = Starlette(
        routes=steady(_routes(call_paths), but=_CHANGES),
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
        if ahead_of is not None:
            await ahead_of.close()
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
        Route("/appel/{call}", ahead.after(entry.show), methods=["GET"]),
        Route("/appel/{call}/information", entry.accept_notice, methods=["POST"]),
        Route("/appel/{call}/situation", entry.practices, methods=["GET"]),
        Route("/appel/{call}/situation", entry.choose_practice, methods=["POST"]),
        Route("/appel/{call}/connexion", signin.begin, methods=["GET"]),
        Route("/appel/{call}/connexion/appareil", signin.ask_remotely, methods=["POST"]),
        Route("/appel/{call}/connexion/attente", signin.wait_remotely, methods=["GET"]),
        Route("/appel/{call}/connexion/etat", signin.remote_state, methods=["GET"]),
        Route("/appel/{call}/connexion/abandon", signin.give_up, methods=["POST"]),
        Route(CALLBACK_PATH, signin.back, methods=["GET"]),
        Route("/deconnexion", signin.ask_logout, methods=["GET"]),
        Route("/deconnexion", signin.logout, methods=["POST"]),
        Route(GOODBYE_PATH, signin.goodbye, methods=["GET"]),
        Route(BACKCHANNEL_PATH, signin.told, methods=["POST"]),
        Route(FRONTCHANNEL_PATH, signin.shown, methods=["GET"]),
        Route("/appel/{call}/liste", ahead.after(documents.fragment), methods=["GET"]),
        Route("/appel/{call}/criteres", documents.refine, methods=["POST"]),
        Route("/appel/{call}/actualiser", documents.again, methods=["POST"]),
        Route("/appel/{call}/series/{document}", documents.series, methods=["GET"]),
        Route("/appel/{call}/autorisation", access.authorise, methods=["POST"]),
        Route("/appel/{call}/autorisation/retrait", access.give_up_authorisation, methods=["POST"]),
        Route("/appel/{call}/urgence", access.ask_emergency, methods=["GET"]),
        Route("/appel/{call}/urgence", access.start_emergency, methods=["POST"]),
        Route("/appel/{call}/urgence/fin", access.stop_emergency, methods=["POST"]),
        Route("/appel/{call}/identite/{document}", access.image_differences, methods=["GET"]),
        Route("/appel/{call}/identite/{document}", access.decide, methods=["POST"]),
        Route("/appel/{call}/affichage", access.choose_traits, methods=["POST"]),
        Route("/appel/{call}/averti/{document}", reading.acknowledge, methods=["POST"]),
        Route("/appel/{call}/compte-rendu/{document}", reading.report, methods=["GET"]),
        Route("/appel/{call}/compte-rendu/{document}/pdf", reading.pdf, methods=["GET"]),
        Route("/appel/{call}/compte-rendu/{document}/volet", reading.beside, methods=["GET"]),
        Route("/appel/{call}/compte-rendu/{document}/image/{number:int}", reading.picture, methods=["GET"]),
        Route("/appel/{call}/images/{document}", viewer.images, methods=["GET"]),
        Route("/appel/{call}/comparaison", viewer.compare, methods=["GET"]),
        Route("/visionneuse/attente/viewer", viewer.waiting, methods=["GET"]),
        Route(exam + "/etat", viewer.progress, methods=["GET"]),
        Route(exam + "/reprise", viewer.retry, methods=["POST"]),
        Route(exam + "/dicomweb/studies", dicomweb.studies, methods=["GET"]),
        Route(exam + "/dicomweb/studies/{study}/series", dicomweb.series, methods=["GET"]),
        Route(series + "/instances", dicomweb.instances, methods=["GET"]),
        Route(series + "/metadata", dicomweb.series_metadata, methods=["GET"]),
        Route(series + "/arrivees", dicomweb.arrivals, methods=["GET"]),
        Route(image, dicomweb.instance, methods=["GET"]),
        Route(image + "/metadata", dicomweb.instance_metadata, methods=["GET"]),
        Route(image + "/frames/{frames}", dicomweb.frames, methods=["GET"]),
        Route(image + "/bulkdata/{where}", dicomweb.bulk_data, methods=["GET"]),
        Route(image + "/rendered", dicomweb.rendered, methods=["GET"]),
        Route(exam + "/weasis", weasis.launch, methods=["POST"]),
        Route(weasis.MANIFEST_PATH, weasis.manifest, methods=["GET"]),
        Route(weasis.IMAGE_PATH, weasis.image, methods=["GET"]),
        Route(exam + "/apercu", viewer.first_image, methods=["GET"]),
        Route(exam + "/viewer", viewer.shell, methods=["GET"]),
        Route(exam + "/tmtv", viewer.shell, methods=["GET"]),
        *imports.routes(),
        *archive.routes(),
        Route("/statique/{name}", statics.ours, methods=["GET"]),
        Route("/{path:path}", statics.viewers, methods=["GET"]),
    ]
