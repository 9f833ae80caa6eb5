"""The identifier of a query: attributes to match and to return (PS3.4 C.2.2). No I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from drimbox.pacs.dimse import uids


class Tag(IntEnum):
    """The attributes that this room asks for."""

    CHARSET = 0x00080005
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    STUDY_DATE = 0x00080020
    STUDY_TIME = 0x00080030
    ACCESSION_NUMBER = 0x00080050
    ACCESSION_ISSUER = 0x00080051
    LEVEL = 0x00080052
    MODALITY = 0x00080060
    STUDY_MODALITIES = 0x00080061
    REFERRING_PHYSICIAN = 0x00080090
    AVAILABLE_SYNTAX = 0x00083002
    STUDY_DESCRIPTION = 0x00081030
    SERIES_DESCRIPTION = 0x0008103E
    PATIENT_NAME = 0x00100010
    PATIENT_ID = 0x00100020
    PATIENT_ID_ISSUER = 0x00100021
    PATIENT_ID_QUALIFIERS = 0x00100024
    BIRTH_DATE = 0x00100030
    SEX = 0x00100040
    BODY_PART = 0x00180015
    STUDY_UID = 0x0020000D
    SERIES_UID = 0x0020000E
    STUDY_ID = 0x00200010
    SERIES_NUMBER = 0x00200011
    INSTANCE_NUMBER = 0x00200013
    STUDY_SERIES_COUNT = 0x00201206
    STUDY_INSTANCE_COUNT = 0x00201208
    SERIES_INSTANCE_COUNT = 0x00201209
    UNIVERSAL_ID = 0x00400032
    UNIVERSAL_ID_TYPE = 0x00400033


_VRS: Mapping[Tag, bytes] = {
    Tag.CHARSET: b"CS",
    Tag.SOP_CLASS_UID: b"UI",
    Tag.SOP_INSTANCE_UID: b"UI",
    Tag.STUDY_DATE: b"DA",
    Tag.STUDY_TIME: b"TM",
    Tag.ACCESSION_NUMBER: b"SH",
    Tag.ACCESSION_ISSUER: b"SQ",
    Tag.LEVEL: b"CS",
    Tag.MODALITY: b"CS",
    Tag.STUDY_MODALITIES: b"CS",
    Tag.REFERRING_PHYSICIAN: b"PN",
    Tag.AVAILABLE_SYNTAX: b"UI",
    Tag.STUDY_DESCRIPTION: b"LO",
    Tag.SERIES_DESCRIPTION: b"LO",
    Tag.PATIENT_NAME: b"PN",
    Tag.PATIENT_ID: b"LO",
    Tag.PATIENT_ID_ISSUER: b"LO",
    Tag.PATIENT_ID_QUALIFIERS: b"SQ",
    Tag.BIRTH_DATE: b"DA",
    Tag.SEX: b"CS",
    Tag.BODY_PART: b"CS",
    Tag.STUDY_UID: b"UI",
    Tag.SERIES_UID: b"UI",
    Tag.STUDY_ID: b"SH",
    Tag.SERIES_NUMBER: b"IS",
    Tag.INSTANCE_NUMBER: b"IS",
    Tag.STUDY_SERIES_COUNT: b"IS",
    Tag.STUDY_INSTANCE_COUNT: b"IS",
    Tag.SERIES_INSTANCE_COUNT: b"IS",
    Tag.UNIVERSAL_ID: b"UT",
    Tag.UNIVERSAL_ID_TYPE: b"CS",
}
_LONG_VRS = frozenset((b"SQ", b"UT"))


@dataclass(frozen=True, slots=True)
class Identifier:
    """``matching`` are the keys with their values (ASCII); ``wanted`` the attributes to be returned, empty."""

    level: str
    matching: Mapping[Tag, str]
    wanted: tuple[Tag, ...] = ()

    def encode(self, transfer_syntax: str) -> bytes:
        """The identifier in Explicit or Implicit VR Little Endian."""
        values = dict.fromkeys(self.wanted, "") | dict(self.matching) | {Tag.LEVEL: self.level}
        write = _implicit if transfer_syntax == uids.IMPLICIT_LE else _explicit
        return b"".join(write(tag, _padded(_VRS[tag], value)) for tag, value in sorted(values.items()))


def encoder(level: str, matching: Mapping[Tag, str], wanted: tuple[Tag, ...] = ()) -> Callable[[str], bytes]:
    """What makes the identifier once the transfer syntax is known."""
    return Identifier(level, matching, wanted).encode


def _padded(vr: bytes, value: str) -> bytes:
    data = value.encode("ascii")
    return data + (b"\0" if vr == b"UI" else b" ") * (len(data) % 2)


def _explicit(tag: Tag, value: bytes) -> bytes:
    vr = _VRS[tag]
    if vr in _LONG_VRS:
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _implicit(tag: Tag, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
