"""The one way to read and write XML: no DTD, no entity, no network, bounded size and depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxml import etree

from drimbox.foundation.errors import Refused

MAX_XML_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 256

Element = etree._Element


def parse(data: bytes, *, max_bytes: int = MAX_XML_BYTES) -> Element:
    """Parse untrusted XML and return its root.

    Raises ``Refused`` (codes ``xml-size``, ``xml-syntax``, ``xml-dtd``, ``xml-depth``) for anything over ``max_bytes``,
    not well-formed, declaring a DTD or an entity, or nested deeper than 256.
    """
    if len(data) > max_bytes:
        raise Refused("Document XML trop volumineux", code="xml-size")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=True,
        remove_blank_text=False,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            # The parser gives up on an entity bomb before it says that there was a DTD.
            raise Refused("XML avec DTD refusé", code="xml-dtd") from error
        raise Refused(f"XML mal formé (ligne {error.lineno})", code="xml-syntax") from error
    if root is None:
        raise Refused("XML vide", code="xml-syntax")
    docinfo: Any = root.getroottree().docinfo
    if docinfo.doctype or docinfo.internalDTD is not None:
        raise Refused("XML avec DTD refusé", code="xml-dtd")
    _check_depth(root)
    return root


def _check_depth(root: Element) -> None:
    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAX_DEPTH:
            raise Refused("XML trop imbriqué", code="xml-depth")


class Builder:
    """Writes elements of one default namespace and a few named ones; the prefix ``""`` is xmlns itself.

    >>> rim = Builder({"rim": "urn:example"}, "rim")
    >>> etree.tostring(rim("Slot", rim("Value", "x"), name="a"))
    b'<rim:Slot xmlns:rim="urn:example" name="a"><rim:Value>x</rim:Value></rim:Slot>'
    """

    def __init__(self, namespaces: Mapping[str, str], prefix: str) -> None:
        self._namespaces = dict(namespaces)
        self._nsmap = {name or None: uri for name, uri in namespaces.items()}
        self._prefix = prefix
        # By the name that callers use; they use few.
        self._tags: dict[str, str] = {}

    def __call__(self, tag: str, *children: Element | str, **attributes: str) -> Element:
        """An element; ``prefix:tag`` picks another namespace; a trailing ``_`` of an attribute name is cut."""
        whole = self._tags.get(tag)
        if whole is None:
            prefix, _, local = tag.rpartition(":")
            whole = self._tags[tag] = f"{{{self._namespaces[prefix or self._prefix]}}}{local}"
        named = {name.rstrip("_"): value for name, value in attributes.items()}
        # The name of xmlns is None, which the stubs of lxml do not know.
        element = etree.Element(whole, named, nsmap=self._nsmap)  # type: ignore[arg-type]
        for child in children:
            if isinstance(child, str):
                if len(element):
                    raise ValueError("text must come before child elements")
                element.text = (element.text or "") + child
            else:
                element.append(child)
        return element


def to_bytes(element: Element, *, declaration: bool = True) -> bytes:
    """Serialise in UTF-8."""
    return etree.tostring(element, encoding="UTF-8", xml_declaration=declaration)


def local_name(element: Element) -> str:
    """The tag without its namespace."""
    return etree.QName(element).localname


def text_of(element: Element | None) -> str:
    """The element's text, stripped; empty when there is no element."""
    return (element.text or "").strip() if element is not None else ""
