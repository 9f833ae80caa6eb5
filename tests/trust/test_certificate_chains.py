"""Chains of signers: who may sign a document that the box believes."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.chain import TrustStore, verify_signer
from drimbox.trust.revocation import RevocationLists, load_revocation_lists
from drimbox.trust.tls import load_trust

NOW = dt.datetime.now(dt.UTC)


def certificate(pair: PemPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


@pytest.fixture
def trust(pki: TestAuthority) -> TrustStore:
    pki.publish_revocations()
    return load_trust([pki.roots], pki.revocation_lists)


@pytest.mark.requirement("D16")
def test_a_signer_of_the_pki(trust: TrustStore, sign: PemPair) -> None:
    chain = verify_signer(certificate(sign), [], trust=trust, now=NOW)
    assert [c.subject == c.issuer for c in chain] == [False, False, True]


def test_the_intermediate_may_come_with_the_document(pki: TestAuthority, sign: PemPair) -> None:
    root = load_trust([pki.folder / "racine.ca.pem"])
    issuer = x509.load_pem_x509_certificates(sign.certificate.read_bytes())[1]
    assert len(verify_signer(certificate(sign), [issuer], trust=root, now=NOW)) == 3
    with pytest.raises(Refused, match="autorité reconnue"):
        verify_signer(certificate(sign), [], trust=root, now=NOW)


def refusal(leaf: x509.Certificate, trust: TrustStore, now: dt.datetime = NOW, *others: x509.Certificate) -> str:
    with pytest.raises(Refused) as refused:
        verify_signer(leaf, others, trust=trust, now=now)
    return refused.value.code


@pytest.mark.requirement("D16")
def test_signers_that_must_not_be_believed(
    trust: TrustStore, pki: TestAuthority, stranger: TestAuthority, auth: PemPair, make: Callable[..., PemPair]
) -> None:
    assert refusal(certificate(auth), trust) == "certificate-purpose"
    expired = make(pki, Profile.ORG_SIGN, "sign-expired", days=(-90, -1))
    assert refusal(certificate(expired), trust) == "certificate-dates"
    assert refusal(certificate(expired), trust, NOW - dt.timedelta(days=91)) == "certificate-dates"
    forged = make(stranger, Profile.ORG_SIGN, "sign-forged")
    issuers = x509.load_pem_x509_certificates(stranger.roots.read_bytes())
    assert refusal(certificate(forged), trust, NOW, *issuers) == "certificate-chain"
    authority = x509.load_pem_x509_certificate((pki.folder / "organisations.ca.pem").read_bytes())
    assert refusal(authority, trust) == "certificate-purpose"


@pytest.mark.requirement("D16")
def test_revocation_of_a_signer(pki: TestAuthority, make: Callable[..., PemPair]) -> None:
    pair = make(pki, Profile.ORG_SIGN, "sign-revoked")
    pki.revoke(pair)
    trust = load_trust([pki.roots], pki.revocation_lists)
    assert refusal(certificate(pair), trust) == "certificate-revoked"
    unchecked = TrustStore(trust.roots)
    verify_signer(certificate(pair), [], trust=unchecked, now=NOW)


def test_a_list_that_is_missing_or_stale_refuses(pki: TestAuthority, sign: PemPair, trust: TrustStore) -> None:
    root, organisations, servers = pki.revocation_lists
    without = TrustStore(trust.roots, load_revocation_lists([root, servers]))
    assert refusal(certificate(sign), without) == "revocation-unknown"
    rootless = TrustStore(trust.roots, load_revocation_lists([organisations]))
    assert refusal(certificate(sign), rootless) == "revocation-unknown"
    assert refusal(certificate(sign), trust, NOW + dt.timedelta(days=40)) == "revocation-unknown"


def test_a_list_signed_by_another_key_is_no_list(
    pki: TestAuthority, stranger: TestAuthority, sign: PemPair, trust: TrustStore
) -> None:
    stranger.publish_revocations()
    foreign = TrustStore(trust.roots, load_revocation_lists(stranger.revocation_lists))
    assert refusal(certificate(sign), foreign) == "revocation-unknown"


def key_of(folder: Path, name: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def issued_by(issuer: x509.Name, key: rsa.RSAPrivateKey, *more: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Liste Blanche DRIM-M")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(rsa.generate_private_key(65537, 2048).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.KeyUsage(True, True, False, False, False, False, False, False, False), critical=True)
    )
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def test_a_structure_cannot_issue_signers(pki: TestAuthority, sign: PemPair, trust: TrustStore) -> None:
    structure = certificate(sign)
    leaf = issued_by(structure.subject, key_of(pki.folder, "sign"))
    unchecked = TrustStore(trust.roots)
    assert refusal(leaf, unchecked, NOW, structure) == "certificate-chain"


def test_an_unknown_critical_extension_refuses(pki: TestAuthority, trust: TrustStore) -> None:
    authority = x509.load_pem_x509_certificate((pki.folder / "organisations.ca.pem").read_bytes())
    key = key_of(pki.folder, "organisations.ca")
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.250.1.71.1.2.5"), b"\x04\x01\x83")
    assert refusal(issued_by(authority.subject, key, (extension, True)), trust) == "certificate-chain"
    verify_signer(issued_by(authority.subject, key, (extension, False)), [], trust=trust, now=NOW)


def test_partial_lists_are_not_taken_for_whole_ones(pki: TestAuthority, tmp_path: Path) -> None:
    authority = x509.load_pem_x509_certificate((pki.folder / "organisations.ca.pem").read_bytes())
    delta = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(NOW)
        .next_update(NOW + dt.timedelta(days=1))
        .add_extension(x509.DeltaCRLIndicator(1), critical=True)
        .sign(key_of(pki.folder, "organisations.ca"), hashes.SHA256())
    )
    path = tmp_path / "delta.crl"
    path.write_bytes(delta.public_bytes(serialization.Encoding.DER))
    with pytest.raises(Misconfigured, match="partielle"):
        load_revocation_lists([path])


def test_no_root_is_a_setting_to_mend(sign: PemPair) -> None:
    with pytest.raises(Misconfigured):
        verify_signer(certificate(sign), [], trust=TrustStore((), RevocationLists()), now=NOW)
