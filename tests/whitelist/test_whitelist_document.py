"""One whitelist: what is believed, and everything that must not be."""

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from whitelist_signing import (
    ENVELOPED,
    EXCLUSIVE,
    FILTER2,
    SIGNER_CN,
    SIGNER_OU,
    Signing,
    content,
    domain,
    signed,
    signer,
)

from drimbox.foundation.errors import Refused
from drimbox.national.whitelist import Whitelist, verify
from drimbox.national.whitelist.document import read_again
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.chain import TrustStore, verify_signer
from drimbox.trust.enveloped import verify_enveloped
from drimbox.trust.tls import load_trust

NOW = dt.datetime.now(dt.UTC)
DN = "CN=db3.test.mesimagesmedicales.fr,OU=318751275100020,O=CENTRE D'IMAGERIE,ST=Côte-d'Or (21),C=FR"
LIST = content(domain("3", "db3.test.mesimagesmedicales.fr", DN), domain("3", "db4.test.fr", "CN=db4.test.fr,C=FR"))
DS = "{http://www.w3.org/2000/09/xmldsig#}"
XMLSEC1 = shutil.which("xmlsec1")


def check(document: bytes, trust: TrustStore, now: dt.datetime = NOW) -> Whitelist:
    return verify(document, trust=trust, signer_cn=SIGNER_CN, signer_ou=SIGNER_OU, now=now)


def refusal(document: bytes, trust: TrustStore, now: dt.datetime = NOW) -> str:
    with pytest.raises(Refused) as refused:
        check(document, trust, now)
    return refused.value.code


@pytest.mark.requirement("D16")
@pytest.mark.parametrize("transforms", [FILTER2 + EXCLUSIVE, ENVELOPED + EXCLUSIVE])
@pytest.mark.parametrize("version", ["", "V2"])
def test_a_list_of_the_agency(trust: TrustStore, good: Signing, transforms: str, version: str) -> None:
    whitelist = check(signed(LIST, good.but(transforms=transforms, version=version)), trust)
    assert [d.db_host for d in whitelist.domains] == ["db3.test.mesimagesmedicales.fr", "db4.test.fr"]
    assert whitelist.domains[0].name == "Éditeur 3"
    assert whitelist.domains[0].vi_host == "vi3.test.mesimagesmedicales.fr"
    assert whitelist.generated_at == dt.datetime(2026, 1, 5, 5, tzinfo=dt.UTC)
    assert whitelist.signed_at == dt.datetime(2026, 1, 5, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize("method", ["rsa-sha384", "rsa-sha512"])
def test_stronger_algorithms_are_welcome(trust: TrustStore, good: Signing, method: str) -> None:
    how = good.but(
        method=f"http://www.w3.org/2001/04/xmldsig-more#{method}", digest="http://www.w3.org/2001/04/xmlenc#sha512"
    )
    assert check(signed(LIST, how), trust).allows_host("db4.test.fr")


@pytest.mark.requirement("D16")
def test_an_unsigned_list_is_the_corrupt_list_of_the_homologation(trust: TrustStore) -> None:
    assert refusal(LIST.encode(), trust) == "signature-missing"


@pytest.mark.requirement("D16")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"db3.test.mesimagesmedicales.fr</db>", b"db6.test.mesimagesmedicales.fr</db>"),
        (b"db4.test.fr,C=FR", b"db4.test.fr,C=FS"),
        (b"2026-01-05T05:00:00Z", b"2027-01-05T05:00:00Z"),
        (b"\n  <ListeDomaines>", b"<ListeDomaines>"),
        (b'versionFormat="1.0.0"', b'versionFormat="1.0.1"'),
        (b"2026-01-05T06:00:00Z", b"2027-01-05T06:00:00Z"),
        (b"<Domaine>", b"<Domaine x='1'>"),
    ],
)
def test_one_change_is_seen(trust: TrustStore, good: Signing, before: bytes, after: bytes) -> None:
    document = signed(LIST, good)
    assert before in document
    assert refusal(document.replace(before, after, 1), trust) == "signature-digest"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_changed_byte_never_changes_what_is_read(trust: TrustStore, good: Signing, data: st.DataObject) -> None:
    document = bytearray(signed(LIST, good))
    truth = check(bytes(document), trust)
    position = data.draw(st.integers(0, len(document) - 1))
    document[position] = data.draw(st.integers(0, 255))
    try:
        read = check(bytes(document), trust)
    except Refused:
        return
    assert read == truth


