"""The header of an image as DICOM JSON (PS3.18 10.4.1.2), in a file. Runs in a worker process, on strangers' files."""

from __future__ import annotations

from pathlib import Path

from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_LE
from drimbox.identity.ins import Ins
from drimbox.images.describe import Describer
from drimbox.images.reencode import BETWEEN
from drimbox.images.transcode import transcode

_MAX_ELEMENTS = 5_000_000


def write_metadata(source: Path, target: Path, ins: Ins) -> None:
    """Write the header of ``source``, with the INS of its patient, to ``target`` as one JSON object.

    Pixels and long binary values are left out. Raises ``Refused`` or ``IdentityMismatch`` as ``Describer`` does.
    """
    with mapped(source) as buffer:
        if read_meta(buffer).transfer_syntax != DEFLATED_LE:
            target.write_bytes(Describer(_MAX_ELEMENTS).describe(buffer, ins))
            return
    between = target.with_name(target.name + BETWEEN)
    try:
        transcode(source, between, EXPLICIT_LE)
        with mapped(between) as buffer:
            target.write_bytes(Describer(_MAX_ELEMENTS).describe(buffer, ins))
    finally:
        between.unlink(missing_ok=True)
