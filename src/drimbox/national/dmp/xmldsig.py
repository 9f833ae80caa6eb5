"""XML signatures: canonical forms, digests, RSA signatures (W3C XML Signature, RFC 6931). Shared by VIHF and XAdES."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.xml import Builder, Element
from drimbox.national.dmp.codes import DS
from drimbox.trust.keystore import Credential

Algorithm = Literal["rsa-sha256", "rsa-sha1"]

EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
INCLUSIVE_WITH_COMMENTS = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"


@dataclass(frozen=True, slots=True)
class Suite:
    """A signature algorithm, its digest, and their URIs."""

    signature_uri: str
    digest_uri: str
    hash: hashes.HashAlgorithm

    def digest(self, data: bytes) -> str:
        """The base64 digest of ``data``: a DigestValue."""
        digest = hashes.Hash(self.hash)
        digest.update(data)
        return base64.b64encode(digest.finalize()).decode("ascii")


_SUITES = {
    "rsa-sha256": Suite(
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        "http://www.w3.org/2001/04/xmlenc#sha256",
        hashes.SHA256(),
    ),
    # What the official samples of 2023 carry; a setting for a DMP that would still ask for it (decisions 12, 13).
    "rsa-sha1": Suite(
        "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
        "http://www.w3.org/2000/09/xmldsig#sha1",
        hashes.SHA1(),  # noqa: S303
    ),
}


def suite(algorithm: Algorithm) -> Suite:
    """The algorithms of a setting."""
    return _SUITES[algorithm]


def canonical(element: Element, *, exclusive: bool, comments: bool = False) -> bytes:
    """The canonical octets of an element in its document: inclusive forms keep the namespaces in scope around it.

    The element is first written out and read again as a document of its own: asked for the inclusive form of an element
    inside another, lxml puts ``xmlns=""`` where there is none.
    """
    alone = etree.fromstring(etree.tostring(element, with_tail=False))
    octets: bytes = etree.tostring(alone, method="c14n", exclusive=exclusive, with_comments=comments)
    return octets


def sign(data: bytes, credential: Credential, algorithms: Suite) -> str:
    """The base64 SignatureValue. Raises ``Misconfigured`` (``sign-key``) when the key is not RSA."""
    key = credential.key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Misconfigured("Le certificat de signature (ORG SIGN) doit porter une clé RSA", code="sign-key")
    return base64.b64encode(key.sign(data, padding.PKCS1v15(), algorithms.hash)).decode("ascii")


def certificate_text(credential: Credential) -> str:
    """The X509Certificate text of a KeyInfo."""
    return base64.b64encode(credential.certificate.public_bytes(Encoding.DER)).decode("ascii")


def key_info(ds: Builder, credential: Credential) -> Element:
    """``KeyInfo`` with the certificate that verifies."""
    return ds("KeyInfo", ds("X509Data", ds("X509Certificate", certificate_text(credential))))


def ds_builder(prefix: str) -> Builder:
    """Writes elements of XML Signature under ``prefix``."""
    return Builder({prefix: DS}, prefix)
