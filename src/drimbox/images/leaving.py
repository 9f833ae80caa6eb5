"""A stored image as it leaves when no pixel has to be touched: a new head with the INS, then the file as it lies.

That is every image in a syntax that may be sent, and those of a PACS that stores Implicit VR (DB.SO.39, DB.SO.41).
"""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.dicom.elements import Buffer
from drimbox.dicom.files import Meta, Splice, read_meta
from drimbox.dicom.syntaxes import EXPLICIT_LE, NEVER_SENT
from drimbox.identity.ins import Ins
from drimbox.images.header import Header, header_and_splice
from drimbox.images.reencode import explicit_head


@dataclass(frozen=True, slots=True)
class Leaving:
    """An image ready to leave. ``transfer_syntax`` is that of what is sent, ``header`` speaks of what is stored."""

    header: Header
    transfer_syntax: str
    change: Splice


def as_it_leaves(buffer: Buffer, ins: Ins, *, transfer_syntax: str = "", meta: Meta | None = None) -> Leaving | None:
    """The image with ``ins``, its pixels as stored; None when that takes more than a new head.

    ``transfer_syntax`` is another name of the stored one (``syntaxes.RELABELLED``). Raises ``IdentityMismatch``
    (``ins-differs``), ``Refused`` for what is no readable DICOM file.
    """
    meta = meta or read_meta(buffer)
    stored = meta.transfer_syntax
    if stored not in NEVER_SENT:
        header, change = header_and_splice(buffer, ins, transfer_syntax=transfer_syntax, meta=meta)
        return Leaving(header, transfer_syntax or stored, change)
    explicit = explicit_head(buffer, meta)
    if explicit is None:
        return None
    header, change = header_and_splice(explicit.head, ins)
    head = change.head + explicit.head[change.rest :]
    return Leaving(header, EXPLICIT_LE, Splice(head, explicit.rest))
