"""Is an image that arrived the PACS's own? Pixels equal, header equal but for the syntax and the INS (decision 23)."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_OTHER_IDS = Tag(0x0010, 0x1002)
_PIXELS = Tag(0x7FE0, 0x0010)


def differences(received: bytes, original: bytes, *, ins: str, ins_oid: str) -> list[str]:
    """What is not as it must be, by attribute name and never by value; empty when all is well."""
    theirs, ours = pydicom.dcmread(io.BytesIO(original)), pydicom.dcmread(io.BytesIO(received))
    found = list(_header(ours, theirs))
    found += _national_id(ours, theirs, ins, ins_oid)
    if _PIXELS in theirs and not np.array_equal(ours.pixel_array, theirs.pixel_array):
        found.append("pixels differ")
    return found


def _header(ours: Dataset, theirs: Dataset) -> Iterator[str]:
    tags = (set(ours.keys()) | set(theirs.keys())) - {_OTHER_IDS, _PIXELS}
    for tag in sorted(tags):
        if tag.element == 0:
            # Group lengths are retired and follow from the encoding.
            continue
        if tag not in ours or tag not in theirs:
            yield f"{pydicom.datadict.keyword_for_tag(tag) or tag} is on one side only"
        elif ours[tag].value != theirs[tag].value:
            yield f"{pydicom.datadict.keyword_for_tag(tag) or tag} differs"


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
