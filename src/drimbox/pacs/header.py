"""Whose image is this? The identifiers inside a Part 10 file, read from its first bytes only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.errors import Refused
from drimbox.pacs import elements
from drimbox.pacs.dimse import uids

_META_START = 132
_SYNTAX = 0x00020010
_CHARSET, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
_PATIENT_ID, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E
_FIRST_READ, _SECOND_READ, _INFLATED_MOST = 2**15, 2**24, 2**22


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """What the file says of itself; empty where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    patient_id: str


def read_header(path: Path) -> InstanceHeader:
    """The identifiers of a Part 10 file. Raises ``Refused`` where it is not one, ``OSError`` where it is unreadable."""
    with path.open("rb") as file:
        try:
            return parse_header(memoryview(file.read(_FIRST_READ)))
        except Refused:
            # A long private element may stand before the identifiers.
            file.seek(0)
            return parse_header(memoryview(file.read(_SECOND_READ)))


def parse_header(data: memoryview) -> InstanceHeader:
    """The same from the bytes of the file. Raises ``Refused``."""
    try:
        return _parse(data)
    except elements.InvalidDataset as error:
        raise _refused() from error


def _parse(data: memoryview) -> InstanceHeader:
    if bytes(data[128:132]) != b"DICM":
        raise _refused()
    start, syntax = _meta(data)
    body = data[start:]
    if syntax == uids.DEFLATED_LE:
        body = elements.inflated(body, _INFLATED_MOST)
    values = {e.tag: e.value for e in elements.elements(body, syntax, last=_SERIES) if e.tag in _WANTED}
    charset = elements.text(values.get(_CHARSET))
    return InstanceHeader(
        sop_class_uid=elements.text(values.get(_SOP_CLASS)),
        sop_instance_uid=elements.text(values.get(_SOP_INSTANCE)),
        transfer_syntax_uid=syntax,
        study_uid=elements.text(values.get(_STUDY)),
        series_uid=elements.text(values.get(_SERIES)),
        patient_id=elements.text(values.get(_PATIENT_ID), charset),
    )


_WANTED = frozenset((_CHARSET, _SOP_CLASS, _SOP_INSTANCE, _PATIENT_ID, _STUDY, _SERIES))


def _meta(data: memoryview) -> tuple[int, str]:
    """Where the data set begins, and its transfer syntax."""
    group = next(elements.elements(data[_META_START:], uids.EXPLICIT_LE), None)
    if group is None or group.tag != 0x00020000 or len(group.value) != 4:
        raise elements.InvalidDataset("no group length of the file meta information")
    start = _META_START + 12
    end = start + int.from_bytes(group.value, "little")
    if end > len(data):
        raise elements.InvalidDataset("file meta information longer than the file")
    for element in elements.elements(data[start:end], uids.EXPLICIT_LE):
        if element.tag == _SYNTAX:
            return end, elements.text(element.value)
    raise elements.InvalidDataset("no transfer syntax")


def _refused() -> Refused:
    return Refused("Un fichier reçu du PACS n'est pas un objet DICOM lisible.", code="dicom-unreadable")
