"""One frame decoded, one frame encoded: every codec of DICOM but video (PS3.5 8.2), by imagecodecs.

Called in a worker process only: the codecs are native code that reads what strangers sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from drimbox.dicom.pixels import Pixels
from drimbox.dicom.syntaxes import (
    ALWAYS_LOSSY,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_LS_NEAR,
    RLE,
)
from drimbox.foundation.errors import Refused

Frame = npt.NDArray[Any]

#: Of lossy JPEG, which nobody gets who takes anything else: as good as it comes without growing out of proportion.
_LOSSY_QUALITY = 95

_JPEG_LOSSY = (JPEG_BASELINE, JPEG_EXTENDED)
_JPEG_2000 = (JPEG_2000_LOSSLESS, JPEG_2000)
_HTJ2K = (HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K)


@dataclass(frozen=True, slots=True)
class _Codestream:
    """What the compressed frame says of itself."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False
    component_ids: bytes = b""
    jfif: bool = False
    adobe_transform: int | None = None


def decode(data: bytes, syntax: str, pixels: Pixels) -> Frame:
    """One frame as rows x columns [x samples] of the width that ``pixels`` allots, samples of a pixel side by side.

    Colours of lossy JPEG and of JPEG 2000 come out as RGB, all others as they are. Raises ``Refused`` (``dicom-frame``)
    when frame and description disagree; the codecs raise errors of their own on damaged data.
    """
    if syntax == RLE:
        return _shaped(_decode_rle(data, pixels), pixels)
    if data[4:8] == b"jP  ":
        # A JP2 file where the bare codestream belongs (PS3.5 A.4.4): old toolkits wrote them.
        data = data[max(0, data.find(b"\xff\x4f\xff\x51")) :]
    stream = _read_codestream(data)
    if (stream.rows, stream.columns, stream.samples) != (pixels.rows, pixels.columns, pixels.samples):
        raise _mismatch()
    if stream.precision > pixels.bits_allocated:
        raise _mismatch()
    return _shaped(_widened(_DECODERS[syntax](data, stream, pixels), stream, pixels), pixels)


def encode(frame: Frame, syntax: str, pixels: Pixels) -> bytes:
    """One frame of the description ``pixels``, losslessly but for lossy JPEG, all bits of its cells kept.

    What the colours become is what ``offers.encoded`` says.
    """
    if syntax in _HTJ2K:
        return _encode_htj2k(frame, pixels)
    if syntax in _JPEG_2000:
        return bytes(
            imagecodecs.jpeg2k_encode(
                frame,
                level=0,
                codecformat="j2k",
                reversible=True,
                mct=False,
                bitspersample=_precision(frame, pixels),
                numthreads=1,
            )
        )
    # JPEG and JPEG-LS know no sign: the bit patterns go in as they are (PS3.5 8.2.1, 8.2.3).
    cells = frame.view(f"u{frame.dtype.itemsize}")
    if syntax == JPEG_LS:
        return _without_spiff(bytes(imagecodecs.jpegls_encode(cells)))
    if syntax in (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS):
        return _encode_jpeg_lossless(cells, _precision(frame, pixels))
    if syntax in _JPEG_LOSSY:
        return _encode_jpeg(cells, pixels)
    raise ValueError(f"no encoder for {syntax}")


def _precision(frame: Frame, pixels: Pixels) -> int:
    """Bits of a sample: the stored ones, or those of the whole cell where others are in use (overlays) or a sign is."""
    cell = frame.dtype.itemsize * 8
    if pixels.signed or pixels.bits_stored == cell or int(frame.max()) >> pixels.bits_stored:
        return cell
    return max(pixels.bits_stored, 2)


