"""Frames as JPEG pictures, seen through the window that their header asks for.

What is compressed is decoded in the processes that do nothing else (``images.workers``).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from drimbox.consumer.frames import read_frame
from drimbox.consumer.header import Header, bulk_value
from drimbox.dicom.pixels import Pixels
from drimbox.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE, VIDEO
from drimbox.foundation.errors import Refused
from drimbox.images.offers import decoded
from drimbox.images.threads import in_thread
from drimbox.link_images.looking import Seen
from drimbox.link_images.ports import Transcoder
from drimbox.link_images.windows import window_of

_MAX_PIXELS = 64 * 2**20
_QUALITY = 92
_AS_THEY_LIE = frozenset({IMPLICIT_LE, EXPLICIT_LE})
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTES = ("00281101", "00281102", "00281103"), ("00281201", "00281202", "00281203")

Cells = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws frames. ``scratch`` names files that are never made: what is decoded comes in memory."""

    transcoder: Transcoder
    scratch: Path

    async def jpeg(self, path: Path, seen: Seen, number: int) -> bytes:
        """Frame ``number`` (from 1) in full size. Raises ``Refused`` for what cannot be drawn."""
        pixels = seen.header.pixels
        if pixels is None or not 1 <= number <= pixels.frames:
            raise Refused("Cette image n'existe pas", code="no-frame")
        native = await self._native(path, seen.header, number)
        return await in_thread(_drawn, path, seen, number, native)

    async def _native(self, path: Path, header: Header, number: int) -> bytes:
        if header.transfer_syntax_uid in _AS_THEY_LIE:
            return (await in_thread(read_frame, path, header, number)).body
        target = self.scratch / f"{uuid.uuid4()}.frame"
        made = await self.transcoder.frames(path, target, EXPLICIT_LE, [number], in_memory=True)
        return made.content or b""


def frames_to_draw(header: Header) -> int:
    """How many pictures an image makes; 0 for what has none that can be drawn."""
    pixels = header.pixels
    if pixels is None or header.transfer_syntax_uid in VIDEO or pixels.rows * pixels.columns > _MAX_PIXELS:
        return 0
    return pixels.frames if _drawable(pixels) else 0


def _drawable(pixels: Pixels) -> bool:
    if pixels.samples == 1:
        grey = pixels.photometric in _GREY
        return grey or (pixels.photometric == "PALETTE COLOR" and pixels.bits_allocated in (8, 16))
    colours = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
    return pixels.samples == 3 and pixels.bits_allocated == 8 and pixels.photometric in colours


def _drawn(path: Path, seen: Seen, number: int, native: bytes) -> bytes:
    pixels = seen.header.pixels
    assert pixels is not None
    if seen.header.transfer_syntax_uid not in _AS_THEY_LIE:
        # The description of what came out of the codec; its planes lie as those of the image did.
        pixels = decoded(seen.header.transfer_syntax_uid, pixels)
        planar = seen.header.pixels is not None and seen.header.pixels.planar
    else:
        planar = pixels.planar
    if len(native) < pixels.frame_bytes:
        raise Refused("Image DICOM tronquée", code="dicom-frame")
    header = json.loads(seen.described)
    if pixels.samples == 3:
        picture = _colours(native, pixels, planar=planar)
    elif pixels.photometric == "PALETTE COLOR":
        picture = _through_palette(_stored(native, pixels), path, header)
    else:
        grey = window_of(header, number).grey(_stored(native, pixels).astype(np.float32))
        picture = 255 - grey if pixels.photometric == "MONOCHROME1" else grey
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=_QUALITY))


def _stored(native: bytes, pixels: Pixels) -> Cells:
    """The stored values of a frame of one sample: overlays in the high bits are no part of them."""
    shape = (pixels.rows, pixels.columns)
    if pixels.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(native, np.uint8), bitorder="little")
        single: Cells = bits[: shape[0] * shape[1]].reshape(shape)
        return single
    kind = "f" if pixels.floating else "u"
    cells = np.frombuffer(native, f"<{kind}{pixels.bits_allocated // 8}", shape[0] * shape[1]).reshape(shape)
    if pixels.floating:
        numbers: Cells = np.nan_to_num(cells)
        return numbers
    values = cells.astype(np.int64) & ((1 << pixels.bits_stored) - 1)
    if pixels.signed:
        values = np.where(values >> (pixels.bits_stored - 1), values - (1 << pixels.bits_stored), values)
    return values


def _colours(native: bytes, pixels: Pixels, *, planar: bool) -> Bytes:
    rows, columns = pixels.rows, pixels.columns
    if pixels.photometric == "YBR_FULL_422":
        pairs = np.frombuffer(native, np.uint8, rows * columns * 2).reshape(rows, columns // 2, 4)
        full = np.empty((rows, columns // 2, 2, 3), np.uint8)
        full[..., 0] = pairs[..., :2]
        full[..., 1:] = pairs[..., np.newaxis, 2:]
        return _rgb(full.reshape(rows, columns, 3))
    cells = np.frombuffer(native, np.uint8, rows * columns * 3)
    colours = cells.reshape(3, rows, columns).transpose(1, 2, 0) if planar else cells.reshape(rows, columns, 3)
    return colours if pixels.photometric == "RGB" else _rgb(colours)


def _rgb(ybr: Bytes) -> Bytes:
    """PS3.3 C.7.6.3.1.2, full range."""
    y, cb, cr = (ybr[..., i].astype(np.float32) - (128 if i else 0) for i in range(3))
    mixed = np.stack((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb), axis=-1)
    rgb: Bytes = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return rgb


def _through_palette(stored: Cells, path: Path, header: Mapping[str, Any]) -> Bytes:
    """PS3.3 C.7.6.3.1.5, C.7.6.3.1.6. Raises ``Refused`` where the tables are not there."""
    planes = []
    for told, data in zip(*_PALETTES, strict=True):
        descriptor = header.get(told, {}).get("Value", [])
        raw = bulk_value(path, data)
        if len(descriptor) != 3 or not raw:
            raise Refused("Image en couleurs sans palette", code="dicom-pixels")
        count = int(descriptor[0]) & 0xFFFF or 65536
        wide = int(descriptor[2]) > 8 or len(raw) >= 2 * count
        table = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2") if wide else np.frombuffer(raw, np.uint8)
        table = table[:count]
        eight = table >> 8 if int(descriptor[2]) > 8 else table
        places = np.clip(stored - int(descriptor[1]), 0, len(table) - 1)
        planes.append(eight[places].astype(np.uint8))
    return np.stack(planes, axis=-1)
