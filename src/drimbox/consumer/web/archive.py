"""An exam as a ZIP for portable media (DB.CO.71)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from drimbox.consumer.sessions import Gone
from drimbox.consumer.web.desk import call_of, desk_of, form_of, session_of
from drimbox.consumer.web.imports import content_of, wanted_series
from drimbox.foundation.errors import Refused
from drimbox.importing.coercion import Coercion
from drimbox.importing.media import MediaRequest
from drimbox.importing.ports import Login
from drimbox.record.audit import Kind, Object, Thing


def routes() -> list[Route]:
    """The addresses of these pages."""
    return [Route("/appel/{call}/archive/{document}", download, methods=["POST"])]


async def download(request: Request) -> Response:
    """The chosen series of an exam, under the local patient number, as they come from the source."""
    session = session_of(request)
    call = call_of(request, session)
    desk = desk_of(request)
    if desk.media is None:
        raise Gone("Le téléchargement d'examens n'est pas proposé par cette DRIMbox")
    fields = await form_of(request, session)
    who, content = await content_of(request, session, call)
    if isinstance(content, Response):
        return content
    series = wanted_series(content, fields)
    if not series:
        raise Refused("Choisissez au moins une série à télécharger", code="form")
    manifest, local = content.manifest, call.call.local_id
    wanted = MediaRequest(
        kos_uid=manifest.kos_uid,
        ins=call.call.ins,
        coercion=Coercion(
            local.value, local.issuer, call.call.issuer_name, modified_by=desk.box_name, at=desk.clock.now()
        ),
        series=series,
        title=manifest.description,
        study_date=manifest.study_date,
    )
    objects = (
        Object(Thing.STUDY, manifest.study_uid),
        Object(Thing.KOS, manifest.kos_uid),
        *(Object(Thing.SERIES, s.series_uid) for s in series),
    )
    await desk.journal.write(None, who.event(Kind.IMAGES_EXPORTED, call.call.ins, objects))
    pieces = desk.media.written(wanted, Login(who.professional.access_token, who.structure.wado_tls))
    # Whatever goes wrong before the first image has its own page; after it, the download is cut.
    first = await anext(pieces)
    headers = {"Content-Disposition": 'attachment; filename="examen.zip"', "Cache-Control": "no-store"}
    return StreamingResponse(
        _whole(first, pieces), media_type="application/zip", headers=headers, background=BackgroundTask(pieces.aclose)
    )


async def _whole(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for piece in rest:
            if piece:
                yield piece
    finally:
        await rest.aclose()
