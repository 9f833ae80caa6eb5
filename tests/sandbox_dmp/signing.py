"""Signatures made by hand: the VIHF with xmlsec, the set's XAdES with hashlib and cryptography alone."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree

from drimbox.sandbox.pki import PemPair

DS = "http://www.w3.org/2000/09/xmldsig#"
XADES = "http://uri.etsi.org/01903/v1.1.1#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"

Element = etree._Element
Bend = Callable[[Element], None]


@dataclass(frozen=True)
class Signer:
    """A certificate and its key, read from their files."""

    pair: PemPair
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @staticmethod
    def of(pair: PemPair) -> Signer:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return Signer(pair, x509.load_pem_x509_certificate(pair.certificate.read_bytes()), key)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def text(self) -> str:
        return base64.b64encode(self.der).decode()

    @property
    def dn(self) -> str:
        return dn(self.certificate.subject)


def dn(name: x509.Name) -> str:
    return ", ".join(f"{a.rfc4514_attribute_name}={a.value}" for a in reversed(list(name)))


def sign_assertion(assertion: Element, signer: Signer, *, sha1: bool = False, bend: Bend | None = None) -> None:
    """Fill an enveloped signature, right after Issuer; ``bend`` may change its skeleton before it is computed."""
    method = f"{DS}rsa-sha1" if sha1 else "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
    digest = f"{DS}sha1" if sha1 else "http://www.w3.org/2001/04/xmlenc#sha256"
    signature = etree.fromstring(f"""<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo>\
<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}"/><ds:SignatureMethod Algorithm="{method}"/>\
<ds:Reference URI="#{assertion.get("ID")}"><ds:Transforms><ds:Transform Algorithm="{DS}enveloped-signature"/>\
<ds:Transform Algorithm="{EXCLUSIVE}"/></ds:Transforms><ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue/>\
</ds:Reference></ds:SignedInfo><ds:SignatureValue/><ds:KeyInfo><ds:X509Data>\
<ds:X509Certificate>{signer.text}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>""")
    assertion.insert(1, signature)
    if bend is not None:
        bend(signature)
    context = xmlsec.SignatureContext()
    context.register_id(assertion, "ID")
    context.key = xmlsec.Key.from_file(str(signer.pair.key), xmlsec.constants.KeyDataFormatPem)
    context.sign(signature)


def xades(
    *,
    identifier: str,
    set_id: str,
    documents: Mapping[str, bytes],
    signer: Signer,
    when: dt.datetime,
    sha1: bool = False,
    bend: Bend | None = None,
    bend_signed: Bend | None = None,
) -> bytes:
    """The signature document of a set. ``bend`` changes it before digests and value are computed, or after."""
    hashed = hashlib.sha1 if sha1 else hashlib.sha256
    digest = f'Algorithm="{DS}sha1"' if sha1 else 'Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"'
    method = f"{DS}rsa-sha1" if sha1 else "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"

    def b64(octets: bytes) -> str:
        return base64.b64encode(hashed(octets).digest()).decode()

    references = "".join(
        f'<Reference URI="urn:oid:{uid}"><DigestMethod {digest}/><DigestValue>{b64(content)}</DigestValue></Reference>'
        for uid, content in documents.items()
    )
    # A namespace in scope and not used: inclusive canonicalisation keeps it on what is signed.
    root = etree.fromstring(f"""<Signature xmlns="{DS}" xmlns:unused="urn:unused" Id="{identifier}"><SignedInfo>\
<CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"/>\
<SignatureMethod Algorithm="{method}"/>\
<Reference Type="{DS}Manifest" URI="#IHEManifest"><DigestMethod {digest}/><DigestValue/></Reference>\
<Reference Type="{XADES}SignedProperties" URI="#S0-SignedProperties"><DigestMethod {digest}/><DigestValue/></Reference>\
</SignedInfo><SignatureValue/><KeyInfo><X509Data><X509Certificate>{signer.text}</X509Certificate></X509Data></KeyInfo>\
<Object><SignatureProperties><SignatureProperty Id="purposeOfSignature" Target="#{identifier}">\
1.2.840.10065.1.12.1.14</SignatureProperty></SignatureProperties></Object>\
<Object><Manifest Id="IHEManifest"><Reference URI="urn:oid:{set_id}"><DigestMethod {digest}/>\
<DigestValue>AA==</DigestValue></Reference>{references}</Manifest></Object>\
<Object><QualifyingProperties xmlns="{XADES}" Target="#{identifier}"><SignedProperties Id="S0-SignedProperties">\
<SignedSignatureProperties><SigningTime>{when.isoformat()}</SigningTime><SigningCertificate><Cert><CertDigest>\
<DigestMethod {digest}/><DigestValue>{b64(signer.der)}</DigestValue></CertDigest><IssuerSerial>\
<X509IssuerName xmlns="{DS}">{dn(signer.certificate.issuer)}</X509IssuerName>\
<X509SerialNumber xmlns="{DS}">{signer.certificate.serial_number}</X509SerialNumber></IssuerSerial></Cert>\
</SigningCertificate><SignaturePolicyIdentifier><SignaturePolicyImplied/></SignaturePolicyIdentifier>\
</SignedSignatureProperties><SignedDataObjectProperties/></SignedProperties></QualifyingProperties></Object>\
</Signature>""")
    if bend is not None:
        bend(root)
    for reference in root.findall(f"{{{DS}}}SignedInfo/{{{DS}}}Reference"):
        target = next((e for e in root.iter(etree.Element) if e.get("Id") == reference.get("URI", "")[1:]), None)
        value = reference.find(f"{{{DS}}}DigestValue")
        if value is not None and target is not None:
            value.text = b64(canonical(target))
    signed_info = root.find(f"{{{DS}}}SignedInfo")
    assert signed_info is not None
    algorithm = hashes.SHA1() if sha1 else hashes.SHA256()
    value = signer.key.sign(canonical(signed_info), padding.PKCS1v15(), algorithm)
    root.find(f"{{{DS}}}SignatureValue").text = base64.b64encode(value).decode()  # type: ignore[union-attr]
    if bend_signed is not None:
        bend_signed(root)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def canonical(element: Element) -> bytes:
    """Inclusive C14N, read again as a document: lxml writes a wrong ``xmlns=""`` for an element inside another."""
    alone = etree.fromstring(etree.tostring(element, with_tail=False))
    return etree.tostring(alone, method="c14n", exclusive=False, with_comments=True)