def test_a_document_without_a_canonical_form(trust: TrustStore, good: Signing) -> None:
    document = signed(LIST, good).replace(b"https://github.com/ansforge/DRIM-M_DATA", b"ansforge/DRIM-M_DATA")
    assert refusal(document, trust) == "signature-form"


def test_comments_are_not_part_of_what_is_signed_nor_of_what_is_read(trust: TrustStore, good: Signing) -> None:
    document = signed(LIST, good).replace(b"CN=db4.test.fr,C=FR", b"CN=db4.test.fr<!-- ,OU=x -->,C=FR")
    assert check(document, trust) == check(signed(LIST, good), trust)


@pytest.mark.requirement("D16")
def test_who_signed(trust: TrustStore, pki: TestAuthority, stranger: TestAuthority, good: Signing) -> None:
    def by(name: str, authority: TestAuthority = pki, **changes: object) -> bytes:
        return signed(LIST, good.but(pair=signer(authority, name, **changes)))

    assert refusal(by("other-cn", common_name="Liste Blanche"), trust) == "whitelist-signer"
    assert refusal(by("other-ou", unit="318751275100021"), trust) == "whitelist-signer"
    assert refusal(by("expired", days=(-90, -1)), trust) == "certificate-dates"
    assert refusal(by("auth", profile=Profile.ORG_AUTH_CLI), trust) == "certificate-purpose"
    assert refusal(by("foreign", stranger), trust) == "certificate-chain"
    assert refusal(signed(LIST, good), trust, NOW + dt.timedelta(days=400)) == "certificate-dates"
    assert refusal(signed(LIST, good), trust, NOW + dt.timedelta(days=40)) == "revocation-unknown"


@pytest.mark.requirement("D16")
def test_a_revoked_signer(trust: TrustStore, pki: TestAuthority, good: Signing) -> None:
    pair = signer(pki, "revoked")
    document = signed(LIST, good.but(pair=pair))
    check(document, trust)
    pki.revoke(pair)
    assert refusal(document, load_trust([pki.roots], pki.revocation_lists)) == "certificate-revoked"


def rebuilt(document: bytes) -> etree._Element:
    return etree.fromstring(document)


def test_a_wrapped_signature_shows_nothing_but_what_it_covers(trust: TrustStore, good: Signing) -> None:
    original = rebuilt(signed(LIST, good))
    forged = etree.fromstring(content(domain("66", "db66.evil.fr", "CN=db66.evil.fr")).encode())
    # The true list as a whole inside a false one; then its signature alone moved onto the false one.
    inside = etree.fromstring(etree.tostring(forged))
    inside.append(etree.fromstring(etree.tostring(original)))
    assert refusal(etree.tostring(inside), trust) == "signature-form"
    moved = etree.fromstring(etree.tostring(forged))
    signature = etree.fromstring(etree.tostring(original.find(f"{DS}Signature")))
    moved.append(signature)
    assert refusal(etree.tostring(moved), trust) == "signature-digest"
    holder = signature.makeelement(f"{DS}Object")
    holder.append(etree.fromstring(LIST.encode()))
    signature.append(holder)
    assert refusal(etree.tostring(moved), trust) == "signature-form"


