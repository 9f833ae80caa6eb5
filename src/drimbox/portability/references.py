"""``CR.TXT``: which report a set was published for (official sample; demonstrator.md 11.2).

One line of six fields: root and extension of the report's id, INS, its OID, IPP, the OID of its issuer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drimbox.identity.ins import Authority, Ins
from drimbox.portability.layout import MAX_REPORT_FILE, refused

_ROOT = re.compile(r"[0-9A-Za-z.:-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_LINES = 1000


@dataclass(frozen=True, slots=True, repr=False)
class ReportReference:
    """A report: its document id (``root`` or ``root^extension``), its patient, and their number at the site."""

    document_id: str
    ins: Ins
    ipp: str = ""
    ipp_issuer: str = ""

    def __repr__(self) -> str:
        return f"ReportReference({self.document_id})"


def write_reference(reference: ReportReference) -> bytes:
    """The octets of the file, without a line end, as the official sample."""
    root, _, extension = reference.document_id.partition("^")
    ins = reference.ins
    fields = (root, extension, ins.matricule, ins.oid, reference.ipp, reference.ipp_issuer)
    return ";".join(_one_line(field) for field in fields).encode()


def read_references(data: bytes) -> tuple[ReportReference, ...]:
    """One reference for each line. Raises ``Refused``: ``archive-report-reference``, ``ins-format``, ``ins-key``."""
    if len(data) > MAX_REPORT_FILE:
        raise _unreadable()
    lines = [line for line in _text(data).splitlines() if line.strip()]
    if not lines or len(lines) > _MAX_LINES:
        raise _unreadable()
    return tuple(map(_reference, lines))


def _reference(line: str) -> ReportReference:
    fields = [field.strip() for field in line.split(";")]
    # The OID of the INS is the one field that is known beforehand: an extension may hold the separator.
    place = next((n for n in range(3, len(fields)) if Authority.of(fields[n]) is not None), None)
    if place is None or not _ROOT.fullmatch(fields[0]) or _CONTROL.search(line):
        raise _unreadable()
    root, extension = fields[0], ";".join(fields[1 : place - 1])
    *number, issuer = fields[place + 1 :] if len(fields) > place + 2 else [*fields[place + 1 :], ""]
    return ReportReference(
        document_id=f"{root}^{extension}" if extension else root,
        ins=Ins.of(fields[place - 1], fields[place]),
        ipp=";".join(number),
        ipp_issuer=issuer.split("&")[0],
    )


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _unreadable() -> Exception:
    return refused("Fichier CR.TXT illisible (identifiant du compte rendu, INS, IPP attendus)", "report-reference")
