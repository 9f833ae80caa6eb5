"""What the Image Pixel module says of a file (PS3.3 C.7.6.3), and where its pixels lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drimbox.dicom.elements import (
    DOUBLE_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    Budget,
    Buffer,
    Element,
    elements,
    number,
    text,
)
from drimbox.dicom.files import Meta
from drimbox.dicom.syntaxes import Encoding, encoding_of
from drimbox.foundation.errors import Refused

_MAX_ELEMENTS = 5_000_000
_MAX_FRAMES = 1_000_000
_MAX_NATIVE_BYTES = 0xFFFFFFFE

SAMPLES, PHOTOMETRIC, PLANAR, FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED = 0x00280010, 0x00280011, 0x00280100, 0x00280101
HIGH_BIT, SIGNED = 0x00280102, 0x00280103
IMAGE_TYPE = 0x00080008
LOSSY, LOSSY_RATIO, LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002

_NUMBERS = frozenset((SAMPLES, PLANAR, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED))
_PIXEL_ELEMENTS = frozenset((PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA))
_FLOATING = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}


def is_pixel_data(tag: int) -> bool:
    """Pixel Data, Float Pixel Data or Double Float Pixel Data."""
    return tag in _PIXEL_ELEMENTS


@dataclass(frozen=True, slots=True)
class Pixels:
    """The shape of the frames and what their numbers mean. ``floating``: Float or Double Float Pixel Data."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: bool
    floating: bool = False

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame; frames of single bits are packed without a gap (PS3.5 8.1.1)."""
        bits = self.rows * self.columns * self.samples * self.bits_allocated
        # Two pixels share their colours (PS3.3 C.7.6.3.1.2).
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame, one of a multi-frame image of single bits as it stands alone."""
        return (self.frame_bits + 7) // 8

    @property
    def all_bytes(self) -> int:
        """Bytes of all uncompressed frames."""
        return (self.frame_bits * self.frames + 7) // 8

    @property
    def fits_native(self) -> bool:
        """Can all frames stand in one element of defined length?"""
        return self.all_bytes <= _MAX_NATIVE_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """The elements of a file up to its pixels, the element that holds these, and their description.

    ``data`` and ``pixels`` are None for an object without pixels.
    """

    elements: tuple[Element, ...]
    data: Element | None
    pixels: Pixels | None

    def find(self, tag: int) -> Element | None:
        """The element of a tag before the pixels."""
        return next((e for e in self.elements if e.tag == tag), None)


def read_layout(buffer: Buffer, meta: Meta) -> Layout:
    """Find the pixels of a file that is not deflated.

    Raises ``Refused`` for what cannot be read, ``dicom-pixels`` for pixels whose description is missing or impossible.
    """
    encoding = encoding_of(meta.transfer_syntax)
    before: list[Element] = []
    data: Element | None = None
    for element in elements(buffer, meta.end, len(buffer), encoding, Budget(_MAX_ELEMENTS), until=PIXEL_DATA):
        if element.tag in _PIXEL_ELEMENTS:
            data = element
            break
        before.append(element)
    described = _described(buffer, before, encoding, data) if data is not None else None
    return Layout(tuple(before), data, described)


def read_description(data: Buffer, start: int, encoding: Encoding) -> Pixels | None:
    """The description alone, without a look at where the pixels are; None when there is none.

    ``data`` may be cut anywhere after group 0028. That numbers are floating is not told.
    """
    before = list(elements(data, start, len(data), encoding, Budget(_MAX_ELEMENTS), until=SIGNED))
    return _described(data, before, encoding, None) if any(e.tag == ROWS for e in before) else None


def _described(buffer: Buffer, before: Iterable[Element], encoding: Encoding, data: Element | None) -> Pixels:
    values = {e.tag: number(buffer, e, encoding) for e in before if e.tag in _NUMBERS and e.end > e.value}
    photometric = next((text(buffer, e) for e in before if e.tag == PHOTOMETRIC), "")
    return _pixels(values, photometric, _FLOATING.get(data.tag, 0) if data is not None else 0)


def _pixels(values: dict[int, int], photometric: str, floating: int) -> Pixels:
    try:
        allocated = floating or values[BITS_ALLOCATED]
        pixels = Pixels(
            rows=values[ROWS],
            columns=values[COLUMNS],
            samples=values.get(SAMPLES, 1),
            frames=values.get(FRAMES, 1) or 1,
            bits_allocated=allocated,
            bits_stored=floating or values.get(BITS_STORED, allocated),
            signed=values.get(SIGNED, 0) == 1,
            photometric=photometric,
            planar=values.get(PLANAR, 0) == 1,
            floating=bool(floating),
        )
    except KeyError:
        raise _impossible() from None
    if not (pixels.rows and pixels.columns and 0 < pixels.frames <= _MAX_FRAMES and pixels.samples in (1, 3, 4)):
        raise _impossible()
    if pixels.bits_allocated not in (1, 8, 16, 32, 64) or not 0 < pixels.bits_stored <= pixels.bits_allocated:
        raise _impossible()
    if photometric == "YBR_FULL_422" and (pixels.samples != 3 or pixels.columns % 2 or pixels.bits_allocated != 8):
        raise _impossible()
    return pixels


def _impossible() -> Refused:
    return Refused("Image DICOM illisible : description des pixels absente ou impossible", code="dicom-pixels")
