"""One frame of a stored image, as the viewer's request for frames gets it (PS3.18 10.4.1.1.6)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drimbox.consumer.header import Header
from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.frames import all_spans, frame
from drimbox.dicom.pixels import read_layout
from drimbox.dicom.syntaxes import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    MPEG2_HIGH,
    MPEG2_MAIN,
    MPEG4_BD,
    MPEG4_HIGH,
    frame_media,
)
from drimbox.foundation.errors import Refused

_NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE})
_VIDEO = {
    **dict.fromkeys((MPEG2_MAIN, MPEG2_HIGH), "video/mpeg"),
    **dict.fromkeys((MPEG4_HIGH, MPEG4_BD), "video/mp4"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes of one frame with the media type and the transfer syntax that describe them."""

    body: bytes
    media_type: str
    transfer_syntax_uid: str


def read_frame(path: Path, header: Header, number: int) -> Frame:
    """Frame ``number`` (from 1), in the syntax it is stored in.

    Raises ``Refused``: ``no-frame`` when the image has no such frame, ``syntax`` when its syntax holds none that a
    viewer can be given one by one, ``dicom-file`` when the file is not what its header says.
    """
    pixels = header.pixels
    if pixels is None or not 1 <= number <= pixels.frames:
        raise Refused("Cette image n'existe pas", code="no-frame")
    syntax = header.transfer_syntax_uid
    media = frame_media(syntax)
    if syntax in _NATIVE:
        return Frame(_bytes(path, header, number), "application/octet-stream", EXPLICIT_LE)
    if media == "application/octet-stream":
        raise Refused("Syntaxe de transfert non affichable", code="syntax")
    return Frame(_bytes(path, header, number), media, syntax)


def read_video(path: Path, header: Header) -> Frame:
    """The whole video stream of an instance. Raises ``Refused`` (``syntax``) when it is not a video."""
    media_type = _VIDEO.get(header.transfer_syntax_uid)
    if header.pixels is None or media_type is None:
        raise Refused("Cette image n'est pas une vidéo", code="syntax")
    return Frame(_bytes(path, header, 1), media_type, header.transfer_syntax_uid)


def _bytes(path: Path, header: Header, number: int) -> bytes:
    syntax = header.transfer_syntax_uid
    try:
        with mapped(path) as buffer:
            layout = read_layout(buffer, read_meta(buffer))
            return frame(buffer, layout, number, () if syntax in _NATIVE else all_spans(buffer, layout, syntax))
    except Refused as refused:
        raise Refused("Image reçue illisible", code="dicom-file") from refused
