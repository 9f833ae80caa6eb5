"""The VIHF: the SAML assertion that says who asks, for which structure, on which patient (standards.md E)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cryptography import x509
from lxml import etree

from drimbox.foundation.xml import Element, text_of
from drimbox.sandbox.dmp import dsig
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench

SUBJECT_ID = "urn:oasis:names:tc:xspa:1.0:subject:subject-id"
ROLE = "urn:oasis:names:tc:xacml:2.0:subject:role"
PURPOSE = "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse"
RESOURCE_ID = "urn:oasis:names:tc:xacml:2.0:resource:resource-id"
REASON = "Mode_Acces_Raison"
SECRET = "urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code"
INDIRECT = "INDIRECTE"
REINFORCED = "INDIRECTE_RENFORCEE"


@dataclass(frozen=True, slots=True)
class CodedValue:
    """A ``Role`` or ``PurposeOfUse``: the element's name, whether its xsi:type is CE of HL7 v3, its attributes."""

    tag: str
    is_ce: bool
    code: str
    system: str
    label: str


@dataclass(frozen=True, slots=True)
class Vihf:
    """What the assertion says; a thing that is absent is empty."""

    name_id: str
    attributes: dict[str, tuple[str, ...]]
    roles: tuple[CodedValue, ...]
    purposes: tuple[CodedValue, ...]
    repeated: tuple[str, ...]
    context_class: str
    context_declaration: str

    def value(self, name: str) -> str:
        """The value of an attribute that has exactly one; else empty."""
        values = self.attributes.get(name, ())
        return values[0] if len(values) == 1 else ""

    @property
    def structure(self) -> str:
        return self.value("Identifiant_Structure")

    @property
    def patient(self) -> str:
        return self.value(RESOURCE_ID)

    @property
    def mode(self) -> str:
        return self.value("Authentification_Mode")

    @property
    def reinforced(self) -> bool:
        return self.mode == REINFORCED

    @property
    def emergency(self) -> bool:
        return any(p.code in ("bris_de_glace", "centre_15") for p in self.purposes)

    def __repr__(self) -> str:
        return "Vihf(…)"


@dataclass(frozen=True, slots=True)
class Presented:
    """An assertion as it was presented: with the certificates of its signature and of the connection."""

    bench: Bench
    assertion: Element
    vihf: Vihf
    signer: x509.Certificate | None
    transport: x509.Certificate
    modes: frozenset[str]

    @property
    def signature(self) -> Element | None:
        found = self.assertion.findall(dsig.ds("Signature"))
        return found[0] if len(found) == 1 else None

    def saml(self, path: str) -> list[Element]:
        return self.assertion.findall("/".join(f"{{{v.SAML}}}{step}" for step in path.split("/")))


def read_vihf(assertion: Element) -> Vihf:
    """Read an assertion, whatever its faults: the rules come after."""

    def text(path: str) -> str:
        return text_of(assertion.find("/".join(f"{{{v.SAML}}}{step}" for step in path.split("/"))))

    attributes: dict[str, tuple[str, ...]] = {}
    coded: dict[str, tuple[CodedValue, ...]] = {}
    found = assertion.findall(f"{{{v.SAML}}}AttributeStatement/{{{v.SAML}}}Attribute")
    for attribute in found:
        values = attribute.findall(f"{{{v.SAML}}}AttributeValue")
        attributes[attribute.get("Name", "")] = tuple(text_of(value) for value in values)
        coded[attribute.get("Name", "")] = tuple(_coded(value) for value in values)
    counted = Counter(a.get("Name", "") for a in found)
    return Vihf(
        name_id=text("Subject/NameID"),
        attributes=attributes,
        roles=coded.get(ROLE, ()),
        purposes=coded.get(PURPOSE, ()),
        repeated=tuple(name for name, count in counted.items() if count > 1),
        context_class=text("AuthnStatement/AuthnContext/AuthnContextClassRef"),
        context_declaration=text("AuthnStatement/AuthnContext/AuthnContextDecl"),
    )


def signer_of(assertion: Element) -> x509.Certificate | None:
    """The certificate that the signature of an assertion carries."""
    signature = assertion.find(dsig.ds("Signature"))
    return dsig.signer(signature) if signature is not None else None


def _coded(value: Element) -> CodedValue:
    inside = list(value.iterchildren(etree.Element))
    if len(inside) != 1:
        return CodedValue("", False, "", "", "")
    one = inside[0]
    prefix, _, local = one.get(f"{{{v.XSI}}}type", "").rpartition(":")
    is_ce = local == "CE" and one.nsmap.get(prefix or None) == v.HL7
    return CodedValue(str(one.tag), is_ce, one.get("code", ""), one.get("codeSystem", ""), one.get("displayName", ""))
