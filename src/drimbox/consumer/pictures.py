"""A DICOM image as a picture that a browser shows by itself: on screen while the viewer starts, never instead of it.

Compressed frames are decoded in the processes that do nothing else (``images.workers``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import imagecodecs
import numpy as np
import numpy.typing as npt

from drimbox.consumer.arrived import Image
from drimbox.consumer.frames import read_frame
from drimbox.consumer.header import read_header
from drimbox.dicom.pixels import Pixels
from drimbox.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE, JPEG_BASELINE
from drimbox.foundation.errors import Refused

_NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE})
_MAX_PIXELS = 64 * 2**20
_MAX_SIDE = 1024
_CENTRE, _WIDTH, _INTERCEPT, _SLOPE = "00281050", "00281051", "00281052", "00281053"


class Decoded(Protocol):
    """What a decoder made (``images.workers.Made``)."""

    @property
    def content(self) -> bytes | None: ...


class FrameDecoder(Protocol):
    """Decodes frames elsewhere than in this process (``images.workers.WorkerPool``). Raises ``Refused``."""

    async def frames(
        self, source: Path, target: Path, syntax: str, numbers: Sequence[int], *, in_memory: bool
    ) -> Decoded: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a picture, and what they are."""

    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes pictures of images; without a decoder, of those only that are not compressed."""

    decoder: FrameDecoder | None = None

    async def of(self, image: Image) -> Picture | None:
        """The first frame, seen through the window that its header asks for; None for what cannot be shown so."""
        pixels = image.header.pixels
        if pixels is None or pixels.rows * pixels.columns * pixels.samples > _MAX_PIXELS:
            return None
        try:
            if image.header.transfer_syntax_uid == JPEG_BASELINE and pixels.bits_stored <= 8:
                frame = await asyncio.to_thread(read_frame, image.path, image.header, 1)
                return Picture(frame.body, "image/jpeg")
            if not _drawable(pixels):
                return None
            return Picture(await asyncio.to_thread(_drawn, image, await self._native(image), pixels), "image/png")
        except (Refused, FileNotFoundError):
            return None

    async def _native(self, image: Image) -> bytes:
        if image.header.transfer_syntax_uid in _NATIVE:
            return (await asyncio.to_thread(read_frame, image.path, image.header, 1)).body
        if self.decoder is None:
            raise Refused("Image compressée : pas de décodeur", code="no-decoder")
        beside = image.path.with_name(f"{image.path.name}.frame")
        made = await self.decoder.frames(image.path, beside, EXPLICIT_LE, [1], in_memory=True)
        return made.content or b""


def _drawable(pixels: Pixels) -> bool:
    grey = pixels.samples == 1 and pixels.photometric in ("MONOCHROME1", "MONOCHROME2")
    return not pixels.floating and (
        (grey and pixels.bits_allocated in (8, 16))
        or (pixels.samples == 3 and pixels.photometric == "RGB" and pixels.bits_allocated == 8)
    )


def _drawn(image: Image, native: bytes, pixels: Pixels) -> bytes:
    """Raises ``Refused`` (``dicom-frame``) for a frame of another size than is said."""
    shape = (pixels.rows, pixels.columns)
    if len(native) < pixels.rows * pixels.columns * pixels.samples * pixels.bits_allocated // 8:
        raise Refused("Image DICOM tronquée", code="dicom-frame")
    step = max(1, -(-max(shape) // _MAX_SIDE))
    if pixels.samples == 3:
        flat = np.frombuffer(native, np.uint8, pixels.rows * pixels.columns * 3)
        colours = flat.reshape(3, *shape).transpose(1, 2, 0) if pixels.planar else flat.reshape(*shape, 3)
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(colours[::step, ::step]), level=1))
    cells = np.frombuffer(native, np.dtype("<u2" if pixels.bits_allocated == 16 else "u1"), shape[0] * shape[1])
    values = _values(cells.reshape(shape)[::step, ::step], pixels)
    grey = _through_window(values, json.loads(read_header(image.path)[1]))
    return bytes(imagecodecs.png_encode(255 - grey if pixels.photometric == "MONOCHROME1" else grey, level=1))


def _values(cells: npt.NDArray[Any], pixels: Pixels) -> npt.NDArray[np.float32]:
    """What the cells say: overlays in the high bits are no part of it, nor are negative numbers large ones."""
    kept = cells.astype(np.int32) & ((1 << pixels.bits_stored) - 1)
    if pixels.signed:
        kept = np.where(kept >> (pixels.bits_stored - 1), kept - (1 << pixels.bits_stored), kept)
    return kept.astype(np.float32)


def _through_window(values: npt.NDArray[np.float32], header: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2.1; all values that occur where the header has no window."""
    values = values * _first(header, _SLOPE, 1.0) + _first(header, _INTERCEPT, 0.0)
    width, centre = _first(header, _WIDTH, 0.0), _first(header, _CENTRE, 0.0)
    if width < 1:
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
        width, centre = max(high - low, 1.0), (low + high) / 2
    scaled = (values - (centre - 0.5)) / max(width - 1, 1) + 0.5
    grey: npt.NDArray[np.uint8] = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return grey


def _first(header: Mapping[str, Any], tag: str, otherwise: float) -> float:
    found = header.get(tag, {}).get("Value", [None])[0]
    return float(found) if isinstance(found, int | float) else otherwise
