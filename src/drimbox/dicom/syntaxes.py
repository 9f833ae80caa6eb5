"""The transfer syntaxes that images come in and go out in (PS3.5 annex A; standards.md C.1)."""

from __future__ import annotations

from dataclasses import dataclass

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
MPEG2_MAIN = "1.2.840.10008.1.2.4.100"
MPEG2_HIGH = "1.2.840.10008.1.2.4.101"
MPEG4_HIGH = "1.2.840.10008.1.2.4.102"
MPEG4_BD = "1.2.840.10008.1.2.4.103"
MPEG4_42_2D = "1.2.840.10008.1.2.4.104"
MPEG4_42_3D = "1.2.840.10008.1.2.4.105"
MPEG4_STEREO = "1.2.840.10008.1.2.4.106"
HEVC_MAIN = "1.2.840.10008.1.2.4.107"
HEVC_MAIN_10 = "1.2.840.10008.1.2.4.108"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

#: The ten syntaxes of the French profile, in the order of the official requests.
FRENCH_PROFILE = (
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    MPEG2_MAIN,
    MPEG2_HIGH,
    MPEG4_HIGH,
    MPEG4_BD,
    EXPLICIT_LE,
)

#: Videos: all frames of an image are one stream. They go out as they are or not at all.
VIDEO = frozenset(
    {
        *(MPEG2_MAIN, MPEG2_HIGH, MPEG4_HIGH, MPEG4_BD),
        *(MPEG4_42_2D, MPEG4_42_3D, MPEG4_STEREO, HEVC_MAIN, HEVC_MAIN_10),
        # The same, cut in fragments of any size (Supplement 225).
        *(f"1.2.840.10008.1.2.4.{number}.1" for number in range(100, 107)),
    }
)

#: Syntaxes without compressed pixels.
NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})

#: Native syntaxes that never leave over DICOMweb as they lie (PS3.18 8.7.3.5.2) or that no caller of the network asks.
NEVER_SENT = frozenset({IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE})

#: Compressed syntaxes whose frames we can decode.
DECODABLE = frozenset(
    {
        RLE,
        JPEG_BASELINE,
        JPEG_EXTENDED,
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS,
        JPEG_LS_NEAR,
        JPEG_2000_LOSSLESS,
        JPEG_2000,
        HTJ2K_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
        HTJ2K,
    }
)

#: Syntaxes whose frames have always lost something.
ALWAYS_LOSSY = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_LS_NEAR}) | VIDEO

#: A frame of the first is also, bit for bit, one of the others: only the label changes (PS3.5 A.4.1, A.4.4, A.4.11).
RELABELLED = {
    JPEG_LOSSLESS_SV1: (JPEG_LOSSLESS,),
    JPEG_2000_LOSSLESS: (JPEG_2000,),
    HTJ2K_LOSSLESS: (HTJ2K,),
    HTJ2K_LOSSLESS_RPCL: (HTJ2K_LOSSLESS, HTJ2K),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are laid out: with their VR or without, and in which byte order."""

    explicit: bool
    little: bool


def encoding_of(transfer_syntax: str) -> Encoding:
    """The layout of a data set under ``transfer_syntax`` (after inflation when it is deflated)."""
    if transfer_syntax == IMPLICIT_LE:
        return Encoding(explicit=False, little=True)
    return Encoding(explicit=True, little=transfer_syntax != EXPLICIT_BE)


#: Media types of single frames (PS3.18 8.7.3.3, table 8.7.3-5), each with the syntax that it means when none is named.
FRAME_MEDIA = {
    "application/octet-stream": EXPLICIT_LE,
    "image/jpeg": JPEG_LOSSLESS_SV1,
    "image/jls": JPEG_LS,
    "image/jp2": JPEG_2000_LOSSLESS,
    "image/jphc": HTJ2K_LOSSLESS,
    "image/dicom-rle": RLE,
}
_MEDIA_OF = {
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1), "image/jpeg"),
    **dict.fromkeys((JPEG_LS, JPEG_LS_NEAR), "image/jls"),
    **dict.fromkeys((JPEG_2000_LOSSLESS, JPEG_2000), "image/jp2"),
    **dict.fromkeys((HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K), "image/jphc"),
    RLE: "image/dicom-rle",
}


def frame_media(transfer_syntax: str) -> str:
    """The media type of one frame under ``transfer_syntax``, ``application/octet-stream`` for one that has no own."""
    return _MEDIA_OF.get(transfer_syntax, "application/octet-stream")
