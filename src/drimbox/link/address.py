"""The link in a report: read from a request, and written for those who put it there (VI_SO.07; IHE RAD-106).

``https://<vi host>/IHEInvokeImageDisplay?requestType=STUDY&studyUID=…&accessionNumber=…&idCDA=…``: parameters in any
order and in any case, unknown ones ignored. A series is named by ``requestType=SERIES`` and ``seriesUID``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid

PATH = "/IHEInvokeImageDisplay"
MAX_QUERY_BYTES = 2048
_MAX_PARAMETERS = 40
_MAX_ACCESSION = 64
_MAX_EXTENSION = 200
# What stands between the two parts of a document id: the official link has "_", CX "^", older texts "/".
_DOCUMENT = re.compile(r"([0-9]+(?:\.[0-9]+)*)(?:[_^/](.+))?", re.DOTALL)
_NAMES = {
    "requesttype": "type",
    "studyuid": "study",
    "studyinstanceuid": "study",
    "accessionnumber": "accession",
    "idcda": "report",
    "seriesuid": "series",
    "seriesinstanceuid": "series",
}


class BadLink(Refused):
    """No such link can have been written by a RIS. One reason for all: nothing is told of what is wrong (VI_SO.28)."""

    def __init__(self) -> None:
        super().__init__("Adresse incorrecte ou identifiants incohérents", code="link-invalid")


@dataclass(frozen=True, slots=True)
class ReportId:
    """The id of a CDA: an OID, and an extension where the document has one. Raises ``BadLink`` for anything else."""

    root: str
    extension: str = ""

    def __post_init__(self) -> None:
        if not is_uid(self.root) or len(self.extension) > _MAX_EXTENSION or not _printable(self.extension):
            raise BadLink

    @staticmethod
    def of(text: str) -> ReportId:
        """``root``, or ``root_extension``; ``^`` and ``/`` may stand between the two. Raises ``BadLink``."""
        found = _DOCUMENT.fullmatch(text)
        if found is None:
            raise BadLink
        return ReportId(found[1], found[2] or "")

    @property
    def document_id(self) -> str:
        """As a ``Report`` has it: ``root``, or ``root^extension``."""
        return f"{self.root}^{self.extension}" if self.extension else self.root

    def __str__(self) -> str:
        return f"{self.root}_{self.extension}" if self.extension else self.root


@dataclass(frozen=True, slots=True)
class Link:
    """What a link names: one study by its UID, its accession number and the id of a report; a series of it, or all.

    Whoever has one has something well formed: raises ``BadLink`` otherwise. That it exists is not said.
    """

    study_uid: str
    accession: str
    report: ReportId
    series_uid: str | None = None

    def __post_init__(self) -> None:
        uids = (self.study_uid, *(() if self.series_uid is None else (self.series_uid,)))
        if not all(map(is_uid, uids)):
            raise BadLink
        if self.accession != self.accession.strip() or not 0 < len(self.accession) <= _MAX_ACCESSION:
            raise BadLink
        if not _printable(self.accession):
            raise BadLink

    @property
    def fields(self) -> Mapping[str, str]:
        """The same as the fields of a form, which ``parse`` reads again."""
        return dict(self._pairs())

    @property
    def query(self) -> str:
        return _encoded(self._pairs())

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [
            ("requestType", "SERIES" if self.series_uid else "STUDY"),
            ("studyUID", self.study_uid),
            ("accessionNumber", self.accession),
        ]
        if self.series_uid:
            pairs.append(("seriesUID", self.series_uid))
        return [*pairs, ("idCDA", str(self.report))]


def parse(query: bytes) -> Link:
    """The link of a query string, as it came. Raises ``BadLink``."""
    if len(query) > MAX_QUERY_BYTES or not query.isascii():
        raise BadLink
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise BadLink from None
    return read(pairs)


def read(pairs: list[tuple[str, str]]) -> Link:
    """The link of these parameters: each at most once, whatever the order and the case. Raises ``BadLink``."""
    found: dict[str, str] = {}
    for name, value in pairs:
        known = _NAMES.get(name.lower())
        if known is None:
            continue
        if known in found:
            # Two answers to one question: which one would be held against the archive, and which one opened?
            raise BadLink
        found[known] = value.strip()
    kind, series = found.get("type", "").upper(), found.get("series") or None
    if kind not in ("STUDY", "SERIES") or (kind == "SERIES" and series is None):
        raise BadLink
    return Link(found.get("study", ""), found.get("accession", ""), ReportId.of(found.get("report", "")), series)


# --- for those who write links ----------------------------------------------------------------------------------------


def template(origin: str) -> str:
    """The template for a RIS: names in braces are to be replaced, each value percent-encoded."""
    return (
        f"{origin}{PATH}?requestType=STUDY&studyUID={{StudyInstanceUID}}"
        "&accessionNumber={AccessionNumber}&idCDA={idCDA}"
    )


def whole(origin: str, link: Link) -> str:
    return f"{origin}{PATH}?{link.query}"


def partial(origin: str, study_uid: str, accession: str) -> str:
    """What a site hands to the one who reports from afar: everything but the id of the report, which is put at the end.

    Raises ``BadLink`` for identifiers that no link may have.
    """
    link = Link(study_uid, accession, ReportId("0.0"))
    return f"{origin}{PATH}?{_encoded(link._pairs()[:-1])}&idCDA="


def partial_observation(number: int, partial_url: str) -> str:
    """The OBX segment that carries it (tele-radiology guide; ans-faq.md 2): text in base64."""
    text = base64.b64encode(partial_url.encode("ascii")).decode("ascii")
    return (
        f"OBX|{number}|ED|URL_PARTIELLE_VIEWER^URL partielle de la visionneuse^TLR_OBSERVATION||"
        f"^TEXT^^Base64^{text}||||||F"
    )


def _encoded(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def _printable(text: str) -> bool:
    return text.isprintable()
