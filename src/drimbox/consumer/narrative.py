"""The narrative of a structured report (CDA R2 4.3.5), as a tree of known parts that a page can show safely.

No markup of the document is passed on, no stylesheet of it is run: each element is either known here, or only its text
counts. Links keep their address when it is http(s); pictures are those that the document itself holds.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from drimbox.foundation import xml
from drimbox.foundation.errors import Refused

_CDA = "urn:hl7-org:v3"
_MAX_NODES = 40_000
_MAX_DEPTH = 40
_MAX_PICTURES = 50
_MAX_PICTURE_BYTES = 8 * 2**20
_SIGNATURES = (("image/png", b"\x89PNG\r\n\x1a\n"), ("image/jpeg", b"\xff\xd8\xff"), ("image/gif", b"GIF8"))


class Kind(StrEnum):
    """What a part is. Those after ``TEXT`` stand within a line."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    ORDERED = "ordered"
    ITEM = "item"
    TABLE = "table"
    CAPTION = "caption"
    ROW = "row"
    CELL = "cell"
    HEADER_CELL = "header-cell"
    PICTURE = "picture"
    TEXT = "text"
    STRONG = "strong"
    EMPHASIS = "em"
    UNDERLINE = "u"
    STRUCK = "s"
    SUB = "sub"
    SUP = "sup"
    LINK = "link"
    BREAK = "break"


@dataclass(frozen=True, slots=True)
class Node:
    """One part. ``text`` of a text; ``href`` of a link; ``number`` of a picture, else the level of a heading."""

    kind: Kind
    children: tuple[Node, ...] = ()
    text: str = ""
    href: str = ""
    number: int = 0
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the document holds; its type is told from its octets."""

    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Narrative:
    """A body to show."""

    nodes: tuple[Node, ...]
    pictures: tuple[Picture, ...] = ()


def read_narrative(body: xml.Element) -> Narrative:
    """The sections of a ``structuredBody``, in their order.

    Raises ``Refused`` (``report-body``) for an empty body, or one that is too long or too deep to be shown.
    """
    reader = _Reader(body)
    nodes = tuple(reader.sections(body, 1))
    if not nodes:
        raise Refused("Le corps du compte rendu est vide", code="report-body")
    return Narrative(nodes, tuple(reader.pictures))


def plain_narrative(text: str) -> Narrative:
    """A plain text, one paragraph a line."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > _MAX_NODES:
        raise _too_long()
    return Narrative(tuple(Node(Kind.PARAGRAPH, (Node(Kind.TEXT, text=line),)) for line in lines))


def picture_of(content: bytes) -> Picture | None:
    """The picture that the octets are; None when they are none that a browser shows."""
    media_type = next((name for name, start in _SIGNATURES if content.startswith(start)), None)
    return Picture(media_type, content) if media_type is not None else None


_STYLES = {
    "bold": Kind.STRONG,
    "italics": Kind.EMPHASIS,
    "emphasis": Kind.EMPHASIS,
    "underline": Kind.UNDERLINE,
}
_BLOCKS = frozenset({"paragraph", "list", "table", "renderMultiMedia"})


