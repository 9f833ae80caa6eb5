"""The XAdES signature of a submission set (IHE DSG detached, French profile; standards.md D.7, decision 13).

The signature is a document of its own. Its Manifest names each other document by ``urn:oid:<uniqueId>`` with the digest
of the very octets that are sent, and the submission set itself with a constant, as the official samples do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.foundation.clock import iso_utc
from drimbox.foundation.xml import Builder, Element
from drimbox.national.dmp import xmldsig
from drimbox.national.dmp.codes import DS, SIGNATURE_PURPOSE, XADES
from drimbox.trust import names
from drimbox.trust.keystore import Credential

MANIFEST_ID = "IHEManifest"
PROPERTIES_ID = "S0-SignedProperties"
# The set has no octets to digest: every sample carries this value.
NO_DIGEST = "AA=="

_DS = xmldsig.ds_builder("")
# No prefix for xmldsig in here: lxml would fold it into the default namespace of the root, which this one shadows.
_XADES = Builder({"": XADES}, "")


def sign_submission(
    submission_uid: str,
    documents: Sequence[tuple[str, bytes]],
    *,
    signature_uid: str,
    credential: Credential,
    algorithm: xmldsig.Algorithm,
    now: dt.datetime,
) -> bytes:
    """The signature document of a submission set; ``documents`` are (uniqueId, octets), the signature not among them.

    Its root Id is an NCName made of ``signature_uid`` (samples use the bare OID, which is none). Raises
    ``Misconfigured`` (``sign-key``).
    """
    suite = xmldsig.suite(algorithm)
    signature_id = f"_{signature_uid}"
    manifest = _manifest(submission_uid, documents, suite)
    properties = _signed_properties(credential, suite, now)
    signed_info = _DS("SignedInfo")
    value = _DS("SignatureValue")
    root = _DS(
        "Signature",
        signed_info,
        value,
        xmldsig.key_info(_DS, credential),
        _DS("Object", _purpose(signature_id)),
        _DS("Object", manifest),
        _DS("Object", _XADES("QualifyingProperties", properties, Target=f"#{signature_id}")),
        Id=signature_id,
    )
    # Digests are taken inside the finished document: inclusive forms carry the namespaces around an element.
    signed_info.append(_DS("CanonicalizationMethod", Algorithm=xmldsig.INCLUSIVE_WITH_COMMENTS))
    signed_info.append(_DS("SignatureMethod", Algorithm=suite.signature_uri))
    signed_info.append(_reference(f"#{MANIFEST_ID}", _digest(manifest, suite), suite, f"{DS}Manifest"))
    signed_info.append(_reference(f"#{PROPERTIES_ID}", _digest(properties, suite), suite, f"{XADES}SignedProperties"))
    value.text = xmldsig.sign(xmldsig.canonical(signed_info, exclusive=False, comments=True), credential, suite)
    octets: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return octets


def _manifest(submission_uid: str, documents: Sequence[tuple[str, bytes]], suite: xmldsig.Suite) -> Element:
    return _DS(
        "Manifest",
        _reference(f"urn:oid:{submission_uid}", NO_DIGEST, suite),
        *(_reference(f"urn:oid:{uid}", suite.digest(octets), suite) for uid, octets in documents),
        Id=MANIFEST_ID,
    )


def _reference(uri: str, digest: str, suite: xmldsig.Suite, kind: str = "") -> Element:
    element = _DS(
        "Reference",
        _DS("DigestMethod", Algorithm=suite.digest_uri),
        _DS("DigestValue", digest),
        URI=uri,
    )
    if kind:
        element.set("Type", kind)
    return element


def _purpose(signature_id: str) -> Element:
    return _DS(
        "SignatureProperties",
        _DS("SignatureProperty", SIGNATURE_PURPOSE.code, Id="purposeOfSignature", Target=f"#{signature_id}"),
    )


def _signed_properties(credential: Credential, suite: xmldsig.Suite, now: dt.datetime) -> Element:
    certificate = credential.certificate
    return _XADES(
        "SignedProperties",
        _XADES(
            "SignedSignatureProperties",
            _XADES("SigningTime", iso_utc(now)),
            _XADES(
                "SigningCertificate",
                _XADES(
                    "Cert",
                    _XADES(
                        "CertDigest",
                        _XADES("DigestMethod", Algorithm=suite.digest_uri),
                        _XADES("DigestValue", suite.digest(certificate.public_bytes(Encoding.DER))),
                    ),
                    _XADES(
                        "IssuerSerial",
                        _DS("X509IssuerName", names.written(certificate.issuer)),
                        _DS("X509SerialNumber", str(certificate.serial_number)),
                    ),
                ),
            ),
            _XADES("SignaturePolicyIdentifier", _XADES("SignaturePolicyImplied")),
        ),
        _XADES("SignedDataObjectProperties"),
        Id=PROPERTIES_ID,
    )


def _digest(element: Element, suite: xmldsig.Suite) -> str:
    return suite.digest(xmldsig.canonical(element, exclusive=False))
