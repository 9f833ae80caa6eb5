"""DICOMweb for OHIF, on the one study of a visit and nothing else (PS3.18 10.4, 10.6).

Frames leave from the cache as another DRIMbox would be given them, in the syntax in which they are stored; each is
served only once its own header has been looked at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.consumer.frames import Frame
from drimbox.consumer.header import bulk_value
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.frames import Spans, all_spans
from drimbox.dicom.pixels import read_layout
from drimbox.dicom.syntaxes import MPEG2_HIGH, MPEG2_MAIN, VIDEO
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.foundation.uids import is_uid
from drimbox.images.accept import ANY, Wanted, frames_wanted, parse_accept
from drimbox.images.bodies import Asked, DicomBody
from drimbox.images.contents import InFile
from drimbox.images.gate import Caller, Target
from drimbox.images.multipart import Writer, choose_boundary
from drimbox.images.partly import FramesSource
from drimbox.images.ports import Access
from drimbox.images.retrieval import Limits, Record, Retrieval
from drimbox.images.threads import in_thread
from drimbox.link_images.arriving import Come, SeriesImages
from drimbox.link_images.desk import Desk, address_of
from drimbox.link_images.files import fetched
from drimbox.link_images.looking import inflated
from drimbox.link_images.sending import Sent
from drimbox.link_images.standing import Gone
from drimbox.link_images.visits import OpenStudy

_DICOM_JSON = "application/dicom+json"
_MAX_FRAMES = 100
# Headers are told a second's worth at a time: few enough requests, and the series is seen to grow.
_GATHERED_SECONDS = 0.7
# OHIF shows nothing before it has read what it is given: a little at first, whatever the length of the series.
_FIRST, _MORE = 24, 500
_PIXEL_DATA = "7FE00010"
_DOCUMENT_TYPES = frozenset({"application/pdf", "video/mp4", "video/mpeg", "image/jpeg"})
_DOCUMENT = "00420011"
# What OHIF reads whole, because it is no picture: reports, key objects, segmentations, contours, presentation states.
_READ_WHOLE = tuple(f"1.2.840.10008.5.1.4.1.1.{family}." for family in ("88", "66", "481", "11", "104"))
_MPEG2 = frozenset({MPEG2_MAIN, MPEG2_HIGH, f"{MPEG2_MAIN}.1", f"{MPEG2_HIGH}.1"})
_LIMITS = Limits()

Handler = Callable[[Desk, Request, OpenStudy], Awaitable[Response]]


async def studies(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """QIDO: the study of the visit, unless another one is asked for."""
    manifest = opened.standing.manifest
    wanted = request.query_params.get("StudyInstanceUID", manifest.study_uid).replace("\\", ",").split(",")
    return _json([_study(opened)] if manifest.study_uid in wanted else [])


async def series(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """QIDO: the series of the study, most wanted first."""
    _of_study(request, opened)
    return _json([_series(opened, images) for images in opened.images.series.values()])


async def instances(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """QIDO: the instances of one series, as the KOS lists them."""
    listed = _series_of(request, opened).listed
    return _json(
        [
            {
                "0020000D": _value("UI", opened.standing.manifest.study_uid),
                "0020000E": _value("UI", listed.series_uid),
                "00080018": _value("UI", instance.sop_instance_uid),
                "00080016": _value("UI", instance.sop_class_uid),
                "00200013": _value("IS", instance.number),
            }
            for instance in listed.instances
        ]
    )


async def series_metadata(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The headers of a series, once it is whole: who asks by the standard must not take a part for all."""
    images = _series_of(request, opened)
    opened.images.start()
    await images.whole()
    body, _ = await images.described(0)
    return Response(body, media_type=_DICOM_JSON)


