"""The signed list of DRIMboxes, published as the agency does (standards.md K.5, official-data.md 8).

An enveloped XAdES-BASELINE-B signature in the layout of the agency's own: exclusive canonicalisation, RSA-SHA256, the
signature itself taken out by an XPath filter, the signed properties under a second reference.

``POST /sandbox/faults`` with ``{"whitelist": FAULT}`` spoils it: ``unsigned``, ``altered`` after signing, ``down``
(500), ``not-xml``; ``""`` heals it, as ``DELETE`` does.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_xml_id
from drimbox.foundation.xml import Builder, Element, parse, to_bytes
from drimbox.sandbox.forms import read_json
from drimbox.sandbox.pki import PemPair

NAMESPACE = "https://github.com/ansforge/DRIM-M_DATA"
PATH = "/liste-blanche.xml"
FAULTS = ("altered", "down", "not-xml", "unsigned")

_DS = "http://www.w3.org/2000/09/xmldsig#"
_XADES = "http://uri.etsi.org/01903/v1.3.2#"
_FILTER = "http://www.w3.org/2002/06/xmldsig-filter2"
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
_RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
_APPROVAL = "http://uri.etsi.org/01903/v1.2.2#ProofOfApproval"

_ds = Builder({"ds": _DS}, "ds")
_xades = Builder({"xades": _XADES, "ds": _DS}, "xades")


@dataclass(frozen=True, slots=True)
class ListedDomain:
    """One DRIMbox of the list: host names for other boxes (``db``) and for viewers (``vi``), DN of its operator."""

    identifier: str
    db: str
    vi: str
    name: str
    operator_dn: str
    contact: str
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Publisher:
    """What is published, who signs it, and the time it says."""

    domains: tuple[ListedDomain, ...]
    signer: PemPair
    clock: Clock

    def unsigned(self) -> bytes:
        """The list as of now, without a signature."""
        return build_whitelist(self.domains, self.clock.now())

    def signed(self) -> bytes:
        """The list as of now, signed."""
        return sign_whitelist(self.unsigned(), self.signer, signed_at=self.clock.now())


def build_whitelist(domains: Sequence[ListedDomain], generated_at: dt.datetime) -> bytes:
    """The list without a signature."""
    root = parse(f'<ListeBlancheDRIM-M xmlns="{NAMESPACE}" versionFormat="1.0.0"/>'.encode())
    _child(root, "DateDeGeneration", _instant(generated_at))
    listed = _child(root, "ListeDomaines")
    for domain in domains:
        entry = _child(listed, "Domaine")
        _child(entry, "Identifiant", domain.identifier)
        _child(entry, "db", domain.db)
        _child(entry, "vi", domain.vi)
        _child(entry, "Denomination", domain.name)
        _child(entry, "DNCertificatOperateur", domain.operator_dn)
        _child(entry, "SupportContact", domain.contact)
        _child(entry, "DateMAJ", _instant(domain.updated_at))
    etree.indent(root, "  ")
    return to_bytes(root)


def sign_whitelist(document: bytes, pair: PemPair, *, signed_at: dt.datetime) -> bytes:
    """``document`` with an enveloped XAdES-BASELINE-B signature as the last child of its root."""
    root = parse(document)
    chain = x509.load_pem_x509_certificates(pair.certificate.read_bytes())
    signature_id = new_xml_id()
    properties = _signed_properties(signature_id, chain[0], signed_at)
    signature = _ds(
        "Signature",
        _signed_info(signature_id),
        _ds("SignatureValue", Id=f"value{signature_id}"),
        _ds("KeyInfo", _ds("X509Data", *(_ds("X509Certificate", _base64(_der(c))) for c in chain))),
        _ds("Object", _xades("QualifyingProperties", properties, Target=f"#{signature_id}")),
        Id=signature_id,
    )
    root.append(signature)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(pair.key), xmlsec.constants.KeyDataFormatPem)
    context.register_id(properties, "Id")
    context.sign(signature)
    return to_bytes(root)


def whitelist_app(publisher: Publisher, *, controls: bool = False) -> Starlette:
    """Serves the list at ``/liste-blanche.xml``; ``controls`` opens ``/sandbox/faults``."""
    fault = ""

    async def published(_request: Request) -> Response:
        match fault:
            case "down":
                return Response(status_code=500)
            case "unsigned":
                body = publisher.unsigned()
            case "altered":
                body = publisher.signed().replace(b"<Denomination>", b"<Denomination>X", 1)
            case "not-xml":
                body = b"<ListeBlancheDRIM-M"
            case _:
                body = publisher.signed()
        return Response(body, media_type="application/xml", headers={"Cache-Control": "no-cache"})

    async def control(request: Request) -> Response:
        nonlocal fault
        if request.method == "DELETE":
            fault = ""
        elif request.method == "POST":
            wanted = (await read_json(request)).get("whitelist")
            if wanted != "" and wanted not in FAULTS:
                raise Refused("Défaut inconnu", code="invalid_request")
            fault = wanted
        return JSONResponse({"on": fault, "possible": FAULTS})

    routes = [Route(PATH, published, methods=["GET"])]
    if controls:
        routes.append(Route("/sandbox/faults", control, methods=["GET", "POST", "DELETE"]))
    return Starlette(routes=routes, exception_handlers={Refused: _refusal})


async def _refusal(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _signed_info(signature_id: str) -> Element:
    subtract = etree.Element(f"{{{_FILTER}}}XPath", nsmap={"filter": _FILTER, "ds": _DS}, Filter="subtract")
    subtract.text = "/descendant::ds:Signature"
    return _ds(
        "SignedInfo",
        _ds("CanonicalizationMethod", Algorithm=_EXCLUSIVE),
        _ds("SignatureMethod", Algorithm=_RSA_SHA256),
        _ds(
            "Reference",
            _ds(
                "Transforms",
                _ds("Transform", subtract, Algorithm=_FILTER),
                _ds("Transform", Algorithm=_EXCLUSIVE),
            ),
            _ds("DigestMethod", Algorithm=_SHA256),
            _ds("DigestValue"),
            Id=f"list{signature_id}",
            URI="",
        ),
        _ds(
            "Reference",
            _ds("Transforms", _ds("Transform", Algorithm=_EXCLUSIVE)),
            _ds("DigestMethod", Algorithm=_SHA256),
            _ds("DigestValue"),
            Type="http://uri.etsi.org/01903#SignedProperties",
            URI=f"#properties{signature_id}",
        ),
    )


def _signed_properties(signature_id: str, signer: x509.Certificate, signed_at: dt.datetime) -> Element:
    certificate = _xades(
        "Cert",
        _xades(
            "CertDigest",
            _xades("ds:DigestMethod", Algorithm=_SHA256),
            _xades("ds:DigestValue", _base64(signer.fingerprint(hashes.SHA256()))),
        ),
        _xades("IssuerSerialV2", _base64(_issuer_and_serial(signer))),
    )
    return _xades(
        "SignedProperties",
        _xades(
            "SignedSignatureProperties",
            _xades("SigningTime", _instant(signed_at)),
            _xades("SigningCertificateV2", certificate),
        ),
        _xades(
            "SignedDataObjectProperties",
            _xades("DataObjectFormat", _xades("MimeType", "text/xml"), ObjectReference=f"#list{signature_id}"),
            _xades(
                "CommitmentTypeIndication",
                _xades("CommitmentTypeId", _xades("Identifier", _APPROVAL)),
                _xades("AllSignedDataObjects"),
            ),
        ),
        Id=f"properties{signature_id}",
    )


def _issuer_and_serial(certificate: x509.Certificate) -> bytes:
    """DER of IssuerSerial (RFC 5035 3): the issuer as one directoryName, the serial number."""
    serial = certificate.serial_number
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    names = _tlv(0x30, _tlv(0xA4, certificate.issuer.public_bytes()))
    return _tlv(0x30, names + _tlv(0x02, number))


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def _child(parent: Element, name: str, text: str | None = None) -> Element:
    element = etree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    element.text = text
    return element


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _instant(instant: dt.datetime) -> str:
    return instant.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
