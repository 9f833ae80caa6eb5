"""A report as it is shown: its header in words, and its body (CDA/VISU.01).

The body of level 1 is a PDF, a picture or plain text; that of level 3 is a narrative, shown as a tree of known parts:
nothing of its markup is passed on, no stylesheet is run.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from drimbox.consumer.identity_check import Difference
from drimbox.consumer.narrative import Kind, Narrative, Node, Picture, picture_of, plain_narrative, read_narrative
from drimbox.foundation import xml
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Patient
from drimbox.reports.cda import document_root, instant_of, patient_of

_CDA = "urn:hl7-org:v3"
_MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One thing that the header says, with its name in French."""

    name: str
    text: str

    def __repr__(self) -> str:
        return f"HeaderLine({self.name})"


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """A report to show. Either ``pdf`` or ``body`` holds its body; ``header`` is all that its header says besides."""

    document_id: str
    title: str
    type_label: str
    created: dt.datetime | None
    author: str
    structure: str
    patient: Patient
    header: tuple[HeaderLine, ...] = ()
    pdf: bytes = b""
    body: Narrative = field(default_factory=lambda: Narrative(()))
    differences: tuple[Difference, ...] = field(default=())

    def __repr__(self) -> str:
        return f"ReportDocument({self.document_id})"

    def with_differences(self, differences: tuple[Difference, ...]) -> ReportDocument:
        """With the traits that are not the call's."""
        return replace(self, differences=differences)


def read_report(data: bytes) -> ReportDocument:
    """Read a CDA report, also one whose header lacks what publishing would need.

    Raises ``Refused``: not safe XML, not a CDA, no patient, ``report-body`` for a body that cannot be shown.
    """
    root = document_root(data)
    patient = patient_of(root)
    code = root.find(f"{{{_CDA}}}code")
    moment = root.find(f"{{{_CDA}}}effectiveTime")
    pdf, body = _body(root)
    return ReportDocument(
        document_id=_identifier(root.find(f"{{{_CDA}}}id")),
        title=_plain(root.find(f"{{{_CDA}}}title")),
        type_label=(code.get("displayName") or code.get("code") or "") if code is not None else "",
        created=instant_of(moment.get("value") or "") if moment is not None else None,
        author=next((name for path in _AUTHORS for name in _people(root, path)), ""),
        structure=next(_texts(root, ".//{*}representedOrganization/{*}name"), ""),
        patient=patient,
        header=tuple(_header(root))[:_MAX_LINES],
        pdf=pdf,
        body=body,
    )


_AUTHORS = ("author/{*}assignedAuthor", "legalAuthenticator/{*}assignedEntity")
#: Where people stand in the header, and what they are there.
_PEOPLE = (
    ("Auteur", "author/{*}assignedAuthor"),
    ("Responsable du document", "legalAuthenticator/{*}assignedEntity"),
    ("Validé par", "authenticator/{*}assignedEntity"),
    ("Destinataire", "informationRecipient/{*}intendedRecipient"),
    ("Participant", "participant/{*}associatedEntity"),
    ("Exécutant de l’acte", "documentationOf/{*}serviceEvent/{*}performer/{*}assignedEntity"),
)
_IDENTIFIERS = (
    ("Numéro de demande", "inFulfillmentOf/{*}order/{*}accessionNumber"),
    ("Identifiant de la prescription", "inFulfillmentOf/{*}order/{*}id"),
    ("Document remplacé", "relatedDocument/{*}parentDocument/{*}id"),
    ("Identifiant de la venue", "componentOf/{*}encompassingEncounter/{*}id"),
)


