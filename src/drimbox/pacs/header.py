"""Whose image is this? The identifiers inside a Part 10 file, read from its first bytes only."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.errors import Refused
from drimbox.pacs import elements
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.storing import Outgoing

_META_START = 132
_SYNTAX = 0x00020010
_CHARSET, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
_PATIENT_ID, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E
_FIRST_READ, _SECOND_READ, _THIRD_READ, _INFLATED_MOST = 2**13, 2**16, 2**24, 2**22


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
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for size in (_FIRST_READ, _SECOND_READ):
            # A long private element may stand before the identifiers.
            with suppress(Refused):
                return parse_header(memoryview(os.pread(file, size, 0)))
        return parse_header(memoryview(os.pread(file, _THIRD_READ, 0)))
    finally:
        os.close(file)


def outgoing(path: Path) -> Outgoing:
    """A Part 10 file as it is to be stored elsewhere. Raises ``Refused`` where it is not one, ``OSError``."""
    header = read_header(path)
    with path.open("rb") as file:
        head = memoryview(file.read(_SECOND_READ))
        size = os.fstat(file.fileno()).st_size
    try:
        start = _meta(head)[0]
    except elements.InvalidDataset as error:
        raise _refused() from error
    if not uids.is_plausible(header.sop_class_uid) or not uids.is_plausible(header.sop_instance_uid) or start >= size:
        raise _refused()
    return Outgoing(
        header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, path, start, size - start
    )


def parse_header(data: memoryview) -> InstanceHeader:
    """The same from the bytes of the file. Raises ``Refused``."""
    try:
        return _parse(data)
    except elements.InvalidDataset as error:
        raise _refused() from error


def data_set(data: memoryview) -> tuple[memoryview, str]:
    """The data set of a Part 10 file, as it is encoded, and its transfer syntax. Raises ``elements.InvalidDataset``."""
    if bytes(data[128:132]) != b"DICM":
        raise elements.InvalidDataset("no DICOM prefix")
    start, syntax = _meta(data)
    return data[start:], syntax


def _parse(data: memoryview) -> InstanceHeader:
    body, syntax = data_set(data)
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
