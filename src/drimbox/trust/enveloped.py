"""Verifies a document that carries its own signature: enveloped XAdES-BASELINE-B (ETSI EN 319 132-1), as the whitelist.

One shape is accepted, the one the national tools make (standards.md K.5, official-data.md 8), and nothing else:
exactly one ``Signature``, a child of the root; two references, ``URI=""`` (enveloped-signature, or the subtract filter
that means the same, then exclusive canonicalisation) and the ``SignedProperties``; RSA with SHA-256 or better.

What is handed back is not the document that came but the bytes whose digest was signed, parsed again: whatever a
forger wraps, moves or hides in comments, the caller only ever sees what the signer saw.

This says who signed, not whether to believe them: see ``trust.chain``.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
from collections import Counter
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, parse, text_of
from drimbox.trust import names
from drimbox.trust.keystore import MIN_RSA_BITS, UNREADABLE

MAX_CERTIFICATES = 10

Tree = etree._ElementTree

DS = "http://www.w3.org/2000/09/xmldsig#"
XADES = "http://uri.etsi.org/01903/v1.3.2#"
SIGNED_PROPERTIES = "http://uri.etsi.org/01903#SignedProperties"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
FILTER2 = "http://www.w3.org/2002/06/xmldsig-filter2"

_DIGESTS: dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]] = {
    "http://www.w3.org/2001/04/xmlenc#sha256": hashes.SHA256,
    "http://www.w3.org/2001/04/xmldsig-more#sha384": hashes.SHA384,
    "http://www.w3.org/2001/04/xmlenc#sha512": hashes.SHA512,
}
_SIGNATURES: dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]] = {
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256": hashes.SHA256,
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384": hashes.SHA384,
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What was signed (without the signature), by whom, when they say; and the certificates that came along."""

    content: Element
    signer: x509.Certificate
    companions: tuple[x509.Certificate, ...]
    signed_at: dt.datetime


def verify_enveloped(document: bytes, *, max_bytes: int) -> SignedDocument:
    """Verify the cryptography of an enveloped signature.

    Raises ``Refused``: those of ``foundation.xml.parse``, ``signature-missing``, ``signature-form`` (not the one
    accepted shape), ``signature-algorithm``, ``signature-digest`` (the document or the properties were changed),
    ``signature-certificate`` (the signer is not the one the signature names), ``signature-value``.
    """
    root = parse(document, max_bytes=max_bytes)
    signature = _only_signature(root)
    properties = _signed_properties(root, signature)
    info = _child(signature, "SignedInfo")
    whole, signed_properties = _references(info, properties)
    _check_digest(signed_properties, _canonical(properties))
    canonical = _without_signature(document, max_bytes)
    _check_digest(whole, canonical)
    certificates = _certificates(signature)
    signer = _signer(signature, info, properties, certificates)
    return SignedDocument(
        content=parse(canonical, max_bytes=2 * max_bytes),
        signer=signer,
        companions=tuple(c for c in certificates if c != signer),
        signed_at=_signing_time(properties),
    )


def _only_signature(root: Element) -> Element:
    found = list(root.iter(f"{{{DS}}}Signature"))
    if not found:
        raise Refused("Document non signé", code="signature-missing")
    if len(found) > 1 or found[0].getparent() is not root:
        raise _form("plusieurs signatures, ou signature mal placée")
    return found[0]


def _signed_properties(root: Element, signature: Element) -> Element:
    """The one SignedProperties, at its one place, whose Id no other element takes."""
    qualifying = _child(_child(signature, "Object"), "QualifyingProperties", XADES)
    properties = _child(qualifying, "SignedProperties", XADES)
    identifiers = Counter(
        value
        for element in root.iter(etree.Element)
        for name, value in element.attrib.items()
        if str(name).rpartition("}")[2].lower() == "id"
    )
    own = properties.get("Id", "")
    if not own or identifiers[own] != 1 or len(list(root.iter(f"{{{XADES}}}SignedProperties"))) != 1:
        raise _form("SignedProperties ambigu")
    if qualifying.get("Target") != f"#{signature.get('Id')}":
        raise _form("QualifyingProperties ne vise pas la signature")
    return properties


def _references(info: Element, properties: Element) -> tuple[Element, Element]:
    """The reference to the whole document, and the one to the signed properties."""
    if [_tag(e) for e in info] != ["CanonicalizationMethod", "SignatureMethod", "Reference", "Reference"]:
        raise _form("SignedInfo inattendu")
    _require_plain(info[0], EXCLUSIVE)
    by_uri = {reference.get("URI"): reference for reference in list(info)[2:]}
    whole, signed = by_uri.get(""), by_uri.get(f"#{properties.get('Id')}")
    if whole is None or signed is None or signed.get("Type") != SIGNED_PROPERTIES:
        raise _form("références inattendues")
    subtraction, canonicalisation = _transforms(whole, 2)
    if subtraction.get("Algorithm") == FILTER2:
        _require_subtract_signature(subtraction)
    else:
        _require_plain(subtraction, ENVELOPED)
    _require_plain(canonicalisation, EXCLUSIVE)
    _require_plain(_transforms(signed, 1)[0], EXCLUSIVE)
    return whole, signed


def _transforms(reference: Element, count: int) -> list[Element]:
    found = list(_child(reference, "Transforms"))
    if len(found) != count or any(_tag(t) != "Transform" for t in found):
        raise _form("transformations inattendues")
    return found


def _require_plain(method: Element, algorithm: str) -> None:
    if method.get("Algorithm") != algorithm or len(method):
        raise Refused("Signature avec une canonicalisation inattendue", code="signature-algorithm")