def _header(root: xml.Element) -> Iterator[HeaderLine]:
    """The whole header in words, in the order in which a reader looks for it."""
    yield from _lines("Version", [v.get("value") or "" for v in root.iterfind(f"{{{_CDA}}}versionNumber")])
    yield from _lines("Confidentialité", _labels(root, "confidentialityCode"))
    yield from _lines("Langue", [v.get("code") or "" for v in root.iterfind(f"{{{_CDA}}}languageCode")])
    for name, path in _PEOPLE:
        yield from _lines(name, _people(root, path))
    yield from _lines("Établissement conservateur", _texts(root, f"{{{_CDA}}}custodian//{{*}}name"))
    yield from _lines("Établissement", _texts(root, ".//{*}representedOrganization/{*}name"))
    for event in root.iterfind(f"{{{_CDA}}}documentationOf/{{*}}serviceEvent"):
        yield from _lines("Acte", _labels(event, "code"))
        yield from _lines("Date de l’acte", _moments(event))
        yield from _lines("Étude (Study Instance UID)", [i.get("root") or "" for i in event.iterfind("{*}id")])
    for name, path in _IDENTIFIERS:
        yield from _lines(name, [_identifier(found) for found in root.iterfind(f"{{{_CDA}}}{path}")])
    yield from _lines(
        "Lieu de prise en charge", _labels(root, "componentOf/{*}encompassingEncounter/{*}location//{*}code")
    )


def _lines(name: str, texts: Iterator[str] | list[str]) -> Iterator[HeaderLine]:
    yield from (HeaderLine(name, text[:500]) for text in dict.fromkeys(texts) if text)


def _labels(element: xml.Element, path: str) -> Iterator[str]:
    for code in element.iterfind(f"{{{_CDA}}}{path}"):
        yield code.get("displayName") or code.get("code") or ""


def _moments(event: xml.Element) -> Iterator[str]:
    for path in ("{*}effectiveTime/{*}low", "{*}effectiveTime"):
        found = event.find(path)
        moment = instant_of(found.get("value") or "") if found is not None else None
        if moment is not None:
            yield f"{moment.astimezone(PARIS):%d/%m/%Y à %H:%M}"
            return


def _people(root: xml.Element, path: str) -> Iterator[str]:
    """Given and family name, with the structure in which they act."""
    for entity in root.iterfind(f"{{{_CDA}}}{path}"):
        name = entity.find("{*}assignedPerson/{*}name")
        if name is None:
            name = entity.find("{*}associatedPerson/{*}name")
        if name is None:
            name = entity.find("{*}informationRecipient/{*}name")
        if name is None:
            continue
        parts = [_plain(name.find(f"{{*}}{part}")) for part in ("prefix", "given", "family")]
        yield " ".join(part for part in parts if part) or _plain(name)


def _texts(root: xml.Element, path: str) -> Iterator[str]:
    for found in root.iterfind(path):
        if text := _plain(found):
            yield text


def _identifier(element: xml.Element | None) -> str:
    if element is None:
        return ""
    return "^".join(part for part in (element.get("root"), element.get("extension")) if part)


def _body(root: xml.Element) -> tuple[bytes, Narrative]:
    text = root.find(f"{{{_CDA}}}component/{{{_CDA}}}nonXMLBody/{{{_CDA}}}text")
    if text is not None:
        return _unstructured(text)
    body = root.find(f"{{{_CDA}}}component/{{{_CDA}}}structuredBody")
    if body is None:
        raise Refused("Le compte rendu n'a pas de corps", code="report-body")
    return b"", read_narrative(body)


def _unstructured(text: xml.Element) -> tuple[bytes, Narrative]:
    media_type = (text.get("mediaType") or "text/plain").lower()
    if text.get("representation") == "B64":
        try:
            content = base64.b64decode("".join((text.text or "").split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("Le corps du compte rendu est illisible", code="report-body") from error
    else:
        content = "".join(str(piece) for piece in text.itertext()).encode()
    if media_type == "application/pdf" and content.lstrip()[:5] == b"%PDF-":
        return content, Narrative(())
    if media_type == "text/plain":
        return b"", plain_narrative(content.decode("utf-8", "replace"))
    picture = picture_of(content) if media_type.startswith("image/") else None
    if picture is not None:
        return b"", _only(picture)
    raise Refused("Le format du corps du compte rendu ne peut pas être affiché", code="report-body")


def _only(picture: Picture) -> Narrative:
    return Narrative((Node(Kind.PICTURE),), (picture,))


def _plain(element: xml.Element | None) -> str:
    """All the text of an element, blanks made single."""
    return " ".join("".join(str(piece) for piece in element.itertext()).split()) if element is not None else ""