class _Reader:
    """Reads one body: counts what it makes, remembers the pictures that it shows."""

    def __init__(self, body: xml.Element) -> None:
        self.pictures: list[Picture] = []
        self._media = _media(body)
        self._numbers: dict[str, int] = {}
        self._count = 0

    def sections(self, parent: xml.Element, depth: int) -> Iterator[Node]:
        if depth > _MAX_DEPTH:
            raise _too_long()
        for component in parent.iterchildren(f"{{{_CDA}}}component"):
            section = component.find(f"{{{_CDA}}}section")
            if section is None:
                continue
            title = section.find(f"{{{_CDA}}}title")
            inside = self._tidy(self._inline(title, 0)) if title is not None else ()
            if inside:
                yield self._node(Kind.HEADING, inside, number=depth)
            text = section.find(f"{{{_CDA}}}text")
            if text is not None:
                yield from self._blocks(text, 0)
            yield from self.sections(section, depth + 1)

    def _blocks(self, element: xml.Element, depth: int) -> Iterator[Node]:
        """Block elements, and what stands between them as paragraphs of its own."""
        if depth > _MAX_DEPTH:
            raise _too_long()
        pending: list[Node] = list(self._text(element.text))
        for child in element.iterchildren("{*}*"):
            name = xml.local_name(child)
            if name in _BLOCKS:
                yield from self._paragraph(pending)
                pending = []
                yield from self._block(child, name, depth + 1)
            else:
                pending += self._element(child, depth + 1)
            pending += self._text(child.tail)
        yield from self._paragraph(pending)

    def _block(self, element: xml.Element, name: str, depth: int) -> Iterator[Node]:
        if name == "table":
            yield from self._table(element, depth)
        elif name == "list":
            caption = element.find(f"{{{_CDA}}}caption")
            if caption is not None:
                yield from self._paragraph(list(self._inline(caption, depth)))
            items = [
                self._node(Kind.ITEM, tuple(self._blocks(item, depth + 1)))
                for item in element.iterchildren(f"{{{_CDA}}}item")
            ]
            kind = Kind.ORDERED if element.get("listType") == "ordered" else Kind.LIST
            if items:
                yield self._node(kind, tuple(items))
        elif name == "renderMultiMedia":
            yield from self._shown(element, depth)
        else:
            yield from self._blocks(element, depth + 1)

    def _table(self, element: xml.Element, depth: int) -> Iterator[Node]:
        parts: list[Node] = []
        caption = element.find(f"{{{_CDA}}}caption")
        if caption is not None:
            parts.append(self._node(Kind.CAPTION, self._tidy(self._inline(caption, depth))))
        for row in _rows(element):
            cells = [self._cell(cell, depth + 1) for cell in row if xml.local_name(cell) in ("td", "th")]
            if cells:
                parts.append(self._node(Kind.ROW, tuple(cells)))
        if parts:
            yield self._node(Kind.TABLE, tuple(parts))

    def _cell(self, cell: xml.Element, depth: int) -> Node:
        kind = Kind.HEADER_CELL if xml.local_name(cell) == "th" else Kind.CELL
        inside = tuple(self._blocks(cell, depth))
        return self._node(kind, inside, columns=_span(cell, "colspan"), rows=_span(cell, "rowspan"))

    def _shown(self, element: xml.Element, depth: int) -> Iterator[Node]:
        caption = element.find(f"{{{_CDA}}}caption")
        told = self._tidy(self._inline(caption, depth)) if caption is not None else ()
        for name in (element.get("referencedObject") or "").split():
            media = self._media.get(name)
            if media is None:
                yield from self._paragraph([self._node(Kind.TEXT, text="[image absente du document]")])
                continue
            if name not in self._numbers:
                if len(self.pictures) >= _MAX_PICTURES:
                    raise _too_long()
                self._numbers[name] = len(self.pictures)
                self.pictures.append(media)
            yield self._node(Kind.PICTURE, told, number=self._numbers[name])

    def _inline(self, element: xml.Element, depth: int) -> Iterator[Node]:
        if depth > _MAX_DEPTH:
            raise _too_long()
        yield from self._text(element.text)
        for child in element.iterchildren("{*}*"):
            yield from self._element(child, depth + 1)
            yield from self._text(child.tail)

    def _element(self, element: xml.Element, depth: int) -> Iterator[Node]:
        name = xml.local_name(element)
        if name == "br":
            yield self._node(Kind.BREAK)
        elif name in ("sub", "sup"):
            yield self._node(Kind(name), tuple(self._inline(element, depth)))
        elif name == "linkHtml":
            inside, href = tuple(self._inline(element, depth)), _address(element.get("href") or "")
            yield (
                self._node(Kind.LINK, inside or (Node(Kind.TEXT, text=href),), href=href)
                if href
                else self._node(Kind.EMPHASIS, inside)
            )
        elif name == "content":
            yield from self._styled(element, depth)
        elif name == "footnote":
            inner = (Node(Kind.TEXT, text=" ["), *self._inline(element, depth), Node(Kind.TEXT, text="]"))
            yield self._node(Kind.EMPHASIS, inner)
        elif name in _BLOCKS:
            # A block where only lines may stand: its text, on a line of its own.
            yield self._node(Kind.BREAK)
            yield from self._inline(element, depth)
        elif name != "footnoteRef":
            yield from self._inline(element, depth)

    def _styled(self, element: xml.Element, depth: int) -> Iterator[Node]:
        inside = tuple(self._inline(element, depth))
        told = (element.get("styleCode") or "").lower()
        # Some write two styles as one word (BoldItalics).
        styles = [kind for word, kind in _STYLES.items() if word in told]
        if element.get("revised") == "delete":
            styles.append(Kind.STRUCK)
        for style in dict.fromkeys(styles):
            inside = (self._node(style, inside),)
        yield from inside

    def _paragraph(self, pending: list[Node]) -> Iterator[Node]:
        inside = self._tidy(pending)
        if inside:
            yield self._node(Kind.PARAGRAPH, inside)

    def _tidy(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        """Without blanks and breaks at the ends; nothing when there is nothing else."""
        kept = list(nodes)
        while kept and _blank(kept[0]):
            kept.pop(0)
        while kept and _blank(kept[-1]):
            kept.pop()
        return tuple(kept)

    def _text(self, text: str | None) -> Iterator[Node]:
        if not text:
            return
        words = " ".join(text.split())
        before, after = " " if text[0].isspace() else "", " " if text[-1].isspace() and words else ""
        yield self._node(Kind.TEXT, text=f"{before}{words}{after}")

    def _node(
        self,
        kind: Kind,
        children: tuple[Node, ...] = (),
        *,
        text: str = "",
        href: str = "",
        number: int = 0,
        columns: int = 1,
        rows: int = 1,
    ) -> Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _too_long()
        return Node(kind, children, text, href, number, columns, rows)


def _rows(table: xml.Element) -> Iterator[xml.Element]:
    """The rows of a table itself, not those of a table within it."""
    for part in table.iterchildren(*(f"{{{_CDA}}}{name}" for name in ("thead", "tbody", "tfoot", "tr"))):
        if xml.local_name(part) == "tr":
            yield part
        else:
            yield from part.iterchildren(f"{{{_CDA}}}tr")


def _blank(node: Node) -> bool:
    return node.kind is Kind.BREAK or (node.kind is Kind.TEXT and not node.text.strip())


def _media(body: xml.Element) -> Mapping[str, Picture]:
    """The pictures of the entries, by the ID that the narrative names."""
    found: dict[str, Picture] = {}
    for media in body.iter(f"{{{_CDA}}}observationMedia"):
        name, value = media.get("ID"), media.find(f"{{{_CDA}}}value")
        if not name or value is None or value.get("representation") != "B64" or len(found) >= _MAX_PICTURES:
            continue
        text = "".join((value.text or "").split())
        if len(text) > _MAX_PICTURE_BYTES * 4 // 3 + 4:
            continue
        try:
            picture = picture_of(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            continue
        if picture is not None:
            found[name] = picture
    return found


def _address(href: str) -> str:
    """The address of a link; empty unless it is a plain http(s) one."""
    try:
        parts = urlsplit(href.strip())
        right = parts.scheme in ("https", "http") and bool(parts.hostname) and not parts.username
    except ValueError:
        return ""
    return href.strip() if right and not any(c.isspace() or c < " " for c in href.strip()) else ""


def _span(cell: xml.Element, name: str) -> int:
    text = (cell.get(name) or "").strip()
    return min(int(text), 100) if text.isascii() and text.isdigit() and 0 < len(text) < 4 and int(text) else 1


def _too_long() -> Refused:
    return Refused("Le corps du compte rendu est trop long ou trop imbriqué pour être affiché", code="report-body")
