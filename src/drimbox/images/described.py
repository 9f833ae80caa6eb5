"""What a header must say of pixels that went through a codec: the edits that make it true, none where it is already.

Photometric Interpretation and Planar Configuration (PS3.3 C.7.6.3, PS3.5 8.2), what was lost (PS3.3 C.7.6.1.1.5), and
what only held for the former encoding: offset tables, compressed icons, retired group lengths.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from drimbox.dicom.elements import PIXEL_DATA, UNDEFINED, Budget, Buffer, Element, elements, items, text, write
from drimbox.dicom.files import Edit
from drimbox.dicom.pixels import (
    IMAGE_TYPE,
    LOSSY,
    LOSSY_METHOD,
    LOSSY_RATIO,
    OFFSET_LENGTHS,
    OFFSETS,
    PHOTOMETRIC,
    PLANAR,
    Layout,
    Pixels,
)
from drimbox.dicom.syntaxes import (
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LS_NEAR,
    encoding_of,
)

_EXPLICIT = encoding_of(EXPLICIT_LE)
_ICONS = 0x00880200
_MAX_ICON_ELEMENTS = 10_000

#: Terms of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1).
_METHODS = {
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED), "ISO_10918_1"),
    JPEG_LS_NEAR: "ISO_14495_1",
    **dict.fromkeys((JPEG_2000_LOSSLESS, JPEG_2000), "ISO_15444_1"),
    **dict.fromkeys((HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K), "ISO_15444_15"),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A step that lost something, by whoever compressed the image before or by us (``ours``).

    ``ratio`` is that of the uncompressed size to the compressed one.
    """

    syntax: str
    ratio: float
    ours: bool


def description_edits(buffer: Buffer, layout: Layout, pixels: Pixels, loss: Loss | None) -> list[Edit]:
    """The edits after which the header of an Explicit VR Little Endian file describes ``pixels``.

    The SOP Instance UID stays even where we lost something: the caller can match no other with its KOS, and the loss is
    small enough not to affect the reading, which is what PS3.3 C.7.6.1.1.2 makes another UID depend on.
    """
    wanted = {PHOTOMETRIC: write(PHOTOMETRIC, "CS", pixels.photometric.encode("ascii"), _EXPLICIT)}
    if pixels.samples > 1:
        wanted[PLANAR] = write(PLANAR, "US", struct.pack("<H", 0), _EXPLICIT)
    if loss is not None:
        wanted |= _of_loss(buffer, layout, loss)
    edits: list[Edit] = []
    groups: set[int] = set()
    for tag, new in sorted(wanted.items()):
        old = layout.find(tag)
        if old is not None and bytes(buffer[old.start : old.end]) == new:
            continue
        at = old.start if old else next((e.start for e in layout.elements if e.tag > tag), _pixels_start(layout))
        edits.append(Edit(at, old.end - old.start if old else 0, new))
        groups.add(tag >> 16)
    dropped = [layout.find(OFFSETS), layout.find(OFFSET_LENGTHS), _compressed_icons(buffer, layout)]
    groups |= {element.tag >> 16 for element in dropped if element is not None}
    # A group length is retired, and its value would be wrong.
    dropped += [layout.find(group << 16) for group in groups]
    edits += [Edit(e.start, e.end - e.start, b"") for e in dropped if e is not None]
    return edits


def _of_loss(buffer: Buffer, layout: Layout, loss: Loss) -> dict[int, bytes]:
    found = {LOSSY: write(LOSSY, "CS", b"01", _EXPLICIT)}
    told = layout.find(LOSSY_RATIO), layout.find(LOSSY_METHOD)
    if loss.ours or told == (None, None):
        # One value for each step (PS3.3 C.7.6.1.1.5.2): the former ones stay.
        steps = zip(told, (f"{max(loss.ratio, 1):.2f}", _METHODS[loss.syntax]), strict=True)
        ratio, method = ("\\".join(filter(None, (text(buffer, old) if old else "", new))) for old, new in steps)
        found[LOSSY_RATIO] = write(LOSSY_RATIO, "DS", ratio.encode("latin-1"), _EXPLICIT)
        found[LOSSY_METHOD] = write(LOSSY_METHOD, "CS", method.encode("latin-1"), _EXPLICIT)
    kind = layout.find(IMAGE_TYPE)
    if loss.ours and kind is not None:
        values = text(buffer, kind).split("\\")
        found[IMAGE_TYPE] = write(IMAGE_TYPE, "CS", "\\".join(["DERIVED", *values[1:]]).encode("latin-1"), _EXPLICIT)
    return found


def _compressed_icons(buffer: Buffer, layout: Layout) -> Element | None:
    """The Icon Image Sequence when an icon in it is compressed in the syntax that the image leaves."""
    sequence = layout.find(_ICONS)
    if sequence is None or sequence.vr != "SQ":
        return None
    budget = Budget(_MAX_ICON_ELEMENTS)
    for item in items(buffer, sequence, _EXPLICIT, budget):
        for element in elements(buffer, item.value, item.content_end, _EXPLICIT, budget, depth=1):
            if element.tag == PIXEL_DATA and element.length == UNDEFINED:
                return sequence
    return None


def _pixels_start(layout: Layout) -> int:
    assert layout.data is not None
    return layout.data.start