def test_two_signatures_or_a_hidden_one(trust: TrustStore, good: Signing) -> None:
    document = rebuilt(signed(LIST, good))
    document.append(etree.fromstring(etree.tostring(document.find(f"{DS}Signature"))))
    assert refusal(etree.tostring(document), trust) == "signature-form"
    hidden = rebuilt(signed(LIST, good))
    hidden[2].append(hidden.find(f"{DS}Signature"))
    assert refusal(etree.tostring(hidden), trust) == "signature-form"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"method": "http://www.w3.org/2000/09/xmldsig#rsa-sha1"}, "signature-algorithm"),
        ({"digest": "http://www.w3.org/2000/09/xmldsig#sha1"}, "signature-algorithm"),
        ({"canonicalisation": "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"}, "signature-algorithm"),
        ({"transforms": EXCLUSIVE}, "signature-form"),
        ({"transforms": ENVELOPED}, "signature-form"),
        ({"transforms": ENVELOPED + EXCLUSIVE + EXCLUSIVE}, "signature-form"),
        (
            {"transforms": FILTER2.replace("/descendant::ds:Signature", "/descendant::*") + EXCLUSIVE},
            "signature-algorithm",
        ),
        ({"transforms": FILTER2.replace("subtract", "intersect") + EXCLUSIVE}, "signature-algorithm"),
        ({"whole": False}, "signature-form"),
        ({"properties_type": "http://example.org/other"}, "signature-form"),
    ],
)
def test_other_ways_of_signing_are_refused(trust: TrustStore, good: Signing, change: dict[str, str], code: str) -> None:
    assert refusal(signed(LIST, good.but(**change)), trust) == code


def test_the_properties_must_name_the_signers_certificate(trust: TrustStore, pki: TestAuthority, good: Signing) -> None:
    assert refusal(signed(LIST, good.but(named=signer(pki, "another"))), trust) == "signature-certificate"


def test_another_key_than_that_of_the_named_certificate(trust: TrustStore, pki: TestAuthority, good: Signing) -> None:
    """A forger has the agency's certificate, which is public, and a key of his own."""
    forger = PemPair(good.pair.certificate, signer(pki, "forger").key)
    assert refusal(signed(LIST, good.but(pair=forger)), trust) == "signature-value"


def test_a_certificate_nobody_can_use(trust: TrustStore, pki: TestAuthority, good: Signing, tmp_path: Path) -> None:
    """Whoever can send a document can also send the oddest of certificates: each must be refused, not crash."""
    own = signer(pki, "odd")
    der = x509.load_pem_x509_certificate(own.certificate.read_bytes()).public_bytes(Encoding.DER)
    key_usage, basic = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")
    odd = {
        "another kind of key": der.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01017f")),
        "the same extension twice": der.replace(basic, key_usage),
        "an extension that is none": der.replace(
            key_usage + bytes.fromhex("0101ff0404030206c0"), key_usage + bytes.fromhex("0101ff0404ff0206c0")
        ),
    }
    for what, changed in odd.items():
        assert changed != der, what
        path = tmp_path / "odd.pem"
        path.write_bytes(x509.load_der_x509_certificate(changed).public_bytes(Encoding.PEM))
        refusal(signed(LIST, good.but(pair=PemPair(path, own.key))), trust)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "xml-syntax"),
        (b"<html>Not found</html>", "signature-missing"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + LIST.encode(), "xml-dtd"),
        (b"<a>" * 300 + b"</a>" * 300, "xml-depth"),
        (b"<a>" + b" " * (8 * 2**20) + b"</a>", "xml-size"),
        (LIST.replace("</ListeBlanche", f'<Signature xmlns="{DS[1:-1]}"/></ListeBlanche').encode(), "signature-form"),
    ],
)
def test_documents_that_are_no_list(trust: TrustStore, document: bytes, code: str) -> None:
    assert refusal(document, trust) == code


def test_something_else_that_the_agency_signed(trust: TrustStore, good: Signing) -> None:
    assert refusal(signed("<Autre><ListeDomaines/></Autre>", good), trust) == "whitelist-content"
    assert refusal(signed(LIST.replace("2026-01-05T05:00:00Z", "hier"), good), trust) == "whitelist-content"
    assert refusal(signed(LIST.replace("ListeDomaines", "Domaines"), good), trust) == "whitelist-content"


def test_hand_edited_lists_are_read(trust: TrustStore, good: Signing, caplog: pytest.LogCaptureFixture) -> None:
    text = content(
        domain("1", "DB1.Test.FR. ", "CN=db1.test.fr, C=FR"),
        domain("1", "db2.test.fr", "CN=db2.test.fr,C=FR").replace("<vi>vi2.test.fr</vi>", ""),
        domain("2", "", "CN=nobody"),
        domain("3", "https://db3.test.fr/x", "CN=db3.test.fr"),
        domain("4", "db4.test.fr", "no name at all").replace("<Denomination>", "<Nouveau>x</Nouveau><Denomination>"),
        namespace="https://listeblanche.mesimagesmedicales.fr/schema",
    )
    whitelist = check(signed(text, good), trust)
    assert [d.db_host for d in whitelist.domains] == ["db1.test.fr", "db2.test.fr", "db4.test.fr"]
    assert whitelist.domains[1].vi_host == ""
    assert caplog.text.count("left out") == 2
    assert "operator DN of db4.test.fr cannot be read" in caplog.text


