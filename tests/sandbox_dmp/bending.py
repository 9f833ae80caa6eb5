"""How a right request is made wrong: one edit at one place, which must exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from sandbox_dmp.scene import Bends, Scene, Wire
from sandbox_dmp.signing import Bend, Element

NS = {
    "soap": "http://www.w3.org/2003/05/soap-envelope",
    "wsa": "http://www.w3.org/2005/08/addressing",
    "wsse": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "x": "http://uri.etsi.org/01903/v1.1.1#",
    "rim": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0",
    "q": "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0",
    "xds": "urn:ihe:iti:xds-b:2007",
    "xop": "http://www.w3.org/2004/08/xop/include",
    "hl7": "urn:hl7-org:v3",
}


@dataclass(frozen=True)
class Case:
    """A request that breaks one rule, and the code by which it must be told."""

    rule: str
    code: str
    build: Callable[[Scene], Wire]
    note: str = ""

    @property
    def label(self) -> str:
        return f"{self.rule}:{self.note}" if self.note else self.rule


def edit(path: str, *, text: str | None = None, **attributes: str) -> Bend:
    """Change the text or attributes of the first element at an XPath; ``prefix__name`` is a namespaced attribute."""

    def bend(root: Element) -> None:
        found = one(root, path)
        if text is not None:
            found.text = text
        for name, value in attributes.items():
            prefix, separator, local = name.partition("__")
            found.set(f"{{{NS[prefix]}}}{local}" if separator else name, value)

    return bend


def without(path: str, attribute: str = "") -> Bend:
    """Remove the first element at an XPath, or one attribute of it."""

    def bend(root: Element) -> None:
        found = one(root, path)
        if attribute:
            del found.attrib[attribute]
        else:
            found.getparent().remove(found)  # type: ignore[union-attr]

    return bend


def twice(path: str) -> Bend:
    """Put a copy of the first element at an XPath right after it."""

    def bend(root: Element) -> None:
        found = one(root, path)
        found.addnext(etree.fromstring(etree.tostring(found, with_tail=False)))

    return bend


def added(path: str, xml: str, *, first: bool = False) -> Bend:
    """Add a child to the first element at an XPath. Prefixes of ``NS`` may be used."""

    def bend(root: Element) -> None:
        declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NS.items())
        child = etree.fromstring(f"<w {declared}>{xml}</w>")[0]
        found = one(root, path)
        found.insert(0 if first else len(found), child)

    return bend


def also(*bends: Bend) -> Bend:
    def bend(root: Element) -> None:
        for one_bend in bends:
            one_bend(root)

    return bend


def one(root: Element, path: str) -> Element:
    found = root.xpath(path, namespaces=NS)
    assert found, f"nothing to bend at {path}"
    return found[0]


KOS = "//rim:ExtrinsicObject[@id='DocumentKOS']"
SIGN = "//rim:ExtrinsicObject[@id='Signature01']"
SET = "//rim:RegistryPackage"


def slot(owner: str, name: str) -> str:
    """The XPath of the first value of a slot."""
    return f"{owner}/rim:Slot[@name='{name}']/rim:ValueList/rim:Value"


def coded(owner: str, axis: str) -> str:
    """The XPath of the classification on an axis."""
    return f"{owner}/rim:Classification[@classificationScheme='urn:uuid:{axis}']"


def scheme_of(owner: str, axis: str) -> str:
    return f"{coded(owner, axis)}/rim:Slot[@name='codingScheme']/rim:ValueList/rim:Value"


def feed(rule: str, code: str, note: str = "", **bends: object) -> Case:
    """A publication that is bent."""
    return Case(rule, code, lambda s: s.publication(bends=Bends(**bends)), note)  # type: ignore[arg-type]
