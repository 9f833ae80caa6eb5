"""DICOMweb for OHIF, on the exams of one viewer and nothing else (PS3.18 10.4, 10.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.consumer.arrived import Image
from drimbox.consumer.frames import Frame, read_frame, read_video
from drimbox.consumer.header import bulk_value, read_header
from drimbox.consumer.opening import OpenExam
from drimbox.consumer.sessions import Gone
from drimbox.consumer.viewing import SeriesImages
from drimbox.consumer.views import View
from drimbox.consumer.web.desk import session_of
from drimbox.consumer.web.viewer import opened_of
from drimbox.images.multipart import Writer, choose_boundary

_T = TypeVar("_T")

_DICOM_JSON = "application/dicom+json"
_MAX_FRAMES = 100
# Headers are told a second's worth at a time: few enough requests, and the series is seen to grow.
_GATHERED_SECONDS = 0.7
# OHIF shows nothing before it has read what it is given: a little at first, whatever the length of the series.
_FIRST, _MORE = 24, 500
_PIXEL_DATA = "7FE00010"
_DOCUMENT_TYPES = frozenset({"application/pdf", "video/mp4", "video/mpeg", "image/jpeg"})


async def studies(request: Request) -> Response:
    """QIDO: the studies of the viewer that are asked for, all when none is named."""
    view = _view(request)
    wanted = request.query_params.get("StudyInstanceUID", ",".join(view.study_uids)).replace("\\", ",").split(",")
    return _json([_study(exam) for exam in view.exams if exam.study_uid in wanted])


async def series(request: Request) -> Response:
    """QIDO: the series of the study, most wanted first."""
    opened = _of_study(request)
    return _json([_series(opened, images) for images in opened.images.series.values()])


async def instances(request: Request) -> Response:
    """QIDO: the instances of one series, as the KOS lists them."""
    opened = _of_study(request)
    listed = _series_of(request, opened).series
    return _json(
        [
            {
                "0020000D": _value("UI", opened.study_uid),
                "0020000E": _value("UI", listed.series_uid),
                "00080018": _value("UI", instance.sop_instance_uid),
                "00080016": _value("UI", instance.sop_class_uid),
                "00200013": _value("IS", instance.number),
            }
            for instance in listed.instances
        ]
    )


async def series_metadata(request: Request) -> Response:
    """The headers of a series, once it is whole: who asks by the standard must not take a part for all."""
    images = _series_of(request, _of_study(request))
    await images.whole()
    body, _ = await _still_there(images.described(0))
    return Response(body, media_type=_DICOM_JSON)


async def arrivals(request: Request) -> Response:
    """The headers of the images that came after the first ``depuis``, as soon as there are any (DB.VI-CS.17).

    Empty once nothing more will come. Not of the standard: this is how our page lets OHIF show a series that is still
    on its way.
    """
    images = _series_of(request, _of_study(request, active=False))
    asked = request.query_params.get("depuis", "0")
    start = int(asked) if asked.isdecimal() and len(asked) < 7 else 0
    body, count = await _still_there(images.described(start, _GATHERED_SECONDS, _MORE if start else _FIRST))
    return Response(body, media_type=_DICOM_JSON, headers={"X-Total": str(start + count)})


async def instance_metadata(request: Request) -> Response:
    """The header of one image."""
    image = await _image(request)
    _, described = await _from_disk(read_header, image.path)
    return Response(b"[" + described + b"]", media_type=_DICOM_JSON)


async def frames(request: Request) -> Response:
    """Frames as stored, in the order asked."""
    image = await _image(request)
    numbers = [int(n) for n in request.path_params["frames"].split(",") if n.isdecimal() and len(n) < 10]
    if not 1 <= len(numbers) <= _MAX_FRAMES:
        raise Gone
    found = [await _from_disk(read_frame, image.path, image.header, number) for number in numbers]
    return _multipart(found)


async def instance(request: Request) -> Response:
    """The file as the source sent it."""
    image = await _image(request)
    body = await _from_disk(image.path.read_bytes)
    whole = Frame(body, "application/dicom", image.header.transfer_syntax_uid)
    if "multipart/" in request.headers.get("accept", "multipart/"):
        return _multipart([whole])
    return Response(body, media_type=f"application/dicom; transfer-syntax={image.header.transfer_syntax_uid}")


async def bulk_data(request: Request) -> Response:
    """A long value of the header; or a whole video, when the pixel data are one."""
    image = await _image(request)
    where = request.path_params["where"]
    if where == _PIXEL_DATA:
        return await _video(image)
    value = await _from_disk(bulk_value, image.path, where)
    if value is None:
        raise Gone
    asked = request.query_params.get("accept", "")
    if asked in _DOCUMENT_TYPES:
        return Response(value, media_type=asked)
    if "multipart/related" in request.headers.get("accept", ""):
        return _multipart([Frame(value, "application/octet-stream", "")])
    return Response(value, media_type="application/octet-stream")


async def rendered(request: Request) -> Response:
    """What a browser shows by itself: a video, or an encapsulated PDF."""
    image = await _image(request)
    document = await _from_disk(bulk_value, image.path, "00420011")
    if document is not None:
        return Response(document.rstrip(b"\0"), media_type="application/pdf")
    return await _video(image)


async def _video(image: Image) -> Response:
    frame = await _from_disk(read_video, image.path, image.header)
    return Response(frame.body, media_type=frame.media_type)


async def _still_there(read: Awaitable[_T]) -> _T:
    try:
        return await read
    except FileNotFoundError:
        raise Gone from None


async def _from_disk(read: Callable[..., _T], *arguments: Any) -> _T:
    """Read in a thread; a file that went with its session meanwhile is gone."""
    try:
        return await asyncio.to_thread(read, *arguments)
    except FileNotFoundError:
        raise Gone from None


def _view(request: Request, *, active: bool = True) -> View:
    _, view = opened_of(request, session_of(request, active=active))
    return view


def _of_study(request: Request, *, active: bool = True) -> OpenExam:
    opened = _view(request, active=active).exam_of(request.path_params["study"])
    if opened is None:
        raise Gone
    return opened


def _series_of(request: Request, opened: OpenExam) -> SeriesImages:
    found = opened.images.series.get(request.path_params["series"])
    if found is None:
        raise Gone
    return found


async def _image(request: Request) -> Image:
    return await _series_of(request, _of_study(request)).image(request.path_params["instance"])


def _multipart(parts: list[Frame]) -> Response:
    writer = Writer(choose_boundary())
    body = bytearray(writer.delimiter())
    for part in parts:
        syntax = f"; transfer-syntax={part.transfer_syntax_uid}" if part.transfer_syntax_uid else ""
        body += writer.opening({"Content-Type": f"{part.media_type}{syntax}"}) + part.body + writer.delimiter()
    body += writer.closing()
    media_type = f'multipart/related; type="{parts[0].media_type}"; boundary={writer.boundary}'
    return Response(bytes(body), headers={"Content-Type": media_type})


def _study(opened: OpenExam) -> dict[str, Any]:
    manifest = opened.images.manifest
    listed = [images.series for images in opened.images.series.values()]
    return {
        "0020000D": _value("UI", manifest.study_uid),
        "00080020": _value("DA", manifest.study_date),
        "00081030": _value("LO", manifest.description),
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": manifest.patient_name}]},
        "00100030": _value("DA", manifest.birth_date),
        "00100040": _value("CS", manifest.sex),
        "00080061": {"vr": "CS", "Value": list(dict.fromkeys(s.modality for s in listed if s.modality))},
        "00201206": _value("IS", len(listed)),
        "00201208": _value("IS", sum(len(s.instances) for s in listed)),
    }


def _series(opened: OpenExam, images: SeriesImages) -> dict[str, Any]:
    listed = images.series
    return {
        "0020000D": _value("UI", opened.study_uid),
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