async def arrivals(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The headers of the images that came after the first ``depuis``, as soon as there are any (DB.VI-CS.17).

    Empty once nothing more will come. Not of the standard: this is how our page lets OHIF show a series that is still
    on its way.
    """
    images = _series_of(request, opened)
    opened.images.start()
    asked = request.query_params.get("depuis", "0")
    start = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 7 else 0
    body, count = await images.described(start, _GATHERED_SECONDS, _MORE if start else _FIRST)
    return Response(body, media_type=_DICOM_JSON, headers={"X-Total": str(start + count)})


async def instance_metadata(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The header of one image."""
    target, _ = await _image(request, opened)
    async with desk.slots, fetched(opened.images.source, target) as path:
        seen = await opened.images.looker.look(path, target.series_uid, target.instance_uid)
    return Response(b"[" + seen.described + b"]", media_type=_DICOM_JSON)


async def frames(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """Frames in the order asked, as stored where the caller takes that."""
    target, _ = await _image(request, opened, _numbers(request.path_params["frames"]))
    wanted = [each for each in frames_wanted(_ranges(request)) if each.frames]
    return _retrieval(desk, request, opened, target, wanted or [Wanted(ANY, 1.0, media=ANY)])


async def instance(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """A file that OHIF reads whole, because it is no picture. Images are given by their frames alone."""
    target, come = await _image(request, opened)
    if not f"{come.sop_class_uid}.".startswith(_READ_WHOLE):
        raise Gone
    many = "multipart/" in request.headers.get("accept", "multipart/")
    return _retrieval(desk, request, opened, target, [Wanted(ANY, 1.0, single=not many)])


async def bulk_data(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """A long value of the header; or a whole video, when the pixel data are one."""
    target, come = await _image(request, opened)
    where = request.path_params["where"]
    if where == _PIXEL_DATA:
        return await _video(desk, opened, target, come)
    async with desk.slots, fetched(opened.images.source, target) as path:
        value = await _looked_up(desk, opened, path, where)
    if value is None:
        raise Gone
    asked = request.query_params.get("accept", "")
    if asked in _DOCUMENT_TYPES:
        return Response(value, media_type=asked)
    if "multipart/related" in request.headers.get("accept", ""):
        return _multipart([Frame(value, "application/octet-stream", "")])
    return Response(value, media_type="application/octet-stream")


async def rendered(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """What a browser shows by itself: a video, or an encapsulated PDF."""
    target, come = await _image(request, opened)
    if come.transfer_syntax_uid in VIDEO:
        return await _video(desk, opened, target, come)
    async with desk.slots, fetched(opened.images.source, target) as path:
        document = await _looked_up(desk, opened, path, _DOCUMENT)
    if document is None:
        raise Gone
    return Response(document.rstrip(b"\0"), media_type="application/pdf")


async def _looked_up(desk: Desk, opened: OpenStudy, path: Path, where: str) -> bytes | None:
    async with inflated(path, desk.transcoder, desk.scratch, opened.standing.kos.ins) as readable:
        return await in_thread(bulk_value, readable, where)


async def _video(desk: Desk, opened: OpenStudy, target: Target, come: Come) -> Response:
    """The stream of a video, as it lies in its file. Raises ``Gone`` for what is none."""
    if come.transfer_syntax_uid not in VIDEO:
        raise Gone
    pieces = _stream(desk, opened, target, come.transfer_syntax_uid)
    kind = "video/mpeg" if come.transfer_syntax_uid in _MPEG2 else "video/mp4"
    return Sent(await anext(pieces, b""), pieces, media_type=kind)


async def _stream(desk: Desk, opened: OpenStudy, target: Target, syntax: str) -> AsyncGenerator[bytes, None]:
    def spans(path: Path) -> Spans:
        with mapped(path) as buffer:
            found = all_spans(buffer, read_layout(buffer, read_meta(buffer)), syntax)
            return tuple(span for frame in found[:1] for span in frame)

    async with desk.slots, fetched(opened.images.source, target) as path:
        content = InFile(path, await in_thread(spans, path))
        async with aclosing(content.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


def _retrieval(desk: Desk, request: Request, opened: OpenStudy, target: Target, wanted: list[Wanted]) -> Response:
    kos = opened.standing.kos
    asked = Asked(target, kos.ins, frozenset((target.instance_uid,)), wanted)
    source = opened.images.source

    async def heard(access: Access) -> None:
        # What is looked at is written down by series; here, what turned out not to be what it should be.
        if access.status == 502 and access.code not in opened.refused:
            opened.refused.add(access.code)
            error = Refused(access.reason, code=access.code)
            await desk.traces.refused(opened.visit, opened.standing, access.address, error)

    return Retrieval(
        asked,
        DicomBody(asked, desk.renderer, choose_boundary(())),
        source=FramesSource(source, target.frames) if target.frames else source,
        finder=opened.images.finder,
        slots=desk.slots,
        limits=_LIMITS,
        record=Record(desk.clock, Caller(None, address_of(request)), target, kos, started=desk.clock.monotonic()),
        journal=heard,
    )


def _of_study(request: Request, opened: OpenStudy) -> None:
    if request.path_params["study"] != opened.standing.manifest.study_uid:
        raise Gone


def _series_of(request: Request, opened: OpenStudy) -> SeriesImages:
    _of_study(request, opened)
    return opened.images.find(request.path_params["series"])


async def _image(request: Request, opened: OpenStudy, numbers: tuple[int, ...] = ()) -> tuple[Target, Come]:
    """What the address names, once it has come and may be shown."""
    images, uid = _series_of(request, opened), request.path_params["instance"]
    if not is_uid(uid):
        raise Gone
    opened.images.start()
    come = await images.image(uid)
    return Target(opened.standing.manifest.study_uid, images.listed.series_uid, uid, numbers), come


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",") if len(text) <= 1024 else []
    if not 1 <= len(parts) <= _MAX_FRAMES or not all(p.isascii() and p.isdigit() and len(p) < 8 for p in parts):
        raise Gone
    numbers = tuple(int(part) for part in parts)
    if 0 in numbers:
        raise Gone
    return numbers


def _ranges(request: Request) -> Any:
    try:
        ranges = parse_accept(request.headers.getlist("accept"))
        frames_wanted(ranges)
    except DrimboxError as error:
        raise Refused("En-tête Accept mal formé", code="accept") from error
    return ranges


def _multipart(parts: list[Frame]) -> Response:
    writer = Writer(choose_boundary())
    body = bytearray(writer.delimiter())
    for part in parts:
        syntax = f"; transfer-syntax={part.transfer_syntax_uid}" if part.transfer_syntax_uid else ""
        body += writer.opening({"Content-Type": f"{part.media_type}{syntax}"}) + part.body + writer.delimiter()
    body += writer.closing()
    media_type = f'multipart/related; type="{parts[0].media_type}"; boundary={writer.boundary}'
    return Response(bytes(body), headers={"Content-Type": media_type})


def _study(opened: OpenStudy) -> dict[str, Any]:
    manifest = opened.standing.manifest
    listed = manifest.series
    return {
        "0020000D": _value("UI", manifest.study_uid),
        "00080020": _value("DA", manifest.study_date),
        "00081030": _value("LO", manifest.description),
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": manifest.patient_name}]},
        "00100030": _value("DA", manifest.birth_date),
        "00100040": _value("CS", manifest.sex),
        "00080061": {"vr": "CS", "Value": list(dict.fromkeys(s.modality for s in listed if s.modality))},
        "00201206": _value("IS", len(listed)),
        "00201208": _value("IS", manifest.instance_count),
    }


def _series(opened: OpenStudy, images: SeriesImages) -> dict[str, Any]:
    listed = images.listed
    return {
        "0020000D": _value("UI", opened.standing.manifest.study_uid),
        "0020000E": _value("UI", listed.series_uid),
        "00080060": _value("CS", listed.modality),
        "0008103E": _value("LO", listed.description),
        "00200011": _value("IS", listed.number),
        "00201209": _value("IS", len(listed.instances)),
    }


def _value(vr: str, value: str | int | None) -> dict[str, Any]:
    return {"vr": vr} if value in ("", None) else {"vr": vr, "Value": [value]}


def _json(found: list[dict[str, Any]]) -> Response:
    return JSONResponse(found, media_type=_DICOM_JSON)
