"""From the syntax that an image is stored in to the one that is sent (DB.SO.41, DB.CS.83). Runs in a worker process."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.encaps import generate_frames

from drimbox.foundation.errors import Refused
from drimbox.images import codecs
from drimbox.images.elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, Buffer, Element, head, mapped, write
from drimbox.images.header import Edit, Meta, read_meta, splice, syntax_edits
from drimbox.images.offers import can_decode, can_encode, decoded
from drimbox.images.pixels import (
    BETWEEN,
    LOSSY,
    OFFSET_LENGTHS,
    OFFSETS,
    PHOTOMETRIC,
    PLANAR,
    Layout,
    Pixels,
    read_layout,
)
from drimbox.images.reencode import EXPLICIT, to_explicit_le
from drimbox.images.syntaxes import (
    ALWAYS_LOSSY,
    EXPLICIT_LE,
    NATIVE,
    NEVER_SENT,
)

_CHUNK = 2**20
_GROUP_0028 = 0x00280000


def transcode(source: Path, target: Path, syntax: str) -> None:
    """Write ``source`` to ``target`` (which must not exist) in ``syntax``, one of ``offers``.

    Raises ``Refused`` when it cannot be done, and whatever the codecs raise on damaged frames; ``target`` is then void.
    """
    with mapped(source) as buffer, source.open("rb") as file:
        meta = read_meta(buffer)
        if meta.transfer_syntax in NEVER_SENT and syntax != EXPLICIT_LE:
            between = target.with_name(target.name + BETWEEN)
            try:
                transcode(source, between, EXPLICIT_LE)
                transcode(between, target, syntax)
            finally:
                between.unlink(missing_ok=True)
            return
        with target.open("xb") as out:
            if meta.transfer_syntax in NATIVE and syntax == EXPLICIT_LE:
                to_explicit_le(buffer, meta, out)
            else:
                _transcode_pixels(buffer, file, meta, out, syntax)


def _transcode_pixels(buffer: mmap.mmap, file: BinaryIO, meta: Meta, out: BinaryIO, syntax: str) -> None:
    layout = read_layout(buffer, meta)
    if layout.data is None or layout.pixels is None:
        raise Refused("Objet DICOM sans pixels", code="dicom-pixels")
    pixels = decoded(meta.transfer_syntax, layout.pixels)
    frames = _frames(buffer, file, meta, layout)
    edits = [*syntax_edits(buffer, meta, syntax), *_description_edits(buffer, meta, layout, pixels)]
    change = splice(buffer, edits)
    out.write(change.head)
    _copy(buffer, change.rest, layout.data.start, out)
    if syntax == EXPLICIT_LE:
        _write_native(frames, pixels, out)
    else:
        _write_encapsulated(frames, pixels, syntax, out)
    _copy(buffer, layout.data.end, len(buffer), out)


def _frames(buffer: mmap.mmap, file: BinaryIO, meta: Meta, layout: Layout) -> Iterator[codecs.Frame]:
    data, pixels = layout.data, layout.pixels
    assert data is not None
    assert pixels is not None
    if meta.transfer_syntax in NATIVE:
        if not can_encode(pixels) or data.end - data.value < pixels.frame_bytes * pixels.frames:
            raise Refused("Image DICOM illisible : pixels tronqués", code="dicom-truncated")
        return _native_frames(buffer, data, pixels)
    if not can_decode(pixels) or data.length != UNDEFINED:
        raise Refused("Image DICOM illisible : pixels d'une forme inconnue", code="dicom-pixels")
    tables = [layout.find(tag) for tag in (OFFSETS, OFFSET_LENGTHS)]
    extended = tuple(bytes(buffer[t.value : t.end]) for t in tables if t is not None)
    # Read from the file, where the pixels lie: the compressed whole is never in memory.
    file.seek(data.value)
    compressed = generate_frames(
        file, number_of_frames=pixels.frames, extended_offsets=extended if len(extended) == 2 else None
    )
    return _decoded_frames(compressed, meta.transfer_syntax, pixels)


def _native_frames(buffer: mmap.mmap, data: Element, pixels: Pixels) -> Iterator[codecs.Frame]:
    dtype = np.dtype(f"<{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")
    for index in range(pixels.frames):
        start = data.value + index * pixels.frame_bytes
        cells = np.frombuffer(buffer[start : start + pixels.frame_bytes], dtype)
        if pixels.samples == 1:
            yield cells.reshape(pixels.rows, pixels.columns)
        elif pixels.planar:
            planes = cells.reshape(pixels.samples, pixels.rows, pixels.columns)
            yield np.ascontiguousarray(planes.transpose(1, 2, 0))
        else:
            yield cells.reshape(pixels.rows, pixels.columns, pixels.samples)


def _decoded_frames(compressed: Iterator[bytes], syntax: str, pixels: Pixels) -> Iterator[codecs.Frame]:
    found = 0
    for frame in compressed:
        found += 1
        if found > pixels.frames:
            break
        yield codecs.decode(frame, syntax, pixels)
    if found != pixels.frames:
        raise Refused("Image DICOM illisible : trames manquantes ou en trop", code="dicom-frame")


def _description_edits(buffer: Buffer, meta: Meta, layout: Layout, pixels: Pixels) -> Iterator[Edit]:
    """What the header must say of pixels that went through a codec; nothing where it said so already."""
    for tag in (OFFSETS, OFFSET_LENGTHS):
        if (element := layout.find(tag)) is not None:
            yield Edit(element.start, element.end - element.start, b"")
    wanted: dict[int, bytes] = {}
    if meta.transfer_syntax not in NATIVE:
        wanted[PHOTOMETRIC] = write(PHOTOMETRIC, "CS", pixels.photometric.encode("ascii"), EXPLICIT)
    if pixels.samples > 1:
        wanted[PLANAR] = write(PLANAR, "US", struct.pack("<H", 0), EXPLICIT)
    if meta.transfer_syntax in ALWAYS_LOSSY:
        wanted[LOSSY] = write(LOSSY, "CS", b"01", EXPLICIT)
    changed = False
    for tag, new in wanted.items():
        old = layout.find(tag)
        if old is not None and bytes(buffer[old.start : old.end]) == new:
            continue
        at = old.start if old else next((e.start for e in layout.elements if e.tag > tag), _pixels_start(layout))
        yield Edit(at, old.end - old.start if old else 0, new)
        changed = True
    group = layout.find(_GROUP_0028)
    if changed and group is not None:
        # A retired element whose value would be wrong.
        yield Edit(group.start, group.end - group.start, b"")


def _pixels_start(layout: Layout) -> int:
    assert layout.data is not None
    return layout.data.start


def _write_native(frames: Iterator[codecs.Frame], pixels: Pixels, out: BinaryIO) -> None:
    length = pixels.frame_bytes * pixels.frames
    out.write(head(PIXEL_DATA, "OW" if pixels.bits_allocated > 8 else "OB", length + length % 2, EXPLICIT))
    for frame in frames:
        out.write(frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes())
    out.write(b"\0" * (length % 2))


def _write_encapsulated(frames: Iterator[codecs.Frame], pixels: Pixels, syntax: str, out: BinaryIO) -> None:
    """One fragment per frame, and a Basic Offset Table (PS3.5 A.4)."""
    out.write(head(PIXEL_DATA, "OB", UNDEFINED, EXPLICIT) + head(ITEM, "", 4 * pixels.frames, EXPLICIT))
    table = out.tell()
    out.write(b"\0" * (4 * pixels.frames))
    first, offsets = out.tell(), []
    for frame in frames:
        offsets.append(out.tell() - first)
        compressed = codecs.encode(frame, syntax)
        out.write(head(ITEM, "", len(compressed) + len(compressed) % 2, EXPLICIT))
        out.write(compressed + b"\0" * (len(compressed) % 2))
    out.write(head(SEQUENCE_END, "", 0, EXPLICIT))
    end = out.tell()
    if offsets[-1] > 0xFFFFFFFF:
        raise Refused("Image DICOM trop volumineuse pour cette syntaxe", code="dicom-size")
    out.seek(table)
    out.write(struct.pack(f"<{len(offsets)}I", *offsets))
    out.seek(end)


def _copy(buffer: Buffer, start: int, end: int, out: BinaryIO) -> None:
    for position in range(start, end, _CHUNK):
        out.write(buffer[position : min(position + _CHUNK, end)])
