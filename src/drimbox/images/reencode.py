"""A data set of any native syntax written again as Explicit VR Little Endian, pixels untouched (DB.SO.41).

Implicit VR Little Endian, Explicit VR Big Endian and Deflated come in. Values are copied as they lie (bytes swapped
where the order changes); only VRs and lengths are new. Group lengths other than the file meta's are dropped: they are
retired and would be wrong.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

import numpy as np

from drimbox.dicom.elements import (
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Budget,
    Buffer,
    Element,
    elements,
    has_long_length,
    head,
    items,
    number,
)
from drimbox.dicom.files import Meta, Splice, splice, syntax_edits
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE, Encoding, encoding_of
from drimbox.foundation.errors import Refused

EXPLICIT = Encoding(explicit=True, little=True)
_IMPLICIT = Encoding(explicit=False, little=True)
_MAX_ELEMENTS = 5_000_000
_MAX_INFLATED = 4 * 2**30
_CHUNK = 2**20

#: Added to the name of a target file for what must be written on the way to it.
BETWEEN = ".le"

_MAX_HEAD = 2**24

_BITS_ALLOCATED, _PIXEL_REPRESENTATION = 0x00280100, 0x00280103

#: Bytes of one number, for the VRs whose values are numbers in binary.
_WIDTH = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8),
}


@dataclass(frozen=True, slots=True)
class _Context:
    """What the elements being written depend on."""

    encoding: Encoding
    budget: Budget
    signed: bool
    bits_allocated: int
    depth: int = 0


def to_explicit_le(buffer: Buffer, meta: Meta, target: BinaryIO, *, max_inflated: int = _MAX_INFLATED) -> None:
    """Write the file ``buffer`` to ``target`` as Explicit VR Little Endian.

    Raises ``Refused`` (``dicom-…``) for what cannot be read, ``dicom-size`` for what inflates to more than
    ``max_inflated`` bytes.
    """
    relabelled = splice(buffer, syntax_edits(buffer, meta, EXPLICIT_LE))
    target.write(relabelled.head + bytes(buffer[relabelled.rest : meta.end]))
    if meta.transfer_syntax == DEFLATED_LE:
        _inflate(buffer, meta.end, target, max_inflated)
        return
    encoding = encoding_of(meta.transfer_syntax)
    context = _Context(encoding, Budget(_MAX_ELEMENTS), *_image_facts(buffer, meta, encoding))
    for element in elements(buffer, meta.end, len(buffer), encoding, context.budget):
        _write(buffer, element, context, target)


def explicit_head(buffer: Buffer, meta: Meta) -> Splice | None:
    """An Implicit VR Little Endian file as Explicit VR: a new head, then the value of its pixels as it lies.

    None where that is not all there is to it: no pixels, something after them, another syntax. Raises as
    ``to_explicit_le`` does.
    """
    if meta.transfer_syntax != IMPLICIT_LE:
        return None
    pixels: Element | None = None
    written = io.BytesIO()
    relabelled = splice(buffer, syntax_edits(buffer, meta, EXPLICIT_LE))
    written.write(relabelled.head + bytes(buffer[relabelled.rest : meta.end]))
    context = _Context(_IMPLICIT, Budget(_MAX_ELEMENTS), *_image_facts(buffer, meta, _IMPLICIT))
    for element in elements(buffer, meta.end, len(buffer), _IMPLICIT, context.budget):
        if element.tag == PIXEL_DATA:
            pixels = element
            break
        if written.tell() > _MAX_HEAD:
            return None
        _write(buffer, element, context, written)
    if pixels is None or pixels.length == UNDEFINED or pixels.end != len(buffer):
        return None
    written.write(head(PIXEL_DATA, "OW", pixels.length, EXPLICIT))
    return Splice(written.getvalue(), pixels.value)


def _inflate(buffer: Buffer, start: int, target: BinaryIO, limit: int) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    written, position = 0, start
    pending = b""
    try:
        while not inflater.eof:
            if not pending:
                pending = bytes(buffer[position : position + _CHUNK])
                position += len(pending)
            piece = inflater.decompress(pending, _CHUNK)
            pending = inflater.unconsumed_tail
            if not piece and not pending and position >= len(buffer):
                raise Refused("Image DICOM tronquée", code="dicom-truncated")
            written += len(piece)
            if written > limit:
                raise Refused("Image DICOM trop volumineuse après décompression", code="dicom-size")
            target.write(piece)
    except zlib.error as error:
        raise Refused("Image DICOM illisible : compression deflate fausse", code="dicom-syntax") from error


def _image_facts(buffer: Buffer, meta: Meta, encoding: Encoding) -> tuple[bool, int]:
    """Whether pixel values are signed, and their width: what ambiguous VRs and byte order depend on."""
    signed, bits = False, 16
    for element in elements(
        buffer, meta.end, len(buffer), encoding, Budget(_MAX_ELEMENTS), until=_PIXEL_REPRESENTATION
    ):
        if element.tag == _PIXEL_REPRESENTATION:
            signed = number(buffer, element, encoding) == 1
        elif element.tag == _BITS_ALLOCATED:
            bits = number(buffer, element, encoding)
    return signed, bits


def _write(buffer: Buffer, element: Element, context: _Context, target: BinaryIO) -> None:
    if element.tag & 0xFFFF == 0:
        return
    vr = element.vr or _vr(element, context)
    if vr == "SQ" or element.length == UNDEFINED:
        _write_sequence(buffer, element, vr, context, target)
        return
    length = element.end - element.value
    if length > 0xFFFF and not has_long_length(vr):
        # The length field of this VR is too short under Explicit VR (PS3.5 6.2.2, note 3).
        vr = "UN"
    target.write(head(element.tag, vr, length, EXPLICIT))
    width = 1 if context.encoding.little else _width(element, vr, context)
    for start in range(element.value, element.end, _CHUNK):
        piece = bytes(buffer[start : min(start + _CHUNK, element.end)])
        target.write(_swapped(piece, width) if width > 1 else piece)


def _write_sequence(buffer: Buffer, element: Element, vr: str, context: _Context, target: BinaryIO) -> None:
    if element.tag == PIXEL_DATA:
        raise Refused("Image DICOM illisible : pixels compressés sous une syntaxe native", code="dicom-syntax")
    if context.depth == MAX_DEPTH:
        raise Refused("Image DICOM illisible : trop imbriquée", code="dicom-depth")
    encoding = _IMPLICIT if vr == "UN" else context.encoding
    inside = replace(context, encoding=encoding, depth=context.depth + 1)
    target.write(head(element.tag, "SQ", UNDEFINED, EXPLICIT))
    for item in items(buffer, element, inside.encoding, context.budget):
        target.write(head(ITEM, "", UNDEFINED, EXPLICIT))
        for each in elements(buffer, item.value, item.content_end, inside.encoding, context.budget):
            _write(buffer, each, inside, target)
        target.write(head(ITEM_END, "", 0, EXPLICIT))
    target.write(head(SEQUENCE_END, "", 0, EXPLICIT))


@cache
def _dictionary() -> Callable[[int], str]:
    # When it is first needed: pydicom takes as much memory as all else in a worker, and few images are implicit.
    from pydicom.datadict import dictionary_VR

    return dictionary_VR


def _vr(element: Element, context: _Context) -> str:
    """The VR of an implicit element (PS3.6); private and unknown ones are UN, a sequence among them SQ."""
    try:
        vr = _dictionary()(element.tag)
    except KeyError:
        return "SQ" if element.length == UNDEFINED else "UN"
    if "OW" in vr:
        return "OW"
    if vr == "US or SS":
        return "SS" if context.signed else "US"
    return vr


def _width(element: Element, vr: str, context: _Context) -> int:
    if element.tag == PIXEL_DATA and vr == "OW" and context.bits_allocated in (32, 64):
        return context.bits_allocated // 8
    return _WIDTH.get(vr, 1)


def _swapped(piece: bytes, width: int) -> bytes:
    whole = len(piece) - len(piece) % width
    return np.frombuffer(piece[:whole], f"V{width}").view(f">u{width}").byteswap().tobytes() + piece[whole:]
