"""Credentials: what loads, and what the operator is told when it does not."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from drimbox.foundation.errors import Misconfigured
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import PrivateKey, load_credential
from drimbox.trust.tls import client_context, load_trust


def test_a_credential_knows_its_name_its_structure_and_its_chain(auth: PemPair) -> None:
    credential = load_credential(auth.certificate, auth.key)
    assert credential.subject_dn == "CN=auth, OU=318751275100020, O=CENTRE D'IMAGERIE, ST=Côte-d'Or (21), C=FR"
    assert credential.unit == "318751275100020"
    assert [c.subject.rfc4514_string()[:44] for c in credential.chain] == [
        "CN=TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIO"
    ]
    assert credential.expires_at > dt.datetime.now(dt.UTC)


def test_the_key_shows_nowhere(auth: PemPair) -> None:
    credential = load_credential(auth.certificate, auth.key)
    assert "key=" not in repr(credential)


def rewritten(auth: PemPair, tmp_path: Path, password: bytes | None) -> Path:
    key = serialization.load_pem_private_key(auth.key.read_bytes(), None)
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    return path


def test_an_encrypted_key_opens_with_its_password_and_serves_tls(
    pki: TestAuthority, auth: PemPair, tmp_path: Path
) -> None:
    path = rewritten(auth, tmp_path, b"mot de passe")
    credential = load_credential(auth.certificate, path, b"mot de passe")
    before = sorted(os.listdir(tmp_path))
    client_context(load_trust([pki.roots]), credential)
    assert sorted(os.listdir(tmp_path)) == before
    for password, told in ((None, "est chiffrée"), (b"faux", "mot de passe est faux")):
        with pytest.raises(Misconfigured, match=told):
            load_credential(auth.certificate, path, password)
    with pytest.raises(Misconfigured, match="n'est pas chiffrée"):
        load_credential(auth.certificate, auth.key, b"mot de passe")


def test_the_key_of_another_certificate(auth: PemPair, sign: PemPair) -> None:
    with pytest.raises(Misconfigured, match="n'est pas celle du certificat"):
        load_credential(auth.certificate, sign.key)


def test_dates(expired: PemPair, make: Callable[..., PemPair], pki: TestAuthority) -> None:
    with pytest.raises(Misconfigured, match="expiré depuis le"):
        load_credential(expired.certificate, expired.key)
    load_credential(expired.certificate, expired.key, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))
    future = make(pki, Profile.ORG_AUTH_CLI, "future", days=(2, 9))
    with pytest.raises(Misconfigured, match="heure de la machine"):
        load_credential(future.certificate, future.key)


@pytest.mark.parametrize(
    "content", [b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\x30\x80\xff"]
)
def test_files_that_are_no_certificate_or_no_key(auth: PemPair, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pem"
    path.write_bytes(content)
    for certificate, key in ((path, auth.key), (auth.certificate, path), (tmp_path / "absent", auth.key)):
        with pytest.raises(Misconfigured) as told:
            load_credential(certificate, key)
        assert told.value.code == "credential"
        assert str(path if key is path or certificate is path else tmp_path) in told.value.reason


def test_an_authority_in_front_is_a_mistake_in_the_file(auth: PemPair, tmp_path: Path) -> None:
    leaf, issuer = x509.load_pem_x509_certificates(auth.certificate.read_bytes())
    path = tmp_path / "wrong-order.pem"
    path.write_bytes(issuer.public_bytes(Encoding.PEM) + leaf.public_bytes(Encoding.PEM))
    with pytest.raises(Misconfigured, match="en tête"):
        load_credential(path, auth.key)


@pytest.mark.requirement("SSI/GEN.13")
def test_weak_and_unusual_keys_are_refused(auth: PemPair, tmp_path: Path) -> None:
    path = tmp_path / "weak.pem"
    weak: list[PrivateKey | ed25519.Ed25519PrivateKey] = [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    for key in weak:
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(Misconfigured, match=r"trop faible|illisible"):
            load_credential(auth.certificate, path)


def test_a_key_that_others_can_read_is_told(auth: PemPair, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = rewritten(auth, tmp_path, None)
    path.chmod(0o600)
    load_credential(auth.certificate, path)
    assert caplog.text == ""
    path.chmod(0o644)
    load_credential(auth.certificate, path)
    assert "can be read by other users" in caplog.text
