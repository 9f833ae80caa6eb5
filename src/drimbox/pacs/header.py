"""Whose image is this? The identifiers inside a Part 10 file, read from its first bytes only."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.datasets import read_file
from drimbox.dicom.files import read_meta
from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.storing import Outgoing

_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_PATIENT_ID, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E
_FIRST_READ, _SECOND_READ, _THIRD_READ = 2**13, 2**16, 2**24


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
        head = file.read(_SECOND_READ)
        size = os.fstat(file.fileno()).st_size
    try:
        start = read_meta(head).end
    except Refused as error:
        raise _refused() from error
    if not uids.is_plausible(header.sop_class_uid) or not uids.is_plausible(header.sop_instance_uid) or start >= size:
        raise _refused()
    return Outgoing(
        header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, path, start, size - start
    )


def parse_header(data: memoryview) -> InstanceHeader:
    """The same from the bytes of the file, of which the beginning is enough. Raises ``Refused``."""
    try:
        found, syntax = read_file(data, until=_SERIES)
    except Refused as error:
        raise _refused() from error
    return InstanceHeader(
        sop_class_uid=found.text(_SOP_CLASS),
        sop_instance_uid=found.text(_SOP_INSTANCE),
        transfer_syntax_uid=syntax,
        study_uid=found.text(_STUDY),
        series_uid=found.text(_SERIES),
        patient_id=found.text(_PATIENT_ID),
    )


def _refused() -> Refused:
    return Refused("Un fichier reçu du PACS n'est pas un objet DICOM lisible.", code="dicom-unreadable")