def _encode_htj2k(frame: Frame, pixels: Pixels) -> bytes:
    """RPCL, with pointers to the tile parts, and so many levels that the least image is of 64 pixels (PS3.5 8.2.16).

    Five at least, but in images so small that there is nothing left to halve: OpenJPH 0.9 reads these wrong.
    """
    longest = max(frame.shape[:2])
    levels = max(1, min(5, longest.bit_length() - 1), (longest - 1).bit_length() - 6)
    return bytes(
        imagecodecs.htj2k_encode(
            frame, reversible=True, tlm=True, resolutions=levels, rgb=frame.ndim == 3 and pixels.photometric == "RGB"
        )
    )


def _encode_jpeg_lossless(cells: Frame, bits: int) -> bytes:
    if cells.ndim == 2:
        return bytes(imagecodecs.ljpeg_encode(cells, bitspersample=bits))
    return bytes(
        imagecodecs.jpeg8_encode(
            cells, lossless=True, predictor=1, bitspersample=bits, colorspace="RGB", outcolorspace="RGB"
        )
    )


def _encode_jpeg(cells: Frame, pixels: Pixels) -> bytes:
    if cells.ndim == 2:
        return bytes(
            imagecodecs.jpeg8_encode(cells, level=_LOSSY_QUALITY, bitspersample=8 if cells.dtype.itemsize == 1 else 12)
        )
    coming = "RGB" if pixels.photometric == "RGB" else "YCBCR"
    return bytes(
        imagecodecs.jpeg8_encode(
            cells, level=_LOSSY_QUALITY, subsampling="444", colorspace=coming, outcolorspace="YCBCR"
        )
    )


def lost_something(data: bytes, syntax: str) -> bool:
    """Does a compressed frame say that it lost something: has it the transform that cannot be undone (9-7)?"""
    if syntax not in (*_JPEG_2000, *_HTJ2K):
        return syntax in ALWAYS_LOSSY
    at = data.find(b"\xff\x52")
    # COD: marker, length, style, progression, layers, component transform, levels, block size, style, transform.
    return at >= 0 and data[at + 13 : at + 14] == b"\0"


def _decode_rle(data: bytes, pixels: Pixels) -> Frame:
    dtype = np.dtype(f"u{pixels.bits_allocated // 8}")
    planes = np.frombuffer(imagecodecs.dicomrle_decode(data, dtype), dtype)
    if planes.size != pixels.rows * pixels.columns * pixels.samples:
        raise _mismatch()
    if pixels.samples == 1:
        return planes.reshape(pixels.rows, pixels.columns)
    return planes.reshape(pixels.samples, pixels.rows, pixels.columns).transpose(1, 2, 0)


def _decode_jpeg(data: bytes, stream: _Codestream, pixels: Pixels) -> Frame:
    if stream.samples == 1:
        return _array(imagecodecs.jpeg8_decode(data))
    coded = "RGB" if _is_rgb(stream, pixels) else "YCBCR"
    return _array(imagecodecs.jpeg8_decode(data, colorspace=coded, outcolorspace="RGB"))


