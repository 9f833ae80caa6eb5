"""The list and its signature, judged by the ``xmlsec1`` command."""

from __future__ import annotations

import base64
import datetime as dt
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from lxml import etree

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.whitelist import ListedDomain, Publisher, build_whitelist, sign_whitelist, whitelist_app

NOW = dt.datetime(2026, 6, 19, 18, 6, 52, tzinfo=dt.UTC)
NS = {
    "l": "https://github.com/ansforge/DRIM-M_DATA",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "x": "http://uri.etsi.org/01903/v1.3.2#",
}
DOMAINS = (
    ListedDomain(
        "1",
        "db1.test.mesimagesmedicales.fr",
        "vi1.test.mesimagesmedicales.fr",
        "Imagerie & Côte-d'Or",
        "CN=DRIMbox,OU=1750803447,O=Centre de radiologie Ambroise,ST=Côte-d'Or (21),C=FR",
        "support@example.org",
        NOW,
    ),
    ListedDomain("2", "localhost", "localhost", "B", "CN=DRIMbox,OU=499700367909006,C=FR", "x", NOW),
)


@pytest.fixture(scope="module")
def signer(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.ORG_SIGN,
        "whitelist-signer",
        common_name="Liste Blanche DRIM-M",
        unit="318751275100020",
        organisation="AGENCE DU NUMERIQUE EN SANTE",
    )


