"""Rules of the XAdES signature of a submission set (IHE DSG, French profile: standards.md D.7)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, parse, text_of
from drimbox.sandbox.dmp import certificates, datatypes, dsig
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench
from drimbox.sandbox.dmp.dsig import ds
from drimbox.sandbox.dmp.rules import Rule, judge, rule, stated

_NCNAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
_MANIFEST_TYPE = "http://www.w3.org/2000/09/xmldsig#Manifest"
_PROPERTIES_TYPE = "http://uri.etsi.org/01903/v1.1.1#SignedProperties"
_PURPOSE = "1.2.840.10065.1.12.1.14"
_PREFIXES = {"ds": v.DS, "x": v.XADES}
_QUALIFYING = "ds:Object[3]/x:QualifyingProperties"
_SIGNED = f"{_QUALIFYING}/x:SignedProperties/x:SignedSignatureProperties"
# The children of each element of the layout, but for the references of the Manifest.
_LAYOUT = {
    ".": "ds:SignedInfo ds:SignatureValue ds:KeyInfo ds:Object ds:Object ds:Object",
    "ds:Object[1]": "ds:SignatureProperties",
    "ds:Object[1]/ds:SignatureProperties": "ds:SignatureProperty",
    "ds:Object[2]": "ds:Manifest",
    "ds:Object[3]": "x:QualifyingProperties",
    _QUALIFYING: "x:SignedProperties",
    f"{_QUALIFYING}/x:SignedProperties": "x:SignedSignatureProperties x:SignedDataObjectProperties",
    _SIGNED: "x:SigningTime x:SigningCertificate x:SignaturePolicyIdentifier",
    f"{_SIGNED}/x:SigningCertificate": "x:Cert",
    f"{_SIGNED}/x:SigningCertificate/x:Cert": "x:CertDigest x:IssuerSerial",
    f"{_SIGNED}/x:SigningCertificate/x:Cert/x:IssuerSerial": "ds:X509IssuerName ds:X509SerialNumber",
    f"{_SIGNED}/x:SignaturePolicyIdentifier": "x:SignaturePolicyImplied",
}
# The set itself has no octets: its reference carries this constant.
_NO_DIGEST = "AA=="

READABLE = stated(
    "XADES.READABLE", v.INVALID_CONTENT, "The signature document is XML, root ds:Signature (standards.md D.7)."
)


def _tag(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{_PREFIXES[prefix]}}}{local}"


@dataclass(frozen=True, slots=True)
class SignatureCase:
    """A signature under judgement: what it must cover, and who must have made it.

    ``documents`` are the octets of the set's documents, but the signature, by uniqueId; ``unit`` is the OU of the
    certificate of the connection.
    """

    bench: Bench
    signature: Element
    set_id: str
    documents: Mapping[str, bytes]
    unit: str

    @property
    def certificate(self) -> x509.Certificate | None:
        return dsig.signer(self.signature)

    @property
    def manifest(self) -> Element | None:
        return self.signature.find(ds("Object/Manifest"))

    def properties(self, path: str) -> Element | None:
        steps = "/".join(f"{{{v.XADES}}}{step}" for step in path.split("/"))
        return self.signature.find(f"{ds('Object')}/{{{v.XADES}}}QualifyingProperties/{steps}")

    def certified(self) -> x509.Certificate:
        certificate = self.certificate
        assert certificate is not None
        return certificate


@rule("XADES.ID", v.INVALID_CONTENT)
def identifier(s: SignatureCase) -> str | None:
    """Id is an NCName, carried once, and the targets point to it (standards.md D.7; decision 13)."""
    told = s.signature.get("Id", "")
    qualifying = s.signature.find(f"{ds('Object')}/{{{v.XADES}}}QualifyingProperties")
    # An inherited xml:lang or xml:space would go into the canonical form of what is signed.
    bare = set(s.signature.attrib) == {"Id"}
    right = bare and _NCNAME.fullmatch(told) and dsig.carriers(s.signature, told) == 1
    return (
        None if right and qualifying is not None and qualifying.get("Target") == f"#{told}" else "Id de signature faux"
    )


@rule("XADES.LAYOUT", v.INVALID_CONTENT)
def layout(s: SignatureCase) -> str | None:
    """The elements of the layout, in order, once each, with their ids (standards.md D.7)."""
    for path, expected in _LAYOUT.items():
        found = s.signature if path == "." else s.signature.find(path, _PREFIXES)
        told = [c.tag for c in found.iterchildren(etree.Element)] if found is not None else None
        if told != [_tag(name) for name in expected.split()]:
            return "élément absent, répété ou inattendu dans la signature du lot"
    manifest, properties = s.manifest, s.properties("SignedProperties")
    right = (
        manifest is not None
        and manifest.get("Id") == "IHEManifest"
        and properties is not None
        and properties.get("Id") == "S0-SignedProperties"
        and dsig.carriers(s.signature, "IHEManifest") == dsig.carriers(s.signature, "S0-SignedProperties") == 1
    )
    return None if right else "Manifest ou SignedProperties absent ou répété"


@rule("XADES.PURPOSE", v.INVALID_CONTENT)
def purpose(s: SignatureCase) -> str | None:
    """SignatureProperty purposeOfSignature is 1.2.840.10065.1.12.1.14, on this signature (standards.md D.7)."""
    found = s.signature.find(ds("Object/SignatureProperties/SignatureProperty"))
    right = (
        found is not None
        and (found.get("Id"), found.get("Target")) == ("purposeOfSignature", f"#{s.signature.get('Id')}")
        and text_of(found) == _PURPOSE
    )
    return None if right else "finalité de la signature (purposeOfSignature) absente ou fausse"


@rule("XADES.ALGORITHM", v.INVALID_CONTENT)
def algorithms(s: SignatureCase) -> str | None:
    """C14N with comments; RSA-SHA256 and SHA-256, SHA-1 only where this DMP takes it (decision 13)."""
    sha1 = s.bench.policy.accept_sha1
    digests = s.signature.iter(ds("DigestMethod"), f"{{{v.XADES}}}DigestMethod")
    methods = {e.get("Algorithm", "") for e in digests}
    right = (
        dsig.algorithm(s.signature, "SignedInfo/CanonicalizationMethod") == dsig.INCLUSIVE_WITH_COMMENTS
        and dsig.algorithm(s.signature, "SignedInfo/SignatureMethod") in dsig.signature_methods(accept_sha1=sha1)
        and methods <= dsig.digest_methods(accept_sha1=sha1)
    )
    return None if right else "algorithme de la signature du lot refusé"


@rule("XADES.REFERENCES", v.INVALID_CONTENT)
def references(s: SignatureCase) -> str | None:
    """SignedInfo refers to the Manifest and to the SignedProperties, without transform (standards.md D.7)."""
    found = s.signature.findall(ds("SignedInfo/Reference"))
    told = {(r.get("Type"), r.get("URI")) for r in found}
    expected = {(_MANIFEST_TYPE, "#IHEManifest"), (_PROPERTIES_TYPE, "#S0-SignedProperties")}
    bare = all(r.find(ds("Transforms")) is None for r in found)
    return None if told == expected and len(found) == 2 and bare else "références de SignedInfo fausses"


@rule("XADES.CERTIFICATE", v.INVALID_CONTENT)
def certificate(s: SignatureCase) -> str | None:
    """KeyInfo holds one certificate, ORG SIGN, of IGC-Sante, in its period and not revoked (standards.md D.7, K)."""
    if s.certificate is None:
        return "un certificat attendu dans KeyInfo de la signature du lot"
    error = certificates.sign_profile_error(s.certificate)
    error = error or certificates.chain_error(s.certificate, s.bench.anchors, s.bench.now)
    return f"signature du lot : {error}" if error else None


@rule("XADES.UNIT", v.LOCAL_POLICY)
def unit(s: SignatureCase) -> str | None:
    """The set is signed by the structure that opened the connection (ans-faq.md 3.1)."""
    return None if certificates.unit(s.certified()) == s.unit else "lot signé par une autre structure"


@rule("XADES.VALUE", v.INVALID_CONTENT)
def value(s: SignatureCase) -> str | None:
    """The digests of Manifest and SignedProperties, and SignatureValue, are right (xmlsec; standards.md D.7)."""
    root = dsig.with_objects_beside(s.signature)
    signature = root.find(ds("Signature"))
    manifest = root.find(ds("Object/Manifest"))
    properties = root.find(f"{ds('Object')}/{{{v.XADES}}}QualifyingProperties/{{{v.XADES}}}SignedProperties")
    assert signature is not None
    assert manifest is not None
    assert properties is not None
    right = dsig.is_right(signature, s.certified(), [manifest, properties], "Id")
    return None if right else "signature du lot fausse"


@rule("XADES.SET", v.INVALID_CONTENT)
def set_reference(s: SignatureCase) -> str | None:
    """The Manifest refers to the submission set, urn:oid:<uniqueId>, digest AA== (standards.md D.7)."""
    found = _manifest_references(s).get(f"urn:oid:{s.set_id}")
    right = found is not None and text_of(found.find(ds("DigestValue"))) == _NO_DIGEST
    return None if right else "référence au lot absente du Manifest, ou empreinte différente de AA=="


@rule("XADES.DOCUMENTS", v.INVALID_CONTENT)
def documents(s: SignatureCase) -> str | None:
    """The Manifest refers to each document of the set and to nothing else (standards.md D.7)."""
    assert s.manifest is not None
    told = [r.get("URI", "") for r in s.manifest.findall(ds("Reference"))]
    expected = [f"urn:oid:{s.set_id}", *(f"urn:oid:{uid}" for uid in s.documents)]
    return None if sorted(told) == sorted(expected) else "le Manifest ne couvre pas exactement les documents du lot"


@rule("XADES.OCTETS", v.INVALID_CONTENT)
def octets(s: SignatureCase) -> str | None:
    """The digest of each document is that of the octets received, without transform (standards.md D.7)."""
    found = _manifest_references(s)
    for uid, content in s.documents.items():
        reference = found[f"urn:oid:{uid}"]
        if reference.find(ds("Transforms")) is not None or not _digest_is(reference, content):
            return "empreinte d'un document du lot fausse"
    return None


@rule("XADES.SIGNING_CERTIFICATE", v.INVALID_CONTENT)
def signing_certificate(s: SignatureCase) -> str | None:
    """SigningCertificate: digest, issuer and serial number of the certificate of KeyInfo (standards.md D.7).

    In XAdES 1.1.1, and in the official sample, DigestMethod and DigestValue of CertDigest are in the XAdES namespace.
    """
    found = s.properties("SignedProperties/SignedSignatureProperties/SigningCertificate/Cert")
    assert found is not None
    digest = found.find(f"{{{v.XADES}}}CertDigest")
    serial = found.find(f"{{{v.XADES}}}IssuerSerial")
    if digest is None or serial is None or not _digest_is(digest, s.certified().public_bytes(Encoding.DER), v.XADES):
        return "empreinte de SigningCertificate fausse"
    issuer = text_of(serial.find(ds("X509IssuerName")))
    number = text_of(serial.find(ds("X509SerialNumber")))
    same = certificates.same_name(s.certified().issuer, issuer) and number == str(s.certified().serial_number)
    return None if same else "IssuerSerial différent du certificat"


@rule("XADES.TIME", v.INVALID_CONTENT)
def signing_time(s: SignatureCase) -> str | None:
    """SigningTime is an instant, past, within the period of the certificate (standards.md D.7)."""
    found = s.properties("SignedProperties/SignedSignatureProperties/SigningTime")
    when = datatypes.instant(text_of(found))
    late = when is None or when > s.bench.skewed(s.bench.policy.clock_skew)
    early = when is not None and when < s.certified().not_valid_before_utc
    return "SigningTime absent, futur, ou hors de la validité du certificat" if late or early else None


XADES_RULES: tuple[Rule[SignatureCase], ...] = (
    identifier,
    layout,
    purpose,
    algorithms,
    references,
    certificate,
    unit,
    value,
    set_reference,
    documents,
    octets,
    signing_certificate,
    signing_time,
)


def read_signature(content: bytes) -> Element:
    """Parse a signature document. Raises ``Breach`` when it is not one."""
    try:
        root = parse(content)
    except Refused as error:
        raise READABLE.broken(f"document de signature : {error.reason}") from error
    if root.tag != ds("Signature"):
        raise READABLE.broken("document de signature : ds:Signature attendu")
    return root


def judge_signature(case: SignatureCase) -> None:
    """Raise the ``Breach`` of the first rule that the signature breaks."""
    judge(XADES_RULES, case)


def _manifest_references(s: SignatureCase) -> dict[str, Element]:
    assert s.manifest is not None
    return {r.get("URI", ""): r for r in s.manifest.findall(ds("Reference"))}


def _digest_is(holder: Element, octets: bytes, namespace: str = v.DS) -> bool:
    """Does the DigestMethod and DigestValue pair in ``holder`` give the digest of these octets?"""
    method = holder.find(f"{{{namespace}}}DigestMethod")
    if method is None:
        return False
    hashed = hashlib.sha1(octets) if method.get("Algorithm") == dsig.SHA1 else hashlib.sha256(octets)
    return _base64(holder.find(f"{{{namespace}}}DigestValue")) == hashed.digest()


def _base64(element: Element | None) -> bytes:
    try:
        return base64.b64decode("".join(text_of(element).split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
