"""One frame of a stored image, as the viewer's request for frames gets it (PS3.18 10.4.1.1.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets

from drimbox.consumer.header import Header, Pixels
from drimbox.foundation.errors import Refused
from drimbox.images.syntaxes import (
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_LE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_LS_NEAR,
    MPEG2_HIGH,
    MPEG2_MAIN,
    MPEG4_BD,
    MPEG4_HIGH,
    RLE,
)

_NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE})
_MEDIA = {
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1), "image/jpeg"),
    **dict.fromkeys((JPEG_LS, JPEG_LS_NEAR), "image/jls"),
    **dict.fromkeys((JPEG_2000_LOSSLESS, JPEG_2000), "image/jp2"),
    **dict.fromkeys((HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K), "image/jphc"),
    RLE: "image/dicom-rle",
}
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
    if syntax in _NATIVE:
        return Frame(_native(path, pixels, number), "application/octet-stream", EXPLICIT_LE)
    if syntax not in _MEDIA:
        raise Refused("Syntaxe de transfert non affichable", code="syntax")
    try:
        with path.open("rb") as file:
            file.seek(pixels.offset)
            body = get_frame(file, number - 1, number_of_frames=pixels.frames)
    except (ValueError, struct.error, IndexError, EOFError) as error:
        raise Refused("Image reçue illisible", code="dicom-file") from error
    return Frame(body, _MEDIA[syntax], syntax)


def read_video(path: Path, header: Header) -> Frame:
    """The whole video stream of an instance. Raises ``Refused`` (``syntax``) when it is not a video."""
    pixels = header.pixels
    media_type = _VIDEO.get(header.transfer_syntax_uid)
    if pixels is None or media_type is None:
        raise Refused("Cette image n'est pas une vidéo", code="syntax")
    try:
        with path.open("rb") as file:
            file.seek(pixels.offset)
            parse_basic_offsets(file)
            body = b"".join(generate_fragments(file))
    except (ValueError, struct.error, EOFError) as error:
        raise Refused("Image reçue illisible", code="dicom-file") from error
    return Frame(body, media_type, header.transfer_syntax_uid)


def _native(path: Path, pixels: Pixels, number: int) -> bytes:
    first_bit = pixels.bits_per_frame * (number - 1)
    last_bit = first_bit + pixels.bits_per_frame
    first, last = first_bit // 8, (last_bit + 7) // 8
    if pixels.length is None or not pixels.bits_per_frame or last > pixels.length:
        raise Refused("Image reçue illisible", code="dicom-file")
    with path.open("rb") as file:
        file.seek(pixels.offset + first)
        body = file.read(last - first)
    if len(body) != last - first:
        raise Refused("Image reçue tronquée", code="dicom-file")
    if first_bit % 8 == 0:
        return body
    # Single-bit frames are packed without padding between them (PS3.5 8.1.1): move this one to a byte boundary.
    bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    start = first_bit % 8
    return np.packbits(bits[start : start + pixels.bits_per_frame], bitorder="little").tobytes()