def _require_subtract_signature(transform: Element) -> None:
    [filter_, *others] = list(transform) or [transform]
    expected = (
        not others
        and filter_.tag == f"{{{FILTER2}}}XPath"
        and filter_.get("Filter") == "subtract"
        and text_of(filter_) == "/descendant::ds:Signature"
        and filter_.nsmap.get("ds") == DS
    )
    if not expected:
        raise Refused("Signature avec un filtre inattendu", code="signature-algorithm")


def _without_signature(document: bytes, max_bytes: int) -> bytes:
    """The canonical bytes of the document less its signature, as both accepted transforms define them."""
    root = parse(document, max_bytes=max_bytes)
    signature = _only_signature(root)
    before, tail = signature.getprevious(), signature.tail or ""
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        root.text = (root.text or "") + tail
    root.remove(signature)
    return _canonical(root.getroottree())


def _canonical(node: Element | Tree) -> bytes:
    """Exclusive canonicalisation, without comments."""
    try:
        return etree.tostring(node, method="c14n", exclusive=True, with_comments=False)
    except etree.C14NError as error:
        # A relative namespace, for one: the recommendation leaves it without a canonical form.
        raise _form("document sans forme canonique") from error


def _check_digest(reference: Element, canonical: bytes) -> None:
    digest = _DIGESTS.get(_child(reference, "DigestMethod").get("Algorithm", ""))
    if digest is None:
        raise Refused("Signature avec une empreinte trop faible ou inconnue", code="signature-algorithm")
    computed = hashes.Hash(digest())
    computed.update(canonical)
    if not hmac.compare_digest(computed.finalize(), _base64(_child(reference, "DigestValue"))):
        raise Refused("Document modifié depuis sa signature", code="signature-digest")


def _certificates(signature: Element) -> list[x509.Certificate]:
    found = list(_child(signature, "KeyInfo").iterfind(f"{{{DS}}}X509Data/{{{DS}}}X509Certificate"))
    if not 0 < len(found) <= MAX_CERTIFICATES:
        raise Refused("Signature sans certificat, ou avec trop de certificats", code="signature-certificate")
    return [names.read_certificate(_base64(element)) for element in found]


def _signer(
    signature: Element, info: Element, properties: Element, certificates: list[x509.Certificate]
) -> x509.Certificate:
    """The certificate that the signed properties name by its digest, and whose key made the signature."""
    algorithm = _SIGNATURES.get(_child(info, "SignatureMethod").get("Algorithm", ""))
    if algorithm is None:
        raise Refused("Signature d'un algorithme trop faible ou inconnu", code="signature-algorithm")
    value = _base64(_child(signature, "SignatureValue"))
    signed = _canonical(info)
    named = [c for c in certificates if _is_named(c, properties)]
    if not named:
        raise Refused(
            "Le certificat fourni n'est pas celui que la signature désigne (SigningCertificate)",
            code="signature-certificate",
        )
    for certificate in named:
        key = _public_key(certificate)
        if not isinstance(key, RSAPublicKey) or key.key_size < MIN_RSA_BITS:
            raise Refused("Clé de signature trop faible ou d'un type refusé", code="signature-algorithm")
        try:
            key.verify(value, signed, PKCS1v15(), algorithm())
        except InvalidSignature:
            continue
        return certificate
    raise Refused("Signature fausse", code="signature-value")


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except UNREADABLE:
        # Of a kind that the library does not know: as good as one that we refuse.
        return None


def _is_named(certificate: x509.Certificate, properties: Element) -> bool:
    """Is the certificate among ``SigningCertificate`` (v1 or V2), by a strong digest?"""
    der = certificate.public_bytes(Encoding.DER)
    inside = f"{{{XADES}}}SignedSignatureProperties/{{{XADES}}}SigningCertificate"
    for version in ("", "V2"):
        for entry in properties.iterfind(f"{inside}{version}/{{{XADES}}}Cert/{{{XADES}}}CertDigest"):
            digest = _DIGESTS.get(_child(entry, "DigestMethod").get("Algorithm", ""))
            if digest is None:
                continue
            computed = hashes.Hash(digest())
            computed.update(der)
            if hmac.compare_digest(computed.finalize(), _base64(_child(entry, "DigestValue"))):
                return True
    return False


def _signing_time(properties: Element) -> dt.datetime:
    written = properties.find(f"{{{XADES}}}SignedSignatureProperties/{{{XADES}}}SigningTime")
    return instant(text_of(written))


def instant(text: str) -> dt.datetime:
    """An xs:dateTime; one without a zone is taken as UTC. Raises ``Refused`` (``signature-form``)."""
    try:
        read = dt.datetime.fromisoformat(text)
        return read.replace(tzinfo=read.tzinfo or dt.UTC).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise _form("date illisible") from None


def _child(parent: Element, name: str, namespace: str = DS) -> Element:
    found = list(parent.iterchildren(f"{{{namespace}}}{name}"))
    if len(found) != 1:
        raise _form(f"{name} absent ou répété")
    return found[0]


def _tag(element: Element) -> str:
    """The local name of an element of XML Signature, empty for anything else (a comment has no name)."""
    tag = str(element.tag)
    return tag.removeprefix(f"{{{DS}}}") if tag.startswith(f"{{{DS}}}") else ""


def _base64(element: Element) -> bytes:
    try:
        return base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise _form("base64 illisible") from None


def _form(what: str) -> Refused:
    return Refused(f"Signature d'une forme refusée : {what}", code="signature-form")
