"""A report as it is shown: its header in words, and its body (CDA/VISU.01).

The body of level 1 is a PDF, or plain text; that of level 3 is a narrative, shown as text blocks: headings, paragraphs,
lists and tables, nothing of its markup is passed on.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from drimbox.foundation import xml
from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Patient
from drimbox.reports.cda import document_root, instant_of, patient_of

_CDA = "urn:hl7-org:v3"
_MAX_BLOCKS = 20_000
_SKIPPED = frozenset({"renderMultiMedia", "footnoteRef"})


class BlockKind(StrEnum):
    """What a block of a narrative is."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    ITEM = "item"
    ROW = "row"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a narrative: its texts (the cells of a row, else one), and how deep it stands."""

    kind: BlockKind
    texts: tuple[str, ...]
    depth: int = 1


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """A report to show. Either ``pdf`` or ``blocks`` holds its body."""

    document_id: str
    title: str
    type_label: str
    created: dt.datetime | None
    author: str
    structure: str
    patient: Patient
    pdf: bytes = b""
    blocks: tuple[Block, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return f"ReportDocument({self.document_id})"

    def with_warnings(self, warnings: tuple[str, ...]) -> ReportDocument:
        return replace(self, warnings=warnings)


def read_report(data: bytes) -> ReportDocument:
    """Read a CDA report, also one whose header lacks what publishing would need.

    Raises ``Refused``: not safe XML, not a CDA, no patient, ``report-body`` for a body that cannot be shown.
    """
    root = document_root(data)
    patient = patient_of(root)
    code = root.find(f"{{{_CDA}}}code")
    identifier = root.find(f"{{{_CDA}}}id")
    moment = root.find(f"{{{_CDA}}}effectiveTime")
    pdf, blocks = _body(root)
    return ReportDocument(
        document_id=_identifier(identifier),
        title=_plain(root.find(f"{{{_CDA}}}title")),
        type_label=(code.get("displayName") or code.get("code") or "") if code is not None else "",
        created=instant_of(moment.get("value") or "") if moment is not None else None,
        author=_author(root),
        structure=_plain(_first(root, f".//{{{_CDA}}}representedOrganization/{{{_CDA}}}name")),
        patient=patient,
        pdf=pdf,
        blocks=blocks,
    )


def _identifier(element: xml.Element | None) -> str:
    if element is None:
        return ""
    return "^".join(part for part in (element.get("root"), element.get("extension")) if part)


def _author(root: xml.Element) -> str:
    for path in ("author/{*}assignedAuthor", "legalAuthenticator/{*}assignedEntity"):
        name = root.find(f"{{{_CDA}}}{path}/{{*}}assignedPerson/{{*}}name")
        parts = [_plain(_first(name, f"{{*}}{part}")) for part in ("given", "family")] if name is not None else []
        if any(parts):
            return " ".join(part for part in parts if part)
    return ""


def _first(element: xml.Element | None, path: str) -> xml.Element | None:
    return element.find(path) if element is not None else None


def _body(root: xml.Element) -> tuple[bytes, tuple[Block, ...]]:
    text = root.find(f"{{{_CDA}}}component/{{{_CDA}}}nonXMLBody/{{{_CDA}}}text")
    if text is not None:
        return _unstructured(text)
    body = root.find(f"{{{_CDA}}}component/{{{_CDA}}}structuredBody")
    if body is None:
        raise Refused("Le compte rendu n'a pas de corps", code="report-body")
    blocks = tuple(_sections(body, 1))
    if not blocks:
        raise Refused("Le corps du compte rendu est vide", code="report-body")
    if len(blocks) > _MAX_BLOCKS:
        raise Refused("Le corps du compte rendu est trop long", code="report-body")
    return b"", blocks


def _unstructured(text: xml.Element) -> tuple[bytes, tuple[Block, ...]]:
    media_type = (text.get("mediaType") or "text/plain").lower()
    if text.get("representation") == "B64":
        try:
            content = base64.b64decode("".join((text.text or "").split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("Le corps du compte rendu est illisible", code="report-body") from error
    else:
        content = "".join(str(piece) for piece in text.itertext()).encode()
    if media_type == "application/pdf" and content.lstrip()[:5] == b"%PDF-":
        return content, ()
    if media_type == "text/plain":
        lines = content.decode("utf-8", "replace").splitlines()
        return b"", tuple(Block(BlockKind.PARAGRAPH, (line,)) for line in lines if line.strip())
    raise Refused("Le format du corps du compte rendu ne peut pas être affiché", code="report-body")


def _sections(parent: xml.Element, depth: int) -> Iterator[Block]:
    for component in parent.iterchildren(f"{{{_CDA}}}component"):
        section = component.find(f"{{{_CDA}}}section")
        if section is None:
            continue
        title = _plain(section.find(f"{{{_CDA}}}title"))
        if title:
            yield Block(BlockKind.HEADING, (title,), depth)
        narrative = section.find(f"{{{_CDA}}}text")
        if narrative is not None:
            yield from _narrative(narrative, depth)
        yield from _sections(section, depth + 1)


def _narrative(element: xml.Element, depth: int) -> Iterator[Block]:
    """Text between block elements is a paragraph of its own; inline elements are part of the text around them."""
    pending = [element.text or ""]

    def flush() -> Iterator[Block]:
        for line in "".join(pending).split("\n\n"):
            text = " ".join(line.split())
            if text:
                yield Block(BlockKind.PARAGRAPH, (text,), depth)
        pending.clear()

    for child in element.iterchildren("{*}*"):
        name = xml.local_name(child)
        if name in ("paragraph", "list", "table", "caption"):
            yield from flush()
            yield from _block(child, name, depth)
        elif name == "br":
            pending.append("\n\n")
        elif name not in _SKIPPED:
            pending.append(_plain(child))
        pending.append(child.tail or "")
    yield from flush()


def _block(element: xml.Element, name: str, depth: int) -> Iterator[Block]:
    if name == "table":
        for row in element.iter(f"{{{_CDA}}}tr"):
            cells = tuple(_plain(cell) for cell in row if xml.local_name(cell) in ("td", "th"))
            if any(cells):
                yield Block(BlockKind.ROW, cells, depth)
    elif name == "list":
        for item in element.iterchildren(f"{{{_CDA}}}item"):
            yield Block(BlockKind.ITEM, (_plain(item),), depth)
    else:
        yield from _narrative(element, depth)


def _plain(element: xml.Element | None) -> str:
    """All the text of an element, blanks made single."""
    return " ".join("".join(str(piece) for piece in element.itertext()).split()) if element is not None else ""
