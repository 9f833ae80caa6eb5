"""What is found out of an image once, when it lands, so that serving it later costs no parse."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.dicom.elements import Buffer
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Ins
from drimbox.images.leaving import as_it_leaves


@dataclass(frozen=True, slots=True, repr=False)
class Facts:
    """An image that leaves with its pixels as stored: ``head`` (with the INS in it), then its file from ``rest`` on.

    ``transfer_syntax`` is the one that it leaves in.
    """

    series_uid: str
    transfer_syntax: str
    head: bytes
    rest: int


def read_facts(buffer: Buffer, study_uid: str, series_uid: str | None, sop_instance_uid: str, ins: Ins) -> Facts | None:
    """What is to be known of an image of this study, for this patient.

    None for one that takes more than a new head, or is not what it should be: whoever serves it looks at it as a whole.
    """
    try:
        leaving = as_it_leaves(buffer, ins)
    except Refused:
        return None
    if leaving is None or not is_uid(leaving.transfer_syntax):
        return None
    header = leaving.header
    expected = (study_uid, series_uid or header.series_uid, sop_instance_uid)
    if (header.study_uid, header.series_uid, header.sop_instance_uid) != expected or not header.series_uid:
        return None
    return Facts(header.series_uid, leaving.transfer_syntax, leaving.change.head, leaving.change.rest)