def verified(document: bytes, authority: TestAuthority, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the command says, trusting only the root."""
    path = folder / "list.xml"
    path.write_bytes(document)
    command = shutil.which("xmlsec1")
    if command is None:
        pytest.skip("xmlsec1 is not installed")
    arguments = ("--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties")
    trusted = ("--trusted-pem", str(authority.folder / "racine.ca.pem"))
    return subprocess.run(
        [command, "--verify", *arguments, *trusted, str(path)], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.requirement("D16")
def test_the_command_accepts_the_signature(signer: PemPair, authority: TestAuthority, tmp_path: Path) -> None:
    signed = sign_whitelist(build_whitelist(DOMAINS, NOW), signer, signed_at=NOW)
    outcome = verified(signed, authority, tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "SignedInfo References (ok/all): 2/2" in outcome.stderr


@pytest.mark.requirement("D16")
def test_the_command_refuses_a_changed_list(signer: PemPair, authority: TestAuthority, tmp_path: Path) -> None:
    signed = sign_whitelist(build_whitelist(DOMAINS, NOW), signer, signed_at=NOW)
    for old, new in ((b">localhost<", b">ailleurs<"), (b"2026-06-19T18:06:52Z</xades", b"2026-06-20T18:06:52Z</xades")):
        assert old in signed
        assert verified(signed.replace(old, new), authority, tmp_path).returncode != 0


def test_the_command_refuses_a_stranger(signer: PemPair, authority: TestAuthority, tmp_path: Path) -> None:
    stranger = TestAuthority(tmp_path / "stranger").issue(
        Profile.ORG_SIGN, "signer", common_name="Liste Blanche DRIM-M", unit="318751275100020", organisation="A"
    )
    signed = sign_whitelist(build_whitelist(DOMAINS, NOW), stranger, signed_at=NOW)
    assert verified(signed, authority, tmp_path).returncode != 0


def test_the_list_says_what_it_was_told() -> None:
    root = etree.fromstring(build_whitelist(DOMAINS, NOW))
    assert root.tag == f"{{{NS['l']}}}ListeBlancheDRIM-M"
    assert root.get("versionFormat") == "1.0.0"
    assert root.findtext("l:DateDeGeneration", namespaces=NS) == "2026-06-19T18:06:52Z"
    first, second = root.findall("l:ListeDomaines/l:Domaine", NS)
    assert [etree.QName(child).localname for child in first] == [
        "Identifiant",
        "db",
        "vi",
        "Denomination",
        "DNCertificatOperateur",
        "SupportContact",
        "DateMAJ",
    ]
    assert first.findtext("l:Denomination", namespaces=NS) == "Imagerie & Côte-d'Or"
    assert second.findtext("l:DNCertificatOperateur", namespaces=NS) == "CN=DRIMbox,OU=499700367909006,C=FR"


def test_the_signature_has_the_layout_of_the_agencys_own(signer: PemPair, samples: Path) -> None:
    def outline(signature: etree._Element) -> list[str]:
        wanted = signature.iter(f"{{{NS['ds']}}}*", "{http://www.w3.org/2002/06/xmldsig-filter2}*")
        return [
            f"{etree.QName(e).localname} {e.get('Algorithm') or e.get('Filter') or ''}"
            for e in wanted
            if not list(e.iterancestors(f"{{{NS['x']}}}CertDigest"))
        ]

    ours = etree.fromstring(sign_whitelist(build_whitelist(DOMAINS, NOW), signer, signed_at=NOW))
    theirs = etree.parse(samples / "whitelist" / "ANS_signed_2024-07-12.xml").getroot()
    assert ours[-1].tag == theirs[-1].tag == f"{{{NS['ds']}}}Signature"
    dropped = ("X509SubjectName ", "X509Certificate ")
    assert [o for o in outline(ours[-1]) if o not in dropped] == [o for o in outline(theirs[-1]) if o not in dropped]


def test_the_signed_properties_name_signer_and_purpose(signer: PemPair) -> None:
    signed = etree.fromstring(sign_whitelist(build_whitelist(DOMAINS, NOW), signer, signed_at=NOW))
    [properties] = signed.iter(f"{{{NS['x']}}}SignedProperties")
    certificate = x509.load_pem_x509_certificate(signer.certificate.read_bytes())
    assert properties.findtext(".//x:SigningTime", namespaces=NS) == "2026-06-19T18:06:52Z"
    digest = properties.findtext(".//x:SigningCertificateV2//ds:DigestValue", namespaces=NS)
    assert digest is not None
    assert base64.b64decode(digest) == certificate.fingerprint(hashes.SHA256())
    serial = base64.b64decode(properties.findtext(".//x:IssuerSerialV2", namespaces=NS) or "")
    assert certificate.issuer.public_bytes() in serial
    assert serial.endswith(certificate.serial_number.to_bytes((certificate.serial_number.bit_length() + 7) // 8, "big"))
    assert properties.findtext(".//x:Identifier", namespaces=NS) == "http://uri.etsi.org/01903/v1.2.2#ProofOfApproval"


async def test_it_is_served_whole_or_spoilt_on_demand(
    signer: PemPair, authority: TestAuthority, tmp_path: Path
) -> None:
    server = authority.issue(
        Profile.SSL_SERV, "whitelist-server", common_name="localhost", unit="1", organisation="X", hosts=("localhost",)
    )
    publisher = Publisher(DOMAINS, signer, FixedClock(NOW))
    tls = listener_context(server, authority, ClientCertificate.UNASKED)
    app = whitelist_app(publisher, controls=True)
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        trust = caller_context(authority)

        async def fetch() -> tuple[int, bytes]:
            reply = await http.send("GET", f"https://localhost:{port}/liste-blanche.xml", tls=trust)
            return reply.status, reply.body

        async def spoil(method: str, content: object = None) -> int:
            reply = await http.send(
                method,
                f"https://localhost:{port}/sandbox/faults",
                tls=trust,
                headers={"Content-Type": "application/json"},
                body=json.dumps(content).encode(),
            )
            return reply.status

        assert verified((await fetch())[1], authority, tmp_path).returncode == 0
        assert await spoil("POST", {"whitelist": "unsigned"}) == 200
        assert b"Signature" not in (await fetch())[1]
        assert await spoil("POST", {"whitelist": "altered"}) == 200
        assert verified((await fetch())[1], authority, tmp_path).returncode != 0
        assert await spoil("POST", {"whitelist": "down"}) == 200
        assert (await fetch())[0] == 500
        assert await spoil("POST", {"whitelist": "not-xml"}) == 200
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring((await fetch())[1])
        assert await spoil("POST", {"whitelist": "autre"}) == 400
        assert await spoil("DELETE") == 200
        assert verified((await fetch())[1], authority, tmp_path).returncode == 0
