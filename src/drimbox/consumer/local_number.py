"""Images that leave this box for a program of the site, under the local number of the call (DB.CO.77).

The pages of this box show images as their source sent them; a file that is handed to another program, which may keep
it, has the local PatientID and issuer in place of the source's, which stand in Original Attributes and Other Patient
IDs, as in what is imported (``importing.coercion``). The INS of the image stays where it is.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from drimbox.consumer.call import ContextualCall
from drimbox.dicom.files import mapped
from drimbox.importing.coercion import Coercion, edited


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
