"""What the Image Pixel module says of a file (PS3.3 C.7.6.3), and where its pixels lie."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.images.elements import PIXEL_DATA, Budget, Buffer, Element, elements, number, text
from drimbox.images.header import Meta
from drimbox.images.syntaxes import encoding_of

#: Added to the name of a target file for what must be written on the way to it.
BETWEEN = ".le"

_MAX_ELEMENTS = 5_000_000
_MAX_FRAMES = 1_000_000
_MAX_NATIVE_BYTES = 0xFFFFFFFE

SAMPLES, PHOTOMETRIC, PLANAR, FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, SIGNED = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103
LOSSY = 0x00282110
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002

_NUMBERS = frozenset((SAMPLES, PLANAR, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, SIGNED))


@dataclass(frozen=True, slots=True)
class Pixels:
    """The shape of the frames and what their numbers mean."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame of whole bytes per sample."""
        return self.rows * self.columns * self.samples * (self.bits_allocated // 8)

    @property
    def fits_native(self) -> bool:
        """Can all frames stand in one element of defined length?"""
        return self.frame_bytes * self.frames <= _MAX_NATIVE_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """The elements of a file up to its Pixel Data, that element, and its description; None twice when it has none."""

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
        if element.tag == PIXEL_DATA:
            data = element
        else:
            before.append(element)
    if data is None:
        return Layout(tuple(before), None, None)
    values = {e.tag: number(buffer, e, encoding) for e in before if e.tag in _NUMBERS and e.end > e.value}
    photometric = next((text(buffer, e) for e in before if e.tag == PHOTOMETRIC), "")
    return Layout(tuple(before), data, _pixels(values, photometric))


def _pixels(values: dict[int, int], photometric: str) -> Pixels:
    try:
        pixels = Pixels(
            rows=values[ROWS],
            columns=values[COLUMNS],
            samples=values.get(SAMPLES, 1),
            frames=values.get(FRAMES, 1) or 1,
            bits_allocated=values[BITS_ALLOCATED],
            bits_stored=values.get(BITS_STORED, values[BITS_ALLOCATED]),
            signed=values.get(SIGNED, 0) == 1,
            photometric=photometric,
            planar=values.get(PLANAR, 0) == 1,
        )
    except KeyError:
        raise _impossible() from None
    if not (pixels.rows and pixels.columns and 0 < pixels.frames <= _MAX_FRAMES and pixels.samples in (1, 3, 4)):
        raise _impossible()
    if pixels.bits_allocated not in (1, 8, 16, 32, 64) or not 0 < pixels.bits_stored <= pixels.bits_allocated:
        raise _impossible()
    return pixels


def _impossible() -> Refused:
    return Refused("Image DICOM illisible : description des pixels absente ou impossible", code="dicom-pixels")
