"""Is an image that arrived the PACS's own? Pixels equal, header equal but for the syntax and the INS (decision 23)."""

from __future__ import annotations

import io
from collections.abc import Iterator

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.tag import Tag

_OTHER_IDS = Tag(0x0010, 0x1002)
_PIXELS = Tag(0x7FE0, 0x0010)
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")


def differences(received: bytes, original: bytes, *, ins: str, ins_oid: str) -> list[str]:
    """What is not as it must be, by attribute name and never by value; empty when all is well."""
    theirs, ours = pydicom.dcmread(io.BytesIO(original)), pydicom.dcmread(io.BytesIO(received))
    found = list(_header(ours, theirs))
    found += _national_id(ours, theirs, ins, ins_oid)
    if _PIXELS in ours and _PIXELS in theirs and not _same_pixels(ours, theirs):
        found.append("pixels differ")
    return found


def _header(ours: Dataset, theirs: Dataset) -> Iterator[str]:
    tags = (set(ours.keys()) | set(theirs.keys())) - {_OTHER_IDS}
    for tag in sorted(tags):
        if tag.element == 0:
            # Group lengths are retired and follow from the encoding.
            continue
        if tag not in ours or tag not in theirs:
            yield f"{pydicom.datadict.keyword_for_tag(tag) or tag} is on one side only"
        elif tag != _PIXELS and ours[tag].value != theirs[tag].value:
            yield f"{pydicom.datadict.keyword_for_tag(tag) or tag} differs"


def _same_pixels(ours: Dataset, theirs: Dataset) -> bool:
    """Frame for frame: the same octets under the same syntax, else the same numbers once decoded."""
    syntax = theirs.file_meta.TransferSyntaxUID
    if ours.file_meta.TransferSyntaxUID != syntax:
        return np.array_equal(_decoded(ours), _decoded(theirs))
    if syntax.is_encapsulated:
        return _frames(ours) == _frames(theirs)
    return bool(ours.PixelData == theirs.PixelData)


def _frames(image: Dataset) -> list[bytes]:
    return list(generate_frames(image.PixelData, number_of_frames=int(image.get("NumberOfFrames", 1))))


def _decoded(image: Dataset) -> npt.NDArray[np.unsignedinteger]:
    """The stored bits of every frame, sign or not, whatever is written around them."""
    syntax = image.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        cells = image.pixel_array
    elif syntax in _JPEG_2000:
        cells = np.stack([imagecodecs.jpeg2k_decode(frame) for frame in _frames(image)])
    elif syntax in _JPEG_LS:
        cells = np.stack([imagecodecs.jpegls_decode(frame) for frame in _frames(image)])
    else:
        cells = np.stack([imagecodecs.jpeg8_decode(frame) for frame in _frames(image)])
    bits = cells.squeeze().view(f"u{cells.dtype.itemsize}")
    stored: npt.NDArray[np.unsignedinteger] = bits & ((1 << image.BitsStored) - 1)
    return stored


def _national_id(ours: Dataset, theirs: Dataset, ins: str, ins_oid: str) -> list[str]:
    items = list(ours.get("OtherPatientIDsSequence", []))
    added = [item for item in items if item.get("PatientID") == ins and _issuer(item) == ins_oid]
    if len(added) != 1:
        return ["the INS is not in Other Patient IDs exactly once"]
    kept = [item for item in items if item is not added[0]]
    if kept != [item for item in theirs.get("OtherPatientIDsSequence", []) if item.get("PatientID") != ins]:
        return ["the other patient numbers are not those of the PACS"]
    return []


def _issuer(item: Dataset) -> str:
    qualifiers = item.get("IssuerOfPatientIDQualifiersSequence", [])
    return str(qualifiers[0].get("UniversalEntityID", "")) if qualifiers else ""