@pytest.mark.requirement("D15")
def test_hosts_and_operators(trust: TrustStore, good: Signing, pki: TestAuthority) -> None:
    whitelist = check(signed(LIST, good), trust)
    assert whitelist.allows_host("DB3.test.mesimagesmedicales.FR")
    for other in (
        "db3.test.mesimagesmedicales.fr:443",
        "test.mesimagesmedicales.fr",
        "xdb4.test.fr",
        "",
        "vi4.test.fr",
    ):
        assert not whitelist.allows_host(other)

    def der(name: str, **subject: str) -> bytes:
        pair = pki.issue(Profile.ORG_AUTH_CLI, name, **subject)  # type: ignore[arg-type]
        return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(Encoding.DER)

    subject = {
        "common_name": "db3.test.mesimagesmedicales.fr",
        "unit": "318751275100020",
        "organisation": "CENTRE D'IMAGERIE",
        "place": "Côte-d'Or (21)",
    }
    found = whitelist.domain_of(der("box", **subject))
    assert found is not None
    assert found.db_host == "db3.test.mesimagesmedicales.fr"
    assert whitelist.domain_of(der("box-other", **{**subject, "unit": "318751275100021"})) is None
    assert whitelist.domain_of(b"junk") is None


@pytest.mark.skipif(XMLSEC1 is None, reason="xmlsec1 is not installed")
@pytest.mark.requirement("D16")
def test_the_official_list(samples: Path, trust: TrustStore, tmp_path: Path) -> None:
    official = samples / "whitelist" / "ANS_signed_2024-07-12.xml"
    document = official.read_bytes()
    whitelist = read_again(document)
    assert len(whitelist.domains) == 6
    assert whitelist.allows_host("db2.867.mesimagesmedicales.fr")
    # Its authority is not in the file: a box that has not pinned it does not believe the list.
    assert refusal(document, trust, dt.datetime(2024, 7, 13, tzinfo=dt.UTC)) == "certificate-chain"
    signer_ = verify_enveloped(document, max_bytes=2**20).signer
    with pytest.raises(Refused) as late:
        verify_signer(signer_, [], trust=trust, now=dt.datetime(2026, 9, 13, tzinfo=dt.UTC))
    assert late.value.code == "certificate-dates"

    changed = tmp_path / "changed.xml"
    changed.write_bytes(document.replace(b"db2.867", b"db3.867", 1))
    for path, expected in ((official, True), (changed, False)):
        assert xmlsec1_accepts(path) is expected
    with pytest.raises(Refused):
        read_again(changed.read_bytes())


@pytest.mark.skipif(XMLSEC1 is None, reason="xmlsec1 is not installed")
@pytest.mark.parametrize("transforms", [FILTER2 + EXCLUSIVE, ENVELOPED + EXCLUSIVE])
def test_xmlsec1_agrees_on_odd_documents(trust: TrustStore, good: Signing, tmp_path: Path, transforms: str) -> None:
    text = (
        '<?xml-stylesheet href="a.xsl"?><!-- before -->'
        + LIST.replace(
            "<ListeDomaines>", '<!-- c --><ListeDomaines xmlns:z="urn:z"><z:e z:a="1" b="&lt;&#9;"/><![CDATA[<]]>'
        )
        + "<?after it?>"
    )
    path = tmp_path / "list.xml"
    path.write_bytes(signed(text, good.but(transforms=transforms)))
    assert xmlsec1_accepts(path)
    assert check(path.read_bytes(), trust).allows_host("db4.test.fr")


def xmlsec1_accepts(path: Path) -> bool:
    command = [str(XMLSEC1), "--verify", "--insecure", "--id-attr:Id"]
    command += ["http://uri.etsi.org/01903/v1.3.2#:SignedProperties", "--enabled-key-data", "x509", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