def _decode_jpeg_lossless(data: bytes, stream: _Codestream, pixels: Pixels) -> Frame:
    if stream.samples == 1:
        return _array(imagecodecs.jpeg8_decode(data))
    return _array(imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB"))


def _decode_jpeg_ls(data: bytes, stream: _Codestream, pixels: Pixels) -> Frame:
    return _array(imagecodecs.jpegls_decode(data))


def _decode_jpeg_2000(data: bytes, stream: _Codestream, pixels: Pixels) -> Frame:
    return _array(imagecodecs.jpeg2k_decode(data, numthreads=1))


def _decode_htj2k(data: bytes, stream: _Codestream, pixels: Pixels) -> Frame:
    return _array(imagecodecs.htj2k_decode(data))


_DECODERS: dict[str, Callable[[bytes, _Codestream, Pixels], Frame]] = {
    **dict.fromkeys(_JPEG_LOSSY, _decode_jpeg),
    **dict.fromkeys((JPEG_LOSSLESS, JPEG_LOSSLESS_SV1), _decode_jpeg_lossless),
    **dict.fromkeys((JPEG_LS, JPEG_LS_NEAR), _decode_jpeg_ls),
    **dict.fromkeys(_JPEG_2000, _decode_jpeg_2000),
    **dict.fromkeys(_HTJ2K, _decode_htj2k),
}


def _array(decoded: Any) -> Frame:
    frame: Frame = decoded
    return frame


def _is_rgb(stream: _Codestream, pixels: Pixels) -> bool:
    """Are the components of a lossy JPEG R, G and B? The stream's own marks first, then the data set's word."""
    if stream.component_ids in (b"RGB", b"rgb"):
        return True
    if stream.adobe_transform is not None:
        return stream.adobe_transform == 0
    return pixels.photometric == "RGB" and not stream.jfif


def _widened(frame: Frame, stream: _Codestream, pixels: Pixels) -> Frame:
    """The decoded numbers in cells of the allotted width and sign.

    A signed image whose codestream does not say so (JPEG and JPEG-LS never do) holds two's complements of the stream's
    precision: their sign is carried up.
    """
    width = pixels.bits_allocated // 8
    wide = frame.astype(f"{'i' if stream.signed else 'u'}{width}", copy=False)
    if stream.signed == pixels.signed:
        return wide
    spare = pixels.bits_allocated - stream.precision
    cells = wide.view(f"{'i' if pixels.signed else 'u'}{width}")
    return np.right_shift(np.left_shift(cells, spare), spare) if spare else cells


def _shaped(frame: Frame, pixels: Pixels) -> Frame:
    if pixels.samples == 3 and frame.shape == (3, pixels.rows, pixels.columns) and pixels.columns != 3:
        frame = frame.transpose(1, 2, 0)
    expected = (pixels.rows, pixels.columns) if pixels.samples == 1 else (pixels.rows, pixels.columns, pixels.samples)
    if frame.shape != expected or frame.dtype.itemsize * 8 != pixels.bits_allocated:
        raise _mismatch()
    return np.ascontiguousarray(frame)


def _read_codestream(data: bytes) -> _Codestream:
    try:
        if data[:4] == b"\xff\x4f\xff\x51":
            return _read_siz(data)
        if data[:2] == b"\xff\xd8":
            return _read_frame_header(data)
    except (struct.error, IndexError):
        pass
    raise Refused("Image DICOM illisible : trame compressée mal formée", code="dicom-frame")


def _read_siz(data: bytes) -> _Codestream:
    """The SIZ marker of JPEG 2000 and HTJ2K (ISO/IEC 15444-1 A.5.1)."""
    x_end, y_end, x_start, y_start = struct.unpack_from(">IIII", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    depth = data[42]
    return _Codestream(
        rows=y_end - y_start,
        columns=x_end - x_start,
        samples=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
    )


def _read_frame_header(data: bytes) -> _Codestream:
    """The frame header of JPEG and JPEG-LS (ITU T.81 B.2.2), and the application markers before it."""
    position, jfif, adobe = 2, False, None
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", data, body)
            ids = bytes(data[body + 6 + 3 * i] for i in range(samples))
            return _Codestream(rows, columns, samples, precision, False, ids, jfif, adobe)
        if marker == 0xE0 and data[body : body + 4] == b"JFIF":
            jfif = True
        elif marker == 0xEE and data[body : body + 5] == b"Adobe":
            adobe = data[body + 11]
        position += 2 + max(length, 2)
    raise IndexError


def _without_spiff(data: bytes) -> bytes:
    """CharLS puts a SPIFF directory (APP8) before the image; DICOM knows none."""
    position = 2
    while data[position : position + 2] == b"\xff\xe8":
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return data[:2] + data[position:]


def _mismatch() -> Refused:
    return Refused("Image DICOM illisible : la trame ne correspond pas à sa description", code="dicom-frame")
