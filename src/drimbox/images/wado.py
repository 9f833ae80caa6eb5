"""WADO-RS for other DRIMboxes: the application of the ``db`` listener (PS3.18 10.4; DB.SO.32 to 41, 103).

``gate`` says who may have what, ``retrieval`` sends it; here are the resources.

Images are got by GET alone. A HEAD would cost a retrieve from the PACS to tell lengths that depend on what is chosen
along the way: 405. A Range is left aside, as RFC 9110 14.2 allows: the body is made while it is sent, so the answer is
the whole with 200. Capabilities and health answer HEAD too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.dicom.syntaxes import FRENCH_PROFILE
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.images import capabilities
from drimbox.images.accept import (
    ANY,
    Policy,
    Range,
    Wanted,
    dicom_wanted,
    frames_wanted,
    parse_accept,
    takes_json,
    wanted_boundaries,
)
from drimbox.images.bodies import Asked, Body, DicomBody, MetadataBody
from drimbox.images.gate import Denied, Gate, Target, caller_of, check_size, find_kos, read_target
from drimbox.images.listings import Listings
from drimbox.images.multipart import choose_boundary
from drimbox.images.neighbours import Neighbours
from drimbox.images.partly import FramesSource
from drimbox.images.ports import (
    Archive,
    ArchivedKos,
    ChooseFinder,
    ChooseSource,
    CurrentWhitelist,
    Health,
    Introspect,
    Journal,
    Professions,
    ReadManifest,
    SeriesSource,
    StudyFinder,
)
from drimbox.images.renditions import Renderer
from drimbox.images.retrieval import HEADERS, Limits, Record, Retrieval, error_response, not_acceptable
from drimbox.images.workers import Transcoder

_LEVELS = (
    "studies/{study}",
    "studies/{study}/series/{series}",
    "studies/{study}/series/{series}/instances/{instance}",
)


@dataclass(frozen=True, slots=True)
class _Service:
    """What every request needs."""

    gate: Gate
    archive: Archive
    listings: Listings
    choose_source: ChooseSource
    choose_finder: ChooseFinder
    renderer: Renderer
    journal: Journal
    slots: asyncio.Semaphore
    limits: Limits
    clock: Clock
    neighbours: Neighbours


def wado_app(
    *,
    base_path: str,
    archive: Archive,
    read_manifest: ReadManifest,
    choose_source: ChooseSource,
    choose_finder: ChooseFinder,
    introspect: Introspect,
    whitelist: CurrentWhitelist,
    professions: Collection[str],
    journal: Journal,
    health: Health,
    transcoder: Transcoder,
    scratch: Path,
    clock: Clock,
    professions_of: Professions | None = None,
    max_parallel: int = 32,
    policy: Policy = Policy.QUALITY,
    limits: Limits | None = None,
) -> Starlette:
    """The application. The listener must demand a client certificate (``trust.tls.server_context``).

    ``base_path`` is the path of the RetrieveURLs before ``/studies``; ``scratch`` an existing folder for images on
    their way, which nothing else uses; ``introspect`` is expected to remember for as long as decision 17 lets it;
    ``professions`` are the codes that may fetch (none: any may), ``professions_of`` finds those behind a token whose
    introspection tells none; ``journal`` is told of every request for images, refused ones too; ``health`` names what
    works and what does not; ``choose_source`` and ``choose_finder`` raise ``DrimboxError`` when no PACS is known for a
    KOS any more.
    """
    service = _Service(
        gate=Gate(whitelist=whitelist, introspect=introspect, professions=professions, professions_of=professions_of),
        archive=archive,
        listings=Listings(read_manifest),
        choose_source=choose_source,
        choose_finder=choose_finder,
        renderer=Renderer(transcoder, scratch, policy),
        journal=journal,
        slots=asyncio.Semaphore(max_parallel),
        limits=limits or Limits(),
        clock=clock,
        neighbours=Neighbours(clock),
    )
    base = "/" + base_path.strip("/") if base_path.strip("/") else ""
    about = partial(_capabilities, base, health)
    images = _endpoint({"GET": partial(_images, service), "OPTIONS": about})
    metadata = _endpoint({"GET": partial(_metadata, service), "OPTIONS": about})
    own = _endpoint({"GET": about, "HEAD": about, "OPTIONS": about})
    alive = partial(_health, health)
    methods = ["GET", "OPTIONS"]
    routes = [Route("/health", _endpoint({"GET": alive, "HEAD": alive}), methods=["GET"])]
    for level in _LEVELS:
        routes.append(Route(f"{base}/{level}", images, methods=methods))
        routes.append(Route(f"{base}/{level}/metadata", metadata, methods=methods))
    routes.append(Route(f"{base}/{_LEVELS[-1]}/frames/{{frames}}", images, methods=methods))
    routes.append(Route(f"{base}/studies", _endpoint({"OPTIONS": about}), methods=["OPTIONS"]))
    routes += [Route(path, own, methods=methods) for path in dict.fromkeys((base or "/", f"{base}/"))]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


Handler = Callable[[Request], Awaitable[Response]]


def _endpoint(handlers: Mapping[str, Handler]) -> Handler:
    """One handler per method: Starlette lets a HEAD in beside each GET, where for images it is refused."""

    async def endpoint(request: Request) -> Response:
        handler = handlers.get(request.method)
        if handler is None:
            raise HTTPException(405, headers={"Allow": ", ".join(handlers)})
        return await handler(request)

    return endpoint


async def _images(service: _Service, request: Request) -> Response:
    def body(asked: Asked, ranges: Sequence[Range]) -> Body:
        return DicomBody(asked, service.renderer, choose_boundary(wanted_boundaries(ranges)))

    wanted = frames_wanted if "frames" in request.path_params else dicom_wanted
    return await _retrieve(service, request, wanted, body)


async def _metadata(service: _Service, request: Request) -> Response:
    def wanted(ranges: Sequence[Range]) -> tuple[Wanted, ...]:
        if not takes_json(ranges):
            raise Denied(406, "not-acceptable", "Seul application/dicom+json est disponible")
        return (Wanted(ANY, 1.0),)

    return await _retrieve(service, request, wanted, lambda asked, _: MetadataBody(asked, service.renderer))


async def _retrieve(
    service: _Service,
    request: Request,
    read_wanted: Callable[[Sequence[Range]], Sequence[Wanted]],
    make_body: Callable[[Asked, Sequence[Range]], Body],
) -> Response:
    record = Record(service.clock, caller_of(request), started=service.clock.monotonic())
    try:
        await service.gate.admit(request, record.caller)
        target = record.target = read_target(request.path_params)
        kos = record.kos = await find_kos(request, target, service.archive)
        ranges = _ranges(request)
        wanted = read_wanted(ranges)
        if not wanted:
            raise not_acceptable(FRENCH_PROFILE)
        asked = Asked(target, kos.ins, await _expected(service, kos, target), wanted)
        source, finder = _pacs(service, kos)
    except Denied as denied:
        record.denied(denied)
        await service.journal(record.access())
        return error_response(denied)
    body = make_body(asked, ranges)
    if not isinstance(body, MetadataBody):
        series = replace(target, instance_uid="", frames=())
        source = service.neighbours.around(source, kos.kos_uid, target, lambda: service.listings.expected(kos, series))
    if target.frames and all(each.frames for each in wanted):
        # Nobody can be given the whole file.
        source = FramesSource(source, target.frames)
    return Retrieval(
        asked,
        body,
        source=source,
        finder=finder,
        slots=service.slots,
        limits=service.limits,
        record=record,
        journal=service.journal,
    )


def _pacs(service: _Service, kos: ArchivedKos) -> tuple[SeriesSource, StudyFinder]:
    """The PACS that holds the images of a KOS. Raises ``Denied`` (503) when there is none for it any more."""
    try:
        return service.choose_source(kos), service.choose_finder(kos)
    except DrimboxError as error:
        raise Denied(503, error.code, "Le PACS de cet examen n'est pas configuré") from error


def _ranges(request: Request) -> tuple[Range, ...]:
    """Accept, or the query parameter ``accept`` that may stand for it (PS3.18 8.3.3.1). Raises ``Denied`` (400)."""
    lines = request.query_params.getlist("accept") or request.headers.getlist("accept")
    try:
        ranges = parse_accept(lines)
        dicom_wanted(ranges)
        frames_wanted(ranges)
    except Refused as refused:
        raise Denied(400, refused.code, refused.reason) from refused
    return ranges


async def _expected(service: _Service, kos: ArchivedKos, target: Target) -> frozenset[str]:
    """The instances that the KOS lists of what is asked for. Raises ``Denied`` (404)."""
    try:
        listed = await service.listings.expected(kos, target)
    except Refused as refused:
        raise Denied(500, "kos-unreadable", "KOS illisible dans l'archive locale") from refused
    if not listed:
        raise Denied(404, "images-unknown", "Ces images ne font pas partie du KOS")
    return listed


async def _capabilities(base: str, health: Health, request: Request) -> Response:
    check = _too_long(request)
    if check is not None:
        return check
    json_asked = any("json" in line.lower() for line in request.headers.getlist("accept"))
    if request.method == "OPTIONS" and not json_asked:
        return Response(capabilities.as_wadl(base or "/"), media_type="application/vnd.sun.wadl+xml", headers=HEADERS)
    checks = await health()
    # OPTIONS tells that the box lives, even when what stands behind it does not (DB.CO.112).
    status = 200 if request.method == "OPTIONS" or all(checks.values()) else 503
    return Response(capabilities.as_json(base or "/", checks), status, media_type="application/json", headers=HEADERS)


async def _health(health: Health, request: Request) -> Response:
    checks = await health()
    status = 200 if all(checks.values()) else 503
    return Response(capabilities.health(checks), status, media_type="application/json", headers=HEADERS)


def _too_long(request: Request) -> Response | None:
    try:
        check_size(request)
    except Denied as denied:
        return error_response(denied)
    return None


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "Ressource inconnue", 405: "Méthode refusée"}
    denied = Denied(error.status_code, "http", words.get(error.status_code, "Demande refusée"), headers=error.headers)
    return error_response(denied)
