"""The beginning of a DICOM file: preamble and File Meta Information (PS3.10 7.1)."""

from __future__ import annotations

import struct

from drimbox.pacs.dimse import uids

_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sxxI")


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str) -> bytes:
    """What stands before the data set; ``source_ae`` is the AE title that sent it."""
    body = b"".join(
        (
            _LONG.pack(2, 0x0001, b"OB", 2) + b"\0\1",
            _uid(0x0002, sop_class_uid),
            _uid(0x0003, sop_instance_uid),
            _uid(0x0010, transfer_syntax_uid),
            _uid(0x0012, uids.IMPLEMENTATION_CLASS),
            _text(0x0013, b"SH", uids.IMPLEMENTATION_VERSION),
            _text(0x0016, b"AE", source_ae),
        )
    )
    return bytes(128) + b"DICM" + _SHORT.pack(2, 0, b"UL", 4) + struct.pack("<I", len(body)) + body


def _uid(element: int, uid: str) -> bytes:
    data = uid.encode("ascii")
    data += b"\0" * (len(data) % 2)
    return _SHORT.pack(2, element, b"UI", len(data)) + data


def _text(element: int, vr: bytes, text: str) -> bytes:
    data = text.encode("ascii")
    data += b" " * (len(data) % 2)
    return _SHORT.pack(2, element, vr, len(data)) + data
