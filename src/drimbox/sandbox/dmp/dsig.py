"""XML signatures: which algorithms are taken, who signed, and is the signature right (xmlsec)."""

from __future__ import annotations

import base64
import binascii
import copy
from collections.abc import Iterable

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.foundation.xml import Element, parse, text_of
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.certificates import read_certificate

EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
INCLUSIVE_WITH_COMMENTS = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
RSA_SHA1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SHA1 = "http://www.w3.org/2000/09/xmldsig#sha1"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"

_ID_NAMES = ("ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id")


def ds(path: str) -> str:
    """A path of xmldsig element names, for ``find``."""
    return "/".join(f"{{{v.DS}}}{step}" for step in path.split("/"))


def algorithm(parent: Element | None, path: str) -> str:
    """The Algorithm attribute at a path; empty when there is none."""
    found = parent.find(ds(path)) if parent is not None else None
    return found.get("Algorithm", "") if found is not None else ""


def signature_methods(*, accept_sha1: bool) -> frozenset[str]:
    return frozenset({RSA_SHA256, RSA_SHA1}) if accept_sha1 else frozenset({RSA_SHA256})


def digest_methods(*, accept_sha1: bool) -> frozenset[str]:
    return frozenset({SHA256, SHA1}) if accept_sha1 else frozenset({SHA256})


def signer(signature: Element) -> x509.Certificate | None:
    """The one certificate of KeyInfo; None when absent, unreadable or several."""
    found = signature.findall(ds("KeyInfo/X509Data/X509Certificate"))
    if len(found) != 1:
        return None
    try:
        der = base64.b64decode("".join(text_of(found[0]).split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return read_certificate(der)


def carriers(root: Element, identifier: str) -> int:
    """How many elements of the document carry this identifier: more than one opens the door to wrapping."""
    return sum(1 for e in root.iter(etree.Element) if any(e.get(n) == identifier for n in _ID_NAMES))


def is_right(signature: Element, certificate: x509.Certificate, signed: Iterable[Element], id_name: str) -> bool:
    """Does xmlsec find digests and value right, with the key of this certificate? ``signed`` is what is referred to."""
    context = xmlsec.SignatureContext()
    for element in signed:
        context.register_id(element, id_name)
    pem = certificate.public_bytes(Encoding.PEM)
    try:
        context.key = xmlsec.Key.from_memory(pem, xmlsec.constants.KeyDataFormatCertPem)
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


def with_objects_beside(signature: Element) -> Element:
    """A copy of a signature in a document where its Objects stand beside it; returns the document's root.

    Inside, xmlsec takes a Manifest upon itself and fails on its references, which are not addresses. Beside, canonical
    forms and digests are the same, since the root declares the namespaces that the signature declared.
    """
    root = etree.Element(f"{{{v.DS}}}beside", nsmap=signature.nsmap)  # type: ignore[arg-type]
    bare = copy.deepcopy(signature)
    bare.tail = None
    root.append(bare)
    for held in bare.findall(ds("Object")):
        root.append(held)
    return parse(etree.tostring(root))
