"""Images shown under the local number of the call (DB.CO.77): what a viewer gets names the patient as this site does.

What is kept for a viewer lies as its source sent it; each header and each file that leaves for a viewer has the local
PatientID and issuer in place of the source's, which stand in Original Attributes and Other Patient IDs, as in what is
imported (``importing.coercion``). The INS of the image stays where it is.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from drimbox.consumer.call import ContextualCall
from drimbox.dicom.files import mapped
from drimbox.importing.coercion import Coercion, edited

_ID, _ISSUER, _TYPE, _QUALIFIERS = "00100020", "00100021", "00100022", "00100024"
_OTHER_IDS, _ORIGINAL, _INSTITUTION = "00101002", "04000561", "00080080"
_UNIVERSAL_ID, _UNIVERSAL_ID_TYPE = "00400032", "00400033"

_Header = dict[str, Any]


def local_number(call: ContextualCall, at: dt.datetime) -> Coercion | None:
    """What images are given for this call; None when it names no local number."""
    number = call.local_id.value.strip()
    return Coercion(number, call.local_id.issuer, call.issuer_name, at=at) if number else None


def file_of(path: Path, coercion: Coercion | None) -> bytes:
    """The whole file of an image as it is handed over. Blocks; raises ``Refused``, ``OSError``."""
    if coercion is None:
        return path.read_bytes()
    with mapped(path) as buffer:
        made = edited(buffer, coercion).splice
        return made.head + buffer[made.rest :]


def renumber(header: _Header, coercion: Coercion) -> None:
    """The same in a header as DICOM JSON (PS3.18 F.2), which is changed."""
    wanted = _wanted(coercion)
    number, issuer = _text(header, _ID), _issuer(header)
    unnamed = _ISSUER not in wanted and _QUALIFIERS not in wanted
    if number == coercion.patient_id and (unnamed or issuer == coercion.issuer != ""):
        return
    changed = [tag for tag in (_ID, _ISSUER, _QUALIFIERS) if header.get(tag) != wanted.get(tag)]
    if _ID in changed and number:
        kind = {_TYPE: header.get(_TYPE) or {"vr": "CS", "Value": ["TEXT"]}}
        told = {tag: header[tag] for tag in (_ID, _ISSUER, _QUALIFIERS) if tag in header} | kind
        _append(header, _OTHER_IDS, told)
    _append(header, _ORIGINAL, _original({t: header[t] for t in changed if t in header}, header, coercion))
    for tag in changed:
        header.pop(tag, None)
    header |= {tag: wanted[tag] for tag in changed if tag in wanted}


def _wanted(coercion: Coercion) -> _Header:
    found: _Header = {_ID: {"vr": "LO", "Value": [coercion.patient_id]}}
    if coercion.plain_issuer:
        found[_ISSUER] = {"vr": "LO", "Value": [coercion.plain_issuer]}
    if coercion.issuer:
        item = {
            _UNIVERSAL_ID: {"vr": "UT", "Value": [coercion.issuer]},
            _UNIVERSAL_ID_TYPE: {"vr": "CS", "Value": ["ISO"]},
        }
        found[_QUALIFIERS] = {"vr": "SQ", "Value": [item]}
    return found


def _original(former: _Header, header: _Header, coercion: Coercion) -> _Header:
    """One item of Original Attributes Sequence (PS3.3 C.12.1.1.9)."""
    institution = _text(header, _INSTITUTION)
    return {
        "04000550": {"vr": "SQ", "Value": [former]},
        "04000562": {"vr": "DT", "Value": [coercion.moment]},
        "04000563": {"vr": "LO", "Value": [coercion.modified_by]},
        "04000564": {"vr": "LO", "Value": [institution]} if institution else {"vr": "LO"},
        "04000565": {"vr": "CS", "Value": ["COERCE"]},
    }


def _append(header: _Header, tag: str, item: _Header) -> None:
    before = header.get(tag, {}).get("Value") or []
    header[tag] = {"vr": "SQ", "Value": [*before, dict(sorted(item.items()))]}


def _issuer(header: _Header) -> str:
    """The OID of the issuer of the number."""
    for item in header.get(_QUALIFIERS, {}).get("Value") or ():
        if oid := _text(item, _UNIVERSAL_ID):
            return oid
    return ""


def _text(header: _Header, tag: str) -> str:
    values = header.get(tag, {}).get("Value") or [""]
    return str(values[0] or "")
