"""From the syntax that an image is stored in to the one that is sent (DB.SO.41, DB.CS.83). Runs in a worker process."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from drimbox.dicom.elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, Buffer, Element, head
from drimbox.dicom.files import Edit, Meta, Splice, mapped, read_meta, splice, syntax_edits
from drimbox.dicom.frames import Spans, all_spans, frame
from drimbox.dicom.pixels import Layout, Pixels, read_layout
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE, NATIVE, NEVER_SENT, RELABELLED
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.images import codecs
from drimbox.images.described import Loss, description_edits
from drimbox.images.header import Header, header_and_splice, read_header
from drimbox.images.offers import can_decode, can_encode, decoded, encoded, offers
from drimbox.images.reencode import BETWEEN, EXPLICIT, to_explicit_le

_CHUNK = 2**20
_MAX_IN_MEMORY = 64 * 2**20


def transcode(source: Path, target: Path, syntax: str, ins: Ins | None = None) -> Header:
    """Write ``source`` to ``target`` (which must not exist) in ``syntax``, one of ``offers``, with ``ins`` if given.

    Raises ``Refused`` when it cannot be done, ``IdentityMismatch`` when the image names another INS, and whatever the
    codecs raise on damaged frames; ``target`` is then void. The header is that of the source.
    """
    with target.open("x+b") as out:
        return transcode_to(source, out, syntax, ins, between=target.with_name(target.name + BETWEEN))


def transcode_to(source: Path, out: BinaryIO, syntax: str, ins: Ins | None, *, between: Path) -> Header:
    """The same to an open file, empty and seekable; ``between`` is a name for what is too long to be held in memory."""
    with mapped(source) as buffer:
        meta = read_meta(buffer)
        if meta.transfer_syntax not in NEVER_SENT:
            return _write_image(buffer, meta, out, syntax, ins)
        if meta.transfer_syntax != DEFLATED_LE and len(buffer) <= _MAX_IN_MEMORY:
            explicit = io.BytesIO()
            to_explicit_le(buffer, meta, explicit)
            written = explicit.getbuffer()
            return _write_image(written, read_meta(written), out, syntax, ins)
        try:
            with between.open("xb") as file:
                to_explicit_le(buffer, meta, file)
            with mapped(between) as inflated:
                return _write_image(inflated, read_meta(inflated), out, syntax, ins)
        finally:
            between.unlink(missing_ok=True)


def frames_to(source: Path, out: BinaryIO, syntax: str, numbers: Sequence[int], *, between: Path) -> list[int]:
    """Write frames of ``source`` in ``syntax`` to ``out``, one after the other as listed; their lengths.

    An uncompressed frame comes in the planar configuration that the image has. Raises as ``transcode`` does, and
    ``Refused`` (``no-frame``) for a number that there is no frame of.
    """
    with mapped(source) as buffer:
        meta = read_meta(buffer)
        if meta.transfer_syntax not in NEVER_SENT:
            return list(_write_frames(buffer, meta, out, syntax, numbers))
        try:
            with between.open("xb") as file:
                to_explicit_le(buffer, meta, file)
            with mapped(between) as explicit:
                return list(_write_frames(explicit, read_meta(explicit), out, syntax, numbers))
        finally:
            between.unlink(missing_ok=True)


def _write_image(buffer: Buffer, meta: Meta, out: BinaryIO, syntax: str, ins: Ins | None) -> Header:
    stored = meta.transfer_syntax
    if syntax in _names(stored):
        header, change = _edited(buffer, meta, syntax, ins, (), None)
        out.write(change.head)
        _copy(buffer, change.rest, len(buffer), out)
        return header
    layout = read_layout(buffer, meta)
    if layout.data is None or layout.pixels is None:
        raise Refused("Objet DICOM sans pixels", code="dicom-pixels")
    offer = next((o for o in offers(stored, layout.pixels) if o.syntax == syntax), None)
    if offer is None:
        raise Refused("Image DICOM d'une forme que cette syntaxe ne connaît pas", code="dicom-pixels")
    coming = decoded(stored, layout.pixels)
    spans = () if stored in NATIVE else all_spans(buffer, layout, stored)
    arrays = (_array(buffer, layout, stored, number, spans) for number in range(1, coming.frames + 1))
    compressed: Iterable[bytes] = (codecs.encode(array, syntax, coming) for array in arrays)
    loss = _former_loss(buffer, layout, stored, spans)
    if offer.loses:
        # The header says how much was lost, so all frames are compressed before it is written.
        compressed = list(compressed)
        loss = Loss(syntax, coming.all_bytes / sum(map(len, compressed)), ours=True)
    edits = description_edits(buffer, layout, encoded(coming, syntax), loss)
    header, change = _edited(buffer, meta, syntax, ins, edits, layout.elements)
    out.write(change.head)
    _copy(buffer, change.rest, layout.data.start, out)
    if syntax == EXPLICIT_LE:
        _write_native(arrays, coming, out)
    else:
        _write_encapsulated(compressed, coming.frames, out)
    _copy(buffer, layout.data.end, len(buffer), out)
    return header


def _names(stored: str) -> tuple[str, ...]:
    """The syntaxes that the stored pixels are in, as they are."""
    return (stored, *RELABELLED.get(stored, ()))


def _edited(
    buffer: Buffer, meta: Meta, syntax: str, ins: Ins | None, edits: Iterable[Edit], walked: Iterable[Element] | None
) -> tuple[Header, Splice]:
    if ins is not None:
        return header_and_splice(buffer, ins, transfer_syntax=syntax, also=edits, meta=meta, walked=walked)
    relabelled = syntax_edits(buffer, meta, syntax) if syntax != meta.transfer_syntax else []
    return read_header(buffer), splice(buffer, [*relabelled, *edits])


def _former_loss(buffer: Buffer, layout: Layout, stored: str, spans: Sequence[Spans]) -> Loss | None:
    """What the stored syntax itself says was lost: by its name, or in its first frame."""
    assert layout.pixels is not None
    if not spans or not codecs.lost_something(frame(buffer, layout, 1, spans), stored):
        return None
    held = sum(end - start for each in spans for start, end in each)
    return Loss(stored, decoded(stored, layout.pixels).all_bytes / max(held, 1), ours=False)


def _write_frames(buffer: Buffer, meta: Meta, out: BinaryIO, syntax: str, numbers: Sequence[int]) -> Iterator[int]:
    stored = meta.transfer_syntax
    layout = read_layout(buffer, meta)
    if layout.pixels is None:
        raise Refused("Trame absente de cette image", code="no-frame")
    coming = decoded(stored, layout.pixels)
    spans = () if stored in NATIVE else all_spans(buffer, layout, stored)
    for number in numbers:
        if syntax in _names(stored):
            content = frame(buffer, layout, number, spans)
        elif syntax == EXPLICIT_LE:
            content = _octets(_array(buffer, layout, stored, number, spans), planar=layout.pixels.planar)
        else:
            content = codecs.encode(_array(buffer, layout, stored, number, spans), syntax, coming)
        out.write(content)
        yield len(content)


def _array(buffer: Buffer, layout: Layout, stored: str, number: int, spans: Sequence[Spans]) -> codecs.Frame:
    """One frame as ``offers.decoded`` describes it. Raises ``Refused``."""
    pixels = layout.pixels
    assert pixels is not None
    content = frame(buffer, layout, number, spans)
    if stored not in NATIVE:
        if not can_decode(pixels):
            raise Refused("Image DICOM illisible : pixels d'une forme inconnue", code="dicom-pixels")
        return codecs.decode(content, stored, pixels)
    if not can_encode(pixels):
        raise Refused("Image DICOM d'une forme que cette syntaxe ne connaît pas", code="dicom-pixels")
    cells = np.frombuffer(content, f"<{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")
    if pixels.photometric == "YBR_FULL_422":
        return _full_colours(cells.reshape(pixels.rows, pixels.columns // 2, 4))
    if pixels.samples == 1:
        return cells.reshape(pixels.rows, pixels.columns)
    if pixels.planar:
        planes = cells.reshape(pixels.samples, pixels.rows, pixels.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return cells.reshape(pixels.rows, pixels.columns, pixels.samples)


def _full_colours(pairs: codecs.Frame) -> codecs.Frame:
    """Two pixels that share their colours, as Y Y Cb Cr, become two with their own (PS3.3 C.7.6.3.1.2)."""
    rows, columns, _ = pairs.shape
    full = np.empty((rows, columns, 2, 3), pairs.dtype)
    full[..., 0] = pairs[..., :2]
    full[..., 1:] = pairs[..., np.newaxis, 2:]
    return full.reshape(rows, columns * 2, 3)


def _octets(array: codecs.Frame, *, planar: bool) -> bytes:
    if planar and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _write_native(arrays: Iterable[codecs.Frame], pixels: Pixels, out: BinaryIO) -> None:
    length = pixels.all_bytes
    out.write(head(PIXEL_DATA, "OW" if pixels.bits_allocated > 8 else "OB", length + length % 2, EXPLICIT))
    for array in arrays:
        out.write(_octets(array, planar=False))
    out.write(b"\0" * (length % 2))


def _write_encapsulated(compressed: Iterable[bytes], frames: int, out: BinaryIO) -> None:
    """One fragment per frame, and a Basic Offset Table (PS3.5 A.4)."""
    out.write(head(PIXEL_DATA, "OB", UNDEFINED, EXPLICIT) + head(ITEM, "", 4 * frames, EXPLICIT))
    table = out.tell()
    out.write(b"\0" * (4 * frames))
    first, offsets = out.tell(), []
    for each in compressed:
        offsets.append(out.tell() - first)
        if offsets[-1] > 0xFFFFFFFF:
            raise Refused("Image DICOM trop volumineuse pour cette syntaxe", code="dicom-size")
        out.write(head(ITEM, "", len(each) + len(each) % 2, EXPLICIT) + each + b"\0" * (len(each) % 2))
    out.write(head(SEQUENCE_END, "", 0, EXPLICIT))
    end = out.tell()
    out.seek(table)
    out.write(struct.pack(f"<{len(offsets)}I", *offsets))
    out.seek(end)


def _copy(buffer: Buffer, start: int, end: int, out: BinaryIO) -> None:
    for position in range(start, end, _CHUNK):
        out.write(bytes(buffer[position : min(position + _CHUNK, end)]))
