"""The viewer's page: whose images these are, its series, OHIF below, and what OHIF needs to start."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from drimbox.consumer.arrived import Image
from drimbox.consumer.header import read_header
from drimbox.consumer.key_images import key_images
from drimbox.consumer.web.policies import OHIF_POLICY
from drimbox.foundation.errors import Refused
from drimbox.images.gate import Target
from drimbox.images.threads import in_thread
from drimbox.link.visit import Visitor
from drimbox.link_images.desk import Desk, base_of
from drimbox.link_images.files import fetched
from drimbox.link_images.statics import SCRIPTS, STATICS
from drimbox.link_images.visits import OpenStudy
from drimbox.link_images.words import SEXES, said

_PETS = frozenset({"PT"})


async def page(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The images of the study: they come while the page is made."""
    wanted = _wanted(request, opened)
    await desk.traces.viewed(opened.visit, opened.standing, request.client.host if request.client else "")
    opened.images.start(first=wanted)
    series = [images.listed for images in opened.images.series.values()]
    modalities = {one.modality for one in series}
    manifest, visit = opened.standing.manifest, opened.visit
    family, _, given = manifest.patient_name.partition("^")
    text = desk.pages.get_template("visit.html").render(
        desk=desk,
        visit=visit,
        base=base_of(visit),
        version=opened.standing.version,
        patient=visit.who.visitor is Visitor.PATIENT,
        family=family,
        given=given.partition("^")[0],
        manifest=manifest,
        sex=SEXES.get(manifest.sex, SEXES[""]),
        series=series,
        keys=key_images(manifest),
        wanted=wanted or (series[0].series_uid if series else ""),
        asked=wanted,
        fusion=bool(modalities & _PETS) and "CT" in modalities,
        forms=[form.value for form in desk.offered(visit)],
        statics=STATICS,
        opened_query=urlencode([("StudyInstanceUIDs", manifest.study_uid)] + ([("serie", wanted)] if wanted else [])),
    )
    return HTMLResponse(text)


async def shell(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The page in which OHIF runs; it reads from the address what it shows."""
    opened.images.start()
    viewer = desk.viewer
    scripts = "".join(f'<script src="{STATICS}/{name}"></script>' for name in SCRIPTS)
    text = (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Images</title>{scripts}<script defer src="{viewer.script}"></script>'
        f'<link rel="stylesheet" href="{viewer.style}"><link rel="stylesheet" href="{STATICS}/ohif.css">'
        f'<link rel="stylesheet" href="{STATICS}/ohif-visit.css"></head><body>'
        "<noscript>La visionneuse a besoin de JavaScript.</noscript>"
        '<div id="react-portal"></div><div id="root"></div></body></html>'
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": OHIF_POLICY})


async def progress(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """How far each series has come, for the page and for OHIF (DB.VI-CS.18)."""
    opened.images.start()
    study_uid = opened.standing.manifest.study_uid
    series = [
        {
            "study": study_uid,
            "uid": uid,
            "number": images.listed.number,
            "state": images.state.value,
            "received": images.received,
            "expected": images.expected,
            "bytes": images.bytes,
            "seconds": round(images.seconds, 1),
            "reason": said(images.failure) if images.failure is not None else "",
            "withdrawn": images.withdrawn,
            "again": images.may_retry,
        }
        for uid, images in opened.images.series.items()
    ]
    return JSONResponse({"over": all(i.over for i in opened.images.series.values()), "series": series})


async def retry(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """Ask the PACS once more for the series that failed. Raises ``Refused`` for another site's form."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused("Demande d'un autre site", code="cross-site")
    opened.images.retry()
    return RedirectResponse(f"{base_of(opened.visit)}/", status_code=303)


async def first_image(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The image that came first, as a picture: on screen while OHIF starts. 204: none, or none that can be drawn."""
    opened.images.start()
    wanted = request.query_params.get("serie", "")
    series = sorted(opened.images.series.values(), key=lambda each: each.listed.series_uid != wanted)
    for images in series:
        come = await images.first()
        if come is None:
            continue
        target = Target(opened.standing.manifest.study_uid, images.listed.series_uid, come.sop_instance_uid)
        async with desk.slots, fetched(opened.images.source, target) as path:
            header, _ = await in_thread(read_header, path)
            picture = await desk.pictures.of(Image(path, 0, header))
        if picture is not None:
            return Response(picture.body, media_type=picture.media_type)
        break
    return Response(status_code=204)


def _wanted(request: Request, opened: OpenStudy) -> str:
    """The series that the link names, or that the address does; empty when none does, or one that is not there."""
    known = opened.images.series
    asked = request.query_params.get("serie", "")
    return next((uid for uid in (asked, opened.visit.series_uid or "") if uid in known), "")
