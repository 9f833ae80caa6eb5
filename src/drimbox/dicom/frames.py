"""Where each frame of an image lies in its file (PS3.5 8.1, A.4): taken out as it is, never decoded.

Native frames are slices of one value; encapsulated ones are put together from their fragments, found by the Extended
Offset Table, by the Basic Offset Table, or without either.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from drimbox.dicom.elements import UNDEFINED, Budget, Buffer, Element, items, raw
from drimbox.dicom.pixels import OFFSET_LENGTHS, OFFSETS, Layout, Pixels
from drimbox.dicom.syntaxes import EXPLICIT_LE, RLE, VIDEO, encoding_of
from drimbox.foundation.errors import Refused

#: Pieces of the file, first byte and end, that make one frame when put together.
Spans = tuple[tuple[int, int], ...]

_MAX_FRAGMENTS = 2_000_000
# How a JPEG or JPEG-LS frame begins, and a JPEG 2000 one: bare or, against the rule, in a JP2 file.
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")


def frame(buffer: Buffer, layout: Layout, number: int, spans: Sequence[Spans] = ()) -> bytes:
    """Frame ``number`` (from 1) as it lies: native in Little Endian, or compressed, ``spans`` then being all frames'.

    Raises ``Refused``: ``no-frame`` when there is no such frame, ``dicom-truncated`` when its bytes are missing.
    """
    data, pixels = layout.data, layout.pixels
    if data is None or pixels is None or not 1 <= number <= pixels.frames:
        raise Refused("Trame absente de cette image", code="no-frame")
    if data.length == UNDEFINED:
        return b"".join(bytes(buffer[start:end]) for start, end in spans[number - 1])
    return _native(buffer, data, pixels, number)


def native_span(layout: Layout, number: int) -> tuple[int, int] | None:
    """Where a native frame lies, when it begins and ends with a byte; None when it does not, or is encapsulated.

    Raises as ``frame`` does.
    """
    data, pixels = layout.data, layout.pixels
    if data is None or pixels is None or not 1 <= number <= pixels.frames:
        raise Refused("Trame absente de cette image", code="no-frame")
    if data.length == UNDEFINED or pixels.frame_bits % 8:
        return None
    start = data.value + (number - 1) * pixels.frame_bytes
    if start + pixels.frame_bytes > data.end:
        raise _truncated()
    return start, start + pixels.frame_bytes


def all_spans(buffer: Buffer, layout: Layout, transfer_syntax: str) -> tuple[Spans, ...]:
    """The pieces of every frame of encapsulated pixels; of a video the one stream that all its frames are.

    Raises ``Refused`` (``dicom-frame``) when frames are missing or cannot be told apart, ``dicom-pixels`` for what is
    not encapsulated.
    """
    data, pixels = layout.data, layout.pixels
    if data is None or pixels is None or data.length != UNDEFINED:
        raise Refused("Image DICOM illisible : pixels d'une forme inconnue", code="dicom-pixels")
    encoding = encoding_of(EXPLICIT_LE)
    found = [(item.value, item.content_end) for item in items(buffer, data, encoding, Budget(_MAX_FRAGMENTS))]
    if not found:
        raise _unknown()
    (table_start, table_end), fragments = found[0], found[1:]
    if not fragments:
        raise _unknown()
    if transfer_syntax in VIDEO:
        return (tuple(fragments),)
    extended = _extended(buffer, layout, fragments, pixels.frames)
    if extended is not None:
        return extended
    table = bytes(buffer[table_start : min(table_end, table_start + 4 * (pixels.frames + 1))])
    by_table = _by_table(table, fragments, pixels.frames)
    return by_table if by_table is not None else _without_table(buffer, fragments, pixels.frames, transfer_syntax)


def _native(buffer: Buffer, data: Element, pixels: Pixels, number: int) -> bytes:
    first_bit = pixels.frame_bits * (number - 1)
    first, last = first_bit // 8, (first_bit + pixels.frame_bits + 7) // 8
    if data.value + last > data.end:
        raise _truncated()
    body = bytes(buffer[data.value + first : data.value + last])
    if first_bit % 8 == 0 and pixels.frame_bits % 8 == 0:
        return body
    # Single-bit frames are packed without a gap between them: this one moves to a byte boundary.
    bits = int.from_bytes(body, "little") >> first_bit % 8 & (1 << pixels.frame_bits) - 1
    return bits.to_bytes(pixels.frame_bytes, "little")


def _extended(
    buffer: Buffer, layout: Layout, fragments: Sequence[tuple[int, int]], frames: int
) -> tuple[Spans, ...] | None:
    """By the Extended Offset Table, where there is one that is true: one fragment per frame, its true length known."""
    offsets, lengths = layout.find(OFFSETS), layout.find(OFFSET_LENGTHS)
    if offsets is None or lengths is None or len(fragments) != frames:
        return None
    if offsets.content_end - offsets.value != 8 * frames or lengths.content_end - lengths.value != 8 * frames:
        return None
    starts = struct.unpack(f"<{frames}Q", raw(buffer, offsets))
    sizes = struct.unpack(f"<{frames}Q", raw(buffer, lengths))
    origin = fragments[0][0]
    if any(origin + start != first for start, (first, _) in zip(starts, fragments, strict=True)):
        return None
    if not all(0 < size <= end - first for size, (first, end) in zip(sizes, fragments, strict=True)):
        return None
    return tuple(((first, first + size),) for size, (first, _) in zip(sizes, fragments, strict=True))


def _by_table(table: bytes, fragments: Sequence[tuple[int, int]], frames: int) -> tuple[Spans, ...] | None:
    """By the Basic Offset Table (PS3.5 A.4), where there is one that is true: offsets of items, from the first one."""
    if len(table) != 4 * frames:
        return None
    origin = fragments[0][0]
    places = {first - origin: index for index, (first, _) in enumerate(fragments)}
    starts = [places.get(offset) for offset in struct.unpack(f"<{frames}I", table)]
    known = [start for start in starts if start is not None]
    if len(known) != frames or known[0] != 0 or any(a >= b for a, b in pairwise(known)):
        return None
    ends = [*known[1:], len(fragments)]
    return tuple(tuple(fragments[start:end]) for start, end in zip(known, ends, strict=True))


def _without_table(
    buffer: Buffer, fragments: Sequence[tuple[int, int]], frames: int, transfer_syntax: str
) -> tuple[Spans, ...]:
    if len(fragments) == frames:
        return tuple((fragment,) for fragment in fragments)
    if transfer_syntax == RLE or len(fragments) < frames:
        # RLE knows no second fragment (PS3.5 A.4.2).
        raise _unknown()
    if frames == 1:
        return (tuple(fragments),)
    starts = [i for i, (first, end) in enumerate(fragments) if _begins(bytes(buffer[first : min(end, first + 12)]))]
    if len(starts) != frames or starts[0] != 0:
        raise _unknown()
    ends = [*starts[1:], len(fragments)]
    return tuple(tuple(fragments[start:end]) for start, end in zip(starts, ends, strict=True))


def _begins(piece: bytes) -> bool:
    return piece.startswith(_BEGINNINGS)


def _unknown() -> Refused:
    return Refused("Image DICOM illisible : trames manquantes ou en trop", code="dicom-frame")


def _truncated() -> Refused:
    return Refused("Image DICOM illisible : pixels tronqués", code="dicom-truncated")
